//! All memory that segments may take, worked out once, before the start.
//!
//! In: the size that the operator allows (`-m`, `TotalBufferSizeMB`) or, without one, the size of
//! the machine and of its cgroup. Out: [`Limits`], one number for each holder of memory. Nothing
//! else in the daemon decides how much it may hold.

use crate::escape;
use crate::memory::CHUNK_BYTES;

/// One megabyte, as `-m` counts them.
pub const MEGABYTE: u64 = 1024 * 1024;

/// The least that the daemon works with, and what it takes on the smallest machines.
pub const TOTAL_BYTES_MIN: u64 = 3 * MEGABYTE;

/// A receive slot holds the largest datagram (65,507 bytes), so none is ever cut off.
pub const RECEIVE_SLOT_BYTES: usize = 64 * 1024;

/// Datagrams that one system call takes at most.
const RECEIVE_SLOT_COUNT_MAX: usize = 64;

/// Open batches at most.
pub const LANE_COUNT_MAX: usize = 16;

/// Chunks that a document takes at most when it is escaped: all of a datagram, sixfold.
const ESCAPED_DOCUMENT_CHUNK_COUNT_MAX: usize =
    (RECEIVE_SLOT_BYTES * escape::EXPANSION_MAX).div_ceil(CHUNK_BYTES - 8);

/// What the parser of one receiver takes: a copy of the document, simd-json's copy of it, the
/// places of its structural characters, and a tape as long as is kept from one to the next.
const PARSER_BYTES: u64 = 512 * 1024;

/// What the pool notes beside each chunk: its place in the free list.
const CHUNK_OVERHEAD_BYTES: u64 = 64;

/// How much memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Hard limit of the cgroup that the daemon runs in, if it has one.
    pub cgroup_limit_bytes: Option<u64>,
}

impl Host {
    /// Asks the kernel.
    pub fn read() -> Self {
        let info = rustix::system::sysinfo();
        let memory_bytes = info.totalram * u64::from(info.mem_unit);
        let cgroup_limit_bytes =
            ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
                .into_iter()
                .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
                .find(|&limit| limit < memory_bytes);
        Self { memory_bytes, cgroup_limit_bytes }
    }

    /// 1 % of the machine, or 10 % of the cgroup's limit where that is less.
    fn default_total_bytes(self) -> u64 {
        let of_machine = self.memory_bytes / 100;
        let of_cgroup = self.cgroup_limit_bytes.map_or(u64::MAX, |limit| limit / 10);
        of_machine.min(of_cgroup).max(TOTAL_BYTES_MIN)
    }
}

/// How much each holder may hold. Together they are at most `total_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The whole.
    pub total_bytes: u64,
    /// Threads that receive, each with a socket, slots, a parser and a ring of its own.
    pub receiver_count: usize,
    /// Receive slots of each receiver.
    pub receive_slot_count: usize,
    /// Bytes of queue asked of the kernel for each receiver's socket.
    pub socket_queue_bytes: usize,
    /// Chunks of the pool: rings, open batches, waiting batches and bodies in flight share them.
    pub chunk_count_max: usize,
    /// Chunks that receivers leave to batches.
    pub batch_reserve_count: usize,
    /// Chunks that must be free before a parcel is taken out of a ring, so that all of its
    /// segments find room in batches.
    pub parcel_room_count: usize,
    /// Full parcels that a ring takes.
    pub ring_parcel_count_max: usize,
    /// Bytes of a request body; a larger single document goes alone.
    pub body_bytes_max: usize,
    /// Open batches at most.
    pub lane_count_max: usize,
}

