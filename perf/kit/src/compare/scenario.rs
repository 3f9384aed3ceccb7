//! The scenarios, and their durations.

use super::limit::Limit;
use super::span_load::SpanLoad;
use crate::endpoint::{Delays, Faults};
use std::time::Duration;

/// Memory of a daemon in megabytes (`-m 256`), except in scenarios about small queues.
const MEMORY_MB: u64 = 256;
/// Memory of a daemon that is held to a share of a processor: that of a small container. With more
/// memory, what a daemon cannot deliver would fill it only after the measurement.
const LIMITED_MEMORY_MB: u64 = 32;

/// Share of an answer's time that is random, in scenarios in which answers take time.
const JITTER: f64 = 0.2;

/// A scenario of the comparison: a kind of load, or one property of the program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// A steady load with this many documents a second. The service answers at once, or after this
    /// mean time.
    Rate(u32, u32),
    /// A steady load for a service that accepts this many documents a second.
    Throttled(u32),
    /// A steady load for a service that becomes slow and fast again.
    Slowing,
    /// A steady load for a service that accepts this many calls at once on an HTTP/2 connection.
    Streams(u32),
    /// A load that is as fast as the sender can send.
    Flat,
    /// A steady load of spans of OpenTelemetry, in batches.
    Spans(SpanLoad),
    /// The daemon is held to a share of a processor: the highest rate that it delivers, then
    /// [`MULTIPLES`] of this rate.
    Limited(Limit),
    /// One load of [`Limited`](Self::Limited).
    Offered {
        /// The share of a processor.
        limit: Limit,
        /// Documents a second.
        rate: u32,
        /// This rate as a multiple of the peak. `None` during the search for the peak.
        multiple: Option<f64>,
    },
    /// Many documents are sent as fast as possible, into sockets with a given buffer size.
    Burst {
        /// Number of documents.
        count: u64,
        /// Buffer of a socket in megabytes; xrayd requests an eighth of its memory as socket
        /// buffers.
        socket_mb: u64,
        /// Memory of a confined daemon in megabytes.
        confined_mb: u64,
    },
    /// The service fails under load until memory is full.
    Outage,
    /// No load: measures CPU time, wake-ups and memory of an idle daemon.
    Idle,
    /// No load: measures the time from the start until the daemon listens.
    Start,
    /// No load: measures the size of the program's file.
    Binary,
}

/// The largest number of sockets that xrayd opens; it opens one per processor.
const SOCKET_COUNT_MAX: usize = 16;

/// Bursts into socket buffers with a requested size of 1 MB and 4 MB. The kernel doubles a
/// requested size (socket(7)). A confined daemon gets 208 KiB a socket, whatever its memory.
const BURST_SMALL: Scenario = Scenario::Burst { count: 1_000, socket_mb: 1, confined_mb: 10 };
const BURST_LARGE: Scenario = Scenario::Burst { count: 20_000, socket_mb: 4, confined_mb: 192 };

/// The scenarios of a run without `--only`, in their order.
pub const ALL: [Scenario; 14] = [
    Scenario::Binary,
    Scenario::Start,
    Scenario::Rate(20_000, 30),
    Scenario::Rate(50_000, 30),
    Scenario::Rate(100, 0),
    Scenario::Rate(1_000, 0),
    Scenario::Rate(4_000, 0),
    Scenario::Rate(20_000, 0),
    Scenario::Rate(50_000, 0),
    Scenario::Flat,
    BURST_SMALL,
    BURST_LARGE,
    Scenario::Outage,
    Scenario::Idle,
];

/// Scenarios that `--only` names together.
const GROUPS: [(&str, &[Scenario]); 5] = [
    (
        "latency",
        &[
            Scenario::Rate(20_000, 5),
            Scenario::Rate(50_000, 5),
            Scenario::Rate(100_000, 5),
            Scenario::Rate(20_000, 30),
            Scenario::Rate(50_000, 30),
            Scenario::Rate(100_000, 30),
            Scenario::Rate(20_000, 100),
            Scenario::Rate(50_000, 100),
            Scenario::Rate(100_000, 100),
        ],
    ),
    ("service", &[Scenario::Throttled(5_000), Scenario::Slowing, Scenario::Streams(8)]),
    (
        "overload",
        &[
            Scenario::Rate(200_000, 0),
            Scenario::Rate(250_000, 0),
            Scenario::Rate(300_000, 0),
            Scenario::Flat,
        ],
    ),
    ("quota", &[Scenario::Limited(Limit::Quota(20)), Scenario::Limited(Limit::Ecs(32))]),
    ("bursts", &[BURST_SMALL, BURST_LARGE]),
];

