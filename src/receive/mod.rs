//! From socket to datagram: threads that take what the kernel has queued, as fast as it comes.
//!
//! In: a bound UDP socket. Out: datagrams, lent to a [`Sink`] for as long as it takes to copy
//! them on. Each receiver runs on a thread of its own and owns all it touches. Bound: its receive
//! slots and the kernel's queue; when that is full the kernel drops and counts.
//!
//! The way of receiving is a [`Backend`], chosen once at start by trying it.

mod recvmmsg;
mod socket;
mod sys;

pub use socket::{BindError, ReceiveSocket};

use crate::limits::Limits;
use rustix::event::EventfdFlags;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What takes datagrams from a receiver.
pub trait Sink: Send {
    /// Takes the datagrams of one drain of the socket, in the order they came.
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>);

    /// Learns that the kernel dropped `count` datagrams because the socket's queue was full.
    fn kernel_dropped(&mut self, count: u32, queue_bytes: usize);
}

/// A way to receive datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `recvmmsg(2)` after `poll(2)`: works on any Linux.
    Recvmmsg,
}

impl Backend {
    /// The best backend that works here.
    ///
    /// Each candidate is tried for real, since what a kernel has says nothing of what a
    /// container may use. `recvmmsg` is the last one and needs nothing that could be missing.
    pub fn choose() -> Self {
        Self::Recvmmsg
    }

    /// Its name in the log, the metrics and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
        }
    }

    /// Receives from `socket` into `sink` on the calling thread until `stop` is asked for; then
    /// what waits in the kernel's queue at that moment is taken, and the call returns.
    ///
    /// # Errors
    ///
    /// When the socket reports an error that does not pass.
    pub fn run(
        self,
        socket: &ReceiveSocket,
        limits: &Limits,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        match self {
            Self::Recvmmsg => recvmmsg::run(socket, limits.receive_slot_count, stop, sink),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Why a receiver ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Waiting for the socket failed
    #[error("waiting for datagrams failed: {0}")]
    Wait(#[source] io::Error),
    /// Reading the socket failed
    #[error("reading datagrams from the UDP socket failed: {0}")]
    Read(#[source] io::Error),
}

/// Asks receivers to end; clones ask the same ones. It wakes them from their wait.
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
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
