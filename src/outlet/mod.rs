//! What the upload thread does: rings into batches, batches to the uploader, room when memory is
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

mod ending;
mod spooler;
#[cfg(test)]
mod tests;

pub use ending::Deadline;

use crate::account::{Account, CensusTaker, DropReason};
use crate::batch::{AGE_MAX, Batcher};
use crate::limits::Limits;
use crate::log::RateLimit;
use crate::memory::Pool;
use crate::ring::{Consumer, Parcel, WAKE_SEGMENT_COUNT};
use crate::spool;
use crate::upload::Uploader;
use spooler::{READ_COUNT_MAX, Spooler};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tracing::{error, warn};

/// Parcels taken before the uploader has its turn: a few milliseconds of work.
const PARCELS_PER_TURN: usize = 64;

/// Receivers have ended at the latest this long after the time for uploads.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

static SPILLED: RateLimit = RateLimit::new();
static NO_ROOM: RateLimit = RateLimit::new();

/// Everything between the rings and the service.
#[derive(Debug)]
pub struct Outlet {
    rings: Vec<Consumer>,
    woken: Arc<Notify>,
    pool: Arc<Pool>,
    batcher: Batcher,
    uploader: Uploader,
    spooler: Option<Spooler>,
    account: Arc<Account>,
    census: CensusTaker,
    parcel_room_count: usize,
    /// When the few segments that wait in the rings are taken, if no more come.
    take_at: Option<Instant>,
}

/// How far a turn has come with the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// More waits, and there is room for it.
    More,
    /// Nothing waits that has to be taken now.
    Idle,
    /// Nothing comes any more.
    Closed,
}

impl Outlet {
    /// An outlet for `rings` whose receivers wake it through `woken`; with a spool if there are
    /// options for one.
    pub fn new(
        limits: &Limits,
        rings: Vec<Consumer>,
        woken: Arc<Notify>,
        uploader: Uploader,
        spool: Option<spool::Options>,
        pool: Arc<Pool>,
        account: Arc<Account>,
    ) -> Self {
        let batcher = Batcher::new(Arc::clone(&pool), limits.body_bytes_max, limits.lane_count_max);
        let spooler =
            spool.map(|options| Spooler::new(options, Arc::clone(&pool), Arc::clone(&account)));
        Self {
            rings,
            woken,
            pool,
            batcher,
            uploader,
            spooler,
            census: account.census_taker(),
            account,
            parcel_room_count: limits.parcel_room_count,
            take_at: None,
        }
    }