/// The loads of a daemon that is held to a share of a processor, as multiples of its peak.
pub const MULTIPLES: [f64; 7] = [0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0];

/// The load of the scenarios about services that throttle, become slow or accept few calls.
const SERVICE_RATE: u32 = 20_000;
/// Milliseconds that answers take in these scenarios.
const SERVICE_ANSWER_MS: u64 = 30;
/// In the scenario `slowing` answers take 30 ms, from 4 s on 2 s, and from 10 s on 30 ms.
const SLOWING: [(u64, u64); 3] = [(0, SERVICE_ANSWER_MS), (4, 2_000), (10, SERVICE_ANSWER_MS)];

impl Scenario {
    /// Returns the name in rows, in budgets and on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Rate(rate, 0) => format!("rate-{rate}"),
            Self::Rate(rate, answer_ms) => format!("rate-{rate}-{answer_ms}ms"),
            Self::Throttled(rate) => format!("throttled-{rate}"),
            Self::Slowing => "slowing".into(),
            Self::Streams(count) => format!("streams-{count}"),
            Self::Flat => "flat".into(),
            Self::Spans(load) => load.name(),
            Self::Limited(limit) => limit.name(),
            Self::Offered { limit, multiple: Some(multiple), .. } => {
                format!("{}-{multiple}p", limit.name())
            }
            Self::Offered { limit, multiple: None, .. } => format!("{}-peak", limit.name()),
            Self::Burst { count, .. } => format!("burst-{count}"),
            Self::Outage => "outage".into(),
            Self::Idle => "idle".into(),
            Self::Start => "start".into(),
            Self::Binary => "binary".into(),
        }
    }

    /// Returns the scenarios with this name: one, or those of a group. Where a name has a number,
    /// any number above 0 is accepted.
    pub fn parse(name: &str) -> Option<Vec<Self>> {
        if let Some((_, group)) = GROUPS.iter().find(|(group, _)| *group == name) {
            return Some(group.to_vec());
        }
        let loads = SpanLoad::parse(name);
        if !loads.is_empty() {
            return Some(loads.into_iter().map(Self::Spans).collect());
        }
        let number = |text: &str| text.parse().ok().filter(|&number: &u32| number > 0);
        let after = |start: &str| number(name.strip_prefix(start)?);
        let rate = name.strip_prefix("rate-").and_then(|rest| match rest.split_once('-') {
            None => Some(Self::Rate(number(rest)?, 0)),
            Some((rate, answer)) => {
                Some(Self::Rate(number(rate)?, number(answer.strip_suffix("ms")?)?))
            }
        });
        let one = rate
            .or_else(|| after("throttled-").map(Self::Throttled))
            .or_else(|| after("streams-").map(Self::Streams))
            .or_else(|| Limit::parse(name).map(Self::Limited))
            .or_else(|| (name == "slowing").then_some(Self::Slowing))
            .or_else(|| ALL.into_iter().find(|scenario| scenario.name() == name));
        one.map(|one| vec![one])
    }

    /// Returns the memory that a daemon is configured with (`-m`), in megabytes.
    pub fn memory_mb(self, is_confined: bool) -> u64 {
        match self {
            Self::Burst { confined_mb, .. } if is_confined => confined_mb,
            Self::Burst { socket_mb, .. } => {
                let processor_count = std::thread::available_parallelism().map_or(1, usize::from);
                8 * socket_mb * processor_count.min(SOCKET_COUNT_MAX) as u64
            }
            Self::Limited(_) | Self::Offered { .. } => LIMITED_MEMORY_MB,
            _ => MEMORY_MB,
        }
    }

    /// Returns what the service does with calls.
    pub fn faults(self) -> Faults {
        let answers_in = |ms: u64| Faults {
            delays: Delays::constant(Duration::from_millis(ms)),
            jitter: JITTER,
            ..Faults::default()
        };
        match self {
            Self::Outage => Faults { failed_share: 1.0, ..Faults::default() },
            Self::Rate(_, ms) if ms > 0 => answers_in(ms.into()),
            Self::Throttled(rate) => {
                Faults { documents_per_s: Some(rate.into()), ..answers_in(SERVICE_ANSWER_MS) }
            }
            Self::Slowing => Faults { delays: Delays::steps(&SLOWING), ..answers_in(0) },
            Self::Streams(_) => answers_in(SERVICE_ANSWER_MS),
            _ => Faults::default(),
        }
    }

    /// Returns the rate of a steady load, in documents a second.
    pub fn rate(self) -> Option<u32> {
        match self {
            Self::Rate(rate, _) | Self::Offered { rate, .. } => Some(rate),
            Self::Spans(load) => Some(load.rate),
            Self::Throttled(_) | Self::Slowing | Self::Streams(_) => Some(SERVICE_RATE),
            _ => None,
        }
    }

    /// Returns whether the floors take part in this scenario: those without parsing, and those with
    /// parsing. They make one call at a time, so they only fit a service that answers at once.
    pub fn has_floor(self, with_parsing: bool) -> bool {
        match self {
            Self::Rate(_, 0) | Self::Flat => true,
            Self::Spans(_) => !with_parsing,
            _ => false,
        }
    }

    /// Returns the number of rounds. Each contender has one turn in each round.
    pub fn round_count(self, is_quick: bool) -> usize {
        let (full, quick) = match self {
            Self::Rate(..)
            | Self::Flat
            | Self::Spans(_)
            | Self::Offered { .. }
            | Self::Limited(_) => (3, 1),
            Self::Burst { .. } | Self::Start => (10, 3),
            Self::Throttled(_) | Self::Slowing | Self::Streams(_) => (1, 1),
            Self::Outage | Self::Idle | Self::Binary => (1, 1),
        };
        if is_quick { quick } else { full }
    }

    /// Returns two durations: the load before the measurement begins, and the measurement.
    pub fn times(self, is_quick: bool) -> (Duration, Duration) {
        let milliseconds = match (self, is_quick) {
            (Self::Rate(..=500, _), false) => (3_000, 10_000),
            (Self::Rate(..=500, _), true) => (1_500, 4_000),
            (Self::Idle, false) => (2_000, 60_000),
            (Self::Idle, true) => (2_000, 8_000),
            (Self::Outage, _) => (0, 7_000),
            (Self::Slowing, _) => (2_000, 18_000),
            (Self::Offered { multiple: None, .. }, _) => (1_000, 2_500),
            // At low rates most CPU time is for wake-ups, and this time varies more. So low rates
            // are measured for longer. A window of spans has few requests.
            (Self::Rate(..=5_000, _) | Self::Spans(_), false) => (2_000, 8_000),
            (Self::Rate(..=5_000, _) | Self::Spans(_), true) => (1_500, 4_000),
            (_, false) => (2_000, 5_000),
            (_, true) => (1_500, 2_500),
        };
        (Duration::from_millis(milliseconds.0), Duration::from_millis(milliseconds.1))
    }
}

