//! Decides whether a call may start now.
//!
//! In: the outcome of each call, and whether there are credentials. Out: an [`Admit`] each time
//! that the uploader wants to start a call. Four conditions must hold: the service is ready, fewer
//! calls are in flight than allowed, the circuit breaker is not open, and the rate limit has
//! credit. Bound: the concurrency limit; one call while the service fails. No I/O; the caller
//! passes the time.

use super::circuit_breaker::CircuitBreaker;
use super::concurrency::{Concurrency, InFlight};
use super::rate_limit::RateLimit;
use crate::base::account::LimitChange;
use crate::pipeline::call_limit::CallLimit;
use std::time::{Duration, Instant};

/// Whether calls can be signed and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The service is known, and there are credentials.
    Ready,
    /// The service or the credentials are not known yet.
    NotYet,
    /// The service will never be known: the search for region and credentials has ended without a
    /// result.
    Never,
}

/// The answer to the question whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// A call may start now.
    Now,
    /// A call may start at this time.
    At(Instant),
    /// A call may start only after an event: the end of another call, or the arrival of the region
    /// or of credentials.
    AfterEvent,
    /// No call can ever start, because the service will never be known.
    Never,
}

/// An event after which the next call may start earlier or later than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A call with `document_count` documents starts, beside `in_flight_count` others.
    Started { document_count: usize, in_flight_count: usize },
    /// A call that was started at `started_at` has ended, as another event says. `in_flight_count`
    /// others are in flight.
    Ended { started_at: Instant, in_flight_count: usize, end: CallEnd },
    /// The service accepted `document_count` documents of a call. If it throttled other documents
    /// of the call, `throttled_since` is the time at which the call was started.
    Accepted { document_count: usize, throttled_since: Option<Instant> },
    /// A call failed, and other calls would fail for the same reason. `pause_min` is the pause that
    /// the service asks for, or zero.
    Failed { pause_min: Duration },
    /// The service denied a call: credentials or permissions are wrong.
    Denied,
    /// The service throttled a call that was started at `started_at`. `retry_after` is the pause
    /// that the service asks for, if any.
    Throttled { started_at: Instant, retry_after: Option<Duration> },
    /// The outcome of a call says nothing about other calls.
    NoSignal,
    /// The credentials have changed, and may be right now: the next call may start at once.
    CredentialsChanged,
    /// The drain begins. The shutdown has a deadline, so pauses are short from now on.
    DrainBegins,
}

/// The end of a call, as far as it concerns the concurrency limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The service accepted the call. The answer came this long after the request had a
    /// connection.
    Accepted(Duration),
    /// There was no answer in time.
    Timeout,
    /// The end says nothing more than the other event.
    Other,
}

/// A change of the circuit breaker that the uploader has to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The event has not changed the circuit breaker, or the change needs no action (a denied call,
    /// or the start of the drain).
    None,
    /// A failed call has opened the circuit breaker.
    Opened,
    /// The circuit breaker was open or half-open, and is closed now.
    Closed,
}

/// Decides for every call whether it may start now.
#[derive(Debug)]
pub struct Gate {
    concurrency: Concurrency,
    breaker: CircuitBreaker,
    rate_limit: RateLimit,
    limit_change: Option<LimitChange>,
}

impl Gate {
    /// Returns a gate with the concurrency limit `call_limit`, without a rate limit yet.
    pub fn new(call_limit: CallLimit, now: Instant) -> Self {
        Self {
            concurrency: Concurrency::new(call_limit, now),
            breaker: CircuitBreaker::default(),
            rate_limit: RateLimit::new(now),
            limit_change: None,
        }
    }

    /// Returns when a call may start. The caller passes `readiness` and `in_flight` each time: a
    /// copy of them in the gate could become wrong after a panic.
    pub fn admit(&self, readiness: Readiness, in_flight: InFlight, now: Instant) -> Admit {
        match readiness {
            Readiness::Never => Admit::Never,
            Readiness::NotYet => Admit::AfterEvent,
            Readiness::Ready if !self.has_place(in_flight, now) => Admit::AfterEvent,
            Readiness::Ready => self.paused_until(now).map_or(Admit::Now, Admit::At),
        }
    }

    fn has_place(&self, in_flight: InFlight, now: Instant) -> bool {
        match self.breaker.is_failing() {
            true => in_flight.count == 0,
            false => self.concurrency.allows(in_flight, now),
        }
    }

