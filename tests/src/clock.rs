//! The kernel's monotonic clock, in which truths are written, and how wall-clock times of records relate to it.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The monotonic clock now, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// The wall clock's lead over the monotonic clock now, in nanoseconds.
pub(crate) fn wall_lead_ns() -> u64 {
    read(libc::CLOCK_REALTIME).saturating_sub(read(libc::CLOCK_MONOTONIC))
}

/// CPU time of this process, in nanoseconds.
pub(crate) fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the kernel to write one timespec to.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Asks again and again until `ready` has an answer or `limit` has passed.
pub(crate) fn wait_until<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if begin.elapsed() > limit {
            return None;
        }
        sleep(Duration::from_millis(20));
    }
}
