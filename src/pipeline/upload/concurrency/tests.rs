//! Tests of the concurrency limit against a model of a service.

use super::*;
use proptest::prelude::*;

const MAX: usize = 256;
const ADAPTIVE: CallLimit = CallLimit::Adaptive { count_max: MAX, bytes_max: usize::MAX };
const STEP: Duration = Duration::from_micros(500);

/// A service that answers after `seconds`, and no more than `calls_per_second`.
struct Model {
    concurrency: Concurrency,
    seconds: f64,
    calls_per_second: f64,
    now: Instant,
    /// The service is busy up to this time.
    busy_until: Instant,
    /// Start and end of each call in flight.
    calls: Vec<(Instant, Instant)>,
    waiting: f64,
    waiting_max: f64,
    in_flight_max: usize,
    random: u64,
    changes: Vec<LimitChange>,
}

impl Model {
    fn new(seconds: f64, calls_per_second: f64) -> Self {
        let now = Instant::now();
        Self {
            concurrency: Concurrency::new(ADAPTIVE, now),
            seconds,
            calls_per_second,
            now,
            busy_until: now,
            calls: Vec::new(),
            waiting: 0.0,
            waiting_max: 0.0,
            in_flight_max: 0,
            random: 1,
            changes: Vec::new(),
        }
    }

    /// Returns a number from 0.5 to 1.5.
    fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        0.5 + (self.random >> 40) as f64 / (1u64 << 24) as f64
    }

    /// Lets `batches_per_second` come for `seconds`.
    fn run(&mut self, batches_per_second: f64, seconds: f64) {
        (self.waiting_max, self.in_flight_max) = (self.waiting, 0);
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += STEP;
            self.waiting += batches_per_second * STEP.as_secs_f64();
            let now = self.now;
            let (ended, calls) =
                std::mem::take(&mut self.calls).into_iter().partition(|(_, at)| *at <= now);
            self.calls = calls;
            let ended: Vec<(Instant, Instant)> = ended;
            let mut left = self.calls.len() + ended.len();
            for (started_at, at) in ended {
                left -= 1;
                self.concurrency.ended(now);
                let change = self.concurrency.accepted(started_at, at - started_at, left, now);
                self.changes.extend(change);
            }
            self.start();
            assert!((1..=MAX).contains(&self.concurrency.limit()));
            self.waiting_max = self.waiting_max.max(self.waiting);
        }
    }

    fn start(&mut self) {
        let now = self.now;
        while self.waiting >= 1.0
            && self.concurrency.allows(InFlight { count: self.calls.len(), bytes: 0 }, now)
        {
            self.waiting -= 1.0;
            self.concurrency.started(self.calls.len(), now);
            let work = Duration::from_secs_f64(1.0 / self.calls_per_second);
            self.busy_until = self.busy_until.max(now) + work;
            let answer = now + Duration::from_secs_f64(self.seconds * self.jitter());
            self.calls.push((now, answer.max(self.busy_until)));
            self.in_flight_max = self.in_flight_max.max(self.calls.len());
        }
        let is_waiting = self.waiting >= 1.0 && self.calls.len() >= self.concurrency.limit();
        self.concurrency.note_waiting(is_waiting, now);
    }
}

#[test]
fn as_many_calls_as_the_rate_and_the_time_of_answers_need_are_found_within_seconds() {
    for seconds in [0.005, 0.03, 0.1] {
        for batches_per_second in [400.0, 1_000.0, 2_000.0] {
            let mut model = Model::new(seconds, 1e9);
            model.run(batches_per_second, 3.0);
            let case = format!("{seconds} s, {batches_per_second}/s: {:?}", model.concurrency);
            // Meanwhile no more batches wait than come in a second.
            assert!(model.waiting_max < batches_per_second, "{}, {case}", model.waiting_max);
            model.run(batches_per_second, 20.0);
            assert!(model.waiting < batches_per_second * 0.02, "{}, {case}", model.waiting);
            assert!(model.waiting_max < batches_per_second, "{}, {case}", model.waiting_max);
        }
    }
}

#[test]
fn a_service_that_answers_at_once_gets_few_calls_and_none_more_when_it_is_full() {
    let mut model = Model::new(0.0005, 1e9);
    model.run(2_000.0, 10.0);
    assert_eq!((model.concurrency.limit(), &*model.changes), (COUNT_FIRST, &[][..]));
    // A processor that is full, with twice the load that it carries.
    let mut model = Model::new(0.0005, 4_000.0);
    model.run(8_000.0, 10.0);
    assert!(model.in_flight_max <= 64, "{}", model.in_flight_max);
}

#[test]
fn calls_that_only_queue_in_the_service_are_taken_back() {
    // 10 calls are enough for what the service carries.
    let mut model = Model::new(0.03, 333.0);
    model.run(1_000.0, 60.0);
    assert!(model.in_flight_max <= 40, "{}", model.in_flight_max);
    assert!(model.changes.contains(&LimitChange::Slow));
}

#[test]
fn a_slow_phase_brings_no_more_calls_than_at_first_and_ends_within_a_second() {
    let mut model = Model::new(0.03, 1e9);
    model.run(600.0, 10.0);
    assert!(model.concurrency.limit() > 16, "{:?}", model.concurrency);
    model.seconds = 2.0;
    model.run(600.0, 3.0);
    // Calls that were in flight when it began, and those that started before the silence.
    assert!(model.in_flight_max < 2 * 60, "{}", model.in_flight_max);
    model.run(600.0, 5.0);
    model.run(600.0, 5.0);
    assert!(model.in_flight_max <= 2 * COUNT_FIRST, "{}", model.in_flight_max);
    model.waiting = 0.0;
    model.seconds = 0.03;
    model.run(600.0, 4.0);
    model.waiting = 0.0;
    model.run(600.0, 10.0);
    assert!(model.waiting_max < 60.0, "{} {:?}", model.waiting_max, model.concurrency);
}