    /// Runs until the rings are closed and everything is settled, or until the deadline that the
    /// shutdown sets. Returns how many segments are still held: none, unless the account is wrong.
    pub async fn run(mut self, mut deadline: watch::Receiver<Option<Deadline>>) -> usize {
        let (mut is_closing, mut is_hurried) = (false, false);
        loop {
            let now = Instant::now();
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
                self.uploader.hurry();
            }
            self.pass_on();
            self.uploader.settle_ended();
            self.serve_spool(is_closing, now);
            self.uploader.start_due(now);
            if is_closing && (self.is_settled() || self.uploader.is_hopeless()) {
                break;
            }
            if self.end_at(*deadline.borrow()).is_some_and(|end_at| end_at <= now) {
                break;
            }
            if progress == Progress::More {
                tokio::task::yield_now().await;
            } else {
                self.sleep(&mut deadline).await;
            }
        }
        let deadline = *deadline.borrow();
        self.end(deadline).await;
        self.held_segment_count()
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
        let is_closed = self.rings.iter().all(Consumer::is_closed);
        let grace = if is_closed { Duration::ZERO } else { CLOSE_TIME_MAX };
        Some(deadline?.for_uploads + grace)
    }

    /// Sleeps until there is something to do.
    async fn sleep(&mut self, deadline: &mut watch::Receiver<Option<Deadline>>) {
        let now = Instant::now();
        let limit = self.end_at(*deadline.borrow_and_update());
        // While calls are held back, part-filled batches go on filling.
        let batch_due = self.batcher.next_due().filter(|_| !self.uploader.is_held_back(now));
        let spool_due = self.spooler.as_ref().and_then(Spooler::next_due);
        let next = [batch_due, self.uploader.next_due(now), spool_due, self.take_at, limit];
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
            () = self.woken.notified() => {}
            () = self.uploader.event() => {}
            () = spool_event => {}
            () = due => {}
            question = self.census.asked() => question.answer(self.held_segment_count()),
            Ok(()) = deadline.changed() => {}
        }
    }

    /// Segments in rings, batches, calls and on their way to or from the spool, counted one by one.
    fn held_segment_count(&mut self) -> usize {
        let rings: usize = self.rings.iter_mut().map(Consumer::segment_count).sum();
        let spooler = self.spooler.as_ref().map_or(0, Spooler::segment_count);
        rings + self.batcher.segment_count() + self.uploader.segment_count() + spooler
    }

    /// Takes what waits in the rings, if it is worth it, as far as a turn goes and memory lasts.
    fn take(&mut self, now: Instant) -> Progress {
        // Asked before the rings are looked into: what is in them then is all there will be.
        let closed = self.rings.iter().all(Consumer::is_closed);
        if !closed && !self.is_worth_taking(now) {
            return Progress::Idle;
        }
        self.take_at = None;
        let mut taken_count = 0;
        for index in 0..self.rings.len() {
            loop {
                if !self.has_room() {
                    // An answer, and with it room, is an event of the uploader or the spooler.
                    return Progress::Idle;
                }
                let Some(parcel) = self.rings[index].pop() else { break };
                self.pack(&parcel, now);
                drop(parcel);
                self.pass_on();
                taken_count += 1;
                if taken_count == PARCELS_PER_TURN {
                    // The ring that comes last must not wait for the first one to be empty.
                    self.rings.rotate_left(1);
                    return Progress::More;
                }
            }
        }
        if closed { Progress::Closed } else { Progress::Idle }
    }

    /// Whether enough waits in a ring, or has waited for long enough.
    ///
    /// A few segments stay in their ring until their batch is due: to be woken for each of them
    /// would cost more than all the rest.
    fn is_worth_taking(&mut self, now: Instant) -> bool {
        let most = self.rings.iter().map(Consumer::waiting_count).max().unwrap_or_default();
        if most == 0 {
            self.take_at = None;
            return false;
        }
        let take_at = *self.take_at.get_or_insert(now + AGE_MAX);
        most >= WAKE_SEGMENT_COUNT || take_at <= now || self.pool.is_low()
    }

    /// Makes room for the segments of one parcel, if there is any way to.
    fn has_room(&mut self) -> bool {
        if self.pool.is_low() {
            self.spill();
        }
        if self.pool.available() >= self.parcel_room_count {
            return true;
        }
        // What is in open batches gives its room back only when it is sent.
        let now = Instant::now();
        self.batcher.finish_all(now);
        self.pass_on();
        self.uploader.start_due(now);
        false
    }

    /// Has the oldest batches that wait give way, until there is room again.
    fn spill(&mut self) {
        let (mut spooled_count, mut dropped_count) = (0, 0);
        while self.pool.is_low() {
            // What is on its way to the disk gives its room back soon.
            let is_full = self.spooler.as_ref().is_some_and(|it| it.is_working() && !it.has_room());
            if is_full {
                break;
            }
            let Some(attempt) = self.uploader.displace_oldest() else { break };
            let segment_count = attempt.batch.documents.len();
            match self.spooler.as_mut().filter(|spooler| spooler.has_room()) {
                Some(spooler) => {
                    spooled_count += segment_count;
                    spooler.write(attempt);
                }
                None => dropped_count += segment_count,
            }
        }
        if let Some(spooler) = &mut self.spooler {
            spooler.start_due(Instant::now());
        }
        self.account.dropped(DropReason::Memory).add(dropped_count as u64);
        if spooled_count + dropped_count > 0 {
            let whereto = if dropped_count == 0 { "to the spool" } else { "and are lost" };
            let segment_count = spooled_count + dropped_count;
            SPILLED.log(|more| {
                warn!(
                    "Spilling over {segment_count} segments: the memory limit (-m) is reached and \
                     the oldest unsent ones give way, {whereto}{more}"
                );
            });
        }
    }

    /// Takes from the spool and gives to it what is due.
    fn serve_spool(&mut self, is_closing: bool, now: Instant) {
        let Some(spooler) = &mut self.spooler else { return };
        spooler.settle(self.uploader.settled_records());
        for attempt in spooler.unwritten() {
            self.uploader.put_back(attempt);
        }
        for (batch, record) in spooler.read() {
            self.uploader.push_spooled(batch, record);
        }
        let has_room = !self.pool.is_low() && self.pool.available() > self.parcel_room_count;
        if !is_closing && has_room && spooler.may_have_more() && !self.uploader.is_failing() {
            let present_count = self.uploader.spooled_batch_count();
            spooler.ask(READ_COUNT_MAX.saturating_sub(present_count));
        }
        spooler.start_due(now);
    }

    fn pack(&mut self, parcel: &Parcel, now: Instant) {
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
            self.uploader.push(batch);
        }
    }
}
