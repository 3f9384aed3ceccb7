//! The lock-free queue from one receiver to the sender.
//!
//! In: segments, which are copied out of the receive buffers. Out: ring entries of segments, in the
//! order of their arrival with one exception (below). Bound: the pool's chunks, and the length of
//! the queue. When full: the oldest ring entry is dropped, and [`Pushed`] has the number of its
//! segments. Threads: a `receive-N` pushes, the thread `upload` takes. Neither thread waits for the
//! other.
//!
//! ```text
//!  receiver ──► open (one ring entry) ──full──► queue of full ring entries ──► sender
//!                 └────── taken when no full ring entry waits ──────────────┘
//! ```
//!
//! Small segments are packed into one ring entry. The ring entry stays open between two drains of
//! the socket, so that also at low rates a chunk is filled with many segments.
//!
//! `open` and the queue are `ArrayQueue`s of crossbeam. The receiver takes the open ring entry out,
//! owns it while it fills it, and puts it back. The exception to the order: if the open ring entry
//! becomes full after the sender has found the queue empty and before it looks at `open`, then the
//! sender takes the next open ring entry first.
//!
//! [`handover`] has the order of the steps of both sides, and how one wakes the other.
//! `tests/model` checks the steps over the interleavings of the two threads.

mod entry;
mod handover;
mod tally;
#[cfg(test)]
mod tests;

pub use entry::{PackedSegment, RingEntry};
pub use handover::{Progress, Rings, Turn};

use crate::base::memory::ChunkPool;
use crate::base::sync::{self, ArrayQueue, Ordering, fence};
use crate::pipeline::segment::Segment;
use handover::WakeUp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tally::Tally;

/// The losses of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "dropped segments have to be counted"]
pub struct Pushed {
    /// Number of segments that were dropped because memory or the queue was full: older segments,
    /// or the pushed segment if there was no older one to drop.
    pub dropped_count: u64,
}

/// The state that both ends of a ring share.
#[derive(Debug)]
struct Shared {
    /// The ring entry that is being filled; empty while the receiver holds it. This queue has one
    /// place.
    open: ArrayQueue<RingEntry>,
    /// The queue of full ring entries.
    full: ArrayQueue<RingEntry>,
    tally: Tally,
}

/// Creates a ring of at most `entry_count_max` full ring entries with chunks from `pool`.
fn connect(pool: Arc<ChunkPool>, entry_count_max: usize, wake_up: WakeUp) -> (Producer, Consumer) {
    let shared = sync::Arc::new(Shared {
        open: ArrayQueue::new(1),
        full: ArrayQueue::new(entry_count_max),
        tally: Tally::new(),
    });
    let producer = Producer { shared: sync::Arc::clone(&shared), wake_up, pool };
    (producer, Consumer { shared, counted: VecDeque::new() })
}

/// The receiver's end of its ring.
///
/// Dropping it closes the ring and wakes the sender, which then takes the rest.
#[derive(Debug)]
pub struct Producer {
    // Dropped in this order. The wake-up must come after the ring is closed: a sender that is woken
    // before sees an open ring and sleeps again.
    shared: sync::Arc<Shared>,
    wake_up: WakeUp,
    pool: Arc<ChunkPool>,
}

impl Producer {
    /// Starts to push the segments of one drain of the socket, at `now`.
    pub fn begin(&mut self, now: Instant) -> Drain<'_> {
        Drain { producer: self, open: None, now, pushed_count: 0, is_memory_low: false }
    }

    /// Returns whether memory is low.
    pub fn is_memory_low(&self) -> bool {
        self.pool.is_low()
    }

    /// Drops the oldest full ring entry, so that its chunks are free. Returns the number of its
    /// segments, or `None` if there is no full ring entry.
    fn evict(&self) -> Option<u64> {
        self.shared.full.pop().map(|entry| entry.segment_count() as u64)
    }
}

/// Pushes the segments of one drain of the socket. [`commit`](Self::commit) makes them visible.
#[derive(Debug)]
pub struct Drain<'a> {
    producer: &'a Producer,
    /// The open ring entry, once the first segment is pushed.
    open: Option<RingEntry>,
    now: Instant,
    pushed_count: usize,
    /// Whether memory was low when a ring entry was opened.
    is_memory_low: bool,
}

