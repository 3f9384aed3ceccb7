//! Writes the remaining segments to the spool when the sender ends.
//!
//! In: the deadline of the shutdown, and all remaining segments. Out: records in the spool, and the
//! number of segments that the spool did not take. Bound: the deadline, and at least one second.
//! Thread: the sender's.

use super::source::Source;
use super::spool_client::SpoolClient;
use crate::base::account::Account;
use crate::base::clock::Clock;
use crate::base::panics;
use crate::pipeline::upload::{PendingBatch, Uploader};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::info;

/// One part in four of the time for the shutdown is for the spool.
const SPOOL_SHARE: u32 = 4;

/// The largest part of the time for the shutdown that is for the spool.
const SPOOL_TIME_MAX: Duration = Duration::from_secs(5);

/// The shortest time for writing to the spool. After a second signal the spool has only this time.
const SPOOL_TIME_MIN: Duration = Duration::from_secs(1);

/// When the shutdown has to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When calls of the service have to end.
    pub for_uploads: Instant,
    /// When writing to the spool has to end.
    pub for_spool: Instant,
}

impl Deadline {
    /// A deadline `time` after `now`. A part of the time is for the spool if the daemon has a
    /// spool.
    pub fn within(time: Duration, has_spool: bool, now: Instant) -> Self {
        let for_spool = now + time;
        let spool_time =
            if has_spool { (time / SPOOL_SHARE).min(SPOOL_TIME_MAX) } else { Duration::ZERO };
        Self { for_uploads: for_spool - spool_time, for_spool }
    }

    /// A deadline that leaves no time for calls.
    pub fn at_once(now: Instant) -> Self {
        Self { for_uploads: now, for_spool: now + SPOOL_TIME_MIN }
    }
}

/// Writes all remaining segments to the spool. Returns how many segments are dropped.
///
/// # Panics
///
/// Panics only if this code has a fault. The sender then still holds the segments, and the caller
/// may try again.
#[must_use = "dropped segments have to be counted"]
pub(super) async fn into_spool(
    filler: &mut impl Source,
    uploader: &mut Uploader,
    spool_client: &mut SpoolClient,
    account: &Account,
    deadline: &mut watch::Receiver<Option<Deadline>>,
) -> usize {
    // The spool gets this time even after the deadline. Writing all segments in memory takes less.
    let end_min = Clock::instant() + SPOOL_TIME_MIN;
    let before = account.spooled.get();
    spool_client.settle(uploader.settled_records());
    spool_client.begin_drain();
    let mut dropped_count = 0;
    loop {
        // Each round of writes frees memory for more segments of the rings.
        filler.take_rest(Clock::instant());
        while let Some(batch) = filler.pop_batch() {
            uploader.push(batch);
            panics::inject("sender");
        }
        let pending_batches = uploader.take_all();
        let is_last = pending_batches.is_empty();
        for pending in pending_batches {
            spool_client.write(pending);
        }
        panics::inject("sender_end");
        let is_over = tokio::select! {
            biased;
            () = over(deadline, end_min) => true,
            () = spool_client.finish() => false,
        };
        let unwritten = spool_client.unwritten();
        dropped_count += spool_client.leave(&unwritten);
        // A job may have read batches. They are put back in the next round: their records are still
        // in the spool.
        let read = spool_client.read(Clock::instant());
        let is_last = is_last && read.is_empty();
        for (batch, record) in read {
            uploader.push_spooled(batch, record);
        }
        if is_last || is_over || !spool_client.is_working() {
            break;
        }
    }
    dropped_count += spool_client.drop_all() + spool_client.leave(&uploader.take_all());
    let spooled_count = account.spooled.get() - before;
    if spooled_count > 0 {
        let signal = account.signal;
        info!("{spooled_count} {signal} more are in the spool, to be sent by the next run");
    }
    dropped_count
}

pub(super) fn segment_count(pending_batches: &[PendingBatch]) -> usize {
    pending_batches.iter().map(|pending| pending.batch.item_count()).sum()
}

/// Waits until the time for the spool is over. A second signal may shorten this time meanwhile.
async fn over(deadline: &mut watch::Receiver<Option<Deadline>>, end_min: Instant) {
    loop {
        let for_spool = deadline.borrow_and_update().map(|deadline| deadline.for_spool);
        let end_at = for_spool.map_or(end_min, |at| at.max(end_min));
        let has_changed = tokio::time::timeout_at(end_at.into(), deadline.changed()).await;
        match has_changed {
            Ok(Ok(())) => {}
            // The sending side of the channel is gone, so the deadline does not change any more.
            Ok(Err(_)) => return tokio::time::sleep_until(end_at.into()).await,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_time_is_for_the_spool_if_there_is_one() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let deadline = Deadline::within(seconds(8), true, now);
        assert_eq!(
            deadline,
            Deadline { for_uploads: now + seconds(6), for_spool: now + seconds(8) }
        );
        assert_eq!(Deadline::within(seconds(8), false, now).for_uploads, now + seconds(8));
        assert_eq!(Deadline::within(seconds(3600), true, now).for_uploads, now + seconds(3595));
    }

    #[tokio::test]
    async fn a_second_signal_shortens_the_time_for_the_spool_while_it_is_waited_for() {
        let now = Instant::now();
        let far = Deadline::within(Duration::from_secs(3600), true, now);
        let (sender, mut receiver) = watch::channel(Some(far));
        let signal = async {
            tokio::task::yield_now().await;
            sender.send_replace(Some(Deadline { for_uploads: now, for_spool: now }));
        };
        let wait = async { tokio::join!(over(&mut receiver, now), signal) };
        assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok());
    }
}
