//! The behaviour of the service: how long a call takes, and whether it is accepted.
//!
//! No I/O, no clock: the caller passes the time. Every call is drawn by itself, so that calls wait
//! beside each other and not one after the other.

use std::str::FromStr;
use std::time::Duration;

/// The longest random part of an answer's time, as a multiple of its mean.
const TAIL_MAX: f64 = 10.0;

/// The time that answers take, which may change during a run. Each step is the time since the first
/// call, and the mean from then on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delays(Vec<(Duration, Duration)>);

impl Delays {
    /// Returns a delay that stays the same.
    pub fn constant(delay: Duration) -> Self {
        Self(vec![(Duration::ZERO, delay)])
    }

    /// Returns delays in milliseconds, each from a second on.
    pub fn steps(steps: &[(u64, u64)]) -> Self {
        let step = |&(second, ms)| (Duration::from_secs(second), Duration::from_millis(ms));
        Self(steps.iter().map(step).collect())
    }

    /// Returns the mean delay at `time` since the first call.
    pub fn at(&self, time: Duration) -> Duration {
        let past = self.0.iter().take_while(|(from, _)| *from <= time);
        past.last().map_or(Duration::ZERO, |&(_, delay)| delay)
    }
}

impl FromStr for Delays {
    type Err = String;

    /// Parses `MS[,MS@SECONDS]...`: `30,2000@10,30@20` is 30 ms, from 10 s on 2 s, and from 20 s on
    /// 30 ms.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let value = text
                .parse::<f64>()
                .ok()
                .and_then(|number| Duration::try_from_secs_f64(number).ok());
            value.ok_or_else(|| format!("{text}: no number of 0 or more"))
        };
        let step = |text: &str| {
            let (ms, seconds) = text.split_once('@').unwrap_or((text, "0"));
            Ok((number(seconds)?, number(ms)? / 1_000))
        };
        let steps = text.split(',').map(step).collect::<Result<Vec<_>, String>>()?;
        if !steps.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(format!("{text}: each step needs a later second than the one before"));
        }
        Ok(Self(steps))
    }
}

/// The behaviour of the service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// Mean time from a request to its answer.
    pub delays: Delays,
    /// Share of that time that is random, from 0 to 1: exponentially distributed, so that a few
    /// answers take much longer than most.
    pub jitter: f64,
    /// Share of requests that are throttled (429), from 0 to 1.
    pub throttled_share: f64,
    /// Share of requests that fail with 503, among the requests that are not throttled, from 0 to
    /// 1.
    pub failed_share: f64,
    /// Number of documents a second that are accepted; a request with more is throttled. Documents
    /// of one second may come at once. `None` accepts all.
    pub documents_per_s: Option<f64>,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is accepted.
    Accepted,
    /// It is throttled (429).
    Throttled,
    /// It fails (503).
    Failed,
}

/// A running service: its behaviour and its memory of past calls.
#[derive(Debug)]
pub struct Service {
    faults: Faults,
    random: fastrand::Rng,
    /// Time of the first call, in nanoseconds.
    first_ns: Option<u64>,
    /// Number of documents that may come at once, and the time of this number.
    allowance: f64,
    allowance_ns: u64,
}

impl Service {
    /// Creates a service whose first call is still to come.
    pub fn new(faults: Faults, random: fastrand::Rng) -> Self {
        let allowance = faults.documents_per_s.unwrap_or_default();
        Self { faults, random, first_ns: None, allowance, allowance_ns: 0 }
    }

    /// Begins anew with another behaviour.
    pub fn reset(&mut self, faults: Faults) {
        *self = Self::new(faults, self.random.clone());
    }

    /// Decides about a request with `count` documents that arrived at `now_ns`. Returns the time
    /// that its answer takes.
    pub fn take(&mut self, count: usize, now_ns: u64) -> (Verdict, Duration) {
        let first_ns = *self.first_ns.get_or_insert(now_ns);
        let since = Duration::from_nanos(now_ns.saturating_sub(first_ns));
        let delay = self.faults.delays.at(since);
        let jitter = self.faults.jitter.clamp(0.0, 1.0);
        let delay = if delay.is_zero() || jitter <= 0.0 {
            delay
        } else {
            // An exponential distribution with mean 1.
            let tail = -(1.0 - self.random.f64()).ln();
            delay.mul_f64(1.0 - jitter + jitter * tail.min(TAIL_MAX))
        };
        (self.verdict(count, now_ns), delay)
    }

