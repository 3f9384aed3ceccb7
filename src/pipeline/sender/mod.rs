//! The sender moves segments from the rings to the uploader, and to the spool when memory is short.
//!
//! In: ring entries of segments from the receivers' rings, batches from the spool. Out: batches for
//! the uploader, pending batches for the spool, the count of dropped segments. Bound: the pool's
//! memory. When full: the oldest batch that waits for a call is written to the spool, or dropped if
//! there is no spool. If all batches are in calls, the sender takes nothing from the rings, and
//! receivers evict the oldest segments of their rings. Thread: `upload`.
//!
//! ```text
//!  rings ──► Filler ──► Uploader ──► calls
//!                       ▲      │
//!                 read  │      │ evicted
//!                       │      ▼
//!                       SpoolClient ◄──► the thread of the spool
//! ```
//!
//! [`Sender::run`] is one loop. It ends when the rings are closed and all segments are settled, or
//! at the deadline of the shutdown. The segments that are left then go to the spool, or are counted
//! as dropped.

mod evict;
mod filler;
mod linger;
mod losses;
mod replay;
mod shed;
mod shutdown;
mod source;
mod span_filler;
mod spool_client;
mod spool_job;
mod spool_report;
mod spool_thread;
mod spool_work;
#[cfg(test)]
mod tests;
mod trim;

pub use shutdown::Deadline;
pub use source::Source;
pub use spool_thread::SpoolThread;

use crate::aws::SpansTo;
use crate::base::account::{Account, DropReason, Held, OccupancyQueries};
use crate::base::clock::Clock;
use crate::base::memory::ChunkPool;
use crate::base::panics::{self, Panicked};
use crate::pipeline::limits::{Limits, SpanLimits};
use crate::pipeline::ring::{Progress, Rings};
use crate::pipeline::shedding::Shedding;
use crate::pipeline::spans::SpanQueue;
use crate::pipeline::tail::Tail;
use crate::pipeline::upload::{Admit, Uploader};
use filler::Filler;
use losses::Losses;
use shed::{Facts, Shed};
use span_filler::SpanFiller;
use spool_client::{READ_COUNT_MAX, SpoolClient};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::error;
use trim::Trim;

/// The time that the receivers have to end, after the deadline for calls.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// Takes segments out of the rings, fills batches, and sends them or writes them to the spool. The
/// filler is where the batches come from.
#[derive(Debug)]
pub struct Sender<S: Source = Filler> {
    filler: S,
    uploader: Uploader,
    spool_client: Option<SpoolClient>,
    pool: Arc<ChunkPool>,
    account: Arc<Account>,
    occupancy: OccupancyQueries,
    losses: Losses,
    shed: Shed,
    trim: Trim,
}

