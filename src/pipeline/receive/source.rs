//! The interface between the loop of a receiver (`run.rs`) and a backend.
//!
//! In: calls of the loop. Out: datagrams into a [`Sink`], and how many there were. Thread: the
//! receiver's.

use super::{ReceiveError, Sink};
use std::ops::AddAssign;

/// The counts of the datagrams that one read of the socket took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    pub datagram_count: usize,
    pub datagram_bytes: usize,
    /// Whether more datagrams may wait in the socket's queue.
    pub more: bool,
    /// Whether a quarter of the queue of some socket has been taken since the kernel was last asked
    /// for its drops. Only the source of several sockets sets it, which knows the socket of each
    /// datagram.
    pub is_quarter_taken: bool,
}

impl AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.datagram_count += other.datagram_count;
        self.datagram_bytes += other.datagram_bytes;
        self.more |= other.more;
        self.is_quarter_taken |= other.is_quarter_taken;
    }
}

impl Taken {
    /// Counts `datagrams` and their bytes.
    pub(super) fn of<'a>(datagrams: impl Iterator<Item = &'a [u8]>, more: bool) -> Self {
        datagrams.fold(Self { more, ..Self::default() }, |taken, datagram| Self {
            datagram_count: taken.datagram_count + 1,
            datagram_bytes: taken.datagram_bytes + datagram.len(),
            ..taken
        })
    }
}

/// A backend that receives from the sockets of a receiver.
pub(super) trait Source {
    /// Sleeps until a datagram arrives or a stop is requested. Returns whether a stop is requested.
    fn wait(&mut self) -> Result<bool, ReceiveError>;

    /// Takes the datagrams that the kernel has queued, without waiting for more, and lends them to
    /// `sink`. The `tokio-uring` backend may sleep here, because its runtime submits reads only
    /// then.
    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError>;

    /// Lends the datagrams to `sink` that the last [`wait`](Self::wait) has already taken off the
    /// kernel's queue. Does not look at the socket.
    fn hand_over_waited(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError>;

    /// Ends the backend. Datagrams that it has already taken off the kernel's queue go to `sink`.
    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError>;

    /// Ends the backend after one of the functions above has failed, so that another backend can
    /// receive from the socket. Datagrams that it has already taken off the kernel's queue go to
    /// `sink`.
    fn abandon(&mut self, sink: &mut impl Sink);
}
