//! The request to stop, which wakes receivers from any wait.
//!
//! In: one call of [`Stop::request`], from any thread. Out: a descriptor that becomes readable, for
//! receivers to wait for. Bound: one file descriptor for all receivers.

use super::ReceiveError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Sleep in place of a wait for which the kernel has no memory.
const NOMEM_PAUSE: Duration = Duration::from_millis(1);

/// A request to receivers to stop. Clones share one request.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// Creates a request that has not been made yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel gives no event descriptor (eventfd(2)), for example because
    /// the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(rustix::event::eventfd(0, flags)?)))
    }

    /// Makes the request. It cannot be taken back.
    pub fn request(&self) {
        // The counter is never read, so it stays above zero and the descriptor stays readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Sleeps for `pause`, or until the request is made. Returns whether it is made.
    ///
    /// # Errors
    ///
    /// Returns [`ReceiveError::Wait`] if `poll(2)` fails.
    pub(super) fn wait(&self, pause: Duration) -> Result<bool, ReceiveError> {
        let pause = Timespec::try_from(pause).unwrap_or_default();
        match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&pause)) {
            Ok(ready_count) => Ok(ready_count > 0),
            // A signal has ended the pause early. The cost is one wake-up.
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(rustix::io::Errno::NOMEM) => {
                // The kernel has no memory for the call at this moment.
                std::thread::sleep(NOMEM_PAUSE);
                Ok(false)
            }
            Err(error) => Err(ReceiveError::Wait(error.into())),
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
