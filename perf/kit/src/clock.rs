//! The clock that the sender and the endpoint share.

use rustix::thread::{clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::num::NonZeroU64;

/// Returns `CLOCK_MONOTONIC` in nanoseconds. All processes of a machine read the same time.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Returns the CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Makes the calling thread wake up exactly on time, instead of up to 50 us late (Linux's default
/// timer slack).
pub fn wake_exactly() {
    // If this fails, the sender is slightly late, and its report shows that.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Sleeps until [`now_ns`] returns `time_ns`.
pub fn sleep_until(time_ns: u64) {
    let seconds = i64::try_from(time_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let rest = i64::try_from(time_ns % 1_000_000_000).unwrap_or(0);
    let until = Timespec { tv_sec: seconds, tv_nsec: rest };
    // A signal interrupts the sleep: continue sleeping.
    while clock_nanosleep_absolute(ClockId::Monotonic, &until).is_err() {}
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
