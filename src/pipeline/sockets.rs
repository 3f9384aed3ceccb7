//! How many sockets each receiver has, and how large a queue each socket asks for.
//!
//! In: the setting (`Receive.Sockets`), the share of `-m` for the queues, the queues that the
//! kernel grants, the descriptors. Out: [`Sockets`]. Bound: all sockets of a receiver together have
//! queues of its share, except that one socket has the smallest queue at least. No I/O.
//!
//! The kernel bounds the queue of a socket (`net.core.rmem_max`), but not the number of sockets.
//! With the kernel's default a queue holds 184 segments of 1 kB. Where so little is granted,
//! several sockets for each receiver use up the share. Where a large queue is granted, one socket
//! is enough: it needs fewer calls, and io_uring can receive from it.

use crate::base::host::{Host, QueueGrant, SOCKET_QUEUE_BYTES_MAX, SOCKET_QUEUE_BYTES_MIN};

/// The largest number of sockets of a receiver. `Receive.Sockets` has the same bound.
pub const SOCKET_COUNT_MAX: usize = 256;

/// The largest number of sockets of a receiver if the operator sets no number. 128 sockets kept
/// 19,986 of 20,000 datagrams at once, each in a queue of 425,984 bytes.
const SOCKET_COUNT_AUTO_MAX: usize = 128;

/// From this size on, a granted queue counts as large, in bytes with the kernel's overhead. Chosen,
/// not measured: it holds 1,820 segments of 1 kB, so a burst of 1,000 fits into one queue.
const LARGE_QUEUE_BYTES: u64 = 4 << 20;

/// From this memory on, in bytes, small queues get a third of it. Less memory needs the rest for
/// segments: 3 MB have room for 16 chunks beyond the reserve only with a quarter.
const THIRD_FROM_BYTES: u64 = 8 << 20;

/// The share of the descriptors that all sockets together may take: 3 of 16. The TCP port, its
/// calls and the uploads take three quarters at most.
const DESCRIPTOR_SHARE: (u64, u64) = (3, 16);

/// How many sockets each receiver is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SocketWish {
    /// One where the kernel grants a large queue, else several.
    #[default]
    Automatic,
    /// One, because the backend receives from one.
    One,
    /// So many, as far as memory and descriptors allow.
    Count(usize),
}

/// The sockets of each receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// The number of sockets.
    pub count: usize,
    /// The size to ask for the queue of each socket in bytes, without the kernel's overhead.
    pub queue_bytes: usize,
    /// The size that the kernel grants to the queue of each socket in bytes, with its overhead.
    pub granted_bytes: u64,
}

impl Sockets {
    /// Returns the part of `memory_bytes` that the queues of all receivers get, with the kernel's
    /// overhead: a quarter. Where the kernel grants small queues it is a third, from
    /// [`THIRD_FROM_BYTES`] on. Of several queues the first is full while others still have room,
    /// so a burst needs more of them: of 1,000 segments of 1 kB, the queues of a quarter of 10 MB
    /// kept all in eight bursts of ten, and 989 in two.
    pub fn share_bytes(memory_bytes: u64, queues: QueueGrant) -> u64 {
        let is_third = queues.most_bytes < LARGE_QUEUE_BYTES && memory_bytes >= THIRD_FROM_BYTES;
        memory_bytes / if is_third { 3 } else { 4 }
    }

