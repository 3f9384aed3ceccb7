//! What the upload thread does: rings into batches, batches to the uploader, room when memory is
//! short.
//!
//! In: the receivers' rings. Out: batches in the uploader's hands. One loop: take what waits in
//! the rings, a bounded part of it at a time; end the batches that are full or a second old; start
//! calls; sleep until something is due. It ends when the rings are closed and everything is
//! settled, or at the deadline of the shutdown; what is left then is counted.
//!
//! All memory is the pool's. When it runs low the oldest batch that waits for an attempt gives
//! way; when there is none, because all is in flight, nothing more is taken from the rings, and
//! it is there that the oldest gives way.

use crate::account::{Account, DropReason};
use crate::batch::{AGE_MAX, Batcher};
use crate::limits::Limits;
use crate::log::RateLimit;
use crate::memory::Pool;
use crate::ring::{Consumer, Parcel, WAKE_SEGMENT_COUNT};
use crate::upload::Uploader;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, watch};
use tracing::{error, warn};

/// Parcels taken before the uploader has its turn: a few milliseconds of work.
const PARCELS_PER_TURN: usize = 64;

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
    account: Arc<Account>,
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
    /// An outlet for `rings` whose receivers wake it through `woken`.
    pub fn new(
        limits: &Limits,
        pool: Arc<Pool>,
        rings: Vec<Consumer>,
        woken: Arc<Notify>,
        uploader: Uploader,
        account: Arc<Account>,
    ) -> Self {
        let batcher = Batcher::new(Arc::clone(&pool), limits.body_bytes_max, limits.lane_count_max);
        let parcel_room_count = limits.parcel_room_count;
        Self { rings, woken, pool, batcher, uploader, account, parcel_room_count, take_at: None }
    }

    /// Runs until the rings are closed and everything is settled, or until the `deadline` that
    /// the shutdown sets.
    pub async fn run(mut self, mut deadline: watch::Receiver<Option<Instant>>) {
        let mut closing = false;
        loop {
            let now = Instant::now();
            let progress = self.take(now);
            if !self.uploader.is_held_back(now) {
                self.batcher.finish_due(now);
            }
            if progress == Progress::Closed {
                self.batcher.finish_all(now);
                if !closing {
                    closing = true;
                    self.uploader.hurry(now);
                }
            }
            self.pass_on(now);
            self.uploader.settle_ended();
            self.uploader.start_due(now);
            if closing && self.uploader.segment_count() == 0 {
                return;
            }
            if deadline.borrow().is_some_and(|deadline| deadline <= now) {
                return self.abandon();
            }
            if progress == Progress::More {
                tokio::task::yield_now().await;
            } else {
                self.sleep(&mut deadline).await;
            }
        }
    }

    /// Sleeps until there is something to do.
    async fn sleep(&mut self, deadline: &mut watch::Receiver<Option<Instant>>) {
        let limit = *deadline.borrow_and_update();
        // While calls are held back, part-filled batches go on filling.
        let is_held_back = self.uploader.is_held_back(Instant::now());
        let batch_due = self.batcher.next_due().filter(|_| !is_held_back);
        let next = [batch_due, self.uploader.next_due(), self.take_at, limit];
        let next = next.into_iter().flatten().min();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.woken.notified() => {}
            () = self.uploader.event() => {}
            () = due => {}
            Ok(()) = deadline.changed() => {}
        }
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
                    // An answer, and with it room, is an event of the uploader.
                    return Progress::Idle;
                }
                let Some(parcel) = self.rings[index].pop() else { break };
                self.pack(&parcel, now);
                drop(parcel);
                self.pass_on(now);
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
        most >= WAKE_SEGMENT_COUNT || take_at <= now
    }

    /// Makes room for the segments of one parcel, if there is any way to.
    fn has_room(&mut self) -> bool {
        let mut spilled_count = 0;
        while self.pool.is_low() {
            let Some(segment_count) = self.uploader.displace_oldest() else { break };
            spilled_count += segment_count;
        }
        if spilled_count > 0 {
            self.account.dropped(DropReason::Memory).add(spilled_count as u64);
            SPILLED.log(|more| {
                warn!(
                    "Spilling over {spilled_count} segments: the memory limit (-m) is reached and \
                     the oldest unsent ones give way{more}"
                );
            });
        }
        if self.pool.available() >= self.parcel_room_count {
            return true;
        }
        // What is in open batches gives its room back only when it is sent.
        self.batcher.finish_all(Instant::now());
        self.pass_on(Instant::now());
        self.uploader.start_due(Instant::now());
        false
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

    fn pass_on(&mut self, now: Instant) {
        while let Some(batch) = self.batcher.pop() {
            self.uploader.push(batch, now);
        }
    }

    /// Gives up all that is left, and counts it.
    fn abandon(mut self) {
        let in_rings: usize = self
            .rings
            .iter_mut()
            .flat_map(|ring| std::iter::from_fn(|| ring.pop()))
            .map(|parcel| parcel.segment_count())
            .sum();
        let count = in_rings + self.batcher.segment_count() + self.uploader.segment_count();
        self.account.dropped(DropReason::Shutdown).add(count as u64);
        if count > 0 {
            error!(
                "The time for the shutdown is over: {count} segments had not been sent and are \
                 dropped. A larger ShutdownSeconds gives more time"
            );
        }
    }
}