    /// Notes whether batches are due that were not sent. The concurrency limit takes this as a
    /// wish for more calls only if it alone keeps the batches waiting.
    pub fn note_due(&mut self, has_due: bool, in_flight: InFlight, now: Instant) {
        let is_waiting = has_due
            && in_flight.count >= self.concurrency.limit()
            && !self.breaker.is_failing()
            && self.paused_until(now).is_none();
        self.concurrency.note_waiting(is_waiting, now);
    }

    /// Returns whether calls are answered, and nothing but the speed of this host and of the
    /// answers keeps batches waiting: the service does not fail, throttle or hang.
    pub fn is_answered(&self, readiness: Readiness, in_flight: InFlight, now: Instant) -> bool {
        readiness == Readiness::Ready
            && !self.breaker.is_failing()
            && self.breaker.paused_until(now).is_none()
            && !self.rate_limit.is_limiting(now)
            && self.concurrency.is_answered(in_flight, now)
    }

    /// Returns whether the concurrency limit may soon allow enough calls for all batches.
    pub fn is_searching(&self) -> bool {
        self.concurrency.is_searching()
    }

    /// Returns the largest number of calls in flight.
    pub fn call_limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// Takes the reason of the latest change of the concurrency limit; `None` if the limit has not
    /// changed since the last call of this function.
    pub fn take_limit_change(&mut self) -> Option<LimitChange> {
        self.limit_change.take()
    }

    fn note_change(&mut self, change: Option<LimitChange>) {
        self.limit_change = change.or(self.limit_change);
    }

    /// Notes an event. Returns the change of the circuit breaker that the caller has to act on.
    pub fn observe(&mut self, event: Event, now: Instant) -> Change {
        match event {
            Event::NoSignal => Change::None,
            Event::Started { document_count, in_flight_count } => {
                self.rate_limit.started(document_count, now);
                self.concurrency.started(in_flight_count, now);
                Change::None
            }
            Event::Ended { started_at, in_flight_count, end } => {
                self.concurrency.ended(now);
                let change = match end {
                    CallEnd::Accepted(time) => {
                        self.concurrency.accepted(started_at, time, in_flight_count, now)
                    }
                    CallEnd::Timeout => self.concurrency.timed_out(started_at, now),
                    CallEnd::Other => None,
                };
                self.note_change(change);
                Change::None
            }
            Event::Accepted { document_count, throttled_since } => {
                self.rate_limit.accepted(document_count, now);
                if let Some(started_at) = throttled_since {
                    self.throttled(started_at, now);
                }
                self.close()
            }
            Event::Failed { pause_min } => self.fail(pause_min, now),
            Event::Denied => {
                self.breaker.deny(now);
                Change::None
            }
            Event::Throttled { started_at, retry_after } => {
                self.throttled(started_at, now);
                if let Some(pause) = retry_after {
                    self.breaker.pause(pause, now);
                }
                Change::None
            }
            Event::CredentialsChanged => self.close(),
            Event::DrainBegins => {
                self.breaker.begin_drain();
                Change::None
            }
        }
    }