    /// Derives the sockets of each of `receiver_count` receivers. Each has `share_bytes` for its
    /// queues, with the kernel's overhead.
    pub fn derive(wish: SocketWish, share_bytes: u64, receiver_count: u64, host: Host) -> Self {
        let (least_bytes, most_bytes) = (host.queues.least_bytes.max(1), host.queues.most_bytes);
        let descriptor_count = host.descriptor_count_max / DESCRIPTOR_SHARE.1 * DESCRIPTOR_SHARE.0;
        let count_max = (share_bytes / least_bytes).min(descriptor_count / receiver_count.max(1));
        let count = match wish {
            SocketWish::One => 1,
            SocketWish::Count(count) => count_max.min(count as u64),
            SocketWish::Automatic if most_bytes >= LARGE_QUEUE_BYTES.min(share_bytes) => 1,
            SocketWish::Automatic => share_bytes
                .div_ceil(most_bytes.max(1))
                .min(count_max)
                .min(SOCKET_COUNT_AUTO_MAX as u64),
        };
        let count = count.clamp(1, SOCKET_COUNT_MAX as u64);
        let queue_bytes = usize::try_from(share_bytes / count / 2).unwrap_or(usize::MAX);
        let queue_bytes = queue_bytes.clamp(SOCKET_QUEUE_BYTES_MIN, SOCKET_QUEUE_BYTES_MAX);
        let granted_bytes = (2 * queue_bytes as u64).min(most_bytes).max(least_bytes);
        let count = usize::try_from(count).unwrap_or(SOCKET_COUNT_MAX);
        Self { count, queue_bytes, granted_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grant of the kernel with `net.core.rmem_max` at its default of 212,992 bytes.
    const DEFAULT: QueueGrant = QueueGrant { least_bytes: 131_072, most_bytes: 425_984 };
    /// The grant of the kernel if a process may not ask at all.
    const FIXED: QueueGrant = QueueGrant { least_bytes: 212_992, most_bytes: 212_992 };
    const MB: u64 = 1 << 20;

    fn derive(
        wish: SocketWish,
        share: u64,
        receivers: u64,
        files: u64,
        queues: QueueGrant,
    ) -> Sockets {
        let host = Host {
            memory_bytes: 24 << 30,
            cgroup_limit_bytes: None,
            descriptor_count_max: files,
            processor_count: 2,
            queues,
        };
        Sockets::derive(wish, share, receivers, host)
    }

    #[test]
    fn small_queues_are_as_many_as_fit_into_the_share_and_a_large_one_is_alone() {
        use SocketWish::{Automatic, Count, One};
        let large = QueueGrant { most_bytes: LARGE_QUEUE_BYTES, ..DEFAULT };
        let small = QueueGrant { most_bytes: LARGE_QUEUE_BYTES - 1, ..DEFAULT };
        for (wish, share, receivers, files, queues, count, granted) in [
            // A quarter of -m 10 and of -m 192 for two receivers.
            (Automatic, 10 * MB / 8, 2, 1024, DEFAULT, 4, 327_680),
            (Automatic, 192 * MB / 8, 2, 1024, DEFAULT, 60, 419_430),
            (Automatic, 10 * MB / 4, 1, 1024, DEFAULT, 7, 374_490),
            // One receiver more than there are whole queues.
            (Automatic, 10 * MB / 16, 4, 1024, DEFAULT, 2, 327_680),
            (Automatic, 425_984, 1, 1024, DEFAULT, 1, 425_984),
            (Automatic, 425_986, 1, 1024, DEFAULT, 2, 212_992),
            // A process that may not ask.
            (Automatic, 10 * MB / 8, 2, 1024, FIXED, 6, 212_992),
            // Privileges, or a large limit.
            (Automatic, 192 * MB / 8, 2, 1024, QueueGrant::ANY, 1, 192 * MB / 8),
            (Automatic, 1024 * MB, 1, 1024, QueueGrant::ANY, 1, 64 * MB),
            (Automatic, 192 * MB / 8, 2, 1024, large, 1, LARGE_QUEUE_BYTES),
            (Automatic, 192 * MB / 8, 2, 1024, small, 7, 3_595_116),
            // The bounds of descriptors and of the daemon.
            (Automatic, 192 * MB / 8, 2, 64, DEFAULT, 6, 425_984),
            (Automatic, 192 * MB / 8, 2, 8, DEFAULT, 1, 425_984),
            (Automatic, 1024 * MB, 1, 1 << 20, DEFAULT, 128, 425_984),
            // The wish of the operator, and the need of another backend.
            (Count(16), 192 * MB / 8, 2, 1024, QueueGrant::ANY, 16, 1_572_864),
            (Count(16), 10 * MB / 8, 2, 1024, DEFAULT, 10, 131_072),
            (Count(1), 192 * MB / 8, 2, 1024, DEFAULT, 1, 425_984),
            (Count(256), 1024 * MB, 1, 1 << 20, DEFAULT, 256, 425_984),
            (One, 192 * MB / 8, 2, 1024, DEFAULT, 1, 425_984),
        ] {
            let sockets = derive(wish, share, receivers, files, queues);
            let found = (sockets.count, sockets.granted_bytes);
            assert_eq!(found, (count, granted), "{wish:?} {share} {receivers} {files} {queues:?}");
            let all_bytes = sockets.count as u64 * sockets.granted_bytes;
            assert!(all_bytes <= share || sockets.count == 1, "{all_bytes} of {share}");
        }
    }
}
