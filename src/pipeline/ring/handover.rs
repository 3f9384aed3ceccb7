//! The protocol between receivers and the sender: when the sender is woken, in which order it looks
//! at the rings, and when it may sleep.
//!
//! In: the rings that receivers fill. Out: their ring entries; sleep while there are none. Bound:
//! that of the rings. Threads: `receive-N` and `upload`. No step allocates, locks, reads a clock or
//! waits for the other thread. The receiver's steps run once per drain, the sender's at most once
//! per ring entry, so that a segment costs none of them.
//!
//! ```text
//!  a receiver: push ... ──► commit: make visible, count, wake if the count reaches its bound
//!              end       ──► close the ring, wake
//!  the sender: closed? ──► how many wait? ──► take ... ──► arm the wake-up, look again, sleep
//! ```
//!
//! The order of the steps is essential. `tests/model` runs this code over the interleavings of both
//! threads. `tests/model/mutations` swaps steps and checks that the model then fails.

use super::tally::FIRST_WAKE_COUNT;
use super::{Consumer, Producer, RingEntry, connect};
use crate::base::memory::ChunkPool;
use crate::base::sync::Notify;
use std::sync::Arc;

/// Wakes the sender on behalf of one receiver. Dropping it wakes the sender too.
#[derive(Debug)]
pub(super) struct WakeUp(Arc<Notify>);

impl WakeUp {
    /// Wakes the sender. If the sender is awake, its next sleep ends at once.
    pub(super) fn send(&self) {
        self.0.notify_one();
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.send();
    }
}

/// How a turn has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The turn reached its maximum of ring entries. The rings may hold more.
    More,
    /// The turn found every ring empty.
    Idle,
    /// Every ring is empty and closed: no segment follows.
    Closed,
}

/// One turn: ring entries are taken from all rings, up to a maximum.
#[derive(Debug)]
pub struct Turn {
    is_closed: bool,
    ring_index: usize,
    entry_count: usize,
    entry_count_max: usize,
}

impl Turn {
    /// Returns how the turn has ended, after [`Rings::take`] has returned `None`.
    pub fn progress(&self) -> Progress {
        if self.entry_count == self.entry_count_max {
            Progress::More
        } else if self.is_closed {
            Progress::Closed
        } else {
            Progress::Idle
        }
    }
}

/// The sender's end of all rings.
#[derive(Debug)]
pub struct Rings {
    consumers: Vec<Consumer>,
    woken: Arc<Notify>,
    /// A receiver wakes the sender as soon as its ring has this number of segments.
    armed_wake_count: usize,
    pool: Arc<ChunkPool>,
    entry_count_max: usize,
}

impl Rings {
    /// Creates a set without rings. Each ring will have at most `entry_count_max` full ring
    /// entries, with chunks from `pool`.
    pub fn new(pool: Arc<ChunkPool>, entry_count_max: usize) -> Self {
        Self {
            consumers: Vec::new(),
            woken: Arc::default(),
            armed_wake_count: FIRST_WAKE_COUNT as usize,
            pool,
            entry_count_max,
        }
    }

    /// Adds a ring and returns its receiver's end. All rings are added before the first turn.
    pub fn add(&mut self) -> Producer {
        let wake_up = WakeUp(Arc::clone(&self.woken));
        let (producer, consumer) = connect(Arc::clone(&self.pool), self.entry_count_max, wake_up);
        self.consumers.push(consumer);
        producer
    }

    /// Begins a turn of at most `entry_count_max` ring entries, or returns `None` if no turn is
    /// due.
    ///
    /// A turn is due if all rings are closed, or if `is_due` returns true for the number of
    /// segments in the fullest ring.
    pub fn begin_turn(
        &self,
        entry_count_max: usize,
        is_due: impl FnOnce(usize) -> bool,
    ) -> Option<Turn> {
        // Read before the rings are looked at: if they are closed, no segment follows those in
        // them.
        let is_closed = self.is_closed();
        let counts = self.consumers.iter().map(Consumer::waiting_count);
        let is_due = is_due(counts.max().unwrap_or_default());
        (is_due || is_closed).then_some(Turn {
            is_closed,
            ring_index: 0,
            entry_count: 0,
            entry_count_max,
        })
    }

    /// Takes the next ring entry of a turn, or returns `None` if the turn is over.
    pub fn take(&mut self, turn: &mut Turn) -> Option<RingEntry> {
        if turn.entry_count == turn.entry_count_max {
            return None;
        }
        while let Some(consumer) = self.consumers.get_mut(turn.ring_index) {
            if let Some(entry) = consumer.pop() {
                turn.entry_count += 1;
                if turn.entry_count == turn.entry_count_max {
                    // The next turn begins with another ring, so that the last ring does not wait
                    // until the first one is empty.
                    self.consumers.rotate_left(1);
                }
                return Some(entry);
            }
            turn.ring_index += 1;
        }
        None
    }

    /// Sleeps until `wake_count` segments wait in a ring, a ring is closed, or a receiver finds
    /// that memory is low.
    ///
    /// The future may be dropped at any time. A wake-up that it missed then ends the next sleep.
    pub async fn woken(&mut self, wake_count: usize) {
        if !self.arm(wake_count) {
            self.woken.notified().await;
        }
    }

    /// Makes each receiver wake the sender once `wake_count` segments wait in its ring. Returns
    /// whether a ring has `wake_count` segments already.
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

    /// Takes the oldest ring entry of the first ring that has one, outside of a turn. For the
    /// shutdown.
    pub fn pop(&mut self) -> Option<RingEntry> {
        self.consumers.iter_mut().find_map(Consumer::pop)
    }

    /// Returns whether no segment was pushed since all rings were last found empty.
    pub fn is_empty(&self) -> bool {
        self.consumers.iter().all(|consumer| consumer.waiting_count() == 0)
    }

    /// Returns whether all receivers have closed their rings. No segment then follows the segments
    /// in the rings.
    pub fn is_closed(&self) -> bool {
        self.consumers.iter().all(Consumer::is_closed)
    }

    /// Returns how many segments the rings hold, counted ring entry by ring entry.
    ///
    /// The counted ring entries are kept on the sender's side, so receivers cannot drop them any
    /// more.
    pub fn segment_count(&mut self) -> usize {
        self.consumers.iter_mut().map(Consumer::segment_count).sum()
    }

    /// Returns the memory in bytes of the ring entries that were [counted](Self::segment_count).
    pub fn memory_bytes(&self) -> usize {
        self.consumers.iter().map(Consumer::memory_bytes).sum()
    }
}
