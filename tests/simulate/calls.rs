//! The fate of the calls of a life, as the world knows it: whether the service answers, fails,
//! throttles or is silent.
//!
//! In: each start and end of a call. Out: a contradiction to the claim that calls are answered.
//! Bound: a few numbers.

/// The daemon may know an event this much later than the world, in milliseconds: it looks every 10
/// ms, and the receiver every 5 ms.
const SLACK_MS: u64 = 40;

/// The daemon takes throttling as such for a second, in milliseconds.
const THROTTLED_MS: u64 = 1_000;

/// A service is silent after this time without an answer, or after twice the time of its last
/// answer, in milliseconds.
const SILENCE_MS: u64 = 1_000;

/// The calls of one life.
#[derive(Debug, Default)]
pub struct Calls {
    pub life: usize,
    in_flight_count: usize,
    /// The last end of a call, or the start of a call while no other was in flight.
    heard_ms: u64,
    /// The time of the last accepted answer, and when it came.
    answer_ms: u64,
    accepted_ms: Option<u64>,
    /// Since when calls fail.
    failed_ms: Option<u64>,
    throttled_ms: Option<u64>,
    /// The time until which the service asks for a pause, and when it has asked.
    paused_ms: Option<(u64, u64)>,
}

impl Calls {
    /// The calls of a life that begins.
    pub fn of_life(life: usize) -> Self {
        Self { life, ..Self::default() }
    }

    /// Notes the start of a call.
    pub fn started(&mut self, now_ms: u64) {
        if self.in_flight_count == 0 {
            self.heard_ms = now_ms;
        }
        self.in_flight_count += 1;
    }

    /// Notes the end of a call.
    pub fn ended(&mut self, now_ms: u64) {
        self.in_flight_count = self.in_flight_count.saturating_sub(1);
        self.heard_ms = now_ms;
    }

    /// Notes that the service has accepted a call.
    pub fn accepted(&mut self, started_ms: u64, now_ms: u64) {
        (self.accepted_ms, self.answer_ms) = (Some(now_ms), now_ms - started_ms);
        self.failed_ms = None;
    }

    /// Notes that a call has failed. If others were accepted meanwhile, it says nothing about them.
    pub fn failed(&mut self, started_ms: u64, now_ms: u64) {
        if self.accepted_ms.is_none_or(|accepted_ms| accepted_ms < started_ms) {
            self.failed_ms.get_or_insert(now_ms);
        }
    }

    /// Notes that the service has throttled a call, and for how many seconds it wants a pause.
    pub fn throttled(&mut self, now_ms: u64, retry_after: Option<u64>) {
        self.throttled_ms = Some(now_ms);
        if let Some(seconds) = retry_after {
            self.paused_ms = Some((now_ms + 1_000 * seconds, now_ms));
        }
    }

    /// Notes that the daemon tries anew for a reason of its own: other credentials, or its end.
    pub fn begin_anew(&mut self) {
        self.failed_ms = None;
    }

    /// Returns why calls are not answered; `None` if they may be.
    pub fn contradiction(&self, now_ms: u64) -> Option<String> {
        let is_known = |at_ms: u64| at_ms + SLACK_MS < now_ms;
        if let Some(at_ms) = self.failed_ms.filter(|at_ms| is_known(*at_ms)) {
            return Some(format!("calls fail since {at_ms} ms"));
        }
        let throttled =
            self.throttled_ms.filter(|at| is_known(*at) && now_ms + SLACK_MS < at + THROTTLED_MS);
        if let Some(at_ms) = throttled {
            return Some(format!("the service throttled at {at_ms} ms"));
        }
        if let Some((until_ms, at_ms)) = self.paused_ms
            && is_known(at_ms)
            && now_ms < until_ms
        {
            return Some(format!(
                "the service asked at {at_ms} ms for a pause until {until_ms} ms"
            ));
        }
        let silent_at_ms = self.heard_ms + SILENCE_MS.max(2 * self.answer_ms);
        let is_silent = self.in_flight_count > 0 && is_known(silent_at_ms);
        is_silent.then(|| format!("no call has ended since {} ms", self.heard_ms))
    }
}
