//! The pool. It owns all memory for segments that wait to be sent.
//!
//! In: requests for a chunk. Out: chunks, all of the same size. A ring holds received segments in
//! chunks, and a batch holds its request body in chunks. Every chunk returns to its [`ChunkPool`]
//! when it is dropped, so the bound on memory is exact and no chunk is lost.
//!
//! Bound: the number of chunks given to [`ChunkPool::new`]. When full: a receiver frees chunks of
//! its own ring. Before that, as soon as [`ChunkPool::is_low`] is true, the sender evicts its
//! oldest waiting batches. The last chunks are reserved for batches
//! ([`ChunkPool::take_for_batch`]). Without this reserve, receivers could take all chunks; then the
//! sender could not build a request body and could not send.
//!
//! A chunk is allocated when it is first needed. Free chunks can be returned to the system
//! ([`ChunkPool::release`]). So an idle daemon uses little memory. Thread: any; the pool is
//! lock-free.

use crate::base::sync::{ArrayQueue, AtomicUsize, Ordering};
use std::fmt;
use std::sync::Arc;

/// Size of a chunk in bytes: 16 KiB. This is the default size of an HTTP/2 frame, and four memory
/// pages of 4 KiB. About fourteen documents fit into a chunk.
///
/// The last chunk of each request body is partly empty. Larger chunks would waste more memory
/// there, which matters in an outage, when request bodies fill the memory. Smaller chunks would
/// cost more work per document.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Memory is low if there are fewer free chunks, without the reserve, than 1/32 of all chunks or
/// than [`LOW_COUNT_MIN`]. With this margin, the sender can evict batches before a receiver finds
/// no free chunk.
const LOW_PART: usize = 32;
const LOW_COUNT_MIN: usize = 8;

/// The memory of one chunk. It is mapped from the system directly (`mmap`). The allocator is not
/// used, because it keeps freed memory while an object at a higher address is alive: after a flood
/// of datagrams it kept 107 of 150 MB.
struct Buffer {
    length: usize,
    bytes: Memory,
}

#[cfg(not(fuzzing))]
type Memory = memmap2::MmapMut;

/// AddressSanitizer knows where memory of the allocator ends.
#[cfg(fuzzing)]
type Memory = Box<[u8]>;

/// Returns the memory of a chunk, or an error if the system has none left.
fn memory() -> std::io::Result<Memory> {
    #[cfg(not(fuzzing))]
    return Memory::map_anon(CHUNK_BYTES);
    #[cfg(fuzzing)]
    return Ok(vec![0; CHUNK_BYTES].into());
}

/// A chunk: a block of [`CHUNK_BYTES`] bytes, which is filled from the front. It returns to its
/// pool when it is dropped.
pub struct Chunk {
    // The memory of the chunk. `None` only while the chunk is being dropped.
    buffer: Option<Box<Buffer>>,
    pool: Arc<ChunkPool>,
}

impl Chunk {
    /// Returns the bytes of the chunk that are filled.
    pub fn filled(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer.bytes[..buffer.length])
    }

    /// Returns the free bytes of the chunk. After writing into them, call
    /// [`advance`](Self::advance).
    pub fn spare(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer.bytes[buffer.length..])
    }

    /// Marks the first `count` free bytes as filled.
    ///
    /// # Panics
    ///
    /// Panics if fewer than `count` bytes are free.
    pub fn advance(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            assert!(count <= CHUNK_BYTES - buffer.length, "a chunk was filled beyond its end");
            buffer.length += count;
        }
    }

    /// Appends `bytes` to the filled bytes.
    ///
    /// # Panics
    ///
    /// Panics if the chunk has fewer free bytes than `bytes` is long.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.spare()[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Keeps only the first `length` filled bytes.
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

/// The pool: the owner of all chunks. It has a list of the free chunks and a bound on the number of
/// all chunks.
pub struct ChunkPool {
    // The buffers are boxed, because the queue allocates a slot for every possible chunk at the
    // start. A slot with a pointer is small.
    free: ArrayQueue<Box<Buffer>>,
    made_count: AtomicUsize,
    chunk_count_max: usize,
    reserve_count: usize,
    low_count: usize,
}

impl ChunkPool {
    /// Returns a pool of at most `chunk_count_max` chunks. `reserve_count` of them are reserved for
    /// batches. No chunk is allocated yet.
    ///
    /// # Panics
    ///
    /// Panics if `chunk_count_max` is not greater than `reserve_count`.
    pub fn new(chunk_count_max: usize, reserve_count: usize) -> Arc<Self> {
        assert!(chunk_count_max > reserve_count, "receivers need chunks too");
        Arc::new(Self {
            free: ArrayQueue::new(chunk_count_max),
            made_count: AtomicUsize::new(0),
            chunk_count_max,
            reserve_count,
            low_count: Self::low_count(chunk_count_max, reserve_count),
        })
    }

