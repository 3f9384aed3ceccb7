//! The burst and the outage of the service that fit into the memory for segments, in words.
//!
//! In: the [`Limits`]. Out: a [`Capacity`], and its text for `xray limits`. The numbers are for
//! segments of 1,000 bytes, the size of a usual segment. Thread: any. No I/O, no clock.

use crate::base::memory::{CHUNK_BYTES, ChunkPool};
use crate::pipeline::batch::DOCUMENT_COUNT_MAX;
use crate::pipeline::limits::{Limits, MEGABYTE};
use crate::pipeline::receive::burst_count;
use std::fmt;

/// Size of a segment in a request body, in bytes: 1,000 bytes of JSON, whose quotes are escaped.
/// The usual fifty fill four chunks.
const ESCAPED_BYTES: usize = 1_200;

/// Rates for which the length of an outage is shown, in segments a second.
pub const RATES: [u64; 3] = [100, 1_000, 10_000];

/// How many segments fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The memory for segments, in bytes.
    pub total_bytes: u64,
    /// Number of segments at once that fit into the queues of the sockets.
    pub burst_count: u64,
    /// Number of segments that memory holds while the service accepts none.
    pub held_count: u64,
}

impl Capacity {
    /// Returns what fits within these limits.
    pub fn of(limits: &Limits) -> Self {
        let queue_bytes = usize::try_from(limits.sockets.granted_bytes).unwrap_or(usize::MAX);
        let burst = burst_count(limits.receiver_count, limits.sockets.count, queue_bytes);
        let low_count = ChunkPool::low_count(limits.chunk_count_max, limits.batch_reserve_count);
        let chunks = limits.chunk_count_max.saturating_sub(low_count);
        let batches = chunks / (DOCUMENT_COUNT_MAX * ESCAPED_BYTES).div_ceil(CHUNK_BYTES);
        Self {
            total_bytes: limits.total_bytes,
            burst_count: burst as u64,
            held_count: (batches * DOCUMENT_COUNT_MAX) as u64,
        }
    }

    /// Returns how long memory lasts at this rate while the service accepts nothing, in words.
    pub fn outage(&self, rate: u64) -> String {
        match self.held_count / rate {
            0 => "less than a second".to_owned(),
            seconds @ ..120 => format!("{seconds} s"),
            seconds @ ..7_200 => format!("{} min", seconds / 60),
            seconds => format!("{} h", seconds / 3_600),
        }
    }
}

/// Returns a number with at most two digits that are not 0, rounded down, with commas.
pub fn rounded(number: u64) -> String {
    let unit = 10_u64.pow(number.max(1).ilog10().saturating_sub(1));
    let digits = (number / unit * unit).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Capacity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.total_bytes / MEGABYTE;
        writeln!(out, "With {megabytes} MB for segments (-m), and segments of 1 kB:\n")?;
        writeln!(out, "  Bursts of {} at once fit.", rounded(self.burst_count))?;
        let held = rounded(self.held_count);
        writeln!(out, "  An outage of the service is bridged up to {held} segments:")?;
        for rate in RATES {
            writeln!(out, "    {:<22}at {}/s", self.outage(rate), rounded(rate))?;
        }
        writeln!(out, "  A spool (--spool-path) bridges more, and restarts.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::host::{Host, QueueGrant};
    use crate::pipeline::limits::Wanted;

    /// A host with two processors and the package's `net.core.rmem_max`.
    const HOST: Host = Host {
        memory_bytes: 8 << 30,
        cgroup_limit_bytes: None,
        descriptor_count_max: 8_192,
        processor_count: 2,
        queues: QueueGrant::ANY,
    };

    fn of(buffer_size_mb: u64) -> Capacity {
        let wanted = Wanted { buffer_size_mb, concurrency_max: 256, ..Wanted::default() };
        Capacity::of(&Limits::derive(wanted, HOST))
    }

    #[test]
    fn the_table_of_sizes_in_the_documents_has_these_numbers() {
        let document = include_str!("../../docs/configuration.md");
        let row = |megabytes| {
            let capacity = of(megabytes);
            let outages = RATES.map(|rate| capacity.outage(rate)).join(" | ");
            let counts = [capacity.burst_count, capacity.held_count].map(rounded).join(" | ");
            format!("| {megabytes} | {counts} | {outages} |")
        };
        let rows = [3, 10, 25, 64, 128, 256, 1_024].map(row);
        let missing: Vec<_> = rows.iter().filter(|row| !document.contains(*row)).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:#?}");
    }

    #[test]
    fn numbers_are_rounded_down_to_two_digits() {
        for (number, text) in [
            (0, "0"),
            (7, "7"),
            (99, "99"),
            (184, "180"),
            (1_024, "1,000"),
            (13_713, "13,000"),
            (199_999, "190,000"),
            (1_250_000, "1,200,000"),
        ] {
            assert_eq!(rounded(number), text);
        }
    }

    #[test]
    fn an_outage_has_a_length_that_people_read() {
        let capacity = Capacity { total_bytes: 0, burst_count: 0, held_count: 40_000 };
        for (rate, text) in
            [(1, "11 h"), (100, "6 min"), (1_000, "40 s"), (100_000, "less than a second")]
        {
            assert_eq!(capacity.outage(rate), text);
        }
        let text = capacity.to_string();
        assert!(text.contains("40 s                  at 1,000/s"), "{text}");
    }
}
