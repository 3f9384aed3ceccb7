//! The hand-over from a receiver thread to the sender thread: lock-free, bounded, oldest out.
//!
//! In: segments, copied out of the receive buffers at once so that those go back to the kernel.
//! Out: parcels of segments in the order they came, but that one which fills up between the
//! consumer's look into the queue and its look at `open` may come after the next. Small segments
//! are packed into a chunk that stays open between two drains of the socket, so that at low rates
//! a chunk is filled and not spent on a single segment; one push to the queue carries many.
//!
//! ```text
//!  receiver ──► open (one parcel) ──full──► queue of full parcels ──► sender thread
//!                 └──────────── taken when there is nothing else ───────┘
//! ```
//!
//! Both `open` and the queue are crossbeam `ArrayQueue`s: the receiver takes the open parcel out,
//! owns it while it fills it, and puts it back, so neither side ever waits for the other.
//!
//! [`handover`] has the order in which both sides do that, and how one wakes the other.
//! `tests/model` runs all of it over the interleavings of the two threads.
//!
//! Bound: the pool's chunks and the queue's places. When either is used up the ring's oldest
//! parcel is dropped, and the caller is told how many segments it held ([`Pushed`]).

mod handover;
mod parcel;
mod tally;
#[cfg(test)]
mod tests;

pub use handover::{Progress, Rings, Turn};
pub use parcel::{PackedSegment, Parcel};

use crate::base::memory::Pool;
use crate::base::sync::{self, ArrayQueue, Ordering, fence};
use crate::pipeline::segment::Segment;
use handover::WakeUp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tally::Tally;

/// What a push did to the segments in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "dropped segments have to be counted"]
pub struct Pushed {
    /// Segments dropped for want of memory: older ones, or this one when there was no older one.
    pub dropped_count: u64,
}

#[derive(Debug)]
struct Shared {
    open: ArrayQueue<Parcel>,
    full: ArrayQueue<Parcel>,
    tally: Tally,
}

/// Makes a ring of at most `parcel_count_max` full parcels with chunks from `pool`.
fn connect(pool: Arc<Pool>, parcel_count_max: usize, wake_up: WakeUp) -> (Producer, Consumer) {
    let shared = sync::Arc::new(Shared {
        open: ArrayQueue::new(1),
        full: ArrayQueue::new(parcel_count_max),
        tally: Tally::new(),
    });
    let producer = Producer { shared: sync::Arc::clone(&shared), wake_up, pool };
    (producer, Consumer { shared, counted: VecDeque::new() })
}

/// The receiver's end of its ring; there is one.
///
/// Dropping it closes the ring and wakes the consumer, which ends when it has taken the rest.
#[derive(Debug)]
pub struct Producer {
    // Dropped in this order: a consumer that is woken before the ring is closed sees it open.
    shared: sync::Arc<Shared>,
    wake_up: WakeUp,
    pool: Arc<Pool>,
}

impl Producer {
    /// Starts the hand-over of one drain of the socket, at `now`.
    pub fn begin(&mut self, now: Instant) -> Drain<'_> {
        Drain { producer: self, open: None, now, pushed_count: 0, is_memory_low: false }
    }

    /// Gives up the oldest parcel to have its chunks back; says how many segments it held.
    fn evict(&self) -> Option<u64> {
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

    /// Puts the open parcel into the queue; says how many segments were dropped for it.
    fn finish_open(&mut self) -> u64 {
        let evicted =
            self.open.take().and_then(|parcel| self.producer.shared.full.force_push(parcel));
        evicted.map_or(0, |parcel| parcel.segment_count() as u64)
    }

    /// A new parcel with chunks for a document of this length, at the cost of older ones if need
    /// be.
    fn open_parcel(&mut self, document_bytes: usize, pushed: &mut Pushed) -> Option<Parcel> {
        self.is_memory_low = self.is_memory_low || self.producer.pool.is_low();
        let mut parcel = Parcel::new(self.now);
        for place in parcel.places(document_bytes) {
            *place = loop {
                match self.producer.pool.take_for_receive() {
                    Some(chunk) => break Some(chunk),
                    None => pushed.dropped_count += self.producer.evict()?,
                }
            };
        }
        Some(parcel)
    }

    /// Ends the drain: makes its segments visible, and wakes the consumer where that is due.
    pub fn commit(mut self) {
        if let Some(parcel) = self.open.take() {
            // The consumer only ever takes from `open`, so there is room.
            let _ = self.producer.shared.open.force_push(parcel);
        }
        let is_due = self.pushed_count > 0 && self.producer.shared.tally.add(self.pushed_count);
        // When memory is low it is the consumer who makes room, before this ring loses its own; it
        // may hold all of it, and nothing could be pushed.
        if is_due || self.is_memory_low {
            self.producer.wake_up.send();
        }
    }
}

/// The sender thread's end of one ring; [`Rings`] has those of all.
#[derive(Debug)]
struct Consumer {
    shared: sync::Arc<Shared>,
    /// Taken to be counted; they go before all others.
    counted: VecDeque<Parcel>,
}

impl Consumer {
    /// Takes the oldest parcel; `None` when there is none.
    ///
    /// What is still open is taken when no full parcel waits.
    fn pop(&mut self) -> Option<Parcel> {
        self.counted.pop_front().or_else(|| self.pop_shared())
    }

    fn pop_shared(&mut self) -> Option<Parcel> {
        self.shared.full.pop().or_else(|| {
            // Cleared before the look: a push after it wakes this side again, and what was counted
            // before it is seen by the look.
            self.shared.tally.clear();
            let open = self.shared.open.pop().filter(|parcel| parcel.segment_count() > 0);
            if open.is_some() && !self.shared.full.is_empty() {
                // Filled up between the two looks and cleared with the rest; a consumer that stops
                // here has to know of it.
                self.shared.tally.put_back();
            }
            open
        })
    }

    /// Segments pushed since [`pop`](Self::pop) last found no full parcel.
    fn waiting_count(&self) -> usize {
        self.shared.tally.fresh_count() + self.counted_segment_count()
    }

    /// Has the receiver wake this side when `count` segments wait, and not for less. Says whether
    /// so many wait already, for which it may not be woken.
    fn arm(&self, count: usize) -> bool {
        self.shared.tally.arm(count)
    }

    /// Segments in the ring, counted parcel by parcel.
    ///
    /// The receiver may evict none of these any more: they are kept on this side.
    fn segment_count(&mut self) -> usize {
        while let Some(parcel) = self.pop_shared() {
            self.counted.push_back(parcel);
        }
        self.counted_segment_count()
    }

    /// Memory of the segments that were [counted](Self::segment_count).
    fn memory_bytes(&self) -> usize {
        self.counted.iter().map(Parcel::memory_bytes).sum()
    }

    fn counted_segment_count(&self) -> usize {
        self.counted.iter().map(Parcel::segment_count).sum()
    }

    /// Whether the receiver is gone: nothing comes after what [`pop`](Self::pop) still gives.
    fn is_closed(&self) -> bool {
        let is_alone = sync::Arc::strong_count(&self.shared) == 1;
        // The count is read without order; what the receiver pushed before it let go is seen then.
        fence(Ordering::Acquire);
        is_alone
    }
}
