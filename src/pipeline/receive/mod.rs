//! Receives datagrams: each receiver takes the datagrams that the kernel has queued for its
//! sockets.
//!
//! In: a group of UDP sockets that are bound to one address ([`SocketGroup`]). Out: datagrams, lent
//! to a [`Sink`], which copies them before its call returns. Bound: the receive slots of each
//! receiver, and the kernel's queue of each socket. When full: the kernel drops datagrams and
//! counts them; the sink gets the count. Thread: `receive-N`, one per receiver. Receivers share no
//! buffers and no sockets.
//!
//! ```text
//!                              a receiver's thread (run.rs)
//!                       ┌──► queue ──► wait ──► take ──► Sink
//!  applications ────────┤    socket.rs  uring.rs, recvmmsg.rs, tokio_uring.rs
//!                       └──► queue ──► ...
//!  group.rs binds, steer.rs spreads       coalescing.rs says how long to wait,
//!                                         drops.rs asks what the kernel dropped
//! ```
//!
//! # Many small queues
//!
//! The kernel bounds the queue of a socket (`net.core.rmem_max`), but not the number of sockets. So
//! where it grants only a small queue, each receiver has several sockets (`many.rs`), and the
//! datagrams are spread over all of them at random. `room.rs` says how many datagrams then fit.
//! `pipeline/sockets.rs` computes the number.
//!
//! # How to receive
//!
//! A *read* of a socket takes the datagrams that the kernel has queued, without waiting for more.
//!
//! A [`Backend`] is chosen at the start (`choice.rs`): `probe.rs` tests that it can receive a
//! datagram. Where a seccomp filter may end the process that tries, `trial.rs` runs the probe in a
//! child process. If a backend fails later, its receiver goes on with `recvmmsg` on the same
//! socket; [`BackendInUse`] names the backend of each receiver.
//!
//! # When to leave the socket alone
//!
//! While the sender asks for it ([`Shedding`](super::shedding::Shedding)), receivers do not look at
//! their sockets: no read, no new receive and no cancelled one. The kernel's queue fills, and the
//! kernel drops and counts what has no room in it. Each receiver asks every few milliseconds
//! whether to go on. The two controllers below learn nothing from this time.
//!
//! # When to wait, and how many receivers to use
//!
//! Two controllers follow the rate of datagrams. Neither has a clock or does I/O: the receiver
//! passes the time and the counts. Each file begins with a drawing of the states. Each constant has
//! its unit, and either a measurement or the remark that the value was chosen.
//!
//! - Coalescing (`coalescing.rs`) is part of every receiver. It measures the receiver's rate and
//!   says how long to sleep when the queue is empty.
//! - Steering (`steer.rs`) is part of the group's first receiver. It reads the rate that coalescing
//!   measured there and says how many receivers get datagrams.

mod choice;
mod coalescing;
mod drops;
mod error;
mod group;
mod in_use;
mod many;
mod probe;
mod program;
mod progress;
mod recvmmsg;
mod room;
mod run;
mod sink;
mod socket;
mod source;
mod steer;
mod stop;
mod sys;
mod take;
mod tokio_uring;
mod trial;
mod uring;

pub use choice::{Choice, ReceiveBackend};
pub use error::ReceiveError;
pub use group::{BindError, Binding, SocketGroup, Spread};
pub use in_use::BackendInUse;
pub use probe::Unavailable;
pub use program::TakeOver;
pub use run::Receiver;
pub use sink::{DropCause, Sink};
pub use socket::{Queue, ReceiveSocket};
pub use steer::burst_count;
pub use stop::Stop;
pub use trial::child as trial_child;

use std::fmt;

/// Size of a receive slot in bytes. The largest UDP datagram over IPv4 has 65,507 bytes, so no
/// datagram is cut off.
///
/// A slot has 1,025 cache lines of 64 bytes. The number is odd so that the starts of the slots fall
/// into different sets of the cache: a drain with `recvmmsg` took 8 % less time than with slots of
/// 65,536 bytes (`benches/receive.rs`, 2026-11-24; the machine was not recorded).
pub const RECEIVE_SLOT_BYTES: usize = 64 * 1024 + 64;

/// A way to receive datagrams from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring: one multishot receive into a ring of buffers. Linux 6.1 or later.
    Uring,
    /// `recvmmsg(2)` after `poll(2)`, or after `epoll(7)` for a receiver with several sockets.
    /// Works on any Linux.
    Recvmmsg,
    /// One-shot receives on the tokio-uring runtime, several in flight. Linux 5.11 or later.
    TokioUring,
}

impl Backend {
    /// Every backend, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Recvmmsg, Self::TokioUring];

    /// Returns the backend's name in the log, the metrics and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Recvmmsg => "recvmmsg",
            Self::TokioUring => "tokio-uring",
        }
    }

    /// Receives into `sink` on the calling thread until `stop` is requested. Then takes the
    /// datagrams that the kernel has queued, and returns.
    ///
    /// # Errors
    ///
    /// Returns an error if the backend cannot be set up, or if waiting for the socket or reading
    /// from it fails permanently.
    pub fn run(
        self,
        receiver: &mut Receiver,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        match self {
            Self::Uring => uring::run(receiver, stop, sink),
            Self::Recvmmsg if receiver.sockets().len() > 1 => many::run(receiver, stop, sink),
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
