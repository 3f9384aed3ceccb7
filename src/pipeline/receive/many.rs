//! The `recvmmsg` backend for a receiver with several sockets: `epoll(7)` names those with
//! datagrams.
//!
//! In: the sockets of a receiver. Out: datagrams, lent to a [`Sink`]. Bound: the receive slots, and
//! [`SOCKETS_PER_LOOK`] sockets in one look. Thread: the receiver's.
//!
//! A look reads each socket that `epoll` names once. So no socket waits for another one that never
//! becomes empty: `epoll` names the sockets in turn, and one read takes no more datagrams than
//! there are slots. The datagrams of several sockets go to the sink together, so that a look that
//! finds a few datagrams in each of many sockets is one hand-over.

use super::source::{Source, Taken};
use super::sys::DatagramSlots;
use super::{RECEIVE_SLOT_BYTES, ReceiveError, ReceiveSocket, Receiver, Sink, Stop, drops, take};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The largest number of sockets that one look reads. Chosen, not measured: a look then takes 1,024
/// datagrams at most, so that the loop of the receiver soon sees a stop.
const SOCKETS_PER_LOOK: usize = 16;

/// The number that `epoll` returns for the request to stop. The sockets have their index.
const STOP: u64 = u64::MAX;

/// Receives until `stop` is requested, then takes the datagrams that the kernel has queued.
pub(super) fn run(
    receiver: &mut Receiver,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let mut source = ManySockets::new(receiver.sockets(), stop, receiver.slot_count())
        .map_err(|error| ReceiveError::Setup(error.into()))?;
    receiver.run(&mut source, stop, sink)?;
    drop(source);
    receiver.drain_queue(sink)
}

struct ManySockets {
    sockets: Vec<Arc<ReceiveSocket>>,
    epoll: OwnedFd,
    /// The last answer of `epoll`: sockets to read, and perhaps the request to stop.
    named: Vec<epoll::Event>,
    /// Whether [`wait`](Source::wait) has just asked `epoll`. The next [`take`](Source::take) then
    /// need not ask.
    has_waited: bool,
    slots: DatagramSlots,
}

impl ManySockets {
    fn new(sockets: &[Arc<ReceiveSocket>], stop: &Stop, slot_count: usize) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), readable)?;
        for (index, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &**socket, data, readable)?;
        }
        Ok(Self {
            sockets: sockets.to_vec(),
            epoll,
            // One place more, for the request to stop.
            named: Vec::with_capacity(SOCKETS_PER_LOOK + 1),
            has_waited: false,
            slots: DatagramSlots::new(slot_count, RECEIVE_SLOT_BYTES),
        })
    }

    /// Asks `epoll` which sockets have datagrams. Without a timeout it sleeps until one has.
    fn ask(&mut self, timeout: Option<&Timespec>) -> Result<(), ReceiveError> {
        self.named.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.named), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) if take::is_of_memory(&error.into()) => {
                // The queues hold what arrives in the meantime.
                std::thread::sleep(take::MEMORY_PAUSE);
                Ok(())
            }
            Err(error) => Err(ReceiveError::Wait(error.into())),
        }
    }

    /// Reads the socket at `index` once. The datagrams stay in the slots if there is room for more.
    fn read(&mut self, index: usize, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        // Each socket gets half of the slots or more, so that none waits longer for being named
        // after others.
        if self.slots.free_count() <= self.slots.slot_count() / 2 {
            self.hand_over(sink);
        }
        let (socket, free_count) = (&self.sockets[index], self.slots.free_count());
        match self.slots.receive_more(socket.as_fd()) {
            Ok(count) => {
                let mut taken = Taken::of(self.slots.last_datagrams(count), count == free_count);
                let (count, bytes) = (taken.datagram_count, taken.datagram_bytes);
                taken.is_quarter_taken = drops::note(socket, count, bytes);
                Ok(taken)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(Taken::default()),
            Err(error) if take::is_transient(&error) => {
                Ok(Taken { more: true, ..Taken::default() })
            }
            Err(error) if take::is_of_memory(&error) => {
                self.hand_over(sink);
                std::thread::sleep(take::MEMORY_PAUSE);
                Ok(Taken::default())
            }
            Err(error) => Err(ReceiveError::Read(error)),
        }
    }

    /// Lends the datagrams in the slots to `sink`. The slots are free afterwards.
    fn hand_over(&mut self, sink: &mut impl Sink) {
        if self.slots.free_count() < self.slots.slot_count() {
            sink.drain(self.slots.datagrams());
            self.slots.clear();
        }
    }
}

impl Source for ManySockets {
    fn wait(&mut self) -> Result<bool, ReceiveError> {
        self.ask(None)?;
        self.has_waited = true;
        Ok(self.named.iter().any(|event| event.data.u64() == STOP))
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        if !std::mem::take(&mut self.has_waited) {
            self.ask(Some(&Timespec::default()))?;
        }
        // If every place is taken, further sockets may have datagrams.
        let more = self.named.len() == self.named.capacity();
        let mut taken = Taken { more, ..Taken::default() };
        for position in 0..self.named.len() {
            let data = self.named[position].data.u64();
            if let Some(index) = usize::try_from(data).ok().filter(|_| data != STOP) {
                taken += self.read(index, sink)?;
            }
        }
        self.hand_over(sink);
        Ok(taken)
    }

