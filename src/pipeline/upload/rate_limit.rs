//! The rate limit in documents a second, learnt from the service's throttling (AIMD).
//!
//! All calls share one rate. There is no limit until the service throttles for the first time. The
//! first limit is 0.9 times the rate that the service accepted just before, or half of the best
//! recent rate if that is more. The best recent rate counts because slow answers and outages also
//! lower the accepted rate, although the service's limit is the same. Each throttled call that was
//! started under the present limit lowers the limit (multiplicative decrease). Time without
//! throttling raises the limit (additive increase): slowly at first, to stay near the service's
//! limit, and twice as fast after each `DOUBLING_TIME`, to notice when the service's limit is
//! lifted. A limit that is too high is halved within seconds; a limit that is too low takes about a
//! minute to grow.
//!
//! In: the start and the outcome of each call. Out: the time of the next call. No I/O; the caller
//! passes the time.
//!
//! The constants were chosen with the simulations in the tests below: against limits from 100 to
//! 20,000 documents a second the daemon gets 0.8 to 1.2 of the limit, and less than 10 % of its
//! calls are throttled.
//!
//! | constant | value | reason |
//! |---|---|---|
//! | `DECREASE` | 0.9 | A throttled call lowers the limit to this part of the accepted rate. |
//! | `DECREASE_MOST` | 0.5 | One throttled call never lowers the limit by more than half. |
//! | `DECREASE_INTERVAL` | 0.5 s | The effect of one decrease must show before the next one. |
//! | `INCREASE_PART_PER_SECOND` | 0.02 | 2 % a second: throttling returns only after seconds. |
//! | `INCREASE_MIN` | 5 documents/s | Least growth a second: 2 % of `RATE_MIN` would be only 0.1. |
//! | `DOUBLING_TIME` | 10 s | A lifted limit is found within a minute. |
//! | `RATE_MIN` | 5 documents/s | A full batch of 50 documents every 10 s (longest backoff). |
//! | `RATE_FIRST_MIN` | 100 documents/s | The least first limit, when little was accepted before. |
//! | `IDLE_TIME` | 11 s | A longer gap between calls counts as 11 s; `RATE_MIN` has gaps of 10 s. |
//! | `RATE_FORGET` | 1,000,000 documents/s | More than a daemon sends: the limit is removed. |
//! | `BURST` | 0.2 s | Credit is saved for this long only, so that bursts stay small. |
//! | `BEST_PART` | 0.5 | The first limit is half of the best rate or more (as `DECREASE_MOST`). |
//! | `BEST_TIME` | 60 s | An old rate says little: the best rate falls to a third in this time. |
//! | `METER_TIME` | 1 s | The time over which accepted documents are averaged. |
//! | `LIMITING_TIME` | 1 s | A limit that made no call wait for so long does not limit. |

use std::time::{Duration, Instant};

const DECREASE: f64 = 0.9;
const DECREASE_MOST: f64 = 0.5;
const DECREASE_INTERVAL: Duration = Duration::from_millis(500);
const INCREASE_PART_PER_SECOND: f64 = 0.02;
const INCREASE_MIN: f64 = 5.0;
const DOUBLING_TIME: Duration = Duration::from_secs(10);
const RATE_MIN: f64 = 5.0;
const RATE_FIRST_MIN: f64 = 100.0;
const IDLE_TIME: Duration = Duration::from_secs(11);
const RATE_FORGET: f64 = 1_000_000.0;
const BURST: Duration = Duration::from_millis(200);
const BEST_PART: f64 = 0.5;
const BEST_TIME: Duration = Duration::from_secs(60);
const METER_TIME: Duration = Duration::from_secs(1);
const LIMITING_TIME: Duration = Duration::from_secs(1);

/// The rate of accepted documents, averaged with exponentially falling weights.
#[derive(Debug)]
struct Meter {
    document_count: f64,
    at: Instant,
}

impl Meter {
    fn add(&mut self, document_count: usize, now: Instant) {
        self.document_count = self.rate(now) * METER_TIME.as_secs_f64() + document_count as f64;
        self.at = now;
    }

