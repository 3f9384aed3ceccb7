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
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

/// Memory of one page of 4,096 bytes. The kernel requires the ring to begin on a page.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Buffers of one size, and the ring through which the kernel gets them.
pub struct BufferRing {
    // Both belong to this value and are freed by its drop. They are reached only through these
    // pointers, which the kernel has too. A `Box` or a `Vec` would claim with each use that nothing
    // else reads or writes the memory.
    ring: NonNull<[Page]>,
    buffers: NonNull<[u8]>,
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
        let ring: Box<[Page]> = (0..page_count).map(|_| Page([0; 4096])).collect();
        let buffers = vec![0; usize::from(buffer_count) * buffer_bytes].into_boxed_slice();
        let (ring, buffers) = (NonNull::from(Box::leak(ring)), NonNull::from(Box::leak(buffers)));
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
        self.ring.as_ptr().cast::<Page>().expose_provenance() as u64
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
        let length = length.min(self.buffer_bytes);
        // SAFETY: `buffer` is the first of `buffer_bytes` initialised bytes. The kernel does not
        // write them before the buffer is put back, which needs `&mut self`.
        // JUSTIFICATION: a slice of all buffers, to take a part of, would include buffers that the
        // kernel may write at this moment.
        unsafe { slice::from_raw_parts(self.buffer(id), length) }
    }

    /// Puts filled buffers back and publishes all of them at once.
    pub fn give_back(&mut self, ids: impl Iterator<Item = u16>) {
        for id in ids {
            self.offer(id);
            self.out_count -= 1;
        }
        self.publish();
    }

    /// Returns the first byte of buffer `id`.
    fn buffer(&self, id: u16) -> *mut u8 {
        assert!(id < self.buffer_count, "there is no buffer {id}");
        // `buffer_bytes` times `id` is an offset within the memory.
        self.buffers.as_ptr().cast::<u8>().wrapping_add(usize::from(id) * self.buffer_bytes)
    }

    /// Writes an entry for buffer `id` after the last entry. The kernel sees the new entry once it
    /// is [published](Self::publish).
    fn offer(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.buffer_count - 1));
        let address = self.buffer(id).expose_provenance() as u64;
        // SAFETY: the ring has `buffer_count` entries in whole, aligned, initialised pages, and
        // `index` is smaller. The kernel reads only entries before the published tail.
        // JUSTIFICATION: the kernel defines the layout, and the io-uring crate offers no safe type
        // for it. `MultishotReceive::new` (uring.rs) has the costs of a receive through the ring.
        let entry = unsafe { &mut *self.ring.as_ptr().cast::<BufRingEntry>().add(index) };
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
            let base = self.ring.as_ptr().cast::<BufRingEntry>();
            AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: both pointers are of boxes that `new` has leaked, and are not used again. The
        // caller keeps this value until the kernel does not use the memory any more.
        // JUSTIFICATION: the fields are pointers. It is not about speed: it runs once.
        unsafe {
            drop(Box::from_raw(self.ring.as_ptr()));
            drop(Box::from_raw(self.buffers.as_ptr()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    /// The kernel's side: takes the buffer at the front of the ring and writes a datagram into it.
    struct Kernel {
        ring: *const BufRingEntry,
        head: u16,
        entry_count: u16,
    }

    impl Kernel {
        fn of(buffers: &BufferRing) -> Self {
            let ring = ptr::with_exposed_provenance(usize::try_from(buffers.address()).unwrap());
            Self { ring, head: 0, entry_count: buffers.buffer_count() }
        }

        /// Returns the id of the buffer, or `None` if the ring is empty.
        fn receive(&mut self, datagram: &[u8]) -> Option<u16> {
            // SAFETY: the ring is alive, its entries are initialised, and an entry before the tail
            // has the address and the length of a buffer that nothing else uses.
            // JUSTIFICATION: the test does what the kernel does.
            unsafe {
                let tail = AtomicU16::from_ptr(BufRingEntry::tail(self.ring).cast_mut());
                if self.head == tail.load(Ordering::Acquire) {
                    return None;
                }
                let entry = &*self.ring.add(usize::from(self.head % self.entry_count));
                self.head = self.head.wrapping_add(1);
                let start = usize::try_from(entry.addr()).unwrap();
                let start = ptr::with_exposed_provenance_mut::<u8>(start);
                let buffer = slice::from_raw_parts_mut(start, entry.len() as usize);
                buffer[..datagram.len()].copy_from_slice(datagram);
                Some(entry.bid())
            }
        }
    }

    #[test]
    fn the_kernel_finds_every_buffer_once_and_its_bytes_are_read_where_it_wrote_them() {
        let mut buffers = BufferRing::new(4, 8);
        let mut kernel = Kernel::of(&buffers);
        let datagrams = [&b""[..], b"abcdefgh", b"x", b"yz"];
        let mut ids: Vec<u16> = Vec::new();
        for datagram in datagrams {
            ids.push(kernel.receive(datagram).expect("a buffer is free"));
            buffers.note_filled();
        }
        assert_eq!(kernel.receive(b"z"), None);
        for (id, datagram) in ids.iter().zip(datagrams) {
            assert_eq!(buffers.filled(*id, datagram.len()), datagram);
        }
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert_eq!(buffers.out_count(), 4);
    }

    #[test]
    fn buffers_come_back_in_the_order_given_also_when_the_tail_starts_again_at_zero() {
        let mut buffers = BufferRing::new(2, 8);
        buffers.tail = buffers.tail.wrapping_sub(4);
        let mut kernel = Kernel::of(&buffers);
        kernel.head = buffers.tail;
        // The entries of `new` are gone: only what is given back from here on is in the ring.
        buffers.publish();
        for round in 0..8u8 {
            buffers.note_filled();
            buffers.note_filled();
            buffers.give_back([1, 0].into_iter());
            for id in [1, 0] {
                assert_eq!(kernel.receive(&[round]), Some(id));
                assert_eq!(buffers.filled(id, 1), [round]);
            }
            assert_eq!(kernel.receive(b""), None);
        }
    }

    #[test]
    fn a_length_beyond_the_buffer_shows_no_bytes_of_the_next_one() {
        let buffers = BufferRing::new(2, 8);
        assert_eq!(buffers.filled(0, 16).len(), 8);
        assert_eq!(buffers.filled(1, usize::MAX).len(), 8);
    }
}
