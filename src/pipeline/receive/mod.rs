//! From socket to datagram: threads that take what the kernel has queued, as fast as it comes.
//!
//! In: a group of UDP sockets bound to one address ([`SocketGroup`]). Out: datagrams, lent to a
//! [`Sink`] for as long as it takes to copy them on. Each receiver runs on a thread of its own and
//! owns all it touches. Bound: its receive slots and the kernel's queue; when that is full the
//! kernel drops and counts.
//!
//! ```text
//!   steer.rs spreads        a receiver thread (run.rs)
//!                 ┌──► queue ──► wait ──► take ──► Sink  coalescing.rs says when to wait,
//!   senders ──────┤       uring.rs, recvmmsg.rs              drops.rs what the kernel dropped
//!    (group.rs)   └──► queue ──► ...   tokio_uring.rs
//! ```
//!
//! The way of receiving is a [`Backend`], chosen once at start by trying it (`probe.rs`).

mod coalescing;
mod drops;
mod error;
mod group;
mod probe;
mod recvmmsg;
mod run;
mod sink;
mod socket;
mod source;
mod steer;
mod stop;
mod sys;
mod take;
mod tokio_uring;
mod uring;

pub use error::ReceiveError;
pub use group::{BindError, Binding, SocketGroup, Spread};
pub use probe::{Choice, ReceiveBackend, Unavailable};
pub use run::Receiver;
pub use sink::Sink;
pub use socket::{Queue, ReceiveSocket};
pub use stop::Stop;

use std::fmt;

/// A receive slot holds the largest datagram (65,507 bytes), so none is ever cut off. With an odd
/// number of cache lines the starts of slots do not compete for the same sets of the cache: 8 %
/// less for a drain by recvmmsg (benches/receive.rs).
pub const RECEIVE_SLOT_BYTES: usize = 64 * 1024 + 64;

/// A way to receive datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring: one multishot receive into a ring of buffers. Linux 6.1 or later.
    Uring,
    /// `recvmmsg(2)` after `poll(2)`: works on any Linux.
    Recvmmsg,
    /// One-shot receives on the tokio-uring runtime, several in flight. Linux 5.11 or later.
    TokioUring,
}

impl Backend {
    /// Every backend, the best first.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Recvmmsg, Self::TokioUring];

    /// Its name in the log, the metrics and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Recvmmsg => "recvmmsg",
            Self::TokioUring => "tokio-uring",
        }
    }

    /// Receives into `sink` on the calling thread until `stop` is asked for; then what waits in
    /// the kernel's queue at that moment is taken, and the call returns.
    ///
    /// # Errors
    ///
    /// When the backend cannot be set up, or the socket reports an error that does not pass.
    pub fn run(
        self,
        receiver: &mut Receiver,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        match self {
            Self::Uring => uring::run(receiver, stop, sink),
            Self::Recvmmsg => recvmmsg::run(receiver, stop, sink),
            Self::TokioUring => tokio_uring::run(receiver, stop, sink),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
