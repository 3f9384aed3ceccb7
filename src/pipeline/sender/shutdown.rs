//! The end of the sender thread: what is left goes to the spool, or is counted as lost.

use super::Sender;
use super::spooler::Spooler;
use crate::base::account::DropReason;
use crate::base::clock::Clock;
use crate::base::panics::{self, Panicked};
use crate::pipeline::upload::Attempt;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{error, info};

/// Of the time for the shutdown, this part is for the spool.
const SPOOL_SHARE: u32 = 4;

/// The spool needs no more than this, and after a second signal it has no more.
const SPOOL_TIME_MAX: Duration = Duration::from_secs(5);
const SPOOL_TIME_AT_ONCE: Duration = Duration::from_secs(1);

/// When the shutdown has to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// For what can be sent.
    pub for_uploads: Instant,
    /// For what has to be spooled.
    pub for_spool: Instant,
}

impl Deadline {
    /// So much time from `now` on, of which a part is for the spool if there is one.
    pub fn within(time: Duration, has_spool: bool, now: Instant) -> Self {
        let for_spool = now + time;
        let spool_time =
            if has_spool { (time / SPOOL_SHARE).min(SPOOL_TIME_MAX) } else { Duration::ZERO };
        Self { for_uploads: for_spool - spool_time, for_spool }
    }

    /// No time for uploads any more.
    pub fn at_once(now: Instant) -> Self {
        Self { for_uploads: now, for_spool: now + SPOOL_TIME_AT_ONCE }
    }
}

impl Sender {
    /// Gives up all that is left: to the spool as far as it takes it, and counted as lost beyond.
    ///
    /// # Errors
    ///
    /// When writing to the spool panics. What is left is held still, for another try.
    pub(super) async fn end(
        &mut self,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) -> Result<(), Panicked> {
        self.uploader.settle_ended();
        let mut lost_count = 0;
        match self.spooler.take() {
            None => {
                for attempt in self.uploader.give_up_all() {
                    lost_count += attempt.batch.documents.len();
                }
            }
            Some(mut spooler) => {
                let ended = panics::caught(self.end_in_spool(&mut spooler, deadline)).await;
                self.spooler = Some(spooler);
                lost_count += ended?;
            }
        }
        // What could not be packed, since memory was full or time was over.
        let now = Clock::instant();
        self.batcher.finish_all(now);
        while let Some(batch) = self.batcher.pop() {
            lost_count += batch.documents.len();
        }
        while let Some(parcel) = self.rings.pop() {
            lost_count += parcel.segment_count();
        }
        self.account.dropped(DropReason::Shutdown).add(lost_count as u64);
        if lost_count > 0 {
            error!(
                "{lost_count} segments had not been sent by the end of the shutdown and are \
                 dropped. A larger ShutdownSeconds gives more time, a spool (Spool.Path) that works \
                 keeps them"
            );
        }
        Ok(())
    }

    /// Writes all that is left to the spool; returns how many segments of it are lost.
    async fn end_in_spool(
        &mut self,
        spooler: &mut Spooler,
        deadline: &mut watch::Receiver<Option<Deadline>>,
    ) -> usize {
        // Whatever time is left, the spool has some: it needs little.
        let time_min = Clock::instant() + SPOOL_TIME_AT_ONCE;
        let before = self.account.spooled.get();
        spooler.settle(self.uploader.settled_records());
        spooler.begin_drain();
        let mut lost_count = 0;
        let count = |attempts: Vec<Attempt>| -> usize {
            attempts.iter().map(|attempt| attempt.batch.documents.len()).sum()
        };
        loop {
            // Each round of writes gives memory back for the next part of what is in the rings.
            self.pack_rest();
            let attempts = self.uploader.give_up_all();
            let is_last = attempts.is_empty();
            for attempt in attempts {
                spooler.write(attempt);
            }
            panics::inject("sender_end");
            let is_over = tokio::select! {
                biased;
                () = over(deadline, time_min) => true,
                () = spooler.finish() => false,
            };
            lost_count += count(spooler.unwritten());
            // What a turn was reading lies there still.
            let read = spooler.read(Clock::instant());
            let is_last = is_last && read.is_empty();
            for (batch, record) in read {
                self.uploader.push_spooled(batch, record);
            }
            if is_last || is_over || !spooler.is_working() {
                break;
            }
        }
        lost_count += spooler.give_up() + count(self.uploader.give_up_all());
        let spooled_count = self.account.spooled.get() - before;
        if spooled_count > 0 {
            info!("{spooled_count} segments more are in the spool, to be sent by the next run");
        }
        lost_count
    }

    /// Packs what is in the rings, as far as memory goes.
    fn pack_rest(&mut self) {
        let now = Clock::instant();
        while self.pool.available() >= self.parcel_room_count {
            let Some(parcel) = self.rings.pop() else { break };
            self.pack(&parcel, now);
        }
        self.batcher.finish_all(now);
        self.pass_on();
    }
}

/// Waits until the time for the spool is over, which a second signal may shorten meanwhile.
async fn over(deadline: &mut watch::Receiver<Option<Deadline>>, time_min: Instant) {
    loop {
        let for_spool = deadline.borrow_and_update().map(|deadline| deadline.for_spool);
        let end_at = for_spool.map_or(time_min, |at| at.max(time_min));
        let has_changed = tokio::time::timeout_at(end_at.into(), deadline.changed()).await;
        match has_changed {
            Ok(Ok(())) => {}
            // Nobody is there to change it any more.
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
