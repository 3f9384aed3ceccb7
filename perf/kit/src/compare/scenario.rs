//! The scenarios, and their durations.

use std::time::Duration;

/// Memory of a daemon in megabytes (`-m 256`), except in scenarios about small queues.
const MEMORY_MB: u64 = 256;

/// A scenario of the comparison: a kind of load, or one property of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A steady load with this many documents a second.
    Rate(u32),
    /// A load that is as fast as the sender can send.
    Flat,
    /// Many documents are sent as fast as possible, into sockets with a given buffer size.
    Burst {
        /// Number of documents.
        count: u64,
        /// Buffer of a socket in megabytes; xrayd requests an eighth of its memory as socket
        /// buffers.
        socket_mb: u64,
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
/// requested size (socket(7)).
const BURST_SMALL: Scenario = Scenario::Burst { count: 1_000, socket_mb: 1 };
const BURST_LARGE: Scenario = Scenario::Burst { count: 20_000, socket_mb: 4 };

/// All scenarios, in the order of a run.
pub const ALL: [Scenario; 12] = [
    Scenario::Binary,
    Scenario::Start,
    Scenario::Rate(100),
    Scenario::Rate(1_000),
    Scenario::Rate(4_000),
    Scenario::Rate(20_000),
    Scenario::Rate(50_000),
    Scenario::Flat,
    BURST_SMALL,
    BURST_LARGE,
    Scenario::Outage,
    Scenario::Idle,
];

impl Scenario {
    /// Returns the name in rows, in budgets and on the command line.
    pub fn name(self) -> String {
        match self {
            Self::Rate(rate) => format!("rate-{rate}"),
            Self::Flat => "flat".into(),
            Self::Burst { count, .. } => format!("burst-{count}"),
            Self::Outage => "outage".into(),
            Self::Idle => "idle".into(),
            Self::Start => "start".into(),
            Self::Binary => "binary".into(),
        }
    }

    /// Returns the scenario with this name. `rate-N` accepts any N above 0.
    pub fn parse(name: &str) -> Option<Self> {
        let rate = name.strip_prefix("rate-").and_then(|rate| rate.parse().ok());
        let rate = rate.filter(|&rate| rate > 0).map(Self::Rate);
        rate.or_else(|| ALL.into_iter().find(|scenario| scenario.name() == name))
    }

    /// Returns the memory that a daemon is configured with (`-m`), in megabytes.
    pub fn memory_mb(self) -> u64 {
        match self {
            Self::Burst { socket_mb, .. } => {
                let processor_count = std::thread::available_parallelism().map_or(1, usize::from);
                8 * socket_mb * processor_count.min(SOCKET_COUNT_MAX) as u64
            }
            _ => MEMORY_MB,
        }
    }

    /// Returns whether the two floors take part in this scenario.
    pub fn has_floor(self) -> bool {
        matches!(self, Self::Rate(_) | Self::Flat)
    }

    /// Returns the number of rounds. Each contender has one turn in each round.
    pub fn round_count(self, is_quick: bool) -> usize {
        let (full, quick) = match self {
            Self::Rate(_) | Self::Flat => (3, 1),
            Self::Burst { .. } | Self::Start => (10, 3),
            Self::Outage | Self::Idle | Self::Binary => (1, 1),
        };
        if is_quick { quick } else { full }
    }

    /// Returns two durations: the load before the measurement begins, and the measurement.
    pub fn times(self, is_quick: bool) -> (Duration, Duration) {
        let milliseconds = match (self, is_quick) {
            (Self::Rate(..=500), false) => (3_000, 10_000),
            (Self::Rate(..=500), true) => (1_500, 4_000),
            (Self::Idle, false) => (2_000, 60_000),
            (Self::Idle, true) => (2_000, 8_000),
            (Self::Outage, _) => (0, 7_000),
            // At low rates most CPU time is for wake-ups, and this time varies more. So low rates
            // are measured for longer.
            (Self::Rate(..=5_000), false) => (2_000, 8_000),
            (Self::Rate(..=5_000), true) => (1_500, 4_000),
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
        for scenario in ALL {
            assert_eq!(Scenario::parse(&scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::parse("rate-7"), Some(Scenario::Rate(7)));
        assert_eq!(Scenario::parse("rate-0"), None);
        assert_eq!(Scenario::parse("ratio"), None);
    }

    #[test]
    fn in_every_round_each_has_one_turn_and_another_one_begins() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(order(1, 5).collect::<Vec<_>>(), [0]);
    }
}