    /// Returns whether a call has failed since the circuit breaker was last closed.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_failing()
    }

    /// Returns how long failures and throttling still keep a call from starting; zero if they do
    /// not. Readiness and calls in flight do not count here.
    pub fn pause(&self, now: Instant) -> Duration {
        self.paused_until(now).map_or(Duration::ZERO, |until| until - now)
    }

    /// Returns the rate limit in documents a second; `None` while there is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.rate_limit.rate()
    }

    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.paused_until(now).max(self.rate_limit.paused_until(now))
    }

    fn throttled(&mut self, started_at: Instant, now: Instant) {
        self.rate_limit.throttled(started_at, now);
        let change = self.concurrency.throttled(started_at, now);
        self.note_change(change);
    }

    fn fail(&mut self, pause_min: Duration, now: Instant) -> Change {
        if !self.breaker.fail(pause_min, now) {
            return Change::None;
        }
        let change = self.concurrency.failed(now);
        self.note_change(change);
        Change::Opened
    }

    fn close(&mut self) -> Change {
        if self.breaker.close() { Change::Closed } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAILED: Event = Event::Failed { pause_min: SECOND };
    const ACCEPTED: Event = Event::Accepted { document_count: 50, throttled_since: None };

    fn calls(count: usize) -> InFlight {
        InFlight { count, bytes: 0 }
    }

    #[test]
    fn a_call_is_admitted_when_nothing_speaks_against_it() {
        let start = Instant::now();
        let throttled = Event::Throttled { started_at: start, retry_after: None };
        let throttled_with_pause =
            Event::Throttled { started_at: start, retry_after: Some(SECOND) };
        let (ready, after_event) = (Readiness::Ready, Admit::AfterEvent);
        for (events, readiness, in_flight_count, expected) in [
            (&[][..], ready, 0, Admit::Now),
            (&[], ready, 7, Admit::Now),
            (&[], ready, 8, after_event),
            (&[], Readiness::NotYet, 0, after_event),
            (&[], Readiness::Never, 0, Admit::Never),
            // After a failure there is a pause, and one call at a time until the service accepts a
            // call.
            (&[FAILED], ready, 0, Admit::At(start + SECOND)),
            (&[FAILED], ready, 1, after_event),
            (&[FAILED, ACCEPTED], ready, 1, Admit::Now),
            (&[FAILED, Event::CredentialsChanged], ready, 1, Admit::Now),
            (&[FAILED, Event::DrainBegins], ready, 1, Admit::Now),
            (&[FAILED, Event::NoSignal], ready, 0, Admit::At(start + SECOND)),
            // A pause that a throttling service asks for does not end with an accepted call.
            (&[throttled_with_pause, ACCEPTED], ready, 1, Admit::At(start + SECOND)),
            // A call that overdraws the credit of the rate limit may start.
            (&[throttled], ready, 1, Admit::Now),
        ] {
            let mut gate = Gate::new(CallLimit::Fixed(8), start);
            events.iter().for_each(|event| {
                gate.observe(*event, start);
            });
            let admit = gate.admit(readiness, calls(in_flight_count), start);
            assert_eq!(admit, expected, "{events:?}, {readiness:?}, {in_flight_count}");
        }
    }

    #[test]
    fn the_rate_limit_lets_the_next_call_wait_for_the_documents_of_the_one_before() {
        let now = Instant::now();
        let mut gate = Gate::new(CallLimit::Fixed(8), now);
        gate.observe(Event::Throttled { started_at: now, retry_after: None }, now);
        gate.observe(Event::Started { document_count: 50, in_flight_count: 0 }, now);
        // The first limit is 100 documents a second.
        let at = now + SECOND / 2;
        assert_eq!(gate.admit(Readiness::Ready, calls(1), now), Admit::At(at));
        assert_eq!(
            (gate.pause(now), gate.admit(Readiness::Ready, calls(1), at)),
            (SECOND / 2, Admit::Now)
        );
    }

    #[test]
    fn calls_are_answered_unless_the_service_is_unknown_fails_throttles_or_hangs() {
        let start = Instant::now();
        let throttled = Event::Throttled { started_at: start, retry_after: None };
        let with_pause = Event::Throttled { started_at: start, retry_after: Some(5 * SECOND) };
        let begun = Event::Started { document_count: 50, in_flight_count: 0 };
        let ended = |time| Event::Ended {
            started_at: start,
            in_flight_count: 1,
            end: CallEnd::Accepted(time),
        };
        let (slow, ready) = (3 * SECOND, Readiness::Ready);
        for (events, readiness, in_flight_count, after, expected) in [
            (&[][..], ready, 0, 9 * SECOND, true),
            (&[], Readiness::NotYet, 0, SECOND, false),
            (&[], Readiness::Never, 0, SECOND, false),
            (&[FAILED], ready, 0, SECOND / 2, false),
            // The circuit breaker is half-open.
            (&[FAILED], ready, 0, 2 * SECOND, false),
            (&[FAILED, ACCEPTED], ready, 0, SECOND / 2, true),
            (&[throttled], ready, 0, SECOND / 2, false),
            (&[throttled], ready, 0, 2 * SECOND, true),
            (&[with_pause, ACCEPTED], ready, 0, 2 * SECOND, false),
            // A call hangs.
            (&[begun], ready, 1, SECOND / 2, true),
            (&[begun], ready, 1, 2 * SECOND, false),
            (&[begun, ended(slow)], ready, 1, 5 * SECOND, true),
            (&[begun, ended(slow)], ready, 1, 7 * SECOND, false),
        ] {
            let mut gate = Gate::new(CallLimit::Fixed(8), start);
            events.iter().for_each(|event| {
                gate.observe(*event, start);
            });
            let is_answered = gate.is_answered(readiness, calls(in_flight_count), start + after);
            assert_eq!(is_answered, expected, "{events:?}, {readiness:?}, {after:?}");
        }
    }

    #[test]
    fn changes_of_the_circuit_breaker_are_returned_once() {
        let now = Instant::now();
        let mut gate = Gate::new(CallLimit::Fixed(8), now);
        let changes = [FAILED, FAILED, ACCEPTED, ACCEPTED].map(|event| gate.observe(event, now));
        assert_eq!(changes, [Change::Opened, Change::None, Change::Closed, Change::None]);
    }
}
