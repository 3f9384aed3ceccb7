//! The order of a shutdown: datagrams that still arrive, then the kernel's queues, then uploads.
//!
//! In: the running threads, and the time for the shutdown. Out: ended threads, and the number of
//! segments that are left. Bound: [`Shutdown::time`]. Thread: main.

use super::threads::{Receivers, SenderThread};
use crate::base::account::{Account, ReceiverCounts};
use crate::pipeline::sender::Deadline;
use std::time::{Duration, Instant};
use tracing::warn;

/// If no datagram arrives for this time, the applications are assumed to have stopped.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// Interval between two checks for new datagrams.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The parameters of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    /// The total time for the shutdown (`ShutdownSeconds`).
    pub time: Duration,
    /// Whether there is a spool. The last part of the time is for writing to the spool.
    pub has_spool: bool,
    /// Whether the receivers continue until no datagram has arrived for [`QUIET_TIME`].
    pub waits_for_quiet: bool,
    /// Whether the remaining segments go to the spool, if there is one, without an upload. True if
    /// the sender thread has panicked.
    pub spools_at_once: bool,
}

impl Shutdown {
    /// Stops receivers and sender in order. Returns the number of segments that are still held.
    pub async fn run(
        self,
        receivers: &mut Receivers,
        upload: &mut SenderThread,
        account: &Account,
    ) -> usize {
        let now = Instant::now();
        let mut deadline = Deadline::within(self.time, self.has_spool, now);
        if self.spools_at_once && self.has_spool {
            deadline.for_uploads = now;
        }
        upload.set_deadline(deadline);
        if self.waits_for_quiet {
            // A receiver that sheds makes progress too: the kernel still holds datagrams for it.
            let count = || account.receivers.iter().map(ReceiverCounts::progress).sum::<u64>();
            let is_quiet = wait_until_quiet(count, now + self.time / 2).await;
            if !is_quiet {
                warn!(
                    "Applications still send segments: the daemon stops receiving, because half of \
                     the time for the shutdown (ShutdownSeconds) is over"
                );
            }
        }
        receivers.stop().await;
        upload.ended().await
    }
}

/// Waits until `count` has not changed for [`QUIET_TIME`], or until `limit`. Returns false if it
/// still changed at the limit.
pub(super) async fn wait_until_quiet(count: impl Fn() -> u64, limit: Instant) -> bool {
    let (mut last_count, mut last_at) = (count(), Instant::now());
    while last_at.elapsed() < QUIET_TIME {
        if Instant::now() >= limit {
            return false;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        if count() != last_count {
            (last_count, last_at) = (count(), Instant::now());
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shutdown_waits_for_late_datagrams_but_not_for_ever() {
        let account = Account::new(2);
        let count = || account.receivers.iter().map(|it| it.datagrams.get()).sum();
        let start = Instant::now();
        let sender = async {
            // This loop does not sleep: on a busy machine a sleep may last longer than
            // `QUIET_TIME`.
            while start.elapsed() < Duration::from_millis(300) {
                account.receivers[1].datagrams.add(1);
                tokio::task::yield_now().await;
            }
        };
        let quiet = wait_until_quiet(count, start + Duration::from_secs(600));
        assert!(tokio::join!(quiet, sender).0);
        assert!(start.elapsed() >= Duration::from_millis(300) + QUIET_TIME);
        let endless = async {
            loop {
                tokio::task::yield_now().await;
                account.receivers[0].datagrams.add(1);
            }
        };
        tokio::select! {
            is_quiet = wait_until_quiet(count, Instant::now() + Duration::from_millis(300)) => {
                assert!(!is_quiet);
            }
            () = endless => {}
        }
    }
}
