//! Takes datagrams that a socket has queued, with `recvmmsg(2)` and without waiting.
//!
//! In: a socket. Out: its datagrams, lent to a [`Sink`]. Bound: one call takes one datagram per
//! slot; the last drain takes at most as many as the socket's queue can hold. Thread: the
//! receiver's.

use super::RECEIVE_SLOT_BYTES;
use super::drops::DropWatch;
use super::source::Taken;
use super::sys::DatagramSlots;
use super::{ReceiveError, ReceiveSocket, Sink};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Number of receive slots of the last drain. It is small, because the backend's own slots are
/// still allocated.
const LAST_SLOT_COUNT: usize = 4;

/// Takes up to one datagram per slot, and lends them to `sink`.
///
/// # Errors
///
/// Returns [`ReceiveError::Read`] if reading the socket fails permanently.
pub(super) fn take(
    slots: &mut DatagramSlots,
    socket: BorrowedFd<'_>,
    sink: &mut impl Sink,
) -> Result<Taken, ReceiveError> {
    match slots.receive(socket) {
        Ok(count) => {
            sink.drain(slots.datagrams());
            Ok(Taken::of(slots.datagrams(), count == slots.slot_count()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken::default()),
        Err(error) if is_transient(&error) => Ok(Taken { more: true, ..Taken::default() }),
        Err(error) => Err(ReceiveError::Read(error)),
    }
}

/// Returns whether the next call can succeed after this error. `EINTR`: a signal interrupted the
/// call. `ECONNREFUSED`: an ICMP message arrived, which does not concern a socket that only
/// receives.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

/// Takes the datagrams that are queued now, and reports the kernel's last drops.
///
/// The drain ends after as many datagrams as the queue can hold, so that a client that never stops
/// sending cannot delay the shutdown.
pub(super) fn drain_queue(
    socket: &ReceiveSocket,
    drops: &mut DropWatch,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let mut slots = DatagramSlots::new(LAST_SLOT_COUNT, RECEIVE_SLOT_BYTES);
    for _ in 0..=socket.queue_datagram_count_max() / LAST_SLOT_COUNT {
        if !take(&mut slots, socket.as_fd(), sink)?.more {
            break;
        }
    }
    drops.report(socket, sink);
    Ok(())
}
