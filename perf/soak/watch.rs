//! One look a second at the daemon from outside.

use super::daemon::{Daemon, Resident};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What was seen at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the faults began.
    pub time: Duration,
    /// The fault in force.
    pub fault_name: &'static str,
    /// Memory of the process.
    pub resident: Resident,
    /// CPU time by thread.
    pub cpu_times: HashMap<String, Duration>,
    /// Everything under `/metrics`.
    pub metrics: HashMap<String, f64>,
}

impl Sample {
    /// Looks now; `start` is when the faults began.
    pub fn take(daemon: &Daemon, start: Instant, fault_name: &'static str) -> Self {
        Self {
            time: start.elapsed(),
            fault_name,
            resident: daemon.resident(),
            cpu_times: daemon.cpu_times(),
            metrics: daemon.metrics().unwrap_or_default(),
        }
    }

    /// The sum of a metric's values over its labels; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let is_it = |found: &str| found.split('{').next() == Some(name);
        self.metrics.iter().filter(|(found, _)| is_it(found)).map(|(_, value)| value).sum()
    }

    /// Segments held; `None` when the daemon did not say.
    pub fn held_count(&self) -> Option<f64> {
        self.metrics.get("xray_segments_held").copied()
    }

    /// CPU time of all threads.
    pub fn cpu_time(&self) -> Duration {
        self.cpu_times.values().sum()
    }
}

/// The median.
pub fn median(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