    /// Returns the rate in documents a second.
    fn rate(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.document_count * (-age / METER_TIME.as_secs_f64()).exp() / METER_TIME.as_secs_f64()
    }
}

/// A limit that is in force.
#[derive(Debug)]
struct Limit {
    /// The limit in documents a second.
    rate: f64,
    /// The limit just after the last decrease.
    floor: f64,
    decreased_at: Instant,
    /// Documents that may be sent now. A call may overdraw the credit; the next call then waits
    /// until the credit is zero again.
    credit: f64,
    /// The time up to which `rate` and `credit` were raised.
    at: Instant,
    /// When the credit was last used up, or a call was throttled.
    limited_at: Instant,
}

impl Limit {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, floor: rate, decreased_at: now, credit: 0.0, at: now, limited_at: now }
    }

    /// Raises the limit and the credit for the time up to `now`.
    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        // While nothing was sent, the absence of throttling says nothing about the limit.
        let idle = elapsed.saturating_sub(IDLE_TIME);
        self.decreased_at += idle;
        let elapsed = (elapsed - idle).as_secs_f64();
        self.credit = (self.credit + self.rate * elapsed).min(self.rate * BURST.as_secs_f64());
        let quiet = now.saturating_duration_since(self.decreased_at);
        let doublings = quiet.as_secs_f64() / DOUBLING_TIME.as_secs_f64();
        let step = (self.floor * INCREASE_PART_PER_SECOND).max(INCREASE_MIN);
        self.rate += step * elapsed * doublings.floor().min(30.0).exp2();
        self.at = now;
    }

    fn decrease(&mut self, accepted_rate: f64, now: Instant) {
        let rate = DECREASE * self.rate.min(accepted_rate);
        self.rate = rate.max(DECREASE_MOST * self.rate).max(RATE_MIN);
        self.floor = self.rate;
        self.decreased_at = now;
    }
}

/// The rate limit of all calls.
#[derive(Debug)]
pub struct RateLimit {
    accepted: Meter,
    /// The best recent rate of accepted documents a second, and the time of that rate.
    best: (f64, Instant),
    limit: Option<Limit>,
}

impl RateLimit {
    /// Returns a rate limit that does not limit yet.
    pub fn new(now: Instant) -> Self {
        Self { accepted: Meter { document_count: 0.0, at: now }, best: (0.0, now), limit: None }
    }

    /// Notes that the service accepted `document_count` documents.
    pub fn accepted(&mut self, document_count: usize, now: Instant) {
        self.accepted.add(document_count, now);
        let rate = self.accepted.rate(now);
        if rate >= self.best_rate(now) {
            self.best = (rate, now);
        }
    }

