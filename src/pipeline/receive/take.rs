//! Takes what a socket has queued with `recvmmsg(2)`, without waiting for more.

use super::RECEIVE_SLOT_BYTES;
use super::drops::DropWatch;
use super::source::Taken;
use super::sys::DatagramSlots;
use super::{ReceiveError, ReceiveSocket, Sink};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Slots of the last drain: it is short, and the backend's own slots are still there.
const LAST_SLOT_COUNT: usize = 4;

/// Takes up to a slotful of datagrams.
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

/// Errors after which the next call can succeed: signals, and ICMP answers to nobody of ours.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

/// Takes what is queued now, at most as much as the queue can hold: a sender that goes on must
/// not keep the daemon from ending.
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
