//! What the sender thread does: rings into batches, batches to the uploader, room when memory is
//! short.
//!
//! In: the receivers' rings. Out: batches in the uploader's hands, or the spool's. One loop: take
//! what waits in the rings, a bounded part of it at a time; end the batches that are full or a
//! second old; start calls; sleep until something is due. It ends when the rings are closed and
//! everything is settled, or when the time for the shutdown is over; what is left then goes to the
//! spool or is counted.
//!
//! All memory is the pool's. When it runs low the oldest batch that waits for an attempt gives
//! way, to the spool if there is one; when there is none, because all is in flight, nothing more
//! is taken from the rings, and it is there that the oldest gives way.

mod linger;
mod replay;
mod shutdown;
mod spool_job;
mod spool_report;
mod spool_thread;
mod spooler;
#[cfg(test)]
mod tests;
mod trim;

pub use shutdown::Deadline;
pub use spool_thread::SpoolThread;

use crate::base::account::{Account, DropReason, Held, OccupancyQueries};
use crate::base::clock::Clock;
use crate::base::conditions::Condition;
use crate::base::log::LogLimit;
use crate::base::memory::Pool;
use crate::base::panics::{self, Panicked};
use crate::pipeline::batch::Batcher;
use crate::pipeline::limits::Limits;
use crate::pipeline::ring::{Parcel, Progress, Rings};
use crate::pipeline::tail::Tail;
use crate::pipeline::upload::{Admit, Uploader};
use linger::Linger;
use spooler::{READ_COUNT_MAX, Spooler};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{error, info, warn};
use trim::Trim;

/// Parcels taken before the uploader has its turn: a few milliseconds of work.
const PARCELS_PER_TURN: usize = 64;

/// Receivers have ended at the latest this long after the time for uploads.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

static SPILLED: LogLimit = LogLimit::new();
static TO_SPOOL: LogLimit = LogLimit::new();
static NO_ROOM: LogLimit = LogLimit::new();

/// Everything between the rings and the service.
#[derive(Debug)]
pub struct Sender {
    rings: Rings,
    pool: Arc<Pool>,
    batcher: Batcher,
    uploader: Uploader,
    spooler: Option<Spooler>,
    account: Arc<Account>,
    occupancy: OccupancyQueries,
    parcel_room_count: usize,
    linger: Linger,
    /// Segments taken out of the rings since all of them were empty.
    taken_count: usize,
    /// Segments given up for want of memory, as far as they were noted.
    noted_loss_count: u64,
    /// Whether some were since half of it was last free.
    is_losing: bool,
    trim: Trim,
    tail: Option<Arc<Tail>>,
}

impl Sender {
    /// An sender for `rings`, with a spool if there is a thread for one.
    pub fn new(
        limits: &Limits,
        rings: Rings,
        uploader: Uploader,
        spool: Option<SpoolThread>,
        pool: Arc<Pool>,
        account: Arc<Account>,
    ) -> Self {
        let batcher = Batcher::new(Arc::clone(&pool), limits.body_bytes_max, limits.lane_count_max);
        let spooler = spool.map(|thread| Spooler::new(thread, Arc::clone(&account)));
        Self {
            rings,
            pool,
            batcher,
            uploader,
            spooler,
            occupancy: account.occupancy_queries(),
            account,
            parcel_room_count: limits.parcel_room_count,
            linger: Linger::new(Clock::instant()),
            taken_count: 0,
            noted_loss_count: 0,
            is_losing: false,
            trim: Trim::new(Clock::instant()),
            tail: None,
        }
    }

    /// The same sender, whose batches `tail` takes too while somebody listens.
    #[must_use]
    pub fn with_tail(self, tail: Option<Arc<Tail>>) -> Self {
        Self { tail, ..self }
    }

    /// Runs until the rings are closed and everything is settled, or until the deadline that the
    /// shutdown sets. Returns how many segments are still held: none, unless the account is wrong.
    ///
    /// After a panic it can be run once more: what was at work is lost, the rest is settled.
    ///
    /// # Errors
    ///
    /// When writing what is left to the spool panics.
    pub async fn run(
        &mut self,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) -> Result<usize, Panicked> {
        let (mut is_closing, mut is_hurried) = (false, false);
        loop {
            let now = Clock::instant();
            self.serve_spool(is_closing, now);
            // Also when the rings are empty: receivers that get no memory fill none.
            if self.is_room_short() {
                self.spill();
            }
            self.note_losses();
            let progress = self.take(now);
            if !self.uploader.is_held_back(now) {
                self.batcher.finish_due(now);
            }
            if progress == Progress::Closed {
                self.batcher.finish_all(now);
                is_closing = true;
            }
            if !is_hurried && deadline.borrow().is_some() {
                is_hurried = true;
                self.uploader.begin_drain();
            }
            self.pass_on();
            self.uploader.settle_ended();
            self.uploader.start_due(now);
            self.settle_spool(now);
            self.trim.look(&self.pool, now);
            if is_closing && (self.is_settled() || self.uploader.admit(now) == Admit::Never) {
                break;
            }
            if self.end_at(*deadline.borrow()).is_some_and(|end_at| end_at <= now) {
                break;
            }
            // With more to take there is no sleep, but events have their turn.
            let until = (progress == Progress::More).then_some(now);
            self.sleep(until, deadline).await;
        }
        self.end(deadline).await?;
        Ok(self.held().segment_count)
    }

