//! How many datagrams fit into the queues of a receiver.
//!
//! In: the number of its sockets and the size of the queue of each. Out: a [`Room`]. No I/O.
//!
//! The kernel gives each datagram to one of the sockets, chosen by a random number. So of a burst
//! one queue gets more than another: of N datagrams over K queues each gets N/K, with a standard
//! deviation of the square root of N/K. The first full queue loses a datagram although others have
//! room. Therefore the room is not the sum of the queues, but what leaves four standard deviations
//! in each queue.

/// Bytes that the kernel charges to a queue for a datagram of 1,000 bytes, with its own structures.
///
/// Measured: a queue of 2,097,152 bytes took 910 datagrams (commit 77eaf08), one of 212,992 bytes
/// takes 92 (`perf/README.md`, "Confined").
pub(super) const QUEUE_BYTES_PER_DATAGRAM: usize = 2304;

/// Number of standard deviations of the random spread for which each queue has room. One queue in
/// 30,000 then gets more than it holds.
const DEVIATION_COUNT: f64 = 4.0;

/// The room in the queues of one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Number of datagrams of 1,000 bytes that all queues hold together, if each is full.
    pub sum_count: usize,
    /// Number of datagrams of 1,000 bytes that fit in spite of the random spread.
    pub datagram_count: usize,
}

impl Room {
    /// Returns the room in `socket_count` queues of `queue_bytes` each.
    pub fn of(socket_count: usize, queue_bytes: usize) -> Self {
        let each = queue_bytes / QUEUE_BYTES_PER_DATAGRAM;
        let sum_count = each * socket_count;
        if socket_count <= 1 {
            // There is nothing to spread.
            return Self { sum_count, datagram_count: sum_count };
        }
        // The mean m with m + 4 sqrt(m) = each.
        let half = DEVIATION_COUNT / 2.0;
        let root = ((each as f64 + half * half).sqrt() - half).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
        let datagram_count = (root * root * socket_count as f64) as usize;
        Self { sum_count, datagram_count }
    }

    /// Returns how many datagrams a receiver may let gather: half of the sum, so that a receiver
    /// that is woken late loses none, and never more than fit in spite of the random spread.
    pub fn half(self) -> usize {
        (self.sum_count / 2).min(self.datagram_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_leaves_four_standard_deviations_in_each_queue() {
        // The number of sockets, datagrams in a queue, the room, and half of the queues.
        for (socket_count, each, expected, half) in [
            (0, 184, 0, 0),
            (1, 184, 184, 92),
            (1, 1, 1, 0),
            (2, 184, 274, 184),
            (4, 142, 406, 284),
            (6, 184, 822, 552),
            (128, 184, 17_555, 11_776),
            (160, 184, 21_944, 14_720),
            // With so small a queue the spread bounds what may gather.
            (8, 16, 48, 48),
            (8, 0, 0, 0),
        ] {
            let room = Room::of(socket_count, each * QUEUE_BYTES_PER_DATAGRAM);
            assert_eq!(
                (room.datagram_count, room.half()),
                (expected, half),
                "{socket_count} {each}"
            );
            let mean = expected as f64 / socket_count.max(1) as f64;
            let is_single = socket_count <= 1;
            assert!(is_single || mean + 4.0 * mean.sqrt() <= each as f64, "{socket_count} {each}");
        }
    }
}
