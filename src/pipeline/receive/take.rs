//! Takes datagrams that a socket has queued, with `recvmmsg(2)` and without waiting.
//!
//! In: a socket. Out: its datagrams, lent to a [`Sink`]. Bound: one call takes one datagram per
//! slot; the last drain takes at most as many as the socket's queue can hold. Thread: the
//! receiver's.

use super::RECEIVE_SLOT_BYTES;
use super::drops;
use super::source::Taken;
use super::sys::DatagramSlots;
use super::{DropCause, ReceiveError, ReceiveSocket, Sink};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Number of receive slots of the last drain. It is small, because the backend's own slots are
/// still allocated.
const LAST_SLOT_COUNT: usize = 4;

/// Pause after a call for which the kernel had no memory.
pub(super) const MEMORY_PAUSE: Duration = Duration::from_millis(10);
/// Number of such pauses in the last drain, which must not delay the shutdown for long.
const MEMORY_PAUSE_COUNT_MAX: usize = 50;

/// Number of waits for room in the last drain. In an outage none of them brings room.
const ROOM_WAIT_COUNT_MAX: usize = 50;

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

/// Returns whether the kernel had no memory for a call. The datagrams stay in the socket's queue.
pub(super) fn is_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// Takes the datagrams that are queued in `sockets` now, and reports the kernel's last drops.
///
/// The drain of a socket ends after as many datagrams as its queue can hold, so that a client that
/// never stops sending cannot delay the shutdown. `wait_for_room` is called while memory is low,
/// [`ROOM_WAIT_COUNT_MAX`] times at most.
pub(super) fn drain_queues(
    sockets: &[Arc<ReceiveSocket>],
    cause: DropCause,
    sink: &mut impl Sink,
    mut wait_for_room: impl FnMut(),
) -> Result<(), ReceiveError> {
    let mut slots = DatagramSlots::new(LAST_SLOT_COUNT, RECEIVE_SLOT_BYTES);
    let mut waits =
        WaitsLeft { room_count: ROOM_WAIT_COUNT_MAX, memory_count: MEMORY_PAUSE_COUNT_MAX };
    for socket in sockets {
        drain_queue(socket, cause, (&mut slots, &mut waits), sink, &mut wait_for_room)?;
    }
    Ok(())
}

/// How often the last drain may still wait.
struct WaitsLeft {
    /// For memory of the daemon.
    room_count: usize,
    /// For memory of the kernel.
    memory_count: usize,
}

fn drain_queue(
    socket: &ReceiveSocket,
    cause: DropCause,
    (slots, waits): (&mut DatagramSlots, &mut WaitsLeft),
    sink: &mut impl Sink,
    mut wait_for_room: impl FnMut(),
) -> Result<(), ReceiveError> {
    for _ in 0..=socket.queue_datagram_count_max() / LAST_SLOT_COUNT {
        if waits.room_count > 0 && sink.is_memory_low() {
            waits.room_count -= 1;
            wait_for_room();
        }
        match take(slots, socket.as_fd(), sink) {
            Ok(Taken { datagram_count, datagram_bytes, more, .. }) => {
                if drops::note(socket, datagram_count, datagram_bytes) {
                    drops::report(socket, cause, sink);
                }
                if !more {
                    break;
                }
            }
            Err(ReceiveError::Read(error)) if is_of_memory(&error) && waits.memory_count > 0 => {
                waits.memory_count -= 1;
                std::thread::sleep(MEMORY_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    drops::report(socket, cause, sink);
    Ok(())
}