    /// Returns the number of free chunks below which memory is low. Segments use the others.
    pub fn low_count(chunk_count_max: usize, reserve_count: usize) -> usize {
        reserve_count + (chunk_count_max / LOW_PART).max(LOW_COUNT_MIN)
    }

    /// Takes a chunk for received segments. Returns `None` if only the chunks that are reserved for
    /// batches are left.
    pub fn take_for_receive(self: &Arc<Self>) -> Option<Chunk> {
        if self.available() > self.reserve_count { self.take_for_batch() } else { None }
    }

    /// Takes a chunk for the request body of a batch. Returns `None` if all chunks are in use.
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
        let bytes = memory();
        if bytes.is_err() {
            // The system has no memory left. The caller gets `None`, as if all chunks were in use.
            self.made_count.fetch_sub(1, Ordering::Relaxed);
        }
        Some(Box::new(Buffer { length: 0, bytes: bytes.ok()? }))
    }

    fn put_back(&self, buffer: Box<Buffer>) {
        let pushed = self.free.push(buffer);
        debug_assert!(pushed.is_ok(), "the free list has a place for every chunk");
    }

    /// Returns the number of chunks that are allocated and not in use.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Gives the memory of up to `count` free chunks back to the system. It is allocated again when
    /// it is needed.
    pub fn release(&self, count: usize) {
        for _ in 0..count {
            let Some(buffer) = self.free.pop() else { return };
            drop(buffer);
            self.made_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns the largest number of chunks that the pool may have.
    pub fn chunk_count_max(&self) -> usize {
        self.chunk_count_max
    }

    /// Returns the number of chunks that are not in use. They may not be allocated yet.
    pub fn available(&self) -> usize {
        self.free.len() + (self.chunk_count_max - self.made_count.load(Ordering::Relaxed))
    }

    /// Returns the number of chunks in use.
    pub fn used(&self) -> usize {
        self.chunk_count_max.saturating_sub(self.available())
    }

    /// Returns whether few chunks are left, so that the sender must evict the oldest waiting batch.
    ///
    /// This becomes true before a receiver finds no free chunk. So the sender evicts the oldest
    /// segments. Otherwise a receiver would have to evict segments of its ring, which are newer.
    pub fn is_low(&self) -> bool {
        self.available() < self.low_count
    }

    /// Returns the number of chunks that are not reserved for batches.
    pub fn unreserved_count(&self) -> usize {
        self.chunk_count_max - self.reserve_count
    }

    /// Returns whether more than half of the unreserved chunks are in use. The sender then starts
    /// to evict the oldest batches to the spool. It starts this early, because the disk can be
    /// slow.
    pub fn is_half_used(&self) -> bool {
        self.available() < self.reserve_count + self.unreserved_count() / 2
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ChunkPool")
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
        let pool = ChunkPool::new(2, 0);
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
        let pool = ChunkPool::new(4, 3);
        let received = pool.take_for_receive();
        assert!(received.is_some());
        assert!(pool.take_for_receive().is_none());
        let bodies: Vec<_> = std::iter::from_fn(|| pool.take_for_batch()).collect();
        assert_eq!(bodies.len(), 3);
    }

    #[test]
    fn memory_is_half_used_and_low_at_these_counts() {
        let is_low: fn(&ChunkPool) -> bool = |pool| pool.is_low();
        let is_half_used: fn(&ChunkPool) -> bool = |pool| pool.is_half_used();
        for (is_reached, used_count) in [(is_low, 41), (is_half_used, 25)] {
            let pool = ChunkPool::new(64, 16);
            let taken: Vec<_> = (0..used_count - 1).map(|_| pool.take_for_batch()).collect();
            assert!(!is_reached(&pool));
            let last = pool.take_for_batch();
            assert!(is_reached(&pool));
            drop((taken, last));
        }
    }

    #[test]
    fn chunks_are_made_only_when_needed() {
        let pool = ChunkPool::new(1_000, 10);
        for _ in 0..if cfg!(miri) { 5 } else { 100 } {
            drop(pool.take_for_receive());
        }
        assert_eq!(pool.made_count.load(Ordering::Relaxed), 1);
        assert_eq!(pool.available(), 1_000);
    }

    #[test]
    fn threads_never_get_more_chunks_than_there_are() {
        let pool = ChunkPool::new(8, 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Miri takes a thousand times as long.
                    for _ in 0..if cfg!(miri) { 5 } else { 10_000 } {
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
