//! The concurrency limit: how many calls may be in flight, learnt from the time of the answers.
//!
//! An operator can fix the limit (`Concurrency`). Otherwise it adapts. A limit is needed, because a
//! service that is overloaded answers each call later when it gets more of them. A fixed one does
//! not do, because the calls that a rate of segments needs grow with the time of an answer: 100,000
//! segments/s are 2,000 calls/s, which are 10 calls in flight at 5 ms and 200 at 100 ms.
//!
//! - **Growth.** The limit grows while batches have waited for a place for `WAIT_MIN` and answers
//!   are not slow: to the double at first and below `COUNT_FIRST`, by an eighth after a fall. Only
//!   waiting batches ask for more calls, so an endpoint that answers at once gets few.
//! - **Slow answers.** A round is some answers to calls that were started after the last round. If
//!   its median is more than twice the usual time, the limit falls by a quarter to a half, to
//!   `COUNT_FIRST` at least. The median is not moved by single slow answers.
//! - **The usual time** is averaged over rounds with at most `COUNT_FIRST` calls in flight, whose
//!   time is not of the daemon's making. Rounds with more calls can only lower it. So answers that
//!   slow down because of our calls never become usual. If answers stay slow for `SLOW_ROUNDS`
//!   rounds although few calls are in flight, the slow time is the usual one from then on, and the
//!   limit grows as at the start.
//! - **Silence.** While nothing was answered for the time of a slow answer, no call beyond
//!   `COUNT_FIRST` starts. Otherwise a service that becomes slow would get calls up to the limit
//!   before its first slow answer arrives.
//! - **Throttling, a timeout and failures** lower the limit at once, to 1 at least; a call that was
//!   started before the last fall does not count. The rate limit and the circuit breaker go on
//!   beside it.
//!
//! In: the start and the end of each call, and whether batches wait. Out: the limit. Bound: the
//! largest limit, and the memory of the calls beyond `COUNT_FIRST`. No I/O; the caller passes the
//! time.
//!
//! | constant | value | reason |
//! |---|---|---|
//! | `COUNT_FIRST` | 8 calls | What the original daemon makes; any service stands it. |
//! | `WAIT_MIN` | 10 ms | A burst that is gone sooner needs no more calls. |
//! | `SLOW_FACTOR` | 2 | Jitter and larger batches cost less; a full queue costs more. |
//! | `SLOW_MARGIN` | 5 ms | Of short answers, most of the time is this host's scheduling. |
//! | `SLOW_ROUNDS` | 3 | About ten times the time of an answer. |
//! | `DECREASE_SLOW` | 0.75 | The queue that doubles an answer's time is half of the calls. |
//! | `DECREASE_SLOW_MOST` | 0.5 | The slower the answers, the lower, to half at most. |
//! | `DECREASE_TIMEOUT` | 0.5 | As TCP does after a loss. |
//! | `INCREASE` | 1.125 | Twice as many in six rounds. |
//! | `SAMPLES_MIN`, `SAMPLES_MAX` | 4, 16 | Enough for a median; rounds stay short. |

#[cfg(test)]
mod tests;

use crate::base::account::LimitChange;
use crate::pipeline::call_limit::{COUNT_FIRST, CallLimit};
use std::time::{Duration, Instant};

const WAIT_MIN: Duration = Duration::from_millis(10);
const SLOW_FACTOR: f64 = 2.0;
const SLOW_MARGIN: f64 = 0.005;
const SLOW_ROUNDS: u32 = 3;
const DECREASE_SLOW: f64 = 0.75;
const DECREASE_SLOW_MOST: f64 = 0.5;
const DECREASE_TIMEOUT: f64 = 0.5;
const INCREASE: f64 = 1.125;
const SAMPLES_MIN: usize = 4;
const SAMPLES_MAX: usize = 16;

/// Answers are still coming if the last one came within this time, or within twice its own time.
/// Chosen, not measured: an outage is known within a second, and a starved daemon reads its answers
/// late.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// The part of a round's time in the new usual time.
const USUAL_WEIGHT: f64 = 0.25;

/// The calls in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InFlight {
    /// The number of calls.
    pub count: usize,
    /// The memory of their batches in bytes.
    pub bytes: usize,
}

/// The answers to calls that were started since the end of the last round.
#[derive(Debug)]
struct Round {
    began_at: Instant,
    /// The times of the answers in seconds.
    seconds: [f64; SAMPLES_MAX],
    count: usize,
    /// How many of the answers came while batches had waited for a place.
    wanted_count: usize,
    in_flight_max: usize,
}

