//! The `recvmmsg` backend: waits for the socket with `poll(2)`, then takes all its datagrams.
//!
//! In: a socket. Out: datagrams, lent to a [`Sink`]. Bound: its receive slots. Thread: the
//! receiver's.
//!
//! A wait is one `poll`. After the wait, a `recvmmsg` call fills up to all receive slots. If a call
//! fills every slot, more datagrams may wait in the kernel, so another call follows at once. The
//! backend works on any Linux and in any container. A receiver with several sockets reads them with
//! `many.rs` instead.

use super::RECEIVE_SLOT_BYTES;
use super::source::{Source, Taken};
use super::sys::DatagramSlots;
use super::{ReceiveError, Receiver, Sink, Stop, take};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Receives until `stop` is requested, then takes the datagrams that the kernel has queued.
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
            Err(error) if take::is_of_memory(&error.into()) => {
                // The queue holds what arrives in the meantime.
                std::thread::sleep(take::MEMORY_PAUSE);
                Ok(false)
            }
            Err(error) => Err(ReceiveError::Wait(error.into())),
        }
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        match take::take(&mut self.slots, self.socket, sink) {
            Err(ReceiveError::Read(error)) if take::is_of_memory(&error) => {
                std::thread::sleep(take::MEMORY_PAUSE);
                Ok(Taken::default())
            }
            taken => taken,
        }
    }

    /// Returns nothing: a wait takes no datagram.
    fn hand_over_waited(&mut self, _sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        Ok(Taken::default())
    }

    fn finish(&mut self, _sink: &mut impl Sink) -> Result<(), ReceiveError> {
        Ok(())
    }

    /// Does nothing: each datagram went to the sink with the call that took it.
    fn abandon(&mut self, _sink: &mut impl Sink) {}
}
