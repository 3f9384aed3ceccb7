//! The `recvmmsg` backend: wait until the socket has something, take all of it, wait again.
//!
//! Two system calls a drain and nothing for each datagram. A drain that fills every slot is
//! followed by another one without a wait. It works on any Linux, and in any container.

use super::RECEIVE_SLOT_BYTES;
use super::drops::DropWatch;
use super::run::{Source, Taken};
use super::sys::DatagramSlots;
use super::{ReceiveError, ReceiveSocket, Receiver, Sink, Stop};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Slots of the last drain: it is short, and the backend's own slots are still there.
const LAST_SLOT_COUNT: usize = 4;

/// Receives until `stop` is asked for and what the kernel had queued by then is taken.
pub(super) fn run(
    receiver: &mut Receiver,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let socket = Arc::clone(receiver.socket());
    let slots = DatagramSlots::new(receiver.slot_count(), RECEIVE_SLOT_BYTES);
    receiver.run(&mut Recvmmsg { socket: socket.as_fd(), stop, slots }, stop, sink)?;
    receiver.drain_queue(sink)
}

struct Recvmmsg<'a> {
    socket: BorrowedFd<'a>,
    stop: &'a Stop,
    slots: DatagramSlots,
}

impl Source for Recvmmsg<'_> {
    fn wait(&mut self) -> Result<bool, ReceiveError> {
        let mut descriptors =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(self.stop, PollFlags::IN)];
        match poll(&mut descriptors, None) {
            Ok(_) => Ok(descriptors[1].revents().contains(PollFlags::IN)),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(ReceiveError::Wait(error.into())),
        }
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        take(&mut self.slots, self.socket, sink)
    }

    fn finish(&mut self, _sink: &mut impl Sink) -> Result<(), ReceiveError> {
        Ok(())
    }
}

/// Takes up to a slotful of datagrams.
fn take(
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
        Err(error) if passes(&error) => Ok(Taken { more: true, ..Taken::default() }),
        Err(error) => Err(ReceiveError::Read(error)),
    }
}

/// Errors after which the next call can succeed: signals, and ICMP answers to nobody of ours.
pub(super) fn passes(error: &io::Error) -> bool {
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
