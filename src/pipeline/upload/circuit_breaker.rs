//! When no call may start: the service, or the way to it, fails as a whole.
//!
//! One pause for all batches together, so that an outage costs a few calls and not one for each
//! batch that waits; while it lasts one call at a time asks whether the service is back. Pure
//! code.

use std::time::{Duration, Instant};

/// Denied requests are tried again after this pause: it takes an operator to mend the cause.
pub const DENIED_PAUSE: Duration = Duration::from_secs(30);

/// The same when there is a deadline.
const DENIED_PAUSE_HURRIED: Duration = Duration::from_millis(500);

/// The pause of all calls.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    until: Option<Instant>,
    failed_rounds: u32,
    is_hurried: bool,
}

impl CircuitBreaker {
    /// Whether the last round of calls failed.
    pub fn is_failing(&self) -> bool {
        self.failed_rounds > 0
    }

    /// Rounds of failures since the last success.
    pub fn failed_rounds(&self) -> u32 {
        self.failed_rounds
    }

    /// Until when no call may start; `None` when one may at `now`.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// A call has failed: no other starts for this long. Says whether that is news: calls that
    /// were in flight together fail together, and count once.
    pub fn fail(&mut self, pause: Duration, now: Instant) -> bool {
        if self.until(now).is_some() && self.is_failing() {
            return false;
        }
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.pause(pause, now);
        true
    }

    /// A call was denied.
    pub fn deny(&mut self, now: Instant) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.pause(if self.is_hurried { DENIED_PAUSE_HURRIED } else { DENIED_PAUSE }, now);
    }

    /// No call starts for this long at least.
    pub fn pause(&mut self, pause: Duration, now: Instant) {
        self.until = Some(self.until.map_or(now + pause, |until| until.max(now + pause)));
    }

    /// The service is back, or there is reason to ask at once; says whether it had failed.
    pub fn clear(&mut self) -> bool {
        let was_failing = std::mem::take(&mut self.failed_rounds) > 0;
        if was_failing {
            self.until = None;
        }
        was_failing
    }

    /// There is a deadline: no pause for an operator any more.
    pub fn begin_drain(&mut self) {
        self.is_hurried = true;
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut hold, now) = (CircuitBreaker::default(), Instant::now());
        assert!(hold.fail(SECOND, now));
        assert!(!hold.fail(10 * SECOND, now));
        assert_eq!((hold.failed_rounds(), hold.until(now)), (1, Some(now + SECOND)));
        assert!(hold.fail(SECOND, now + SECOND));
        assert_eq!(hold.failed_rounds(), 2);
    }

    #[test]
    fn a_success_ends_the_pause_of_a_failure_and_no_other() {
        let (mut hold, now) = (CircuitBreaker::default(), Instant::now());
        hold.pause(SECOND, now);
        assert!(!hold.clear());
        assert_eq!(hold.until(now), Some(now + SECOND));
        hold.deny(now);
        assert_eq!(hold.until(now), Some(now + DENIED_PAUSE));
        assert!(hold.clear() && !hold.is_failing());
        assert_eq!(hold.until(now), None);
    }

    #[test]
    fn with_a_deadline_nobody_waits_for_an_operator() {
        let (mut hold, now) = (CircuitBreaker::default(), Instant::now());
        hold.deny(now);
        hold.begin_drain();
        assert_eq!(hold.until(now), None);
        hold.deny(now);
        assert_eq!(hold.until(now), Some(now + DENIED_PAUSE_HURRIED));
    }
}