impl Round {
    fn new(began_at: Instant, in_flight_max: usize) -> Self {
        Self { began_at, seconds: [0.0; SAMPLES_MAX], count: 0, wanted_count: 0, in_flight_max }
    }

    fn add(&mut self, seconds: f64, is_wanted: bool) {
        if let Some(place) = self.seconds.get_mut(self.count) {
            *place = seconds;
            self.count += 1;
            self.wanted_count += usize::from(is_wanted);
        }
    }

    fn median(&mut self) -> f64 {
        let seconds = &mut self.seconds[..self.count];
        seconds.sort_unstable_by(f64::total_cmp);
        seconds.get(self.count.saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

/// The concurrency limit of the calls.
#[derive(Debug)]
pub struct Concurrency {
    wanted: CallLimit,
    limit: f64,
    /// Below this limit, the limit grows to the double in each round.
    doubling_below: f64,
    /// The usual time of an answer in seconds; `None` before the first round.
    usual: Option<f64>,
    round: Round,
    /// The slow rounds in a row with few calls in flight.
    slow_count: u32,
    fell_at: Option<Instant>,
    /// Since when a batch has waited for a place.
    waits_since: Option<Instant>,
    /// The latest end of a call, or the start of a call when no other was in flight.
    heard_at: Instant,
    /// The time of the last answer of an accepted call.
    answer_time: Duration,
}

impl Concurrency {
    /// Returns the limit at the start.
    pub fn new(wanted: CallLimit, now: Instant) -> Self {
        let (limit, count_max) = match wanted {
            CallLimit::Fixed(count) => (count, count),
            CallLimit::Adaptive { count_max, .. } => (COUNT_FIRST.min(count_max), count_max),
        };
        Self {
            wanted,
            limit: limit as f64,
            doubling_below: count_max as f64,
            usual: None,
            round: Round::new(now, 0),
            slow_count: 0,
            fell_at: None,
            waits_since: None,
            heard_at: now,
            answer_time: Duration::ZERO,
        }
    }

    /// Returns the largest number of calls in flight.
    pub fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 1 and the largest limit"
        )]
        let limit = self.limit as usize;
        limit.max(1)
    }

    /// Returns whether one more call may start.
    pub fn allows(&self, in_flight: InFlight, now: Instant) -> bool {
        let InFlight { count, bytes } = in_flight;
        match self.wanted {
            CallLimit::Fixed(limit) => count < limit,
            CallLimit::Adaptive { .. } if count >= self.limit() => false,
            CallLimit::Adaptive { .. } if count < COUNT_FIRST => true,
            CallLimit::Adaptive { bytes_max, .. } => bytes < bytes_max && !self.is_silent(now),
        }
    }

