//! The request to end, which wakes receivers from any wait.

use super::ReceiveError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Asks receivers to end; clones ask the same ones.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// A request that has not been made yet.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(rustix::event::eventfd(0, flags)?)))
    }

    /// Makes the request; it stays made.
    pub fn request(&self) {
        // The counter is never read, so it stays above zero and the descriptor stays readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Sleeps for `pause`; says whether the request was made before its end.
    pub(super) fn wait(&self, pause: Duration) -> Result<bool, ReceiveError> {
        let pause = Timespec::try_from(pause).unwrap_or_default();
        match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&pause)) {
            Ok(ready_count) => Ok(ready_count > 0),
            // A signal has cut the pause short, which costs no more than a wake-up.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(ReceiveError::Wait(error.into())),
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