    /// Returns nothing: a wait takes no datagram.
    fn hand_over_waited(&mut self, _sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        self.has_waited = false;
        Ok(Taken::default())
    }

    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        self.hand_over(sink);
        Ok(())
    }

    /// Hands over what was read before the failure.
    fn abandon(&mut self, sink: &mut impl Sink) {
        self.hand_over(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, Binding, DropCause, Queue, SocketGroup, sys};
    use super::*;
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    #[derive(Default)]
    struct Collect {
        datagrams: Vec<Vec<u8>>,
        dropped_count: u32,
    }

    impl Sink for Collect {
        fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
            self.datagrams.extend(datagrams.map(<[u8]>::to_vec));
        }

        fn kernel_dropped(&mut self, count: u32, _queue: Queue, _cause: DropCause) {
            self.dropped_count += count;
        }

        fn buffers_exhausted(&mut self, _count: u32) {}

        fn shed(&mut self, _time: Duration) {}
    }

    fn receiver(socket_count: usize, queue_bytes: usize) -> (Receiver, SocketAddr) {
        let binding = Binding { receiver_count: 1, socket_count, queue_bytes, share_port: false };
        let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
        let address = group.local_address();
        (group.into_receivers(4).remove(0), address)
    }

    fn source(receiver: &Receiver, stop: &Stop) -> ManySockets {
        ManySockets::new(receiver.sockets(), stop, receiver.slot_count()).unwrap()
    }

    /// Sends `datagram` until each of these sockets has one.
    fn send_to_all(sockets: &[Arc<ReceiveSocket>], datagram: &[u8], target: SocketAddr) -> usize {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut count = 0;
        while sockets.iter().any(|socket| socket.queued_bytes() == 0) {
            sender.send_to(datagram, target).unwrap();
            count += 1;
        }
        count
    }

    #[test]
    fn a_socket_with_many_datagrams_lets_the_others_have_their_turn() {
        let (receiver, address) = receiver(2, 64 * 1024);
        let (stop, mut sink) = (Stop::new().unwrap(), Collect::default());
        let mut source = source(&receiver, &stop);
        sys::attach_spread(&**receiver.socket(), 1).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            sender.send_to(b"flood", address).unwrap();
        }
        sys::attach_spread(&**receiver.socket(), 2).unwrap();
        send_to_all(&receiver.sockets()[1..], b"late", address);
        let taken = source.take(&mut sink).unwrap();
        assert!(taken.more, "{taken:?}");
        assert_eq!(taken.datagram_count, sink.datagrams.len());
        assert!(sink.datagrams.contains(&b"late".to_vec()), "{:?}", sink.datagrams);
        assert!(sink.datagrams.contains(&b"flood".to_vec()), "{:?}", sink.datagrams);
    }

    #[test]
    fn every_socket_is_read_however_many_there_are() {
        let (receiver, address) = receiver(3 * SOCKETS_PER_LOOK - 1, 64 * 1024);
        let (stop, mut sink) = (Stop::new().unwrap(), Collect::default());
        let mut source = source(&receiver, &stop);
        let sent_count = send_to_all(receiver.sockets(), b"x", address);
        assert!(!source.wait().unwrap());
        while source.take(&mut sink).unwrap().more {}
        assert_eq!(sink.datagrams.len(), sent_count);
        assert_eq!(source.take(&mut sink).unwrap().datagram_count, 0);
        stop.request();
        assert!(source.wait().unwrap());
    }

    #[test]
    fn every_datagram_is_either_received_or_reported_as_dropped() {
        const COUNT: usize = 2_000;
        let (mut receiver, address) = receiver(3, 16 * 1024);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for index in 0..COUNT {
            sender.send_to(format!("{index:0500}").as_bytes(), address).unwrap();
        }
        let (stop, mut sink) = (Stop::new().unwrap(), Collect::default());
        stop.request();
        Backend::Recvmmsg.run(&mut receiver, &stop, &mut sink).unwrap();
        assert!(sink.dropped_count > 0, "{}", sink.datagrams.len());
        assert_eq!(sink.datagrams.len() + sink.dropped_count as usize, COUNT);
        // A second run, as after a panic, reports no drop again.
        Backend::Recvmmsg.run(&mut receiver, &stop, &mut sink).unwrap();
        assert_eq!(sink.datagrams.len() + sink.dropped_count as usize, COUNT);
    }

    #[test]
    fn an_error_of_a_socket_ends_the_receiver_with_it() {
        let mut receiver = SocketGroup::broken_with(2).into_receivers(4).remove(0);
        let stop = Stop::new().unwrap();
        let error = Backend::Recvmmsg.run(&mut receiver, &stop, &mut Collect::default());
        assert!(matches!(error, Err(ReceiveError::Read(_))), "{error:?}");
    }
}