/// Returns the order of the contenders in a round. Each round begins with a different contender.
pub fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        let of_groups = GROUPS.iter().flat_map(|(_, group)| group.iter().copied());
        for scenario in ALL.into_iter().chain(of_groups) {
            assert_eq!(Scenario::parse(&scenario.name()), Some(vec![scenario]));
        }
        for (name, group) in GROUPS {
            assert_eq!(Scenario::parse(name), Some(group.to_vec()));
        }
    }

    #[test]
    fn a_name_with_a_number_accepts_any_above_zero() {
        for (name, scenario) in [
            ("rate-7", Scenario::Rate(7, 0)),
            ("rate-7-1ms", Scenario::Rate(7, 1)),
            ("throttled-9", Scenario::Throttled(9)),
            ("streams-1", Scenario::Streams(1)),
            ("quota-5", Scenario::Limited(Limit::Quota(5))),
            ("ecs-64", Scenario::Limited(Limit::Ecs(64))),
        ] {
            assert_eq!(Scenario::parse(name), Some(vec![scenario]), "{name}");
        }
        for name in
            ["rate-0", "rate-7-0ms", "rate-7-1", "ratio", "streams-0", "quota-0", "quota-", "ecs-x"]
        {
            assert_eq!(Scenario::parse(name), None, "{name}");
        }
    }

    #[test]
    fn answers_take_time_where_the_name_says_so() {
        let delay_ms = |scenario: Scenario, second| {
            scenario.faults().delays.at(Duration::from_secs(second)).as_millis()
        };
        assert_eq!(delay_ms(Scenario::Rate(100, 0), 0), 0);
        assert_eq!(delay_ms(Scenario::Rate(100, 30), 50), 30);
        assert_eq!(
            [0, 4, 9, 10].map(|second| delay_ms(Scenario::Slowing, second)),
            [30, 2_000, 2_000, 30]
        );
        assert_eq!(Scenario::Throttled(5_000).faults().documents_per_s, Some(5_000.0));
        let (warm_up, window) = Scenario::Slowing.times(true);
        assert!(warm_up + window > Duration::from_secs(SLOWING[2].0));
    }

    #[test]
    fn in_every_round_each_has_one_turn_and_another_one_begins() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(order(1, 5).collect::<Vec<_>>(), [0]);
    }
}