impl Drain<'_> {
    /// Copies a segment into the ring.
    pub fn push(&mut self, segment: &Segment<'_>) -> Pushed {
        if self.open.is_none() {
            // Not taken in `begin`: a drain that pushes nothing wakes no thread. It must not hide
            // the ring entry from a sender that looks in the meantime and then sleeps.
            self.open = self.producer.shared.open.pop();
        }
        let mut pushed = Pushed::default();
        let has_room = self.open.as_mut().is_some_and(|entry| entry.has_room(segment.document));
        if !has_room {
            pushed.dropped_count += self.finish_open();
            match self.open_entry(segment.document.len(), &mut pushed) {
                Some(entry) => self.open = Some(entry),
                None => {
                    pushed.dropped_count += 1;
                    return pushed;
                }
            }
        }
        if let Some(entry) = &mut self.open {
            entry.pack(segment);
            self.pushed_count += 1;
        }
        pushed
    }

    /// Puts the open ring entry into the queue. Returns how many segments were dropped because the
    /// queue was full.
    fn finish_open(&mut self) -> u64 {
        let evicted =
            self.open.take().and_then(|entry| self.producer.shared.full.force_push(entry));
        evicted.map_or(0, |entry| entry.segment_count() as u64)
    }

    /// Returns a new ring entry with chunks for a document of this length. Drops older ring entries
    /// if no chunk is free. Returns `None` if there is no older ring entry to drop either.
    fn open_entry(&mut self, document_bytes: usize, pushed: &mut Pushed) -> Option<RingEntry> {
        self.is_memory_low = self.is_memory_low || self.producer.pool.is_low();
        let mut entry = RingEntry::new(self.now);
        for place in entry.places(document_bytes) {
            *place = loop {
                match self.producer.pool.take_for_receive() {
                    Some(chunk) => break Some(chunk),
                    None => pushed.dropped_count += self.producer.evict()?,
                }
            };
        }
        Some(entry)
    }

    /// Ends the drain: makes its segments visible to the sender, and wakes it if that is due.
    pub fn commit(mut self) {
        if let Some(entry) = self.open.take() {
            // There is room: the sender only takes from `open`.
            let _ = self.producer.shared.open.force_push(entry);
        }
        let is_due = self.pushed_count > 0 && self.producer.shared.tally.add(self.pushed_count);
        // When memory is low the sender is always woken, to make room before this ring has to drop
        // segments. It may hold all of the memory, so that no segment could be pushed.
        if is_due || self.is_memory_low {
            self.producer.wake_up.send();
        }
    }
}

/// The sender's end of one ring. [`Rings`] has the ends of all rings.
#[derive(Debug)]
struct Consumer {
    shared: sync::Arc<Shared>,
    /// Ring entries that [`segment_count`](Self::segment_count) has taken out of the ring. They are
    /// older than all ring entries in the ring.
    counted: VecDeque<RingEntry>,
}

impl Consumer {
    /// Takes the oldest ring entry, or the open one if no full ring entry waits. Returns `None` if
    /// the ring is empty.
    fn pop(&mut self) -> Option<RingEntry> {
        self.counted.pop_front().or_else(|| self.pop_shared())
    }

    /// Takes a ring entry out of the shared part of the ring.
    fn pop_shared(&mut self) -> Option<RingEntry> {
        self.shared.full.pop().or_else(|| {
            // Cleared before the look at `open`. A push after the clearing wakes the sender again.
            // Segments that were counted before the clearing are seen by the look.
            self.shared.tally.clear();
            let open = self.shared.open.pop().filter(|entry| entry.segment_count() > 0);
            if open.is_some() && !self.shared.full.is_empty() {
                // A ring entry became full between the two looks, and its segments were cleared
                // with the others. The count must not be 0 if the sender stops here.
                self.shared.tally.put_back();
            }
            open
        })
    }

    /// Returns how many segments were pushed since [`pop`](Self::pop) last found no full ring
    /// entry.
    fn waiting_count(&self) -> usize {
        self.shared.tally.fresh_count() + self.counted_segment_count()
    }

    /// Makes the receiver wake the sender once `count` segments wait, and not before. Returns
    /// whether `count` segments wait already. The receiver may not wake the sender for these.
    fn arm(&self, count: usize) -> bool {
        self.shared.tally.arm(count)
    }

    /// Returns how many segments the ring holds, counted ring entry by ring entry.
    ///
    /// The counted ring entries are kept on the sender's side, so the receiver cannot drop them any
    /// more.
    fn segment_count(&mut self) -> usize {
        while let Some(entry) = self.pop_shared() {
            self.counted.push_back(entry);
        }
        self.counted_segment_count()
    }

    /// Returns the memory in bytes of the ring entries that were [counted](Self::segment_count).
    fn memory_bytes(&self) -> usize {
        self.counted.iter().map(RingEntry::memory_bytes).sum()
    }

    fn counted_segment_count(&self) -> usize {
        self.counted.iter().map(RingEntry::segment_count).sum()
    }

    /// Returns whether the receiver has closed the ring. If it has, [`pop`](Self::pop) returns the
    /// segments that are left, and no segment follows them.
    fn is_closed(&self) -> bool {
        let is_alone = sync::Arc::strong_count(&self.shared) == 1;
        // `strong_count` is a relaxed read. With this fence all that the receiver pushed before it
        // dropped its end is visible.
        fence(Ordering::Acquire);
        is_alone
    }
}