impl Sender<Filler> {
    /// A sender for `rings`. `spool` is the thread of the spool, if the daemon has a spool.
    pub fn new(
        limits: &Limits,
        rings: Rings,
        uploader: Uploader,
        spool: Option<SpoolThread>,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> Self {
        let filler = Filler::new(limits, rings, Arc::clone(&pool), Arc::clone(&account));
        Self::of(filler, uploader, spool, pool, account)
    }

    /// Copies every batch to `tail` as well, while a client reads from `tail`.
    #[must_use]
    pub fn with_tail(mut self, tail: Option<Arc<Tail>>) -> Self {
        self.filler.set_tail(tail);
        self
    }

    /// Tells receivers by `shedding` when to leave their sockets alone.
    #[must_use]
    pub fn with_shedding(mut self, shedding: Arc<Shedding>) -> Self {
        self.shed = Shed::new(shedding);
        self
    }
}

impl Sender<SpanFiller> {
    /// A sender for the spans in `queue`. `to` is the operation of X-Ray that gets them. `spool` is
    /// the thread of the spool of spans, if the daemon has one.
    pub fn for_spans(
        (limits, to): (&SpanLimits, SpansTo),
        queue: SpanQueue,
        uploader: Uploader,
        spool: Option<SpoolThread>,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> Self {
        let filler = SpanFiller::new((limits, to), queue, Arc::clone(&pool), Arc::clone(&account));
        Self::of(filler, uploader, spool, pool, account)
    }
}

impl<S: Source> Sender<S> {
    /// A sender for the batches of `filler`.
    fn of(
        filler: S,
        uploader: Uploader,
        spool: Option<SpoolThread>,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> Self {
        Self {
            filler,
            uploader,
            spool_client: spool.map(|thread| SpoolClient::new(thread, Arc::clone(&account))),
            pool,
            occupancy: account.occupancy_queries(),
            account,
            losses: Losses::default(),
            shed: Shed::default(),
            trim: Trim::new(Clock::instant()),
        }
    }

    /// Runs until the rings are closed and all segments are settled, or until the deadline of the
    /// shutdown. Returns how many segments are still held; this is 0 unless the account has a
    /// fault.
    ///
    /// After a panic this can be called once more. The batch that was being worked on is lost, and
    /// all others are settled.
    ///
    /// # Errors
    ///
    /// Fails if writing the rest to the spool panics.
    pub async fn run(
        &mut self,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) -> Result<usize, Panicked> {
        let (mut is_closing, mut is_draining) = (false, false);
        loop {
            let now = Clock::instant();
            // This step is the first: the spool returns batches that it could not write, and
            // `make_room` can then evict them.
            self.read_spool(is_closing, now);
            // Before `take`, which needs the room. Runs even if the rings are empty: a receiver
            // that gets no memory leaves its ring empty, so `take` would never make room for this
            // receiver.
            self.make_room(*deadline.borrow(), now);
            let progress = self.take(now);
            is_closing |= progress == Progress::Closed;
            if !is_draining && deadline.borrow().is_some() {
                is_draining = true;
                self.uploader.begin_drain();
            }
            // After `take`: a batch that has just become full or due is sent in the same round.
            self.finish(is_closing, now);
            // Before `start`: a call that has ended makes room for the next one.
            self.uploader.settle_ended();
            // After `finish` and settling: now all batches that can be sent wait in the uploader.
            self.start(now);
            if is_closing && (self.is_settled() || self.uploader.admit(now) == Admit::Never) {
                break;
            }
            if self.end_at(*deadline.borrow()).is_some_and(|end_at| end_at <= now) {
                break;
            }
            // While memory is low, receivers wake this thread with each drain, so that `wait` may
            // never sleep. The calls are tasks of the same thread: without this they stand still.
            if self.shed.is_low() {
                tokio::task::yield_now().await;
            }
            // Last, because all work is done. If the rings have more segments, this does not sleep,
            // but it handles the events that have come.
            let at_once = (progress == Progress::More).then_some(now);
            self.wait(at_once, deadline).await;
        }
        self.end(deadline).await?;
        Ok(self.held().segment_count)
    }

    /// Takes the batches that the spool has read, and asks for more if there is room for them.
    fn read_spool(&mut self, is_closing: bool, now: Instant) {
        let Some(spool_client) = &mut self.spool_client else { return };
        for pending in spool_client.unwritten() {
            self.uploader.put_back(pending);
        }
        for (batch, record) in spool_client.read(now) {
            self.uploader.push_spooled(batch, record);
        }
        // While the service fails, one batch of the spool probes the service, unless another batch
        // can do that.
        let may_probe = self.uploader.is_idle()
            && self.uploader.admit(now) == Admit::Now
            && self.filler.is_empty();
        let count_max =
            if self.uploader.is_failing() { usize::from(may_probe) } else { READ_COUNT_MAX };
        if !is_closing && spool_client.may_have_more() && !self.pool.is_half_used() {
            let present_count = self.uploader.spooled_batch_count();
            spool_client.ask(count_max.saturating_sub(present_count));
        }
    }

    /// Decides whether receivers leave their sockets alone, evicts batches if memory is short, and
    /// updates the condition `memory_full`.
    fn make_room(&mut self, deadline: Option<Deadline>, now: Instant) {
        let has_spool = self.spool_client.as_ref().is_some_and(SpoolClient::is_working);
        let facts = Facts::of(&self.pool, &self.uploader, deadline, now);
        let facts = Facts { may_shed: facts.may_shed && !S::KEEPS_ALL && !has_spool, ..facts };
        self.shed.look(facts, now);
        if self.is_room_short() {
            self.evict();
        }
        self.losses.look(&self.account, &self.pool, self.shed.is_on());
    }

    /// Returns whether the oldest waiting batches have to be evicted. While receivers leave their
    /// sockets alone, none has to: what was accepted stays, and calls free memory.
    fn is_room_short(&self) -> bool {
        !self.shed.is_on() && evict::is_room_short(self.spool_client.as_ref(), &self.pool)
    }

    fn evict(&mut self) {
        let spool_client = self.spool_client.as_mut();
        evict::evict(&mut self.uploader, spool_client, &self.pool, &self.account, S::KEEPS_ALL);
    }

    /// Takes segments out of the rings and packs them into batches. Takes nothing while it lingers,
    /// and no more than memory has room for.
    fn take(&mut self, now: Instant) -> Progress {
        let Some(mut turn) = self.filler.begin_turn(now) else { return Progress::Idle };
        loop {
            if !self.has_room(now) {
                // The end of a call or of a spool job frees memory and wakes this thread.
                self.filler.put_off(now);
                return Progress::Idle;
            }
            if !self.filler.take_entry(&mut turn, now) {
                break;
            }
            // Hashing two batches together takes less time than hashing one after the other.
            if self.filler.has_two() {
                self.pass_on();
            }
        }
        self.filler.end_turn(turn, now)
    }

    /// Makes room for the segments of one ring entry, in a round that began at `now`. Returns
    /// whether there is room.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.is_room_short() && self.pool.is_low() {
            // Receivers may stop now. Then no batch has to be evicted.
            self.shed.note_low(now);
        }
        if self.is_room_short() {
            self.evict();
        }
        if self.filler.has_room() {
            return true;
        }
        // Open batches free their memory only after they are sent.
        let now = Clock::instant();
        self.filler.finish_all(now);
        self.pass_on();
        self.uploader.start_due(now);
        false
    }

