//! The `uring` backend: one multishot receive into a ring of buffers, on the receiver's own ring.
//!
//! While the receiver sleeps for a pause the kernel queues in the socket; one system call then
//! has all of it received, and buffers go back once a drain.

use super::RECEIVE_SLOT_BYTES;
use super::source::{Source, Taken};
use super::sys::MultishotReceive;
use super::{ReceiveError, ReceiveSocket, Receiver, Sink, Stop};
use std::sync::Arc;

/// Receives until `stop` is asked for and what the kernel had queued by then is taken.
pub(super) fn run(
    receiver: &mut Receiver,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let buffer_count = buffer_count(receiver.slot_count());
    let socket = Arc::clone(receiver.socket());
    let receive =
        MultishotReceive::new(Arc::clone(&socket), stop.clone(), buffer_count, RECEIVE_SLOT_BYTES)
            .map_err(ReceiveError::Setup)?;
    let mut source = Uring { receive, has_waited: false };
    receiver.run(&mut source, stop, sink)?;
    drop(source);
    receiver.drain_queue(sink)
}

/// The largest power of two that is not above the number of slots.
fn buffer_count(slot_count: usize) -> u16 {
    let slot_count = u16::try_from(slot_count).unwrap_or(1 << 15).clamp(1, 1 << 15);
    1 << slot_count.ilog2()
}

struct Uring {
    receive: MultishotReceive<Arc<ReceiveSocket>, Stop>,
    /// The wait has worked out what there is: no need to look.
    has_waited: bool,
}

impl Source for Uring {
    fn wait(&mut self) -> Result<bool, ReceiveError> {
        if !self.receive.is_stopped() {
            self.receive.wait(None).map_err(ReceiveError::Wait)?;
            self.reap()?;
            self.has_waited = true;
        }
        Ok(self.receive.is_stopped())
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        if !std::mem::take(&mut self.has_waited) {
            self.receive.look().map_err(ReceiveError::Read)?;
            self.reap()?;
        }
        Ok(self.hand_over(sink))
    }

    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        if self.receive.is_armed() {
            self.receive.cancel().map_err(ReceiveError::Read)?;
        }
        loop {
            self.reap()?;
            self.hand_over(sink);
            debug_assert_eq!(self.receive.buffers_out_count(), 0, "all buffers are given back");
            if !self.receive.is_armed() {
                return Ok(());
            }
            self.receive.wait_for_end().map_err(ReceiveError::Read)?;
        }
    }
}

impl Uring {
    fn reap(&mut self) -> Result<(), ReceiveError> {
        match self.receive.reap() {
            Ok(_) => Ok(()),
            Err(error) if super::take::is_transient(&error) => Ok(()),
            Err(error) => Err(ReceiveError::Read(error)),
        }
    }

    fn hand_over(&mut self, sink: &mut impl Sink) -> Taken {
        let exhausted_count = self.receive.take_exhausted_count();
        if exhausted_count > 0 {
            sink.buffers_exhausted(exhausted_count);
        }
        let mut taken = Taken::of(self.receive.datagrams(), false);
        // The kernel makes 32 receives at a time and counts on from one look to the next
        // (`MULTISHOT_MAX_RETRY`, io_uring/net.c), so that a look can end anywhere: only one that
        // takes nothing means that the queue is empty. A datagram alone is what woke this thread.
        taken.more = taken.datagram_count > 1 || !self.receive.is_armed();
        if taken.datagram_count > 0 {
            sink.drain(self.receive.datagrams());
            self.receive.give_back();
        }
        taken
    }
}
