//! Stops all calls while the service, or the way to the service, fails.
//!
//! All pending batches share one pause, so that an outage costs a few calls and not one call for
//! each pending batch that waits. After the pause the breaker is half-open: one call at a time
//! finds out whether the service is back.
//!
//! In: failed, denied and accepted calls. Out: whether the service fails, and the end of the pause.
//! No I/O; the caller passes the time.
//!
//! | constant | value | reason |
//! |---|---|---|
//! | `DENIED_PAUSE` | 30 s | An operator has to correct credentials or permissions. |
//! | `DRAIN_DENIED_PAUSE` | 0.5 s | The drain ends after 8 s by default (`ShutdownSeconds`). |
//!
//! The pause after any other failure is a [`Backoff`].

use super::backoff::Backoff;
use std::time::{Duration, Instant};

const DENIED_PAUSE: Duration = Duration::from_secs(30);
const DRAIN_DENIED_PAUSE: Duration = Duration::from_millis(500);

/// The circuit breaker of all calls.
#[derive(Debug, Default)]
pub struct CircuitBreaker {
    until: Option<Instant>,
    failed_rounds: u32,
    is_draining: bool,
    backoff: Backoff,
}

impl CircuitBreaker {
    /// Returns whether a call has failed since the breaker was last closed. The breaker is then
    /// open during the pause, and half-open after the pause.
    pub fn is_failing(&self) -> bool {
        self.failed_rounds > 0
    }

    /// Returns the end of the pause; `None` if there is no pause at `now`.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Begins a pause after a failed call. `pause_min` is the pause that the service asks for, or
    /// zero. Returns `false` if the breaker was open already: calls that were in flight together
    /// fail together, and count as one failure.
    pub fn fail(&mut self, pause_min: Duration, now: Instant) -> bool {
        let is_new_round = self.paused_until(now).is_none() || !self.is_failing();
        if is_new_round {
            self.pause(self.backoff.pause(self.failed_rounds), now);
            self.failed_rounds = self.failed_rounds.saturating_add(1);
        }
        // A pause that the service asks for (`Retry-After`) applies even if the breaker was open
        // already.
        self.pause(pause_min, now);
        is_new_round
    }

    /// Begins a pause after a call that the service denied. Only an operator can end this failure.
    pub fn deny(&mut self, now: Instant) {
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        self.pause(if self.is_draining { DRAIN_DENIED_PAUSE } else { DENIED_PAUSE }, now);
    }

    /// Extends the pause to `now + pause`, unless the pause is longer already.
    pub fn pause(&mut self, pause: Duration, now: Instant) {
        self.until = self.until.max(Some(now + pause));
    }

    /// Closes the breaker, and ends the pause after a failure. Returns whether a call had failed.
    /// Without a failure, the pause is one that a throttling service asked for, and it goes on.
    pub fn close(&mut self) -> bool {
        let was_failing = std::mem::take(&mut self.failed_rounds) > 0;
        if was_failing {
            self.until = None;
        }
        was_failing
    }

    /// Closes the breaker, and keeps later pauses short, because the shutdown has a deadline.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
        self.backoff.begin_drain();
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        // The backoff after the first failure is 0.1 s or less.
        assert!(breaker.fail(SECOND, now));
        assert!(!breaker.fail(Duration::ZERO, now));
        assert_eq!((breaker.failed_rounds, breaker.paused_until(now)), (1, Some(now + SECOND)));
        assert!(!breaker.fail(2 * SECOND, now));
        assert_eq!((breaker.failed_rounds, breaker.paused_until(now)), (1, Some(now + 2 * SECOND)));
        assert!(breaker.fail(Duration::ZERO, now + 2 * SECOND));
        assert_eq!(breaker.failed_rounds, 2);
    }

    #[test]
    fn an_accepted_call_ends_the_pause_of_a_failure_and_no_other_pause() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        breaker.pause(SECOND, now);
        assert!(!breaker.close());
        assert_eq!(breaker.paused_until(now), Some(now + SECOND));
        breaker.deny(now);
        assert_eq!(breaker.paused_until(now), Some(now + DENIED_PAUSE));
        assert!(breaker.close() && !breaker.is_failing());
        assert_eq!(breaker.paused_until(now), None);
    }

    #[test]
    fn the_drain_does_not_wait_for_an_operator() {
        let (mut breaker, now) = (CircuitBreaker::default(), Instant::now());
        breaker.deny(now);
        breaker.begin_drain();
        assert_eq!(breaker.paused_until(now), None);
        breaker.deny(now);
        assert_eq!(breaker.paused_until(now), Some(now + DRAIN_DENIED_PAUSE));
    }
}
