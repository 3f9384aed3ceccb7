//! Decides whether a call may start now.
//!
//! In: the outcome of each call, and whether there are credentials. Out: an [`Admit`] each time
//! that the uploader wants to start a call. Four conditions must hold: the service is ready, fewer
//! calls are in flight than allowed, the circuit breaker is not open, and the rate limit has
//! credit. Bound: `concurrency` calls in flight; one call while the service fails. No I/O; the
//! caller passes the time.

use super::circuit_breaker::CircuitBreaker;
use super::rate_limit::RateLimit;
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
    /// A call with `document_count` documents starts.
    Started { document_count: usize },
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
    concurrency: usize,
    breaker: CircuitBreaker,
    rate_limit: RateLimit,
}

impl Gate {
    /// Returns a gate for up to `concurrency` calls in flight, without a rate limit yet.
    pub fn new(concurrency: usize, now: Instant) -> Self {
        let (breaker, rate_limit) = (CircuitBreaker::default(), RateLimit::new(now));
        Self { concurrency, breaker, rate_limit }
    }

    /// Returns when a call may start. The caller passes `readiness` and `in_flight_count` each
    /// time: a copy of them in the gate could become wrong after a panic.
    pub fn admit(&self, readiness: Readiness, in_flight_count: usize, now: Instant) -> Admit {
        let in_flight_count_max = if self.breaker.is_failing() { 1 } else { self.concurrency };
        match readiness {
            Readiness::Never => Admit::Never,
            Readiness::NotYet => Admit::AfterEvent,
            Readiness::Ready if in_flight_count >= in_flight_count_max => Admit::AfterEvent,
            Readiness::Ready => self.paused_until(now).map_or(Admit::Now, Admit::At),
        }
    }

    /// Notes an event. Returns the change of the circuit breaker that the caller has to act on.
    pub fn observe(&mut self, event: Event, now: Instant) -> Change {
        match event {
            Event::NoSignal => Change::None,
            Event::Started { document_count } => {
                self.rate_limit.started(document_count, now);
                Change::None
            }
            Event::Accepted { document_count, throttled_since } => {
                self.rate_limit.accepted(document_count, now);
                if let Some(started_at) = throttled_since {
                    self.rate_limit.throttled(started_at, now);
                }
                self.close()
            }
            Event::Failed { pause_min } => match self.breaker.fail(pause_min, now) {
                true => Change::Opened,
                false => Change::None,
            },
            Event::Denied => {
                self.breaker.deny(now);
                Change::None
            }
            Event::Throttled { started_at, retry_after } => {
                self.rate_limit.throttled(started_at, now);
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
            let mut gate = Gate::new(8, start);
            events.iter().for_each(|event| {
                gate.observe(*event, start);
            });
            let admit = gate.admit(readiness, in_flight_count, start);
            assert_eq!(admit, expected, "{events:?}, {readiness:?}, {in_flight_count}");
        }
    }

    #[test]
    fn the_rate_limit_lets_the_next_call_wait_for_the_documents_of_the_one_before() {
        let now = Instant::now();
        let mut gate = Gate::new(8, now);
        gate.observe(Event::Throttled { started_at: now, retry_after: None }, now);
        gate.observe(Event::Started { document_count: 50 }, now);
        // The first limit is 100 documents a second.
        let at = now + SECOND / 2;
        assert_eq!(gate.admit(Readiness::Ready, 1, now), Admit::At(at));
        assert_eq!(
            (gate.pause(now), gate.admit(Readiness::Ready, 1, at)),
            (SECOND / 2, Admit::Now)
        );
    }

    #[test]
    fn changes_of_the_circuit_breaker_are_returned_once() {
        let now = Instant::now();
        let mut gate = Gate::new(8, now);
        let changes = [FAILED, FAILED, ACCEPTED, ACCEPTED].map(|event| gate.observe(event, now));
        assert_eq!(changes, [Change::Opened, Change::None, Change::Closed, Change::None]);
    }
}
