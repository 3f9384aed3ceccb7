//! Watches the sender: each reason for a loss must be true when it is counted.
//!
//! In: the account and the pool before and after each poll of the sender. Out: failures in the
//! ledger. Bound: a few reads of counters for each poll.

use super::world::World;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use xrayd::base::account::{Account, DropReason};
use xrayd::base::clock::Clock;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::limits::Limits;

/// The documents of one batch may have ages that differ, and the batch has the age of the oldest.
const DOCUMENTS_PER_BATCH: u64 = 50;

/// Chunks that packing may take in one poll of the sender before it has to make room.
const PACKED_COUNT: usize = 20;

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
}

impl Watch {
    /// A watch over a life that begins.
    pub fn new(
        world: World,
        account: Arc<Account>,
        pool: Arc<ChunkPool>,
        limits: Limits,
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
        }
    }

    /// Checks what was counted since the last call. `used_before` is how many chunks were in use
    /// before; `None` if a receiver has counted.
    pub fn check(&mut self, used_before: Option<usize>) {
        let (calls, count_max) = (&self.account.calls, self.limits.call_limit.count_max());
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
        match reason {
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
                let is_true = count.div_ceil(DOCUMENTS_PER_BATCH) <= old_count;
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
