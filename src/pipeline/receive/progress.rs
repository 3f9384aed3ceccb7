//! The datagrams taken out of one socket, and which of the kernel's drops are reported.
//!
//! In: the counts of a receiver. Out: the same counts, also for other threads. It belongs to the
//! socket, so that it stays when a backend fails. Thread: only the receiver's thread writes it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The counts of one socket.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that the datagrams taken so far have taken up in the queue, at least.
    taken_bytes: AtomicU64,
    /// Value of `taken_bytes` when the kernel was last asked for drops.
    asked_at_bytes: AtomicU64,
    /// Number of drops reported so far, modulo 2^32 as in the kernel's count.
    reported: AtomicU32,
}

impl Progress {
    /// Returns a number that grows with each datagram that is taken.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    /// Adds what a read took.
    pub fn add(&self, bytes: u64) {
        // No other thread writes, so this needs no atomic addition.
        self.taken_bytes.store(self.taken_bytes() + bytes, Ordering::Relaxed);
    }

    /// Returns the bytes taken since the kernel was last asked for drops.
    pub fn unasked_bytes(&self) -> u64 {
        self.taken_bytes() - self.asked_at_bytes.load(Ordering::Relaxed)
    }

    /// Notes the kernel's answer: `count` drops since the socket was opened, modulo 2^32. Returns
    /// how many of them are new.
    pub fn asked(&self, count: u32) -> u32 {
        self.asked_at_bytes.store(self.taken_bytes(), Ordering::Relaxed);
        count.wrapping_sub(self.reported.swap(count, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drop_is_new_once_also_where_the_count_begins_anew() {
        let progress = Progress::default();
        for (bytes, unasked_bytes) in [(10, 10), (5, 15)] {
            progress.add(bytes);
            assert_eq!(progress.unasked_bytes(), unasked_bytes);
        }
        assert_eq!(progress.asked(u32::MAX), u32::MAX);
        progress.add(1);
        assert_eq!(progress.unasked_bytes(), 1);
        assert_eq!([progress.asked(2), progress.asked(2)], [3, 0]);
        assert_eq!(progress.taken_bytes(), 16);
    }
}