    /// Returns whether no call has ended for the time of a slow answer.
    fn is_silent(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.heard_at).as_secs_f64();
        self.usual.is_some_and(|usual| is_slow(silence, usual))
    }

    /// Returns whether answers come: no call is in flight, or the last one has ended lately.
    pub fn is_answered(&self, in_flight: InFlight, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.heard_at);
        in_flight.count == 0 || silence <= SILENCE_MIN.max(2 * self.answer_time)
    }

    /// Returns whether the limit still grows as at the start, because batches wait for a place. It
    /// may soon be high enough for all of them. Later growth, by an eighth, is no such sign: it
    /// goes on for ever between falls.
    pub fn is_searching(&self) -> bool {
        let CallLimit::Adaptive { count_max, .. } = self.wanted else { return false };
        self.waits_since.is_some() && self.limit < self.doubling_below.min(count_max as f64)
    }

    /// Notes whether batches wait only because as many calls are in flight as the limit allows.
    pub fn note_waiting(&mut self, is_waiting: bool, now: Instant) {
        self.waits_since = if is_waiting { self.waits_since.or(Some(now)) } else { None };
    }

    /// Notes that a call starts. `in_flight_count` does not count it.
    pub fn started(&mut self, in_flight_count: usize, now: Instant) {
        if in_flight_count == 0 {
            self.heard_at = now;
        }
        self.round.in_flight_max = self.round.in_flight_max.max(in_flight_count + 1);
    }

    /// Notes that a call has ended, in whatever way.
    pub fn ended(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Notes that the service accepted a call that was started at `started_at`, `time` after the
    /// request had a connection. `in_flight_count` calls are still in flight. Returns the reason if
    /// the limit has changed.
    pub fn accepted(
        &mut self,
        started_at: Instant,
        time: Duration,
        in_flight_count: usize,
        now: Instant,
    ) -> Option<LimitChange> {
        self.answer_time = time;
        let CallLimit::Adaptive { count_max, .. } = self.wanted else { return None };
        if started_at < self.round.began_at {
            return None;
        }
        let has_waited = |since: Instant| now.saturating_duration_since(since) >= WAIT_MIN;
        self.round.add(time.as_secs_f64(), self.waits_since.is_some_and(has_waited));
        if self.round.count < self.limit().clamp(SAMPLES_MIN, SAMPLES_MAX) {
            return None;
        }
        let mut round = std::mem::replace(&mut self.round, Round::new(now, in_flight_count));
        let median = round.median();
        let usual = *self.usual.get_or_insert(median);
        let is_quiet = round.in_flight_max <= COUNT_FIRST;
        if is_slow(median, usual) {
            self.slow_count = if is_quiet { self.slow_count + 1 } else { 0 };
            if self.slow_count >= SLOW_ROUNDS {
                self.slow_count = 0;
                self.usual = Some(median);
                self.doubling_below = count_max as f64;
                return None;
            }
            let floor = self.limit.min(COUNT_FIRST as f64);
            let part = slow_after(usual) / median;
            let limit = self.limit * part.clamp(DECREASE_SLOW_MOST, DECREASE_SLOW);
            return self.fall(limit.max(floor), LimitChange::Slow, now);
        }
        self.slow_count = 0;
        if is_quiet || median < usual {
            self.usual = Some(usual + (median - usual) * USUAL_WEIGHT);
        }
        if round.wanted_count * 2 < round.count {
            return None;
        }
        let before = self.limit();
        let grown = (self.limit * INCREASE).max(self.limit + 1.0);
        let doubled = (self.limit * 2.0).min(self.doubling_below);
        self.limit = grown.max(doubled).min(count_max as f64);
        (self.limit() > before).then_some(LimitChange::Queue)
    }

    /// Notes that the service throttled a call that was started at `started_at`. Returns the reason
    /// if the limit has changed.
    pub fn throttled(&mut self, started_at: Instant, now: Instant) -> Option<LimitChange> {
        if !self.is_news(started_at) {
            return None;
        }
        self.fall(self.limit * DECREASE_SLOW, LimitChange::Throttled, now)
    }

    /// Notes that a call that was started at `started_at` had no answer in time. Returns the reason
    /// if the limit has changed.
    pub fn timed_out(&mut self, started_at: Instant, now: Instant) -> Option<LimitChange> {
        if !self.is_news(started_at) {
            return None;
        }
        self.fall(self.limit * DECREASE_TIMEOUT, LimitChange::Timeout, now)
    }

    /// Notes that the circuit breaker has opened. The service may be another one when it closes, so
    /// its usual time is not known any more. Returns the reason if the limit has changed.
    pub fn failed(&mut self, now: Instant) -> Option<LimitChange> {
        let before = self.limit;
        let change = self.fall(before.min(COUNT_FIRST as f64), LimitChange::Failed, now);
        self.usual = None;
        self.slow_count = 0;
        // Afterwards, half of the calls are found again within a few rounds.
        self.doubling_below = self.doubling_below.max(before / 2.0);
        change
    }

    /// Returns whether a call was started after the limit last fell.
    fn is_news(&self, started_at: Instant) -> bool {
        self.fell_at.is_none_or(|fell_at| started_at >= fell_at)
    }

    fn fall(&mut self, limit: f64, reason: LimitChange, now: Instant) -> Option<LimitChange> {
        if matches!(self.wanted, CallLimit::Fixed(_)) {
            return None;
        }
        let before = self.limit();
        self.limit = limit.max(1.0).min(self.limit);
        self.doubling_below = self.limit.max(COUNT_FIRST as f64);
        self.fell_at = Some(now);
        (self.limit() < before).then_some(reason)
    }
}

fn is_slow(seconds: f64, usual: f64) -> bool {
    seconds > slow_after(usual)
}

/// Returns the seconds after which an answer is slow.
fn slow_after(usual: f64) -> f64 {
    SLOW_FACTOR * usual + SLOW_MARGIN
}
