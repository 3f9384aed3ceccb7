//! The one owner of all memory that segments wait in.
//!
//! Segments wait in chunks of one size, in a ring first and in a request body after that. Every
//! chunk comes from one [`Pool`] and goes back to it when it is dropped, wherever that happens, so
//! the bound on memory is exact and a chunk cannot be lost.
//!
//! Bound: [`Pool::new`]'s count. When it is reached, receivers make room in their own ring, and
//! the uploader gives up its oldest waiting batches as soon as [`Pool::is_low`]. The last chunks
//! are for batches alone ([`Pool::take_for_batch`]): receivers that took all of them would leave
//! the batcher nothing to write bodies into, and nothing would ever leave.
//!
//! Chunks are made when they are first needed, and can be given back: a daemon with little to do is
//! small. Any thread may take and give; all of it is lock-free.

use crate::base::sync::{ArrayQueue, AtomicUsize, Ordering};
use memmap2::MmapMut;
use std::fmt;
use std::sync::Arc;

/// Size of a chunk in bytes: an HTTP/2 frame, four pages, about fourteen documents.
///
/// Larger chunks waste more at the end of a body, and it is bodies that fill the memory in an
/// outage; smaller ones cost more of the work that comes once a chunk.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Memory counts as low when less than this part of it is left beside the reserve, or fewer than
/// so many chunks: the time that the uploader has to make room before receivers find none.
const LOW_PART: usize = 32;
const LOW_COUNT_MIN: usize = 8;

/// Four pages of the process's own. Not of the allocator's, which does not give pages back to the
/// system while one object beyond them lives: of 150 MB after a flood it kept 107.
struct Buffer {
    length: usize,
    bytes: MmapMut,
}

/// A piece of the daemon's memory, filled from the front; it goes back to its pool when dropped.
pub struct Chunk {
    // `None` only while it is being dropped.
    buffer: Option<Box<Buffer>>,
    pool: Arc<Pool>,
}

impl Chunk {
    /// The bytes filled so far.
    pub fn filled(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.bytes[..buffer.length])
    }

    /// The bytes still free; [`advance`](Self::advance) says how many were filled.
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer.bytes[buffer.length..])
    }

    /// Counts the first `count` spare bytes as filled.
    ///
    /// # Panics
    ///
    /// When that is more than the chunk holds.
    pub fn advance(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            assert!(count <= CHUNK_BYTES - buffer.length, "a chunk was filled beyond its end");
            buffer.length += count;
        }
    }

    /// Fills in all of `bytes`.
    ///
    /// # Panics
    ///
    /// When they do not fit.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.spare()[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Forgets all but the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.length = buffer.length.min(length);
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.put_back(buffer);
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Chunk").field("length_bytes", &self.filled().len()).finish()
    }
}

/// The free list and the bound on what it hands out.
pub struct Pool {
    // In boxes: the queue has a place for every chunk there may be, made or not.
    free: ArrayQueue<Box<Buffer>>,
    made_count: AtomicUsize,
    chunk_count_max: usize,
    reserve_count: usize,
    low_count: usize,
}

impl Pool {
    /// A pool of at most `chunk_count_max` chunks, the last `reserve_count` of them for batches.
    ///
    /// # Panics
    ///
    /// When there are not more chunks than reserved ones.
    pub fn new(chunk_count_max: usize, reserve_count: usize) -> Arc<Self> {
        assert!(chunk_count_max > reserve_count, "receivers need chunks too");
        Arc::new(Self {
            free: ArrayQueue::new(chunk_count_max),
            made_count: AtomicUsize::new(0),
            chunk_count_max,
            reserve_count,
            low_count: reserve_count + (chunk_count_max / LOW_PART).max(LOW_COUNT_MIN),
        })
    }

    /// Takes a chunk for received documents; `None` when only the batches' reserve is left.
    pub fn take_for_receive(self: &Arc<Self>) -> Option<Chunk> {
        if self.available() > self.reserve_count { self.take_for_batch() } else { None }
    }

    /// Takes a chunk for the body of a batch; `None` when all are in use.
    pub fn take_for_batch(self: &Arc<Self>) -> Option<Chunk> {
        let buffer = match self.free.pop() {
            Some(mut buffer) => {
                buffer.length = 0;
                buffer
            }
            None => self.make()?,
        };
        Some(Chunk { buffer: Some(buffer), pool: Arc::clone(self) })
    }