    /// Returns the best recent rate in documents a second.
    fn best_rate(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.best.1).as_secs_f64();
        self.best.0 * (-age / BEST_TIME.as_secs_f64()).exp()
    }

    /// Notes that a call which was started at `started_at` was throttled.
    pub fn throttled(&mut self, started_at: Instant, now: Instant) {
        let accepted_rate = self.accepted.rate(now);
        let best_rate = self.best_rate(now);
        let Some(limit) = &mut self.limit else {
            let rate = (DECREASE * accepted_rate).max(BEST_PART * best_rate).max(RATE_FIRST_MIN);
            self.limit = Some(Limit::new(rate, now));
            return;
        };
        limit.advance(now);
        limit.limited_at = now;
        // A call that was started before the last decrease says nothing about the lower limit.
        if started_at >= limit.decreased_at && now >= limit.decreased_at + DECREASE_INTERVAL {
            limit.decrease(accepted_rate, now);
        }
    }

    /// Notes that a call with `document_count` documents starts.
    pub fn started(&mut self, document_count: usize, now: Instant) {
        if let Some(limit) = &mut self.limit {
            limit.advance(now);
            limit.credit -= document_count as f64;
            if limit.credit < 0.0 {
                limit.limited_at = now;
            }
        }
        self.limit.take_if(|limit| limit.rate > RATE_FORGET);
    }

    /// Returns the time at which the next call may start; `None` if a call may start at `now`.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        let limit = self.limit.as_ref()?;
        let missing = -limit.credit;
        let wait = Duration::from_secs_f64(missing.max(0.0) / limit.rate);
        Some(limit.at + wait).filter(|at| *at > now)
    }

    /// Returns whether the limit keeps documents back: within `LIMITING_TIME` it made a call wait,
    /// or the service throttled.
    pub fn is_limiting(&self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LIMITING_TIME;
        self.limit.as_ref().is_some_and(|limit| is_recent(limit.limited_at))
    }

    /// Returns the limit in documents a second; `None` while there is no limit.
    pub fn rate(&self) -> Option<f64> {
        self.limit.as_ref().map(|limit| limit.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A service that accepts `allowed` documents a second. Its unused credit is kept for one
    /// second.
    struct Service {
        allowed: f64,
        credit: f64,
    }

    /// Sends full batches as fast as `rate_limit` allows, but at most `offered` documents a second.
    /// Returns the accepted documents, the throttled calls and all calls.
    fn run(
        rate_limit: &mut RateLimit,
        service: &mut Service,
        now: &mut Instant,
        seconds: u64,
        offered: f64,
    ) -> (f64, u32, u32) {
        let (mut accepted, mut throttled, mut calls) = (0.0, 0, 0);
        let step = Duration::from_millis(5);
        let mut waiting = 0.0;
        for _ in 0..seconds * 200 {
            *now += step;
            waiting += offered * step.as_secs_f64();
            let allowed = service.allowed;
            service.credit = (service.credit + allowed * step.as_secs_f64()).min(allowed);
            while waiting >= 50.0 && rate_limit.paused_until(*now).is_none() {
                rate_limit.started(50, *now);
                calls += 1;
                if service.credit >= 50.0 {
                    service.credit -= 50.0;
                    waiting -= 50.0;
                    accepted += 50.0;
                    rate_limit.accepted(50, *now);
                } else {
                    throttled += 1;
                    rate_limit.throttled(*now, *now);
                    // The throttled batch waits; other batches are sent.
                    break;
                }
            }
        }
        (accepted, throttled, calls)
    }

    #[test]
    fn without_throttling_there_is_no_limit() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        let mut service = Service { allowed: 1e9, credit: 1e9 };
        let (accepted, throttled, _) = run(&mut rate_limit, &mut service, &mut now, 5, 10_000.0);
        assert_eq!((accepted, throttled), (50_000.0, 0));
        assert_eq!((rate_limit.rate(), rate_limit.paused_until(now)), (None, None));
    }

    #[test]
    fn the_first_throttled_call_after_a_silence_does_not_make_it_the_rate() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        let mut service = Service { allowed: 1e9, credit: 1e9 };
        let _ = run(&mut rate_limit, &mut service, &mut now, 10, 20_000.0);
        now += Duration::from_secs(5);
        rate_limit.throttled(now, now);
        let rate = rate_limit.rate().unwrap();
        assert!((8_000.0..=18_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn the_rate_settles_near_what_the_service_allows() {
        for allowed in [100.0, 500.0, 2_500.0, 20_000.0] {
            let mut now = Instant::now();
            let mut rate_limit = RateLimit::new(now);
            let mut service = Service { allowed, credit: allowed };
            let offered = allowed * 4.0;
            let _ = run(&mut rate_limit, &mut service, &mut now, 10, offered);
            let (accepted, throttled, calls) =
                run(&mut rate_limit, &mut service, &mut now, 60, offered);
            let share = accepted / 60.0 / allowed;
            assert!((0.8..1.2).contains(&share), "{allowed}/s: {share} of it");
            let throttled_share = f64::from(throttled) / f64::from(calls);
            assert!(throttled_share < 0.1, "{allowed}/s: {throttled} of {calls} throttled");
        }
    }

    #[test]
    fn a_limit_that_is_lifted_is_found_out() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        let mut service = Service { allowed: 500.0, credit: 500.0 };
        let _ = run(&mut rate_limit, &mut service, &mut now, 20, 2_000.0);
        assert!(rate_limit.rate().unwrap() < 650.0);
        service.allowed = 1e9;
        let _ = run(&mut rate_limit, &mut service, &mut now, 60, 2_000.0);
        assert!(rate_limit.rate().is_none_or(|rate| rate > 2_000.0), "{:?}", rate_limit.rate());
        let _ = run(&mut rate_limit, &mut service, &mut now, 120, 2_000.0);
        assert_eq!(rate_limit.rate(), None);
    }

    #[test]
    fn a_service_that_takes_nothing_is_asked_now_and_then_and_comes_back() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        let mut service = Service { allowed: 0.0, credit: 0.0 };
        let _ = run(&mut rate_limit, &mut service, &mut now, 60, 2_000.0);
        let (_, _, calls) = run(&mut rate_limit, &mut service, &mut now, 100, 2_000.0);
        assert!((5..60).contains(&calls), "{calls} calls in 100 s");
        service.allowed = 2_000.0;
        let _ = run(&mut rate_limit, &mut service, &mut now, 60, 1_500.0);
        assert!(rate_limit.rate().is_none_or(|rate| rate > 1_000.0), "{:?}", rate_limit.rate());
    }

    #[test]
    fn a_limit_limits_while_it_makes_calls_wait_and_not_while_far_less_is_sent() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        assert!(!rate_limit.is_limiting(now));
        let mut service = Service { allowed: 2_000.0, credit: 2_000.0 };
        let _ = run(&mut rate_limit, &mut service, &mut now, 20, 4_000.0);
        assert!(rate_limit.is_limiting(now));
        // A tenth of the limit is sent: the credit is never used up.
        for _ in 0..5 {
            let rate = rate_limit.rate().unwrap();
            now += Duration::from_secs_f64(500.0 / rate);
            rate_limit.started(50, now);
        }
        assert!(!rate_limit.is_limiting(now));
        rate_limit.throttled(now, now);
        assert!(rate_limit.is_limiting(now));
        assert!(!rate_limit.is_limiting(now + LIMITING_TIME));
    }

    #[test]
    fn a_pause_shows_nothing_of_what_is_allowed() {
        let mut now = Instant::now();
        let mut rate_limit = RateLimit::new(now);
        let mut service = Service { allowed: 500.0, credit: 500.0 };
        let _ = run(&mut rate_limit, &mut service, &mut now, 20, 2_000.0);
        now += Duration::from_secs(300);
        rate_limit.started(50, now);
        let rate = rate_limit.rate().unwrap();
        assert!(rate < 1_000.0, "{rate}");
    }

    #[test]
    fn calls_that_were_on_their_way_lower_the_rate_once() {
        let start = Instant::now();
        let mut rate_limit = RateLimit::new(start);
        rate_limit.accepted(1_000, start);
        let now = start + Duration::from_millis(10);
        (0..8).for_each(|_| rate_limit.throttled(start, now));
        let rate = rate_limit.rate().unwrap();
        assert!((850.0..900.0).contains(&rate), "{rate}");
    }

    proptest! {
        #[test]
        fn the_rate_stays_a_number_above_nothing(
            steps in proptest::collection::vec((0u64..30_000, 0u8..3, 1usize..51), 1..200),
        ) {
            let mut now = Instant::now();
            let mut rate_limit = RateLimit::new(now);
            for (milliseconds, what, count) in steps {
                now += Duration::from_millis(milliseconds);
                match what {
                    0 => rate_limit.accepted(count, now),
                    1 => rate_limit.throttled(now, now),
                    _ => rate_limit.started(count, now),
                }
                prop_assert!(rate_limit.rate().is_none_or(|rate| rate >= RATE_MIN && rate.is_finite()));
                let paused_until = rate_limit.paused_until(now).unwrap_or(now);
                prop_assert!(paused_until <= now + Duration::from_secs(3_600), "{:?}", paused_until - now);
            }
        }
    }
}
