//! The metrics of the process, with the names that Prometheus recommends for every program:
//! processor time, memory, descriptors and the time of the start.
//!
//! In: the kernel's figures about this process, read for each request. Out: descriptors and values
//! for prometheus-client. A figure that cannot be read is left out. Bound: that of [`read_text`]
//! for a file. Thread: main.

use crate::base::clock::Clock;
use crate::base::files::read_text;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs::read_dir;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The metrics of this process.
#[derive(Debug, Clone)]
pub(super) struct ProcessCollector {
    /// The host's date at the start of the process, in seconds since 1970. It is read once, because
    /// a date that changes would look like a restart.
    started_unix_seconds: f64,
}

impl ProcessCollector {
    /// Returns the metrics of a process that starts now.
    pub fn starting_now() -> Self {
        let since_epoch = Clock::host_date().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_unix_seconds: since_epoch.as_secs_f64() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = |name, help, value: &dyn EncodeMetric| {
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
        };
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        metric("cpu_seconds", "Processor time in seconds", &ConstCounter::new(cpu_seconds))?;
        let status = read_text(Path::new("/proc/self/status")).unwrap_or_default();
        for (name, help, field) in [
            ("resident_memory_bytes", "Memory in RAM, in bytes", "VmRSS:"),
            ("virtual_memory_bytes", "Address space, in bytes", "VmSize:"),
        ] {
            if let Some(bytes) = memory_bytes(&status, field) {
                metric(name, help, &ConstGauge::new(bytes))?;
            }
        }
        if let Ok(entries) = read_dir("/proc/self/fd") {
            // One of the entries is the descriptor with which the folder is read.
            let count = entries.count().saturating_sub(1) as u64;
            metric("open_fds", "Open file descriptors", &ConstGauge::new(count))?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            metric("max_fds", "Limit on open file descriptors", &ConstGauge::new(limit))?;
        }
        let help = "Time of the start, in seconds since 1970";
        metric("start_time_seconds", help, &ConstGauge::new(self.started_unix_seconds))
    }
}

/// Returns a size in the text of `/proc/self/status`, in bytes. `field` is its name, with a colon.
fn memory_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn sizes_are_read_from_the_text_of_the_kernel() {
        let status = "Name:\txray\nVmPeak:\t     12 kB\nVmRSS:\t    9180 kB\nThreads:\t7\n";
        assert_eq!(memory_bytes(status, "VmRSS:"), Some(9180 * 1024));
        assert_eq!(memory_bytes(status, "VmSize:"), None);
        assert_eq!(memory_bytes(status, "Threads:"), None);
    }
    #[test]
    fn the_figures_are_those_of_this_process() {
        let mut registry = Registry::with_prefix("process");
        registry.register_collector(Box::new(ProcessCollector::starting_now()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        let resident_bytes = value("process_resident_memory_bytes");
        assert!(
            resident_bytes > 100_000.0 && resident_bytes < value("process_virtual_memory_bytes")
        );
        // Standard input, output and error are open at least.
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_open_fds") < value("process_max_fds"));
        let now = Clock::host_date().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((value("process_start_time_seconds") - now).abs() < 600.0);
    }
}
