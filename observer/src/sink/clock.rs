//! Wall-clock time of kernel moments, by one anchor.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::event::Timestamp;

/// Nanoseconds after which the anchor is renewed, so that the two clocks cannot drift apart.
const RENEWAL: u64 = 10_000_000_000;

/// Nanoseconds of disagreement that mean that somebody has set the clock.
const CLOCK_SET: u64 = 100_000_000;

/// One moment on both clocks: the kernel's monotonic one and the one on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    kernel: Timestamp,
    wall: SystemTime,
}

impl Anchor {
    /// Both clocks, read together.
    #[must_use]
    pub const fn new(kernel: Timestamp, wall: SystemTime) -> Self {
        Self { kernel, wall }
    }

    /// Takes a later reading where this one is old or the clock has been set since.
    pub fn renew(&mut self, kernel: Timestamp, wall: SystemTime) {
        let expected = self.wall(kernel);
        let off = wall.duration_since(expected).unwrap_or_else(|error| error.duration());
        if kernel.since(self.kernel) >= RENEWAL || off.as_nanos() >= u128::from(CLOCK_SET) {
            *self = Self { kernel, wall };
        }
    }

    /// The wall's time at a moment of the kernel's clock.
    #[must_use]
    pub fn wall(&self, moment: Timestamp) -> SystemTime {
        let later = self.wall.checked_add(Duration::from_nanos(moment.since(self.kernel)));
        let earlier = later.and_then(|later| later.checked_sub(Duration::from_nanos(self.kernel.since(moment))));
        earlier.unwrap_or(UNIX_EPOCH)
    }

    /// RFC 3339 in UTC with microseconds.
    #[must_use]
    pub fn rfc3339(&self, moment: Timestamp) -> String {
        humantime::format_rfc3339_micros(self.wall(moment)).to_string()
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self, moment: Timestamp) -> f64 {
        self.wall(moment)
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_the_anchor_are_told_in_microseconds() {
        let anchor = Anchor::new(
            Timestamp(5_000_000_000),
            UNIX_EPOCH + Duration::from_secs(1_795_353_600),
        );
        assert_eq!(anchor.rfc3339(Timestamp(5_000_123_456)), "2026-11-22T13:20:00.000123Z");
        assert_eq!(anchor.rfc3339(Timestamp(4_000_000_000)), "2026-11-22T13:19:59.000000Z");
    }

    #[test]
    fn the_anchor_is_renewed_when_old_or_when_the_clock_was_set() {
        let wall = UNIX_EPOCH + Duration::from_secs(1000);
        let mut anchor = Anchor::new(Timestamp(0), wall);
        anchor.renew(Timestamp(1_000_000_000), wall + Duration::from_millis(1050));
        assert_eq!(anchor.wall(Timestamp(0)), wall);
        anchor.renew(Timestamp(1_000_000_000), wall + Duration::from_secs(3600));
        assert_eq!(anchor.wall(Timestamp(1_000_000_000)), wall + Duration::from_secs(3600));
        anchor.renew(Timestamp(12_000_000_000), wall);
        assert_eq!(anchor.wall(Timestamp(12_000_000_000)), wall);
    }
}
