//! The hand-over from a receiver thread to the batcher: lock-free, bounded, oldest out.
//!
//! In: segments, copied out of the receive buffers at once so that those go back to the kernel.
//! Out: parcels of segments in the order they came, but that one which fills up between the
//! batcher's look into the queue and its look at `open` may come after the next. Small segments
//! are packed into a chunk that stays open between two drains of the socket, so that at low rates
//! a chunk is filled and not spent on a single segment; one push to the queue carries many.
//!
//! ```text
//!  receiver ──► open (one parcel) ──full──► queue of full parcels ──► batcher
//!                 └──────────── taken when there is nothing else ───────┘
//! ```
//!
//! Both `open` and the queue are crossbeam `ArrayQueue`s: the receiver takes the open parcel out,
//! owns it while it fills it, and puts it back, so neither side ever waits for the other.
//!
//! `tests/model` goes through the interleavings of the two threads.
//!
//! Bound: the pool's chunks and the queue's places. When either is used up the ring's oldest
//! parcel gives way, and the caller is told how many segments that cost ([`Pushed`]).

mod parcel;
#[cfg(test)]
mod tests;

pub use parcel::{PackedSegment, Parcel};

use crate::memory::Pool;
use crate::segment::Segment;
use crate::sync::{self, ArrayQueue, AtomicU64, Ordering, fence};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What a push did to the segments in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "segments that gave way have to be counted"]
pub struct Pushed {
    /// Segments that gave way for want of memory: older ones, or this one when nothing else was.
    pub dropped_count: u64,
}

#[derive(Debug)]
struct Shared {
    open: ArrayQueue<Parcel>,
    full: ArrayQueue<Parcel>,
    /// A [`Tally`]: one number, so that neither side changes one half and misses the other.
    tally: AtomicU64,
}

/// What the consumer is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    /// Segments pushed since the consumer last found the queue empty.
    fresh_count: u32,
    /// It is woken when there are so many.
    wake_count: u32,
}

impl Tally {
    /// The fresh segments' bits; a wake count in the others.
    const FRESH: u64 = u32::MAX as u64;

    fn of(bits: u64) -> Self {
        // The halves.
        Self { fresh_count: (bits & Self::FRESH) as u32, wake_count: (bits >> u32::BITS) as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.wake_count) << u32::BITS | u64::from(self.fresh_count)
    }
}

/// Makes a ring of at most `parcel_count_max` full parcels with chunks from `pool`.
pub fn ring(pool: Arc<Pool>, parcel_count_max: usize) -> (Producer, Consumer) {
    let shared = sync::Arc::new(Shared {
        open: ArrayQueue::new(1),
        full: ArrayQueue::new(parcel_count_max),
        tally: AtomicU64::new(Tally { fresh_count: 0, wake_count: 1 }.bits()),
    });
    let producer = Producer { shared: sync::Arc::clone(&shared), pool };
    (producer, Consumer { shared, counted: VecDeque::new() })
}

/// The receiver's end; there is one.
#[derive(Debug)]
pub struct Producer {
    shared: sync::Arc<Shared>,
    pool: Arc<Pool>,
}

impl Producer {
    /// Starts the hand-over of one drain of the socket, at `now`.
    pub fn begin(&mut self, now: Instant) -> Drain<'_> {
        Drain { producer: self, open: None, now, pushed_count: 0, is_memory_low: false }
    }

    /// Closes the ring: the consumer ends when it has taken the rest.
    pub fn close(self) {}

    /// Gives up the oldest parcel to have its chunks back; says how many segments it held.
    fn displace(&self) -> Option<u64> {
        self.shared.full.pop().map(|parcel| parcel.segment_count() as u64)
    }
}

/// One drain of the socket on its way into the ring.
#[derive(Debug)]
pub struct Drain<'a> {
    producer: &'a Producer,
    open: Option<Parcel>,
    now: Instant,
    pushed_count: usize,
    /// Whether a chunk was taken while memory was low.
    is_memory_low: bool,
}

