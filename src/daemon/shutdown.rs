//! The order of a shutdown: first what still comes, then what the kernel has queued, then uploads.

use super::threads::{Receivers, SenderThread};
use crate::base::account::Account;
use crate::pipeline::sender::Deadline;
use std::time::{Duration, Instant};

/// The sockets have been quiet for this long: nobody sends any more.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// How often the sockets are looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How the daemon is to end.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown {
    /// All the time there is (`ShutdownSeconds`).
    pub time: Duration,
    /// Whether a part of it is for the spool.
    pub has_spool: bool,
    /// Whether what still comes is to be taken.
    pub waits_for_quiet: bool,
    /// Whether the spool, where there is one, takes all that is left: the thread that would upload
    /// it has panicked once.
    pub spools_at_once: bool,
}

impl Shutdown {
    /// Ends the daemon in order; returns how many segments are held at the end.
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
            wait_until_quiet(account, now + self.time / 2).await;
        }
        receivers.stop().await;
        upload.ended().await
    }
}

/// Waits until no datagram has come for [`QUIET_TIME`], or until `limit`.
async fn wait_until_quiet(account: &Account, limit: Instant) {
    let count = || account.receivers.iter().map(|counts| counts.datagrams.get()).sum::<u64>();
    let (mut last_count, mut last_at) = (count(), Instant::now());
    while Instant::now() < limit && last_at.elapsed() < QUIET_TIME {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if count() != last_count {
            (last_count, last_at) = (count(), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_still_comes_is_waited_for_but_not_for_ever() {
        let account = Account::new(2);
        let start = Instant::now();
        let sender = async {
            // Without a pause: one that is too long on a busy machine is quiet.
            while start.elapsed() < Duration::from_millis(300) {
                account.receivers[1].datagrams.add(1);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(wait_until_quiet(&account, start + Duration::from_secs(600)), sender);
        assert!(start.elapsed() >= Duration::from_millis(300) + QUIET_TIME);
        let endless = async {
            loop {
                tokio::task::yield_now().await;
                account.receivers[0].datagrams.add(1);
            }
        };
        tokio::select! {
            () = wait_until_quiet(&account, Instant::now() + Duration::from_millis(300)) => {}
            () = endless => {}
        }
    }
}
