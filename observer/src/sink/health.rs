//! Whether the daemon lives and whether it sees: what `/health/live` and `/health/ready` answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that has not turned for this long is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// How long loading and attaching may take before the first turn: old kernels on slow machines verify for a while.
const STARTUP: Duration = Duration::from_secs(60);

/// Written by the loop, read by the endpoints.
#[derive(Debug)]
pub struct Health {
    began: Instant,
    /// Milliseconds after `began` of the loop's last turn; 0 before the first.
    turned: AtomicU64,
    /// Why the daemon is not ready; `None` when it is.
    obstacle: Mutex<Option<String>>,
}

impl Health {
    /// Of a daemon that has just begun and attached nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            turned: AtomicU64::new(0),
            obstacle: Mutex::new(Some("the probes are not attached yet".to_owned())),
        }
    }

    /// The loop turned.
    pub fn turn(&self) {
        self.turned.store(self.now().max(1), Ordering::Relaxed);
    }

    /// Says why the daemon is not ready, or with `None` that it is.
    pub fn set_obstacle(&self, obstacle: Option<String>) {
        *self.obstacle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = obstacle;
    }

    /// Why the daemon counts as dead; `None` while the loop turns.
    #[must_use]
    pub fn dead(&self) -> Option<String> {
        let turned = self.turned.load(Ordering::Relaxed);
        let patience = if turned == 0 { STARTUP } else { STUCK };
        let still = Duration::from_millis(self.now().saturating_sub(turned));
        (still >= patience).then(|| format!("the loop has not turned for {} s", still.as_secs()))
    }

    /// Why the daemon does not see what it should; `None` when it does.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        self.dead().or_else(|| {
            self.obstacle
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone()
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_probes_and_a_turning_loop() {
        let mut health = Health::new();
        assert_eq!(health.unready().as_deref(), Some("the probes are not attached yet"));
        assert_eq!(health.dead(), None);
        health.set_obstacle(None);
        assert_eq!(health.unready(), None);
        if let Some(earlier) = health.began.checked_sub(STUCK * 2) {
            health.began = earlier;
            assert_eq!(health.dead(), None, "it is still starting");
            health.turned = AtomicU64::new(1);
            assert_eq!(health.unready().as_deref(), Some("the loop has not turned for 9 s"));
            health.turn();
            assert_eq!(health.dead(), None);
        }
    }
}
