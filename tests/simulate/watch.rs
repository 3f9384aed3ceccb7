//! Watches the sender: each reason for a loss must be true when it is counted.
//!
//! In: the account and the pool before and after each poll of the sender. Out: failures in the
//! ledger. Bound: a few reads of counters for each poll.

use super::world::World;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use xrayd::base::account::{Account, DropReason, Signal};
use xrayd::base::clock::Clock;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::limits::Limits;
use xrayd::pipeline::shedding::Shedding;

/// The documents of one batch may have ages that differ, and the batch has the age of the oldest.
const DOCUMENTS_PER_BATCH: u64 = 50;

/// The same for spans.
const SPANS_PER_BATCH: u64 = 10_000;

/// Chunks that packing may take in one poll of the sender before it has to make room.
const PACKED_COUNT: usize = 20;

/// Memory has to be low for this long before receivers leave their sockets alone.
const LOW_MS: u64 = 50;

/// Memory is low all the time if it is low again within this time: for 100 ms looks may find it
/// otherwise, and the sender looks every 10 ms.
const LOW_GAP_MS: u64 = 120;

/// Receivers go on within this time once there is room, or once a spool works.
const GO_ON_MS: u64 = 40;

/// Chunks that the sender may take before its look, or between its look and the end of its poll.
const LOOK_COUNT: usize = 8;

/// One life of the daemon under observation.
#[derive(Debug)]
pub struct Watch {
    pub world: World,
    pub account: Arc<Account>,
    pub pool: Arc<ChunkPool>,
    pub limits: Limits,
    pub spool_bytes: Option<u64>,
    /// Documents in the spool expire after this age in seconds.
    pub age_max: i64,
    /// Whether dates in the spool may be wrong: a life before this one had a wrong date.
    pub has_wrong_dates: bool,
    /// Whether the disk has lost or torn something, so that damage is possible.
    pub has_damage: bool,
    /// The time at which the uploads are over; `None` before the shutdown.
    pub over_at: Option<Instant>,
    /// Whether the shutdown must lose nothing, because the disk works and has room.
    pub is_spool_safe: bool,
    dropped: [u64; DropReason::ALL.len()],
    was_full: bool,
    shedding: Arc<Shedding>,
    /// Whether receivers left their sockets alone at the last check.
    was_shedding: bool,
    /// Since when memory is low, and when it was last seen low, in milliseconds.
    low_ms: Option<(u64, u64)>,
    /// Since when half of the memory is free.
    half_ms: Option<u64>,
}

impl Watch {
    /// A watch over a life that begins.
    pub fn new(
        world: World,
        account: Arc<Account>,
        pool: Arc<ChunkPool>,
        limits: Limits,
        shedding: Arc<Shedding>,
        has_wrong_dates: bool,
    ) -> Self {
        Self {
            world,
            account,
            pool,
            limits,
            spool_bytes: None,
            age_max: 0,
            has_wrong_dates,
            has_damage: false,
            over_at: None,
            is_spool_safe: false,
            dropped: [0; DropReason::ALL.len()],
            was_full: false,
            shedding,
            was_shedding: false,
            low_ms: None,
            half_ms: None,
        }
    }

    /// Notes how many chunks are in use.
    fn note_used(&mut self, used: usize) {
        let now_ms = self.world.history.now_ms();
        let all = self.limits.chunk_count_max;
        let low_count = self.limits.batch_reserve_count + (all / 32).max(8);
        if used + LOOK_COUNT + low_count >= all {
            let since_ms = self.low_ms.map_or(now_ms, |(since_ms, _)| since_ms);
            self.low_ms = Some((since_ms, now_ms));
        }
        self.low_ms = self.low_ms.filter(|(_, last_ms)| now_ms <= last_ms + LOW_GAP_MS);
        let is_half_free = !self.pool.is_half_used();
        self.half_ms = is_half_free.then(|| self.half_ms.unwrap_or(now_ms));
    }

    /// Checks that receivers leave their sockets alone for a true reason, if they do: memory was
    /// low for [`LOW_MS`] and is not half free, calls are answered, and no spool works.
    pub fn check_shedding(&mut self) {
        let is_on = self.shedding.is_on();
        let has_begun = is_on && !std::mem::replace(&mut self.was_shedding, is_on);
        if !is_on {
            return;
        }
        let now_ms = self.world.history.now_ms();
        let mut texts = Vec::new();
        if has_begun {
            self.world.history.note("shedding", self.pool.used() as u64, 0);
            // During the shutdown, what the kernel holds waits for room at once.
            let low_ms = if self.over_at.is_some() { 0 } else { LOW_MS };
            if self.low_ms.is_none_or(|(since_ms, _)| now_ms < since_ms + low_ms) {
                texts.push(format!("memory is low since {:?} ms", self.low_ms));
            }
        }
        if self.half_ms.is_some_and(|since_ms| since_ms + GO_ON_MS < now_ms) {
            texts.push(format!("half of the memory is free since {:?} ms", self.half_ms));
        }
        texts.extend(self.world.service().calls.contradiction(now_ms));
        if self.spool_bytes.is_some() && !self.world.disk.has_failed() && !self.world.disk.is_slow()
        {
            texts.push("the spool works".to_owned());
        }
        if self.over_at.is_some_and(|at| at + Duration::from_millis(GO_ON_MS) < Clock::instant()) {
            texts.push("the uploads are over".to_owned());
        }
        for text in texts {
            let text = format!("at {now_ms} ms receivers leave their sockets alone, but {text}");
            self.world.ledger().fail(text);
        }
    }

