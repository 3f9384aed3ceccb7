//! Samples the daemon from outside, once a second.

use super::daemon::{Daemon, Resident};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The values of the daemon at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Time since the faults began.
    pub time: Duration,
    /// Name of the current fault.
    pub fault_name: &'static str,
    /// Resident memory of the daemon.
    pub resident: Resident,
    /// CPU time by thread name.
    pub cpu_times: HashMap<String, Duration>,
    /// All metrics of `/metrics`.
    pub metrics: HashMap<String, f64>,
}

impl Sample {
    /// Takes a sample. `start` is the time at which the faults began.
    pub fn take(daemon: &Daemon, start: Instant, fault_name: &'static str) -> Self {
        Self {
            time: start.elapsed(),
            fault_name,
            resident: daemon.resident(),
            cpu_times: daemon.cpu_times(),
            metrics: daemon.metrics().unwrap_or_default(),
        }
    }

    /// Returns the sum of a metric over its labels, or 0 if the metric is absent.
    pub fn metric(&self, name: &str) -> f64 {
        let is_it = |found: &str| found.split('{').next() == Some(name);
        self.metrics.iter().filter(|(found, _)| is_it(found)).map(|(_, value)| value).sum()
    }

    /// Returns the number of held segments, or `None` if the metric is absent.
    pub fn held_count(&self) -> Option<f64> {
        self.metrics.get("xray_segments_held").copied()
    }

    /// Returns the CPU time of all threads.
    pub fn cpu_time(&self) -> Duration {
        self.cpu_times.values().sum()
    }
}

/// Returns the median of `numbers`.
pub fn median(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
