//! Where the sender's batches come from.
//!
//! The sender is one machine for every signal: it takes, packs, sends, retries and spools. Only the
//! first two steps depend on the signal. A [`Source`] does them: for segments it is the filler of
//! the rings, for spans that of their queue. The sender knows its source at compile time, so a
//! segment costs no dynamic call. Bound: the pool's memory. Thread: the sender's.

use crate::base::account::Held;
use crate::pipeline::batch::Batch;
use crate::pipeline::ring::Progress;
use std::fmt::Debug;
use std::time::Instant;

/// Gives batches to the sender.
pub trait Source: Debug {
    /// One look at what waits, which takes a bounded number of entries.
    type Turn;

    /// Whether every item waits until it is sent or in the spool, even if memory is short. The
    /// source then refuses new items. If this is false, the oldest items are dropped for new ones.
    const KEEPS_ALL: bool;

    /// Begins to take entries; `None` if it is better to wait for more.
    fn begin_turn(&mut self, now: Instant) -> Option<Self::Turn>;

    /// Returns whether memory has room for what one entry holds.
    fn has_room(&self) -> bool;

    /// Takes an entry and packs it into batches. Returns `false` if the turn is over. The caller
    /// has checked [`has_room`](Self::has_room).
    fn take_entry(&mut self, turn: &mut Self::Turn, now: Instant) -> bool;

    /// Ends a turn. Returns whether there is more to take.
    fn end_turn(&mut self, turn: Self::Turn, now: Instant) -> Progress;

    /// Notes that memory has no room for an entry. The end of a call frees memory and wakes the
    /// sender.
    fn put_off(&mut self, now: Instant);

    /// Returns whether two or more batches are finished.
    fn has_two(&self) -> bool;

    /// Finishes the open batches that are due.
    fn finish_due(&mut self, now: Instant);

    /// Finishes all open batches.
    fn finish_all(&mut self, now: Instant);

    /// Returns the oldest finished batch; `None` if there is none.
    fn pop_batch(&mut self) -> Option<Batch>;

    /// Packs all entries that memory has room for, without lingering, and finishes all batches.
    fn take_rest(&mut self, now: Instant);

    /// Empties entries and batches. Returns how many segments or spans were in them.
    #[must_use = "dropped segments have to be counted"]
    fn clear(&mut self, now: Instant) -> usize;

    /// Returns whether no segment is in entries or batches.
    fn is_empty(&self) -> bool;

    /// Returns whether no more entries can come.
    fn is_closed(&self) -> bool;

    /// Returns when to look for entries without a wake-up; `None` if a wake-up comes first.
    fn next_look(&self) -> Option<Instant>;

    /// Returns when the next open batch is due by its age; `None` if all are empty.
    fn next_batch_due(&self) -> Option<Instant>;

    /// Waits until entries have come. If the caller drops the future, no entry is lost.
    fn woken(&mut self) -> impl Future<Output = ()>;

    /// Adds the segments in entries and batches, and their memory, to `held`.
    fn count(&mut self, held: &mut Held);
}
