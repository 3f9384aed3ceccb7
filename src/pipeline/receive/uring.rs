//! The `uring` backend: one multishot receive fills buffers until they are used up.
//!
//! In: a socket. Out: datagrams, lent to a [`Sink`]. Bound: the buffers, a power of two of them.
//! When full: the kernel keeps datagrams in the socket's queue. Thread: the receiver's, with an
//! io_uring instance of its own.
//!
//! During a pause datagrams wait in the socket's queue. One system call then receives up to 32 of
//! them, and the buffers go back to the kernel once per system call.

use super::RECEIVE_SLOT_BYTES;
use super::source::{Source, Taken};
use super::sys::MultishotReceive;
use super::{ReceiveError, ReceiveSocket, Receiver, Sink, Stop};
use std::sync::Arc;

/// Receives until `stop` is requested, then takes the datagrams that the kernel has queued.
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

/// Returns the largest power of two that is not above the number of slots.
fn buffer_count(slot_count: usize) -> u16 {
    let slot_count = u16::try_from(slot_count).unwrap_or(1 << 15).clamp(1, 1 << 15);
    1 << slot_count.ilog2()
}

/// Number of calls with which a receive is ended after a failure. It is larger than needed if one
/// call has failed.
const ABANDON_ATTEMPT_COUNT: usize = 8;

struct Uring {
    receive: MultishotReceive<Arc<ReceiveSocket>, Stop>,
    /// Whether [`wait`](Source::wait) has just taken the kernel's completions. The next
    /// [`take`](Source::take) then needs no system call.
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

    /// Hands over the completions of the wait, and gives their buffers back. The receive stays as
    /// it is: it takes no further datagram without a call of this thread (`DEFER_TASKRUN`).
    fn hand_over_waited(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        self.has_waited = false;
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

    /// Cancels the receive, with a few attempts. If all fail, the receive is left to the kernel,
    /// which takes no datagram off the queue without a call of this thread (`DEFER_TASKRUN`).
    fn abandon(&mut self, sink: &mut impl Sink) {
        for _ in 0..ABANDON_ATTEMPT_COUNT {
            self.hand_over_all(sink);
            if !self.receive.is_armed() {
                return;
            }
            // The next attempt follows an error.
            let _ = self.receive.cancel();
        }
        self.hand_over_all(sink);
        self.receive.leave();
    }
}

impl Uring {
    /// Hands over the datagrams of all completions that are there. Errors of the socket are left to
    /// the next backend.
    fn hand_over_all(&mut self, sink: &mut impl Sink) {
        loop {
            let _ = self.receive.reap();
            if self.hand_over(sink).datagram_count == 0 {
                return;
            }
        }
    }

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
        // The kernel makes up to 32 receives at a time (`MULTISHOT_MAX_RETRY`, io_uring/net.c). It
        // does not begin to count anew with each system call, so a call can end before the queue is
        // empty. Only a call that takes nothing shows an empty queue. A single datagram is the
        // exception: it is usually the one that woke this thread.
        taken.more = taken.datagram_count > 1 || !self.receive.is_armed();
        if taken.datagram_count > 0 {
            sink.drain(self.receive.datagrams());
            self.receive.give_back();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, Binding, DropCause, Queue, SocketGroup};
    use super::*;
    use crate::skip::{Need, skip};
    use std::net::UdpSocket;
    use std::time::Duration;

    #[derive(Default)]
    struct Collect(Vec<Vec<u8>>);

    impl Sink for Collect {
        fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
            self.0.extend(datagrams.map(<[u8]>::to_vec));
        }

        fn kernel_dropped(&mut self, _count: u32, _queue: Queue, _cause: DropCause) {}

        fn buffers_exhausted(&mut self, _count: u32) {}

        fn shed(&mut self, _time: Duration) {}
    }

    #[test]
    fn after_a_failure_the_sink_has_what_was_taken_and_the_queue_has_the_rest() {
        if let Err(error) = Backend::Uring.probe() {
            return skip(Need::Uring, error);
        }
        for calls_fail in [false, true] {
            let binding = Binding {
                receiver_count: 1,
                socket_count: 1,
                queue_bytes: 64 * 1024,
                share_port: false,
            };
            let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
            let (address, socket) = (group.local_address(), UdpSocket::bind("127.0.0.1:0"));
            let mut receiver = group.into_receivers(4).remove(0);
            let (stop, socket) = (Stop::new().unwrap(), socket.unwrap());
            let send = |numbers: std::ops::Range<u8>| {
                for number in numbers {
                    socket.send_to(&[number], address).unwrap();
                }
            };
            let receive =
                MultishotReceive::new(Arc::clone(receiver.socket()), stop, 4, RECEIVE_SLOT_BYTES);
            let mut source = Uring { receive: receive.unwrap(), has_waited: false };
            let mut sink = Collect::default();
            send(0..3);
            assert!(!source.wait().unwrap());
            send(3..6);
            if calls_fail {
                source.receive.break_calls();
                assert!(source.receive.look().is_err());
            }
            source.abandon(&mut sink);
            assert!(sink.0.len() >= 3, "{:?}", sink.0);
            drop(source);
            send(6..9);
            receiver.drain_queue(&mut sink).unwrap();
            assert_eq!(sink.0, (0..9).map(|number| vec![number]).collect::<Vec<_>>());
        }
    }

    /// Returns a source with a full submission queue, and the number of the datagram that waits.
    fn full(binding: Binding) -> (Uring, Receiver, UdpSocket) {
        let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", group.local_address()).unwrap();
        let receiver = group.into_receivers(4).remove(0);
        let stop = Stop::new().unwrap();
        let mut receive =
            MultishotReceive::new(Arc::clone(receiver.socket()), stop, 4, RECEIVE_SLOT_BYTES)
                .unwrap();
        receive.fill_submissions();
        (Uring { receive, has_waited: false }, receiver, socket)
    }

    #[test]
    fn a_full_submission_queue_is_submitted_and_never_makes_a_receiver_deaf() {
        if let Err(error) = Backend::Uring.probe() {
            return skip(Need::Uring, error);
        }
        let binding = Binding {
            receiver_count: 1,
            socket_count: 1,
            queue_bytes: 64 * 1024,
            share_port: false,
        };
        let (mut source, mut receiver, _socket) = full(binding);
        let mut sink = Collect::default();
        while sink.0.is_empty() {
            assert!(!source.wait().unwrap());
            source.take(&mut sink).unwrap();
        }
        assert_eq!(sink.0, [b"x"]);
        drop(source);
        // Where the kernel takes nothing out of the queue, the receiver hears of it, and another
        // backend goes on with the socket.
        for begin in [Uring::begin_wait, Uring::begin_take] {
            let (mut source, mut receiver, _socket) = full(binding);
            source.receive.break_calls();
            begin(&mut source, &mut sink).unwrap_err();
            assert!(!source.receive.is_armed());
            source.abandon(&mut sink);
            drop(source);
            sink.0.clear();
            receiver.drain_queue(&mut sink).unwrap();
            assert_eq!(sink.0, [b"x"]);
        }
        receiver.drain_queue(&mut sink).unwrap();
    }

    impl Uring {
        fn begin_wait(&mut self, _sink: &mut Collect) -> Result<(), ReceiveError> {
            self.wait().map(drop)
        }

        fn begin_take(&mut self, sink: &mut Collect) -> Result<(), ReceiveError> {
            self.take(sink).map(drop)
        }
    }
}