    /// Whether nothing is left that could be sent, or could not be spooled.
    fn is_settled(&self) -> bool {
        self.uploader.is_idle()
            && self.spooler.as_ref().is_none_or(|spooler| spooler.writing_count() == 0)
    }

    /// When what is left is given up.
    ///
    /// Not before the rings are closed, or a receiver would go on filling one that nobody counts
    /// any more; but for one that does not end, not for ever either.
    fn end_at(&self, deadline: Option<Deadline>) -> Option<Instant> {
        let grace = if self.rings.is_closed() { Duration::ZERO } else { CLOSE_TIME_MAX };
        Some(deadline?.for_uploads + grace)
    }

    /// Sleeps until there is something to do, or until `until`.
    async fn sleep(
        &mut self,
        until: Option<Instant>,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) {
        let now = Clock::instant();
        let limit = self.end_at(*deadline.borrow_and_update());
        // While calls are held back, part-filled batches go on filling.
        let batch_due = self.batcher.next_due().filter(|_| !self.uploader.is_held_back(now));
        let spool_due = self.spooler.as_ref().and_then(Spooler::next_due);
        // Where all that waits lies in the spool, nothing else has it read after a pause.
        let has_spooled = self.spooler.as_ref().is_some_and(Spooler::may_have_more);
        let probe_due = match self.uploader.admit(now) {
            Admit::At(at) => Some(at).filter(|_| has_spooled),
            _ => None,
        };
        let upload_due = self.uploader.next_due(now);
        let trim_due = self.trim.next_due();
        let take_due = self.linger.next_due();
        let next = [until, take_due, batch_due, upload_due, spool_due, probe_due, trim_due, limit];
        let next = next.into_iter().flatten().min();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let spool_event = async {
            match &mut self.spooler {
                Some(spooler) => spooler.event().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.rings.woken(self.linger.wake_count()) => {}
            () = self.uploader.event() => {}
            () = spool_event => {}
            () = due => {}
            query = self.occupancy.next() => query.answer(self.held()),
            Ok(()) = deadline.changed() => {}
        }
    }

    /// What is in rings, batches, calls and on its way to or from the spool, counted one by one.
    fn held(&mut self) -> Held {
        let mut held = Held {
            segment_count: self.batcher.segment_count(),
            open_batch_bytes: self.batcher.memory_bytes(),
            ..Held::default()
        };
        held.segment_count += self.rings.segment_count();
        held.ring_bytes = self.rings.memory_bytes();
        self.uploader.count(&mut held);
        if let Some(spooler) = &self.spooler {
            held.segment_count += spooler.segment_count();
            held.spool_bytes = spooler.memory_bytes();
        }
        held
    }

    /// Takes what waits in the rings, if it is worth it, as far as a turn goes and memory lasts.
    fn take(&mut self, now: Instant) -> Progress {
        let turn = self.rings.begin_turn(PARCELS_PER_TURN, |waiting_count| {
            let is_due = self.linger.is_due(waiting_count, now);
            is_due || (waiting_count > 0 && self.pool.is_low())
        });
        let Some(mut turn) = turn else { return Progress::Idle };
        loop {
            if !self.has_room() {
                // An answer, and with it room, is an event of the uploader or the spooler.
                self.linger.put_off(now);
                return Progress::Idle;
            }
            let Some(parcel) = self.rings.take(&mut turn) else { break };
            self.taken_count += parcel.segment_count();
            self.pack(&parcel, now);
            drop(parcel);
            // An odd one waits for the end of the turn at most.
            if self.batcher.has_two() {
                self.pass_on();
            }
        }
        let progress = turn.progress();
        if progress != Progress::More {
            self.linger.taken(std::mem::take(&mut self.taken_count), now);
        }
        progress
    }

    /// Makes room for the segments of one parcel, if there is any way to.
    fn has_room(&mut self) -> bool {
        if self.is_room_short() {
            self.spill();
        }
        if self.pool.available() >= self.parcel_room_count {
            return true;
        }
        // What is in open batches gives its room back only when it is sent.
        let now = Clock::instant();
        self.batcher.finish_all(now);
        self.pass_on();
        self.uploader.start_due(now);
        false
    }

    /// Whether the oldest batches that wait have to give way.
    fn is_room_short(&self) -> bool {
        match &self.spooler {
            Some(spooler) if spooler.is_working() => self.pool.is_half_used(),
            _ => self.pool.is_low(),
        }
    }

    /// Has the oldest batches that wait give way, until there is room again.
    fn spill(&mut self) {
        let (mut spooled_count, mut lost_count) = (0, 0);
        while self.is_room_short() {
            // What is on its way to the disk gives its room back soon.
            let is_full = self.spooler.as_ref().is_some_and(|it| it.is_working() && !it.has_room());
            if is_full {
                break;
            }
            // What has just been read from the spool goes back only if there is no other way.
            let attempt = match self.pool.is_low() {
                true => self.uploader.evict_oldest(),
                false => self.uploader.evict_oldest_unspooled(),
            };
            let Some(attempt) = attempt else { break };
            let segment_count = attempt.batch.documents.len();
            match &mut self.spooler {
                Some(spooler) if spooler.has_room() || attempt.is_in_spool() => {
                    spooled_count += segment_count;
                    spooler.write(attempt);
                }
                spooler => {
                    lost_count += segment_count;
                    // The rest of a batch of which some are delivered.
                    let record = attempt.record.and_then(Arc::into_inner);
                    if let Some(spooler) = spooler {
                        spooler.settle(record);
                    }
                }
            }
        }
        if let Some(spooler) = &mut self.spooler {
            spooler.start_due(Clock::instant());
        }
        self.account.dropped(DropReason::Memory).add(lost_count as u64);
        if spooled_count > 0 {
            TO_SPOOL.log(|more| {
                info!(
                    "Spilling over {spooled_count} segments to the spool: half of the memory (-m) \
                     is used and the oldest unsent ones give way{more}"
                );
            });
        }
        if lost_count > 0 {
            SPILLED.log(|more| {
                warn!(
                    "Spilling over {lost_count} segments: the memory limit (-m) is reached and the \
                     oldest unsent ones are lost{more}"
                );
            });
        }
    }

    /// Notes when segments are given up for want of memory, and when that is over: those that gave
    /// way here, and those that receivers have evicted in their rings.
    fn note_losses(&mut self) {
        let loss_count = self.account.dropped(DropReason::Memory).get();
        if loss_count > self.noted_loss_count {
            self.noted_loss_count = loss_count;
            self.is_losing = true;
            let reason = "the memory limit (-m) is reached and the oldest unsent segments are lost";
            self.account.conditions.begin(Condition::MemoryFull, reason);
        } else if self.is_losing && !self.pool.is_half_used() {
            self.is_losing = false;
            self.account.conditions.end(Condition::MemoryFull);
        }
    }

    /// Takes what the spool has read, and asks for more where there is room for it.
    fn serve_spool(&mut self, is_closing: bool, now: Instant) {
        let Some(spooler) = &mut self.spooler else { return };
        for attempt in spooler.unwritten() {
            self.uploader.put_back(attempt);
        }
        for (batch, record) in spooler.read(now) {
            self.uploader.push_spooled(batch, record);
        }
        // While the service fails and there is nothing else, one asks whether it is back.
        let is_nothing_else =
            self.uploader.is_idle() && self.batcher.segment_count() == 0 && self.rings.is_empty();
        let count_max = match self.uploader.is_failing() {
            false => READ_COUNT_MAX,
            true => usize::from(is_nothing_else && self.uploader.admit(now) == Admit::Now),
        };
        if !is_closing && spooler.may_have_more() && !self.pool.is_half_used() {
            let present_count = self.uploader.spooled_batch_count();
            spooler.ask(count_max.saturating_sub(present_count));
        }
    }

    /// Tells the spool what is delivered, and starts what is due there.
    fn settle_spool(&mut self, now: Instant) {
        let Some(spooler) = &mut self.spooler else { return };
        spooler.settle(self.uploader.settled_records());
        spooler.start_due(now);
    }

    fn pack(&mut self, parcel: &Parcel, now: Instant) {
        panics::inject("pack");
        for segment in parcel.segments() {
            if self.batcher.add(&segment, parcel.opened_at(), now).is_err() {
                // `has_room` has made sure of the chunks, so this counts what should not happen.
                self.account.dropped(DropReason::Memory).add(1);
                NO_ROOM
                    .log(|more| error!("Segment dropped. Consider increasing memory limit{more}"));
            }
        }
    }

    fn pass_on(&mut self) {
        while let Some(batch) = self.batcher.pop() {
            let sizes = &self.account.sizes;
            sizes.batch_documents.observe(batch.documents.len() as f64);
            sizes.batch_bytes.observe(batch.body_length_bytes as f64);
            if let Some(tail) = self.tail.as_ref().filter(|tail| tail.is_wanted()) {
                tail.take(&batch.body, batch.documents.len());
            }
            self.uploader.push(batch);
            panics::inject("sender");
        }
    }
}
