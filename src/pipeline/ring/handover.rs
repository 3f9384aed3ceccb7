//! The protocol by which segments change threads: when the sender thread is woken, what it looks
//! at in which order, and when it may sleep.
//!
//! In: the rings that receivers fill. Out: their parcels, and sleep when there are none.
//!
//! ```text
//!  a receiver: push ... ──► commit: make visible, count, wake if the count says so
//!              end       ──► close the ring, wake
//!  the sender thread: closed? ──► what waits? ──► take ... ──► arm the wake-up, look again, sleep
//! ```
//!
//! Each arrow is an order that nothing may change: `tests/model` runs this code over the
//! interleavings of both threads, and `tests/model/mutations` swaps its lines and expects the model
//! to fail.
//!
//! Bound: that of the rings. No step allocates, locks, reads a clock or waits for the other thread,
//! and a segment costs none of them: the producer's steps run once a drain, the consumer's once a
//! parcel or less.

use super::tally::FIRST_WAKE_COUNT;
use super::{Consumer, Parcel, Producer, connect};
use crate::base::memory::Pool;
use crate::base::sync::Notify;
use std::sync::Arc;

/// Wakes the sender thread on behalf of one receiver, for the last time when it is dropped.
#[derive(Debug)]
pub(super) struct WakeUp(Arc<Notify>);

impl WakeUp {
    /// Ends a sleep, or the next one before it begins.
    pub(super) fn send(&self) {
        self.0.notify_one();
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.send();
    }
}

/// How far a turn has come with the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The turn is over before the rings were empty.
    More,
    /// Each ring was found empty once.
    Idle,
    /// Each ring is empty, and nothing comes any more.
    Closed,
}

/// One look into all rings, which ends after a number of parcels.
#[derive(Debug)]
pub struct Turn {
    is_closed: bool,
    ring_index: usize,
    parcel_count: usize,
    parcel_count_max: usize,
}

impl Turn {
    /// How far it came, once [`Rings::take`] gives nothing more.
    pub fn progress(&self) -> Progress {
        if self.parcel_count == self.parcel_count_max {
            Progress::More
        } else if self.is_closed {
            Progress::Closed
        } else {
            Progress::Idle
        }
    }
}

/// The sender thread's end of all rings.
#[derive(Debug)]
pub struct Rings {
    consumers: Vec<Consumer>,
    woken: Arc<Notify>,
    /// For how many segments in a ring the receivers wake this thread.
    armed_wake_count: usize,
    pool: Arc<Pool>,
    parcel_count_max: usize,
}

impl Rings {
    /// No ring yet; each will have at most `parcel_count_max` full parcels with chunks from `pool`.
    pub fn new(pool: Arc<Pool>, parcel_count_max: usize) -> Self {
        Self {
            consumers: Vec::new(),
            woken: Arc::default(),
            armed_wake_count: FIRST_WAKE_COUNT as usize,
            pool,
            parcel_count_max,
        }
    }

    /// One ring more; returns the end that a receiver fills. All are made before the first turn.
    pub fn add(&mut self) -> Producer {
        let wake_up = WakeUp(Arc::clone(&self.woken));
        let (producer, consumer) = connect(Arc::clone(&self.pool), self.parcel_count_max, wake_up);
        self.consumers.push(consumer);
        producer
    }

    /// Begins a turn of at most `parcel_count_max` parcels, where the rings are closed or what the
    /// fullest ring holds is worth it: `is_due` is told that number of segments.
    pub fn begin_turn(
        &self,
        parcel_count_max: usize,
        is_due: impl FnOnce(usize) -> bool,
    ) -> Option<Turn> {
        // Asked before the rings are looked into: what is in them then is all there will be.
        let is_closed = self.is_closed();
        let counts = self.consumers.iter().map(Consumer::waiting_count);
        let is_due = is_due(counts.max().unwrap_or_default());
        (is_due || is_closed).then_some(Turn {
            is_closed,
            ring_index: 0,
            parcel_count: 0,
            parcel_count_max,
        })
    }

    /// Takes the next parcel of a turn; `None` when the turn is over.
    pub fn take(&mut self, turn: &mut Turn) -> Option<Parcel> {
        if turn.parcel_count == turn.parcel_count_max {
            return None;
        }
        while let Some(consumer) = self.consumers.get_mut(turn.ring_index) {
            if let Some(parcel) = consumer.pop() {
                turn.parcel_count += 1;
                if turn.parcel_count == turn.parcel_count_max {
                    // The ring that comes last must not wait for the first one to be empty.
                    self.consumers.rotate_left(1);
                }
                return Some(parcel);
            }
            turn.ring_index += 1;
        }
        None
    }

    /// Sleeps until `wake_count` segments wait in a ring, a ring is closed, or a receiver finds
    /// that memory is low.
    ///
    /// May be dropped at any time: what was not waited for ends the next sleep.
    pub async fn woken(&mut self, wake_count: usize) {
        if !self.arm(wake_count) {
            self.woken.notified().await;
        }
    }

    /// Tells the receivers when to wake this thread; says whether there is reason to already.
    fn arm(&mut self, wake_count: usize) -> bool {
        if wake_count == self.armed_wake_count {
            return false;
        }
        self.armed_wake_count = wake_count;
        let mut is_due = false;
        for consumer in &self.consumers {
            is_due |= consumer.arm(wake_count);
        }
        is_due
    }

    /// Takes the oldest parcel of any ring, whatever it is worth; for the end of the sender thread.
    pub fn pop(&mut self) -> Option<Parcel> {
        self.consumers.iter_mut().find_map(Consumer::pop)
    }

    /// Whether nothing was pushed since all rings were last found empty.
    pub fn is_empty(&self) -> bool {
        self.consumers.iter().all(|consumer| consumer.waiting_count() == 0)
    }

    /// Whether all receivers are gone: nothing comes after what the rings still hold.
    pub fn is_closed(&self) -> bool {
        self.consumers.iter().all(Consumer::is_closed)
    }

    /// Segments in the rings, counted parcel by parcel.
    ///
    /// The receivers may evict none of these any more: they are kept on this side.
    pub fn segment_count(&mut self) -> usize {
        self.consumers.iter_mut().map(Consumer::segment_count).sum()
    }

    /// Memory of the segments that were [counted](Self::segment_count).
    pub fn memory_bytes(&self) -> usize {
        self.consumers.iter().map(Consumer::memory_bytes).sum()
    }
}
