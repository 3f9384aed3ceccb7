//! What a backend brings: how to wait for datagrams and how to take them.

use super::{ReceiveError, Sink};

/// What one look at the socket took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    pub datagram_count: usize,
    pub datagram_bytes: usize,
    /// Whether more may wait.
    pub more: bool,
}

impl Taken {
    /// Adds up datagrams.
    pub(super) fn of<'a>(datagrams: impl Iterator<Item = &'a [u8]>, more: bool) -> Self {
        datagrams.fold(Self { more, ..Self::default() }, |taken, datagram| Self {
            datagram_count: taken.datagram_count + 1,
            datagram_bytes: taken.datagram_bytes + datagram.len(),
            more,
        })
    }
}

/// A backend at work on one socket.
pub(super) trait Source {
    /// Sleeps until there is a datagram or the request to stop; says whether it is the latter.
    fn wait(&mut self) -> Result<bool, ReceiveError>;

    /// Gives `sink` what waits, as far as one look goes.
    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError>;

    /// Ends it: what it has taken off the kernel's queue still goes to `sink`.
    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError>;
}