impl Limits {
    /// Derives every limit from the operator's size in megabytes; 0 is automatic.
    pub fn derive(buffer_size_mb: u64, host: Host) -> Self {
        let total_bytes = match buffer_size_mb {
            0 => host.default_total_bytes(),
            megabytes => megabytes.saturating_mul(MEGABYTE).max(TOTAL_BYTES_MIN),
        };
        let receiver_count = 1;
        let receivers = receiver_count as u64;

        // An eighth for the slots, sixty-four at most: a larger system call saves nothing more.
        let slots = total_bytes / 8 / RECEIVE_SLOT_BYTES as u64 / receivers;
        let receive_slot_count = clamp(slots, 4, RECEIVE_SLOT_COUNT_MAX);
        // A quarter for the kernel's queues, where a burst waits; 4 MB hold about 1,800 segments.
        // The kernel counts twice what is asked for, for its own overhead.
        let queue = total_bytes / 4 / receivers / 2;
        let socket_queue_bytes = clamp(queue, 64 * 1024, 4 * 1024 * 1024);

        let taken = receivers
            * ((receive_slot_count * RECEIVE_SLOT_BYTES) as u64
                + 2 * socket_queue_bytes as u64
                + PARSER_BYTES);
        // The rest is chunks; a sixteenth of a terabyte is more than any queue is built for.
        let chunks =
            total_bytes.saturating_sub(taken) / (CHUNK_BYTES as u64 + CHUNK_OVERHEAD_BYTES);
        let chunk_count_max = clamp(chunks, 64, 1 << 22);

        let lane_count_max = (chunk_count_max / 16).clamp(1, LANE_COUNT_MAX);
        // A parcel can make every lane begin a chunk.
        let parcel_room_count = ESCAPED_DOCUMENT_CHUNK_COUNT_MAX + lane_count_max;

        Self {
            total_bytes,
            receiver_count,
            receive_slot_count,
            socket_queue_bytes,
            chunk_count_max,
            // Enough for eight calls in flight and the lanes at the usual document size.
            batch_reserve_count: (chunk_count_max / 3).min(256).max(parcel_room_count),
            parcel_room_count,
            // A ring is a hand-over and not a store; 2,048 parcels are about 30,000 segments.
            ring_parcel_count_max: chunk_count_max.min(2048),
            // Fifty usual documents are 60 kB. A sixteenth keeps one body from filling all.
            body_bytes_max: clamp(total_bytes / 16, 128 * 1024, 1024 * 1024),
            lane_count_max,
        }
    }
}

fn clamp(value: u64, low: usize, high: usize) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { memory_bytes: 24 << 30, cgroup_limit_bytes: None };

    fn sum_bytes(limits: Limits) -> u64 {
        let receiver = (limits.receive_slot_count * RECEIVE_SLOT_BYTES) as u64
            + 2 * limits.socket_queue_bytes as u64
            + PARSER_BYTES;
        let chunk = CHUNK_BYTES as u64 + CHUNK_OVERHEAD_BYTES;
        limits.receiver_count as u64 * receiver + limits.chunk_count_max as u64 * chunk
    }

    #[test]
    fn the_holders_together_stay_within_the_total() {
        for megabytes in [3, 4, 10, 64, 256, 4096] {
            let limits = Limits::derive(megabytes, HOST);
            assert_eq!(limits.total_bytes, megabytes * MEGABYTE);
            assert!(sum_bytes(limits) <= limits.total_bytes, "{megabytes} MB: {limits:?}");
            assert!(sum_bytes(limits) > limits.total_bytes * 9 / 10, "{megabytes} MB: {limits:?}");
            assert!(limits.chunk_count_max > limits.batch_reserve_count + 16, "{limits:?}");
            assert!(limits.batch_reserve_count >= limits.parcel_room_count, "{limits:?}");
        }
    }

    #[test]
    fn the_default_is_a_hundredth_of_the_machine_or_a_tenth_of_the_cgroup() {
        assert_eq!(Limits::derive(0, HOST).total_bytes, (24 << 30) / 100);
        let sidecar = Host { cgroup_limit_bytes: Some(256 * MEGABYTE), ..HOST };
        assert_eq!(Limits::derive(0, sidecar).total_bytes, 256 * MEGABYTE / 10);
        let small = Host { memory_bytes: 100 * MEGABYTE, cgroup_limit_bytes: None };
        assert_eq!(Limits::derive(0, small).total_bytes, TOTAL_BYTES_MIN);
    }

    #[test]
    fn a_size_beyond_all_memory_is_no_overflow() {
        let limits = Limits::derive(u64::MAX, HOST);
        assert_eq!(limits.chunk_count_max, 1 << 22);
    }
}
