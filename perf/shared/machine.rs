//! Describes the machine on which a measurement ran. Several programs of `perf` include this file.

#![allow(dead_code, reason = "each program uses only a part")]

use std::fs;

/// The processors, the kernel and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Number of processors that this process may use.
    pub processor_count: usize,
    /// Model name of the processors.
    pub processor: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Value of `net.core.rmem_max`, in bytes.
    pub queue_bytes_max: String,
}

impl Machine {
    /// Reads the description from the kernel. A value that cannot be read is empty.
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

/// Returns the load averages of the machine.
pub fn load_average() -> String {
    read("/proc/loadavg")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
