//! The pause before another attempt: exponential, with full jitter.
//!
//! In: the number of failures so far. Out: a pause. Bound: 10 s, and 0.5 s during the drain.

use std::time::Duration;

/// The upper bound of the pause after the first failure. The bound doubles with each failure.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause. Sending resumes at most 10 s after the end of an outage.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The longest pause during the drain, which has 8 s by default (`ShutdownSeconds`).
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Computes the pauses before another attempt.
#[derive(Debug)]
pub struct Backoff {
    pause_max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause_max: PAUSE_MAX }
    }
}

impl Backoff {
    /// Returns a random pause after `failure_count` failures.
    pub fn pause(&self, failure_count: u32) -> Duration {
        jittered(failure_count, fastrand::f64()).min(self.pause_max)
    }

    /// Keeps all later pauses at 0.5 s or less, because the shutdown has a deadline.
    pub fn begin_drain(&mut self) {
        self.pause_max = DRAIN_PAUSE_MAX;
    }
}

/// Returns `random` (0 to 1) times the exponential bound. The jitter reaches down to zero (full
/// jitter), so that daemons that failed together do not call again together.
fn jittered(failure_count: u32, random: f64) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << failure_count.min(16)).min(PAUSE_MAX);
    bound.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let bounds: Vec<_> = (0..9).map(|count| jittered(count, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(jittered(u32::MAX, 1.0), PAUSE_MAX);
        assert_eq!(jittered(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn pauses_are_short_during_the_drain() {
        let mut backoff = Backoff::default();
        backoff.begin_drain();
        assert!((0..100).all(|_| backoff.pause(20) <= DRAIN_PAUSE_MAX));
    }
}
