//! Takes segments out of the rings and fills batches with them.
//!
//! In: the receivers' rings. Out: finished batches. Bound: the pool's memory. When full: nothing is
//! taken, and receivers evict the oldest segments of their rings. Thread: the sender's.

use super::linger::Linger;
use super::source::Source;
use crate::base::account::{Account, DropReason, Held};
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
pub struct Filler {
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
}

impl Source for Filler {
    type Turn = Turn;

    const KEEPS_ALL: bool = false;

    fn begin_turn(&mut self, now: Instant) -> Option<Turn> {
        self.rings.begin_turn(ENTRIES_PER_TURN, |waiting_count| {
            let is_due = self.linger.is_due(waiting_count, now);
            is_due || (waiting_count > 0 && self.pool.is_low())
        })
    }

    fn has_room(&self) -> bool {
        self.pool.available() >= self.entry_room_count
    }

    fn take_entry(&mut self, turn: &mut Turn, now: Instant) -> bool {
        let Some(entry) = self.rings.take(turn) else { return false };
        self.taken_count += entry.segment_count();
        self.pack(&entry, now);
        true
    }

    fn end_turn(&mut self, turn: Turn, now: Instant) -> Progress {
        let progress = turn.progress();
        if progress != Progress::More {
            self.linger.taken(std::mem::take(&mut self.taken_count), now);
        }
        progress
    }

    fn take_rest(&mut self, now: Instant) {
        while self.has_room() {
            let Some(entry) = self.rings.pop() else { break };
            self.pack(&entry, now);
        }
        self.batcher.finish_all(now);
    }

    fn clear(&mut self, now: Instant) -> usize {
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

    fn pop_batch(&mut self) -> Option<Batch> {
        let batch = self.batcher.pop()?;
        let sizes = &self.account.sizes;
        sizes.batch_documents.observe(batch.documents.len() as f64);
        sizes.batch_bytes.observe(batch.body_length_bytes as f64);
        if let Some(tail) = self.tail.as_ref().filter(|tail| tail.is_wanted()) {
            tail.take(&batch.body, batch.documents.len());
        }
        Some(batch)
    }

    fn is_empty(&self) -> bool {
        self.batcher.segment_count() == 0 && self.rings.is_empty()
    }

    fn is_closed(&self) -> bool {
        self.rings.is_closed()
    }

    fn put_off(&mut self, now: Instant) {
        self.linger.put_off(now);
    }

    fn has_two(&self) -> bool {
        self.batcher.has_two()
    }

    fn finish_due(&mut self, now: Instant) {
        self.batcher.finish_due(now);
    }

    fn finish_all(&mut self, now: Instant) {
        self.batcher.finish_all(now);
    }

    fn next_look(&self) -> Option<Instant> {
        self.linger.next_due()
    }

    fn next_batch_due(&self) -> Option<Instant> {
        self.batcher.next_due()
    }

    async fn woken(&mut self) {
        self.rings.woken(self.linger.wake_count()).await;
    }

    fn count(&mut self, held: &mut Held) {
        held.segment_count += self.batcher.segment_count() + self.rings.segment_count();
        held.open_batch_bytes += self.batcher.memory_bytes();
        held.ring_bytes += self.rings.memory_bytes();
    }
}
