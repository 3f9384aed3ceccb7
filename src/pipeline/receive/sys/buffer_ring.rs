//! Receive buffers in a ring that is shared with the kernel (`IORING_REGISTER_PBUF_RING`,
//! io_uring_register(2)).
//!
//! In: buffers that are offered to the kernel. Out: buffers that the kernel has filled. Bound:
//! 32,768 buffers of one size. When full: the kernel ends the receive with `ENOBUFS`. Thread: the
//! receiver's.
//!
//! The kernel takes a buffer from the front of the ring for each datagram and names the buffer in
//! the completion. This side puts the buffer back at the end. It publishes the tail once for all
//! buffers that it puts back together.

use io_uring::types::BufRingEntry;
use std::sync::atomic::{AtomicU16, Ordering};

/// Memory of one page of 4,096 bytes. The kernel requires the ring to begin on a page.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Buffers of one size, and the ring through which the kernel gets them.
pub struct BufferRing {
    ring: Box<[Page]>,
    buffers: Vec<u8>,
    buffer_bytes: usize,
    buffer_count: u16,
    /// Number of entries written so far, modulo 65,536.
    tail: u16,
    /// Number of buffers that the kernel has filled and that are not put back yet.
    out_count: u16,
}

impl BufferRing {
    /// Creates `buffer_count` buffers of `buffer_bytes` each, and offers all of them.
    ///
    /// Pages of a buffer to which no datagram has been written cost no memory.
    ///
    /// # Panics
    ///
    /// Panics if `buffer_count` is not a power of two.
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

    /// Returns the number of buffers.
    pub fn buffer_count(&self) -> u16 {
        self.buffer_count
    }

    /// Returns the number of buffers that are filled and not put back.
    pub fn out_count(&self) -> u16 {
        self.out_count
    }

    /// Returns the address of the ring, for its registration.
    ///
    /// The kernel may use the ring and the buffers until it has confirmed the end of the
    /// registration. The caller must keep this value alive until then.
    pub fn address(&self) -> u64 {
        self.ring.as_ptr() as u64
    }

    /// Counts one buffer that the kernel has filled.
    pub fn note_filled(&mut self) {
        self.out_count += 1;
    }

    /// Returns the first `length` bytes of a buffer that the kernel has filled.
    ///
    /// # Panics
    ///
    /// Panics if there is no buffer `id`.
    pub fn filled(&self, id: u16, length: usize) -> &[u8] {
        let start = usize::from(id) * self.buffer_bytes;
        &self.buffers[start..start + length.min(self.buffer_bytes)]
    }

    /// Puts filled buffers back and publishes all of them at once.
    pub fn give_back(&mut self, ids: impl Iterator<Item = u16>) {
        for id in ids {
            self.offer(id);
            self.out_count -= 1;
        }
        self.publish();
    }

    /// Writes an entry for buffer `id` after the last entry. The kernel sees the new entry once it
    /// is [published](Self::publish).
    fn offer(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.buffer_count - 1));
        let address = self.buffers[usize::from(id) * self.buffer_bytes..].as_ptr() as u64;
        // SAFETY: the ring has `buffer_count` entries in whole, aligned, initialised pages, and
        // `index` is smaller. The kernel reads only entries before the published tail.
        // JUSTIFICATION: the kernel defines the layout, and the io-uring crate offers no safe type
        // for it. `MultishotReceive::new` (uring.rs) has the costs of a receive through the ring.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(index) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all entries written so far.
    fn publish(&mut self) {
        // SAFETY: the tail lies within the first entry, in a field that `offer` does not write. It
        // is aligned, and this is the only access to it.
        // JUSTIFICATION: the kernel reads the tail at any time, so the protocol requires an atomic
        // store with release order into memory that the crate gives as a pointer.
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