impl Drain<'_> {
    /// Copies a segment into the ring.
    pub fn push(&mut self, segment: &Segment<'_>) -> Pushed {
        if self.open.is_none() {
            // Not before: a drain that pushes nothing wakes nobody, so it must not hide the
            // parcel from a consumer that looks meanwhile and then sleeps.
            self.open = self.producer.shared.open.pop();
        }
        let mut pushed = Pushed::default();
        let has_room = self.open.as_mut().is_some_and(|parcel| parcel.has_room(segment.document));
        if !has_room {
            pushed.dropped_count += self.finish_open();
            match self.open_parcel(segment.document.len(), &mut pushed) {
                Some(parcel) => self.open = Some(parcel),
                None => {
                    pushed.dropped_count += 1;
                    return pushed;
                }
            }
        }
        if let Some(parcel) = &mut self.open {
            parcel.pack(segment);
            self.pushed_count += 1;
        }
        pushed
    }

    /// Puts the open parcel into the queue; says how many segments gave way for it.
    fn finish_open(&mut self) -> u64 {
        let displaced =
            self.open.take().and_then(|parcel| self.producer.shared.full.force_push(parcel));
        displaced.map_or(0, |parcel| parcel.segment_count() as u64)
    }

    /// A new parcel with chunks for a document of this length, at the cost of older ones if need be.
    fn open_parcel(&mut self, document_bytes: usize, pushed: &mut Pushed) -> Option<Parcel> {
        self.is_memory_low = self.is_memory_low || self.producer.pool.is_low();
        let mut parcel = Parcel::new(self.now);
        for place in parcel.places(document_bytes) {
            *place = loop {
                match self.producer.pool.take_for_receive() {
                    Some(chunk) => break Some(chunk),
                    None => pushed.dropped_count += self.producer.displace()?,
                }
            };
        }
        Some(parcel)
    }

    /// Ends the drain; says whether the consumer should be woken.
    #[must_use = "a consumer that is not woken may sleep on"]
    pub fn commit(mut self) -> bool {
        if let Some(parcel) = self.open.take() {
            // The consumer only ever takes from `open`, so there is room.
            let _ = self.producer.shared.open.force_push(parcel);
        }
        if self.pushed_count == 0 {
            // Perhaps nothing could be pushed: the consumer holds all the memory.
            return self.is_memory_low;
        }
        let pushed_count = self.pushed_count as u64;
        let before =
            Tally::of(self.producer.shared.tally.fetch_add(pushed_count, Ordering::AcqRel));
        let (fresh, wake) = (u64::from(before.fresh_count), u64::from(before.wake_count));
        // When memory is low it is the consumer who makes room, before this ring loses its own.
        self.is_memory_low || (fresh < wake && fresh + pushed_count >= wake)
    }
}

/// The batcher's end; there is one.
#[derive(Debug)]
pub struct Consumer {
    shared: sync::Arc<Shared>,
    /// Taken to be counted; they go before all others.
    counted: VecDeque<Parcel>,
}

impl Consumer {
    /// Takes the oldest parcel; `None` when there is none.
    ///
    /// What is still open is taken when no full parcel waits.
    pub fn pop(&mut self) -> Option<Parcel> {
        self.counted.pop_front().or_else(|| self.pop_shared())
    }

    fn pop_shared(&mut self) -> Option<Parcel> {
        self.shared.full.pop().or_else(|| {
            // Counted down before the look: a push after it wakes this side again, and what was
            // counted before it is seen by the look. (A store would not order the two.)
            self.shared.tally.fetch_and(!Tally::FRESH, Ordering::AcqRel);
            let open = self.shared.open.pop().filter(|parcel| parcel.segment_count() > 0);
            if open.is_some() && !self.shared.full.is_empty() {
                // Filled up between the two looks and counted down with the rest; a consumer that
                // stops here has to know of it.
                self.shared.tally.fetch_add(1, Ordering::Relaxed);
            }
            open
        })
    }

    /// Segments pushed since [`pop`](Self::pop) last found no full parcel.
    pub fn waiting_count(&self) -> usize {
        let tally = Tally::of(self.shared.tally.load(Ordering::Acquire));
        tally.fresh_count as usize + self.counted_segment_count()
    }

    /// Has the receiver wake this side when `count` segments wait, and not for less; at first it
    /// is one. Says whether so many wait already, for which it may not be woken.
    #[must_use = "a consumer that sleeps over what waits already may sleep on"]
    pub fn wake_at(&self, count: usize) -> bool {
        let wake_count = u32::try_from(count).unwrap_or(u32::MAX);
        let with_wake_count = |bits| Some(Tally { wake_count, ..Tally::of(bits) }.bits());
        let (Ok(before) | Err(before)) =
            self.shared.tally.fetch_update(Ordering::AcqRel, Ordering::Acquire, with_wake_count);
        Tally::of(before).fresh_count >= wake_count
    }

    /// Segments in the ring, counted parcel by parcel.
    ///
    /// The receiver may displace none of these any more: they are kept on this side.
    pub fn segment_count(&mut self) -> usize {
        while let Some(parcel) = self.pop_shared() {
            self.counted.push_back(parcel);
        }
        self.counted_segment_count()
    }

    /// Memory of the segments that were [counted](Self::segment_count).
    pub fn memory_bytes(&self) -> usize {
        self.counted.iter().map(Parcel::memory_bytes).sum()
    }

    fn counted_segment_count(&self) -> usize {
        self.counted.iter().map(Parcel::segment_count).sum()
    }

    /// Whether the receiver is gone: nothing comes after what [`pop`](Self::pop) still gives.
    pub fn is_closed(&self) -> bool {
        let is_alone = sync::Arc::strong_count(&self.shared) == 1;
        // The count is read without order; what the receiver pushed before it let go is seen then.
        fence(Ordering::Acquire);
        is_alone
    }
}