    /// Checks what was counted since the last call. `used_before` is how many chunks were in use
    /// before; `None` if a receiver has counted.
    pub fn check(&mut self, used_before: Option<usize>) {
        self.note_used(used_before.unwrap_or(self.pool.used()));
        self.check_shedding();
        let spans = self.limits.spans.filter(|_| self.account.signal == Signal::Spans);
        let limit = spans.map_or(self.limits.call_limit, |spans| spans.call_limit);
        let (calls, count_max) = (&self.account.calls, limit.count_max());
        let most = calls.limit().max(calls.in_flight());
        if most > count_max {
            self.world.ledger().fail(format!("{most} calls, and {count_max} are allowed"));
        }
        let before = self.dropped;
        for reason in DropReason::ALL {
            self.dropped[reason as usize] = self.account.dropped(reason).get();
        }
        if before == self.dropped {
            return;
        }
        for reason in DropReason::ALL {
            let count = self.dropped[reason as usize] - before[reason as usize];
            if count == 0 {
                continue;
            }
            self.world.history.note(reason.label(), count, self.pool.used() as u64);
            if let Err(text) = self.check_reason(reason, count, used_before) {
                let text = format!("{count} dropped as {}: {text}", reason.label());
                self.world.ledger().fail(text);
            }
        }
    }

    fn check_reason(
        &mut self,
        reason: DropReason,
        count: u64,
        used_before: Option<usize>,
    ) -> Result<(), String> {
        let all = self.limits.chunk_count_max;
        let is_spans = self.account.signal == Signal::Spans;
        match reason {
            // Their senders were told that the daemon has them.
            DropReason::Memory | DropReason::SpoolFull if is_spans => {
                Err("spans that were accepted are dropped for newer ones".to_owned())
            }
            DropReason::Memory => {
                let used = self.pool.used();
                let is_short = match used_before {
                    // A receiver evicts when only the reserve is left. It then takes up to five
                    // chunks of what it has evicted.
                    None => used + 2 * 5 + self.limits.batch_reserve_count >= all,
                    Some(before) => {
                        let low = self.limits.batch_reserve_count + (all / 32).max(8);
                        before.max(used) * 5 / 4 + PACKED_COUNT + low >= all
                    }
                };
                is_short.then_some(()).ok_or(format!("{used} of {all} chunks are in use"))
            }
            DropReason::Shutdown => {
                let is_over = self.over_at.is_some_and(|at| at <= Clock::instant());
                let is_safe = self.is_spool_safe && !self.world.disk.has_failed();
                (is_over && !is_safe).then_some(()).ok_or(format!(
                    "the uploads are over: {is_over}, and the spool works: {is_safe}"
                ))
            }
            DropReason::SpoolFull => {
                let (full_bytes, write_bytes) = self.world.disk.take_full_bytes();
                let most = self.spool_bytes.unwrap_or_default();
                self.was_full |= full_bytes + write_bytes + 64 >= most;
                self.was_full.then_some(()).ok_or(format!("{full_bytes} of {most} bytes are used"))
            }
            DropReason::SpoolAge => {
                let old_count = self.world.ledger().open_count(self.age_max, self.world.seconds());
                let most = if is_spans { SPANS_PER_BATCH } else { DOCUMENTS_PER_BATCH };
                let is_true = count.div_ceil(most) <= old_count;
                let text = format!("{old_count} are older than {} s", self.age_max);
                (is_true || self.has_wrong_dates).then_some(()).ok_or(text)
            }
            DropReason::SpoolDamage => {
                let is_true = self.has_damage || self.world.disk.has_failed();
                is_true.then_some(()).ok_or("the disk has damaged nothing".to_owned())
            }
            DropReason::Panic => Err("no thread has panicked".to_owned()),
            // The ledger checks the sum at the end.
            DropReason::NotXRay => Ok(()),
        }
    }
}

/// A future of the sender that is watched.
pub struct Watched<F> {
    pub future: Pin<Box<F>>,
    pub watch: Arc<std::sync::Mutex<Watch>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let used = self.watch.lock().unwrap().pool.used();
        let result = self.future.as_mut().poll(context);
        self.watch.lock().unwrap().check(Some(used));
        result
    }
}
