//! The `recvmmsg` backend: wait until the socket has something, take all of it, wait again.
//!
//! Two system calls a drain and nothing for each datagram. A drain that fills every slot is
//! followed by another one without a wait.

use super::socket::DropWatch;
use super::sys::DatagramSlots;
use super::{ReceiveError, ReceiveSocket, Sink, Stop};
use crate::limits::RECEIVE_SLOT_BYTES;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::AsFd;

/// Receives until `stop` is asked for and what the kernel had queued by then is taken.
pub(super) fn run(
    socket: &ReceiveSocket,
    slot_count: usize,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let mut slots = DatagramSlots::new(slot_count, RECEIVE_SLOT_BYTES);
    let mut drops = DropWatch::default();
    while !wait(socket, stop)? {
        while drain(&mut slots, socket, &mut drops, sink)? {}
    }
    // A sender that goes on must not keep the daemon from ending.
    for _ in 0..=socket.queue_datagram_count_max() / slot_count {
        if !drain(&mut slots, socket, &mut drops, sink)? {
            break;
        }
    }
    drops.report(socket, sink);
    Ok(())
}

/// Sleeps until there is a datagram or the request to stop; says whether it is the latter.
fn wait(socket: &ReceiveSocket, stop: &Stop) -> Result<bool, ReceiveError> {
    let mut descriptors = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    match poll(&mut descriptors, None) {
        Ok(_) => Ok(descriptors[1].revents().contains(PollFlags::IN)),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(ReceiveError::Wait(error.into())),
    }
}

/// Takes up to a slotful of datagrams; says whether more may wait.
fn drain(
    slots: &mut DatagramSlots,
    socket: &ReceiveSocket,
    drops: &mut DropWatch,
    sink: &mut impl Sink,
) -> Result<bool, ReceiveError> {
    match slots.receive(socket.as_fd()) {
        Ok(count) => {
            sink.drain(slots.datagrams());
            drops.note(count, slots.received_bytes(), socket, sink);
            Ok(count == slots.slot_count())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if passes(&error) => Ok(true),
        Err(error) => Err(ReceiveError::Read(error)),
    }
}

/// Errors after which the next call can succeed: signals, and ICMP answers to nobody of ours.
fn passes(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}
