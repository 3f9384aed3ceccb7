//! Takes segments out of the rings and fills batches with them.
//!
//! In: the receivers' rings. Out: finished batches. Bound: the pool's memory. When full: nothing is
//! taken, and receivers evict the oldest segments of their rings. Thread: the sender's.

use super::linger::Linger;
use crate::base::account::{Account, DropReason};
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use crate::base::memory::ChunkPool;
use crate::base::panics;
use crate::pipeline::batch::{Batch, Batcher};
use crate::pipeline::limits::Limits;
use crate::pipeline::ring::{Progress, RingEntry, Rings, Turn};
use crate::pipeline::tail::Tail;
use std::sync::Arc;
use std::time::Instant;
use tracing::error;

/// The largest number of ring entries that are taken before the sender does its other work. Taking
/// them needs a few milliseconds.
const ENTRIES_PER_TURN: usize = 64;

static NO_ROOM: LogLimit = LogLimit::new();

/// The rings, and the batches that are filled from them.
#[derive(Debug)]
pub(super) struct Filler {
    pub(super) rings: Rings,
    pub(super) batcher: Batcher,
    pool: Arc<ChunkPool>,
    account: Arc<Account>,
    /// How many chunks must be free before a ring entry is taken.
    entry_room_count: usize,
    pub(super) linger: Linger,
    /// How many segments were taken since all rings were last empty.
    taken_count: usize,
    tail: Option<Arc<Tail>>,
}

impl Filler {
    /// A filler for `rings` that takes memory from `pool`.
    pub(super) fn new(
        limits: &Limits,
        rings: Rings,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> Self {
        Self {
            rings,
            batcher: Batcher::new(
                Arc::clone(&pool),
                limits.body_bytes_max,
                limits.open_batch_count_max,
            ),
            pool,
            account,
            entry_room_count: limits.entry_room_count,
            linger: Linger::new(Clock::instant()),
            taken_count: 0,
            tail: None,
        }
    }

    /// Copies every batch to `tail` as well, while a client reads from `tail`.
    pub(super) fn set_tail(&mut self, tail: Option<Arc<Tail>>) {
        self.tail = tail;
    }

    /// Begins to take ring entries; `None` if it is better to wait for more segments.
    pub(super) fn begin_turn(&mut self, now: Instant) -> Option<Turn> {
        self.rings.begin_turn(ENTRIES_PER_TURN, |waiting_count| {
            let is_due = self.linger.is_due(waiting_count, now);
            is_due || (waiting_count > 0 && self.pool.is_low())
        })
    }

    /// Returns whether memory has room for the segments of one ring entry.
    pub(super) fn has_room(&self) -> bool {
        self.pool.available() >= self.entry_room_count
    }

    /// Takes a ring entry and packs its segments into batches. Returns `false` if the turn is over.
    /// The caller has checked [`has_room`](Self::has_room).
    pub(super) fn take_entry(&mut self, turn: &mut Turn, now: Instant) -> bool {
        let Some(entry) = self.rings.take(turn) else { return false };
        self.taken_count += entry.segment_count();
        self.pack(&entry, now);
        true
    }

    /// Ends a turn. Returns whether there is more to take.
    pub(super) fn end_turn(&mut self, turn: Turn, now: Instant) -> Progress {
        let progress = turn.progress();
        if progress != Progress::More {
            self.linger.taken(std::mem::take(&mut self.taken_count), now);
        }
        progress
    }

    /// Packs all ring entries that memory has room for, without lingering, and finishes all
    /// batches.
    pub(super) fn take_rest(&mut self, now: Instant) {
        while self.has_room() {
            let Some(entry) = self.rings.pop() else { break };
            self.pack(&entry, now);
        }
        self.batcher.finish_all(now);
    }

    /// Empties batches and rings. Returns how many segments were in them.
    #[must_use = "dropped segments have to be counted"]
    pub(super) fn clear(&mut self, now: Instant) -> usize {
        let mut dropped_count = 0;
        self.batcher.finish_all(now);
        while let Some(batch) = self.batcher.pop() {
            dropped_count += batch.documents.len();
        }
        while let Some(entry) = self.rings.pop() {
            dropped_count += entry.segment_count();
        }
        dropped_count
    }

    /// Packs the segments of a ring entry into batches.
    pub(super) fn pack(&mut self, entry: &RingEntry, now: Instant) {
        panics::inject("pack");
        for segment in entry.segments() {
            if self.batcher.add(&segment, entry.opened_at(), now).is_err() {
                // `has_room` has made sure that there are chunks, so this never happens.
                self.account.dropped(DropReason::Memory).add(1);
                NO_ROOM
                    .log(|more| error!("Segment dropped. Consider increasing memory limit{more}"));
            }
        }
    }

    /// Returns the oldest finished batch; `None` if there is none.
    pub(super) fn pop_batch(&mut self) -> Option<Batch> {
        let batch = self.batcher.pop()?;
        let sizes = &self.account.sizes;
        sizes.batch_documents.observe(batch.documents.len() as f64);
        sizes.batch_bytes.observe(batch.body_length_bytes as f64);
        if let Some(tail) = self.tail.as_ref().filter(|tail| tail.is_wanted()) {
            tail.take(&batch.body, batch.documents.len());
        }
        Some(batch)
    }

    /// Returns whether no segment is in rings or batches.
    pub(super) fn is_empty(&self) -> bool {
        self.batcher.segment_count() == 0 && self.rings.is_empty()
    }
}