    fn verdict(&mut self, count: usize, now_ns: u64) -> Verdict {
        let Faults { throttled_share, failed_share, .. } = self.faults;
        if throttled_share > 0.0 && self.random.f64() < throttled_share {
            return Verdict::Throttled;
        }
        if let Some(rate) = self.faults.documents_per_s {
            let seconds = now_ns.saturating_sub(self.allowance_ns) as f64 / 1e9;
            self.allowance = (self.allowance + seconds * rate).min(rate);
            self.allowance_ns = now_ns;
            if self.allowance < count as f64 {
                return Verdict::Throttled;
            }
            self.allowance -= count as f64;
        }
        if failed_share > 0.0 && self.random.f64() < failed_share {
            return Verdict::Failed;
        }
        Verdict::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn service(faults: Faults) -> Service {
        Service::new(faults, fastrand::Rng::with_seed(1))
    }

    #[test]
    fn a_delay_changes_at_its_second_and_not_before() {
        let delays: Delays = "30,2000@10,30@20.5".parse().unwrap();
        let at = |ms| delays.at(Duration::from_millis(ms)).as_millis();
        assert_eq!(
            [0, 9_999, 10_000, 20_499, 20_500, 99_999].map(at),
            [30, 30, 2_000, 2_000, 30, 30]
        );
        assert_eq!("0.5".parse::<Delays>().unwrap().at(Duration::ZERO), Duration::from_micros(500));
        assert_eq!(Delays::default().at(Duration::from_secs(5)), Duration::ZERO);
        assert_eq!(Delays::steps(&[(0, 30), (4, 2_000)]), "30,2000@4".parse().unwrap());
        for text in ["", "x", "-1", "30@x", "30,20", "30,20@5,10@5", "nan"] {
            assert!(text.parse::<Delays>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_steps_of_a_delay_are_counted_from_the_first_call() {
        let mut service = service(Faults { delays: "1,2@1".parse().unwrap(), ..Faults::default() });
        let mut delay_ms = |second| service.take(50, second * SECOND_NS).1.as_millis();
        assert_eq!([100, 101, 102].map(&mut delay_ms), [1, 2, 2]);
        service.reset(Faults { delays: "1,2@1".parse().unwrap(), ..Faults::default() });
        assert_eq!(service.take(50, 200 * SECOND_NS).1.as_millis(), 1);
    }

    #[test]
    fn a_random_part_keeps_the_mean_and_makes_a_few_answers_late() {
        let delays = Delays::constant(Duration::from_millis(100));
        let mut service = service(Faults { delays, jitter: 0.2, ..Faults::default() });
        let mut times: Vec<f64> =
            (0..10_000).map(|_| service.take(50, 0).1.as_secs_f64() * 1e3).collect();
        times.sort_unstable_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        assert!((99.0..101.0).contains(&mean), "{mean}");
        assert!((80.0..80.1).contains(&times[0]), "{}", times[0]);
        // The slowest of a hundred takes 80 + 20 * ln(100) ms.
        assert!((165.0..180.0).contains(&times[9_900]), "{}", times[9_900]);
    }

    #[test]
    fn documents_beyond_the_rate_are_throttled() {
        let mut service = service(Faults { documents_per_s: Some(5_000.0), ..Faults::default() });
        // 20,000 documents a second for 10 s, in requests of 50. The first second's documents may
        // come at once.
        let accepted = (0..4_000_u64)
            .filter(|index| service.take(50, index * SECOND_NS / 400).0 == Verdict::Accepted)
            .count();
        assert!((1_090..=1_101).contains(&accepted), "{accepted}");
        // After a silence no more than the documents of one second come at once.
        let accepted =
            (0..400).filter(|_| service.take(50, 60 * SECOND_NS).0 == Verdict::Accepted).count();
        assert_eq!(accepted, 100);
    }
}