    /// Finishes the open batches that are due, or all of them if the rings are closed.
    fn finish(&mut self, is_closing: bool, now: Instant) {
        if is_closing {
            self.filler.finish_all(now);
        } else if !self.uploader.is_held_back(now) {
            self.filler.finish_due(now);
        }
        self.pass_on();
    }

    /// Hands finished batches to the uploader.
    fn pass_on(&mut self) {
        while let Some(batch) = self.filler.pop_batch() {
            self.uploader.push(batch);
            panics::inject("sender");
        }
    }

    /// Starts the calls and the spool's job that are due, and returns unused memory to the system.
    fn start(&mut self, now: Instant) {
        self.uploader.start_due(now);
        self.uploader.report_outages(now);
        if let Some(spool_client) = &mut self.spool_client {
            spool_client.settle(self.uploader.settled_records());
            spool_client.start_due(now);
        }
        self.trim.look(&self.pool, now);
    }

    /// Returns whether all segments are sent, rejected, dropped or in the spool.
    fn is_settled(&self) -> bool {
        self.uploader.is_idle()
            && self
                .spool_client
                .as_ref()
                .is_none_or(|spool_client| spool_client.writing_count() == 0)
    }

    /// Returns when the loop ends at the latest; `None` before a shutdown.
    ///
    /// The loop does not end before the rings are closed: until then a receiver may add segments,
    /// and these would not be counted. But the loop waits at most [`CLOSE_TIME_MAX`] for the rings
    /// to close.
    fn end_at(&self, deadline: Option<Deadline>) -> Option<Instant> {
        let is_closed = self.filler.is_closed();
        let grace = if is_closed { Duration::ZERO } else { CLOSE_TIME_MAX };
        Some(deadline?.for_uploads + grace)
    }

