//! The machine that a number is from. Every program of `perf` includes this file.

#![allow(dead_code, reason = "each program takes the part that it needs")]

use std::fs;

/// Processor, kernel and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Processors that this process may use.
    pub processor_count: usize,
    /// What they call themselves.
    pub processor: String,
    /// The kernel's release.
    pub kernel: String,
    /// `net.core.rmem_max`, in bytes.
    pub queue_bytes_max: String,
}

impl Machine {
    /// Asks the kernel; what it does not say is empty.
    pub fn read() -> Self {
        let processors = read("/proc/cpuinfo");
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            processor_count: std::thread::available_parallelism().map_or(0, usize::from),
            processor: model.unwrap_or_default().trim_start_matches(['\t', ':', ' ']).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease"),
            queue_bytes_max: read("/proc/sys/net/core/rmem_max"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} processors ({}), Linux {}, net.core.rmem_max {}",
            self.processor_count, self.processor, self.kernel, self.queue_bytes_max
        )
    }
}

/// How busy the machine is: its load averages.
pub fn load_average() -> String {
    read("/proc/loadavg")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
