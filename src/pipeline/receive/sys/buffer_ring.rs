//! Receive buffers in a ring that is shared with the kernel (`IORING_REGISTER_PBUF_RING`).
//!
//! The kernel takes a buffer from the front of the ring for each datagram and names it in the
//! completion; it is put back at the end. The tail is published once for all buffers of a drain.

use io_uring::types::BufRingEntry;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ring has to begin on a page, and pages are this large at least.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Buffers of one size, and the ring that offers them to the kernel.
pub struct BufferRing {
    ring: Box<[Page]>,
    buffers: Vec<u8>,
    buffer_bytes: usize,
    buffer_count: u16,
    tail: u16,
    /// Buffers that the kernel has filled and that were not put back yet.
    out_count: u16,
}

impl BufferRing {
    /// Makes `buffer_count` buffers, a power of two, of `buffer_bytes` each; all are offered.
    ///
    /// Pages that no datagram reaches are never touched and cost no memory.
    ///
    /// # Panics
    ///
    /// When the count is no power of two or beyond 32,768.
    pub fn new(buffer_count: u16, buffer_bytes: usize) -> Self {
        assert!(buffer_count.is_power_of_two(), "{buffer_count} buffers are no power of two");
        let ring_bytes = usize::from(buffer_count) * size_of::<BufRingEntry>();
        let page_count = ring_bytes.div_ceil(size_of::<Page>());
        let ring = (0..page_count).map(|_| Page([0; 4096])).collect();
        let buffers = vec![0; usize::from(buffer_count) * buffer_bytes];
        let mut this = Self { ring, buffers, buffer_bytes, buffer_count, tail: 0, out_count: 0 };
        (0..buffer_count).for_each(|id| this.offer(id));
        this.publish();
        this
    }

    /// Number of buffers.
    pub fn buffer_count(&self) -> u16 {
        self.buffer_count
    }

    /// Buffers that are filled and not put back.
    pub fn out_count(&self) -> u16 {
        self.out_count
    }

    /// Where the ring begins, for its registration.
    ///
    /// The kernel may use ring and buffers from the registration until its end is confirmed, so
    /// whoever registers has to keep this value for as long.
    pub fn address(&self) -> u64 {
        self.ring.as_ptr() as u64
    }

    /// Notes that the kernel has filled a buffer.
    pub fn note_filled(&mut self) {
        self.out_count += 1;
    }

    /// The first `length` bytes of a buffer that the kernel has filled.
    pub fn filled(&self, id: u16, length: usize) -> &[u8] {
        let start = usize::from(id) * self.buffer_bytes;
        &self.buffers[start..start + length.min(self.buffer_bytes)]
    }

    /// Puts filled buffers back, all of them at once.
    pub fn give_back(&mut self, ids: impl Iterator<Item = u16>) {
        for id in ids {
            self.offer(id);
            self.out_count -= 1;
        }
        self.publish();
    }

    /// Writes the entry behind the last one; the kernel sees it when it is published.
    fn offer(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.buffer_count - 1));
        let address = self.buffers[usize::from(id) * self.buffer_bytes..].as_ptr() as u64;
        // SAFETY: the ring has `buffer_count` entries in whole, aligned, initialised pages, and
        // `index` is below that. The kernel does not read entries from the published tail on.
        // JUSTIFICATION: the layout is the kernel's; there is no safe type for it.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(index) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all entries written so far.
    fn publish(&mut self) {
        // SAFETY: the tail lies within the first entry, in a field that `offer` does not write;
        // it is aligned, and only ever accessed as an atomic while the kernel knows the ring.
        // JUSTIFICATION: the kernel reads the tail at any time; this is its protocol.
        let tail = unsafe {
            let base = self.ring.as_mut_ptr().cast::<BufRingEntry>();
            AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }
}

impl std::fmt::Debug for BufferRing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("BufferRing")
            .field("buffer_count", &self.buffer_count)
            .field("out_count", &self.out_count)
            .finish_non_exhaustive()
    }
}