    fn make(&self) -> Option<Box<Buffer>> {
        let below_max = |count| (count < self.chunk_count_max).then_some(count + 1);
        self.made_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_max).ok()?;
        let bytes = MmapMut::map_anon(CHUNK_BYTES);
        if bytes.is_err() {
            // The system has no memory left: as if all were in use.
            self.made_count.fetch_sub(1, Ordering::Relaxed);
        }
        Some(Box::new(Buffer { length: 0, bytes: bytes.ok()? }))
    }

    fn put_back(&self, buffer: Box<Buffer>) {
        let pushed = self.free.push(buffer);
        debug_assert!(pushed.is_ok(), "the free list has a place for every chunk");
    }

    /// Chunks that were made and are not in use.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Gives so many of the free chunks back to the system; they are made again when needed.
    pub fn release(&self, count: usize) {
        for _ in 0..count {
            let Some(buffer) = self.free.pop() else { return };
            drop(buffer);
            self.made_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Chunks in all.
    pub fn chunk_count_max(&self) -> usize {
        self.chunk_count_max
    }

    /// Chunks that can still be taken.
    pub fn available(&self) -> usize {
        self.free.len() + (self.chunk_count_max - self.made_count.load(Ordering::Relaxed))
    }

    /// Chunks in use.
    pub fn used(&self) -> usize {
        self.chunk_count_max.saturating_sub(self.available())
    }

    /// Whether so few are left that the oldest waiting batch has to give way.
    ///
    /// True a little before the receivers find nothing, so that it is the oldest data that goes,
    /// and not what happens to wait in a ring.
    pub fn is_low(&self) -> bool {
        self.available() < self.low_count
    }

    /// Chunks that are not reserved for batches.
    pub fn unreserved_count(&self) -> usize {
        self.chunk_count_max - self.reserve_count
    }

    /// Whether half of what is not reserved is in use: then a spool takes the oldest, so that
    /// there is room left while a disk is slow.
    pub fn is_half_used(&self) -> bool {
        self.available() < self.reserve_count + self.unreserved_count() / 2
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pool")
            .field("available", &self.available())
            .field("chunk_count_max", &self.chunk_count_max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_chunk_can_be_taken_again_and_is_empty() {
        let pool = Pool::new(2, 0);
        let mut first = pool.take_for_receive().unwrap();
        first.fill(b"abc");
        let second = pool.take_for_receive().unwrap();
        assert!(pool.take_for_receive().is_none());
        drop(first);
        assert_eq!(pool.available(), 1);
        assert_eq!(pool.take_for_receive().unwrap().filled(), b"");
        drop(second);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn receivers_leave_the_reserve_to_batches() {
        let pool = Pool::new(4, 3);
        let received = pool.take_for_receive();
        assert!(received.is_some());
        assert!(pool.take_for_receive().is_none());
        let bodies: Vec<_> = std::iter::from_fn(|| pool.take_for_batch()).collect();
        assert_eq!(bodies.len(), 3);
    }

    #[test]
    fn memory_is_half_used_and_low_at_these_counts() {
        let is_low: fn(&Pool) -> bool = |pool| pool.is_low();
        let is_half_used: fn(&Pool) -> bool = |pool| pool.is_half_used();
        for (is_reached, used_count) in [(is_low, 41), (is_half_used, 25)] {
            let pool = Pool::new(64, 16);
            let taken: Vec<_> = (0..used_count - 1).map(|_| pool.take_for_batch()).collect();
            assert!(!is_reached(&pool));
            let last = pool.take_for_batch();
            assert!(is_reached(&pool));
            drop((taken, last));
        }
    }

    #[test]
    fn chunks_are_made_only_when_needed() {
        let pool = Pool::new(1_000, 10);
        for _ in 0..100 {
            drop(pool.take_for_receive());
        }
        assert_eq!(pool.made_count.load(Ordering::Relaxed), 1);
        assert_eq!(pool.available(), 1_000);
    }

    #[test]
    fn threads_never_get_more_chunks_than_there_are() {
        let pool = Pool::new(8, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let held: Vec<_> = (0..3).filter_map(|_| pool.take_for_batch()).collect();
                        assert!(pool.made_count.load(Ordering::Relaxed) <= 8);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(pool.available(), 8);
    }
}