#[test]
fn a_service_that_stays_slower_is_carried_again() {
    let mut model = Model::new(0.03, 1e9);
    model.run(400.0, 5.0);
    model.seconds = 0.1;
    model.run(400.0, 10.0);
    model.waiting = 0.0;
    model.run(400.0, 10.0);
    assert!(model.waiting_max < 40.0, "{} {:?}", model.waiting_max, model.concurrency);
}

#[test]
fn single_slow_answers_are_no_trend_and_a_pause_says_nothing() {
    let now = Instant::now();
    let mut concurrency = Concurrency::new(ADAPTIVE, now);
    let mut at = now;
    for number in 0..1_000 {
        at += Duration::from_millis(30);
        let milliseconds = if number % 4 == 0 { 2_000 } else { 30 };
        let time = Duration::from_millis(milliseconds);
        assert_eq!(concurrency.accepted(at, time, 1, at), None, "{number}");
    }
    at += Duration::from_secs(3_600);
    assert_eq!(concurrency.accepted(at, Duration::from_millis(30), 0, at), None);
    assert_eq!(concurrency.limit(), COUNT_FIRST);
}

#[test]
fn while_nothing_is_answered_no_call_beyond_the_first_ones_starts() {
    let mut model = Model::new(0.03, 1e9);
    model.run(2_000.0, 5.0);
    assert!(model.concurrency.limit() > 40);
    let late = model.now + Duration::from_millis(200);
    let calls = |count| InFlight { count, bytes: 0 };
    assert!(model.concurrency.allows(calls(40), model.now));
    assert!(!model.concurrency.allows(calls(40), late));
    assert!(model.concurrency.allows(calls(COUNT_FIRST - 1), late));
    model.concurrency.ended(late);
    assert!(model.concurrency.allows(calls(40), late));
}

#[test]
fn memory_bounds_the_calls_beyond_the_first_ones() {
    let wanted = CallLimit::Adaptive { count_max: MAX, bytes_max: 1_000 };
    let now = Instant::now();
    let mut concurrency = Concurrency::new(wanted, now);
    concurrency.limit = 100.0;
    for (count, bytes, expected) in
        [(7, 5_000, true), (8, 1_000, false), (8, 999, true), (100, 0, false)]
    {
        let in_flight = InFlight { count, bytes };
        assert_eq!(concurrency.allows(in_flight, now), expected, "{in_flight:?}");
    }
}

#[test]
fn throttling_and_timeouts_lower_the_limit_once_for_the_calls_that_were_on_their_way() {
    let start = Instant::now();
    let now = start + Duration::from_secs(1);
    let mut concurrency = Concurrency::new(ADAPTIVE, start);
    assert_eq!(concurrency.throttled(start, now), Some(LimitChange::Throttled));
    assert_eq!(concurrency.throttled(start, now), None);
    assert_eq!(concurrency.limit(), 6);
    assert_eq!(concurrency.timed_out(now, now), Some(LimitChange::Timeout));
    assert_eq!((concurrency.timed_out(start, now), concurrency.limit()), (None, 3));
    (0..10).for_each(|_| {
        concurrency.timed_out(now, now);
    });
    assert_eq!(concurrency.limit(), 1);
}

#[test]
fn after_a_failure_the_limit_begins_as_at_the_start_and_finds_half_of_it_in_doubling() {
    let mut model = Model::new(0.03, 1e9);
    model.run(2_000.0, 5.0);
    let before = model.concurrency.limit();
    assert_eq!(model.concurrency.failed(model.now), Some(LimitChange::Failed));
    assert_eq!(model.concurrency.limit(), COUNT_FIRST);
    assert!(model.concurrency.doubling_below >= before as f64 / 2.0);
    model.run(2_000.0, 1.0);
    assert!(model.concurrency.limit() > 40, "{:?}", model.concurrency);
}

proptest! {
    #[test]
    fn the_limit_stays_between_one_and_the_largest_and_a_fixed_one_never_moves(
        steps in proptest::collection::vec((0u64..3_000, 0u8..6, 0usize..300), 1..300),
        fixed in 1usize..20,
    ) {
        let start = Instant::now();
        for wanted in [ADAPTIVE, CallLimit::Fixed(fixed)] {
            let mut now = start;
            let mut concurrency = Concurrency::new(wanted, now);
            for &(milliseconds, what, count) in &steps {
                let started_at = now;
                now += Duration::from_millis(milliseconds);
                let before = concurrency.limit();
                let change = match what {
                    0 => concurrency.accepted(started_at, now - started_at, count, now),
                    1 => concurrency.throttled(started_at, now),
                    2 => concurrency.timed_out(started_at, now),
                    3 => concurrency.failed(now),
                    _ => {
                        concurrency.note_waiting(what == 4, now);
                        concurrency.started(count, now);
                        None
                    }
                };
                let limit = concurrency.limit();
                prop_assert!((1..=MAX).contains(&limit), "{limit}");
                prop_assert_eq!(change.is_some(), limit != before);
                let more = InFlight { count: limit, bytes: 0 };
                prop_assert!(!concurrency.allows(more, now));
                if matches!(wanted, CallLimit::Fixed(_)) {
                    prop_assert_eq!((limit, change), (fixed, None));
                }
            }
        }
    }
}