    /// Returns when the next round of the loop is due without an event: the earliest due time of
    /// all parts.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        // While calls are held back, batches are not finished before they are full.
        let is_held_back = self.uploader.is_held_back(now);
        let batch_due = self.filler.next_batch_due().filter(|_| !is_held_back);
        // If all batches are in the spool, `read_spool` reads a batch when the uploader's pause
        // ends.
        let has_spooled = self.spool_client.as_ref().is_some_and(SpoolClient::may_have_more);
        let read_due = match self.uploader.admit(now) {
            Admit::At(at) => Some(at).filter(|_| has_spooled),
            _ => None,
        };
        let dues = [
            self.filler.next_look(),
            batch_due,
            self.uploader.next_due(now),
            self.uploader.next_report(),
            self.spool_client.as_ref().and_then(SpoolClient::next_due),
            read_due,
            self.trim.next_due(),
            self.shed.next_due(),
        ];
        dues.into_iter().flatten().min()
    }

    /// Sleeps until a part of the sender is due, until `at_once`, until the deadline, or until an
    /// event. Handles the event.
    async fn wait(
        &mut self,
        at_once: Option<Instant>,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) {
        let end_at = self.end_at(*deadline.borrow_and_update());
        let next = [at_once, self.next_due(Clock::instant()), end_at].into_iter().flatten().min();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let spool_event = async {
            match &mut self.spool_client {
                Some(spool_client) => spool_client.event().await,
                None => std::future::pending().await,
            }
        };
        // The rare events stand first, so that no other event can keep them waiting. After an event
        // `run` does the work of all others too: it settles every call that has ended, looks into
        // the rings and starts what is due. Only a result of the spool has to be taken here.
        tokio::select! {
            biased;
            Ok(()) = deadline.changed() => {}
            query = self.occupancy.next() => query.answer(self.held()),
            () = spool_event => {}
            () = self.uploader.event() => {}
            () = self.filler.woken() => {}
            () = due => {}
        }
    }

    /// Counts the segments in rings, batches and calls, and on their way to and from the spool.
    /// Walks through all of these places.
    fn held(&mut self) -> Held {
        let mut held = Held::default();
        self.filler.count(&mut held);
        self.uploader.count(&mut held);
        if let Some(spool_client) = &self.spool_client {
            held.segment_count += spool_client.segment_count();
            held.spool_bytes = spool_client.memory_bytes();
        }
        held
    }

    /// Writes the remaining segments to the spool. Counts the segments that the spool does not take
    /// as dropped.
    ///
    /// # Errors
    ///
    /// Fails if writing to the spool panics. The sender then still holds the segments, and the
    /// caller may try again.
    async fn end(
        &mut self,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) -> Result<(), Panicked> {
        let Self { filler, uploader, spool_client, account, .. } = self;
        uploader.settle_ended();
        let mut dropped_count = match spool_client {
            None => shutdown::segment_count(&uploader.take_all()),
            Some(spool_client) => {
                let rest = shutdown::into_spool(filler, uploader, spool_client, account, deadline);
                panics::caught(rest).await?
            }
        };
        // Rings and open batches still have segments if memory or time was too short to pack them.
        dropped_count += filler.clear(Clock::instant());
        account.dropped(DropReason::Shutdown).add(dropped_count as u64);
        if dropped_count > 0 {
            error!(
                "{dropped_count} {} had not been sent by the end of the shutdown and are \
                 dropped. A larger ShutdownSeconds gives more time, a spool (Spool.Path) that works \
                 keeps them",
                account.signal
            );
        }
        Ok(())
    }
}
