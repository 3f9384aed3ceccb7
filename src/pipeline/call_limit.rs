//! How many calls may be in flight at most, and what they take of the memory.
//!
//! In: the operator's settings, and the memory that is left for chunks and calls. Out: a
//! [`CallLimit`]. Bound: half of the pool for the batches in calls, an eighth of that memory for
//! their connections. Thread: the main thread, once, at the start.
//!
//! A call beyond the first ones has a share of the memory for its connection. The first ones have
//! none: like the code and the threads, they belong to every daemon.

use crate::base::memory::CHUNK_BYTES;
use crate::pipeline::batch::DOCUMENT_COUNT_MAX;
use std::fmt;

/// The number of calls in flight that is allowed at first, as in the original daemon. Slow answers
/// take none of them.
pub const COUNT_FIRST: usize = 8;

/// The memory of a call beside its batch, in bytes. The most of it is the connection of a call over
/// HTTP/1.1: buffers of TLS for a record of 16 KiB and of HTTP for a header, the state of both, and
/// the request's headers. A call over HTTP/2 is a stream and takes less.
pub const CALL_BYTES: u64 = 32 * 1024;

/// The chunks of a usual batch: 50 documents of 1,000 bytes, 60 kB.
const USUAL_BATCH_CHUNK_COUNT: usize = 4;

/// The times of an answer, in milliseconds, for which `xray limits` shows what the calls carry.
const ANSWER_MILLISECONDS: [usize; 3] = [10, 30, 100];

/// How many calls may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallLimit {
    /// This many calls, as the operator has set it.
    Fixed(usize),
    /// As many as prove useful.
    Adaptive {
        /// The largest number of calls.
        count_max: usize,
        /// The largest memory of the batches in calls, in bytes, for more than [`COUNT_FIRST`]
        /// calls.
        bytes_max: usize,
    },
}

impl CallLimit {
    /// Returns how many calls beyond the first ones get memory for their connections, if the
    /// operator allows `count_max` calls, and chunks and connections together may take `bytes`.
    /// `bytes_min` of them are for chunks.
    pub(super) fn more_calls(
        count_max: usize,
        bytes: u64,
        bytes_min: u64,
        descriptor_count_max: u64,
    ) -> usize {
        let of_memory = (bytes / 8).min(bytes.saturating_sub(bytes_min)) / CALL_BYTES;
        let of_descriptors = (descriptor_count_max / 4).saturating_sub(COUNT_FIRST as u64);
        let more = usize::try_from(of_memory.min(of_descriptors)).unwrap_or(usize::MAX);
        more.min(count_max.saturating_sub(COUNT_FIRST))
    }

    /// Returns a limit that adapts: at most `count_max` calls, at most `more_calls` of them beyond
    /// the first ones, and half of a pool of `chunk_count` chunks.
    pub(super) fn adaptive(count_max: usize, more_calls: usize, chunk_count: usize) -> Self {
        let of_pool = (chunk_count / 2 / USUAL_BATCH_CHUNK_COUNT).max(COUNT_FIRST);
        let count_max = count_max.min(of_pool).min(COUNT_FIRST + more_calls).max(1);
        Self::Adaptive { count_max, bytes_max: chunk_count / 2 * CHUNK_BYTES }
    }

    /// Returns the largest number of calls in flight.
    pub fn count_max(self) -> usize {
        match self {
            Self::Fixed(count) | Self::Adaptive { count_max: count, .. } => count,
        }
    }

    /// Returns the number of calls whose connections have a share of the memory.
    pub fn counted(self) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::Adaptive { count_max, .. } => count_max.saturating_sub(COUNT_FIRST) as u64,
        }
    }
}

/// Formats the lines of `xray limits`.
impl fmt::Display for CallLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count_max();
        writeln!(out, "{:<44}{count:>8}", "calls in flight at most")?;
        for milliseconds in ANSWER_MILLISECONDS {
            let carried = count * DOCUMENT_COUNT_MAX * 1_000 / milliseconds;
            let name = format!("segments/s with answers after {milliseconds} ms");
            writeln!(out, "{name:<44}{carried:>8}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::host::{Host, QueueGrant};
    use crate::pipeline::limits::{Limits, Wanted};

    const HOST: Host = Host {
        memory_bytes: 24 << 30,
        cgroup_limit_bytes: None,
        descriptor_count_max: 1024,
        processor_count: 4,
        queues: QueueGrant::ANY,
    };

    fn derive(buffer_size_mb: u64, host: Host) -> Limits {
        let wanted = Wanted { concurrency_max: 256, receiver_count: 1, ..Wanted::default() };
        Limits::derive(Wanted { buffer_size_mb, ..wanted }, host)
    }

    #[test]
    fn memory_and_descriptors_bound_the_calls_and_the_first_ones_are_always_allowed() {
        let counts = [3, 10, 64, 256].map(|mb| derive(mb, HOST).call_limit.count_max());
        assert_eq!(counts[0], COUNT_FIRST);
        assert!(counts[1] >= 20 && counts[1] < counts[2], "{counts:?}");
        assert!(counts[2] >= 100 && counts[3] == 256, "{counts:?}");
        let few = Host { descriptor_count_max: 128, ..HOST };
        assert_eq!(derive(256, few).call_limit.count_max(), 32);
        // The usual batches of all calls leave room in the pool.
        for megabytes in [10, 64, 256] {
            let limits = derive(megabytes, HOST);
            let batches = limits.call_limit.count_max() * USUAL_BATCH_CHUNK_COUNT;
            let left = limits.chunk_count_max - limits.batch_reserve_count;
            assert!(batches <= left * 3 / 5, "{limits:?}");
        }
    }

    #[test]
    fn a_number_of_calls_that_the_operator_sets_is_fixed_and_takes_no_memory() {
        let wanted = Wanted { buffer_size_mb: 10, concurrency: 500, ..Wanted::default() };
        let limits = Limits::derive(wanted, HOST);
        assert_eq!((limits.call_limit, limits.call_limit.counted()), (CallLimit::Fixed(500), 0));
        let wanted = Wanted { concurrency: 0, concurrency_max: 4, ..wanted };
        let adaptive = Limits::derive(wanted, HOST);
        assert_eq!(adaptive.call_limit.count_max(), 4);
        assert_eq!(limits.chunk_count_max, adaptive.chunk_count_max);
    }

    #[test]
    fn the_table_says_what_the_calls_carry() {
        let table = derive(256, HOST).to_string();
        for line in ["in flight at most  256", "after 30 ms  426666", "after 100 ms  128000"] {
            let words: Vec<_> = line.split("  ").collect();
            let is_found = table.lines().any(|line| {
                line.contains(words[0]) && line.split_whitespace().last() == Some(words[1])
            });
            assert!(is_found, "{line} is not in\n{table}");
        }
    }
}
