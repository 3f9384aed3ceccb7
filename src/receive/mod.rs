//! From socket to datagram: threads that take what the kernel has queued, as fast as it comes.
//!
//! In: a bound UDP socket. Out: datagrams, lent to a [`Sink`] for as long as it takes to copy
//! them on. Each receiver runs on a thread of its own and owns all it touches. Bound: its receive
//! slots and the kernel's queue; when that is full the kernel drops and counts.
//!
//! The way of receiving is a [`Backend`], chosen once at start by trying it.

mod recvmmsg;
mod socket;
mod sys;

pub use socket::{BindError, ReceiveSocket};

use crate::limits::Limits;
use rustix::event::EventfdFlags;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What takes datagrams from a receiver.
pub trait Sink: Send {
    /// Takes the datagrams of one drain of the socket, in the order they came.
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>);

    /// Learns that the kernel dropped `count` datagrams because the socket's queue was full.
    fn kernel_dropped(&mut self, count: u32, queue_bytes: usize);
}

/// A way to receive datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `recvmmsg(2)` after `poll(2)`: works on any Linux.
    Recvmmsg,
}

impl Backend {
    /// The best backend that works here.
    ///
    /// Each candidate is tried for real, since what a kernel has says nothing of what a
    /// container may use. `recvmmsg` is the last one and needs nothing that could be missing.
    pub fn choose() -> Self {
        Self::Recvmmsg
    }

    /// Its name in the log, the metrics and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recvmmsg => "recvmmsg",
        }
    }

    /// Receives from `socket` into `sink` on the calling thread until `stop` is asked for; then
    /// what waits in the kernel's queue at that moment is taken, and the call returns.
    ///
    /// # Errors
    ///
    /// When the socket reports an error that does not pass.
    pub fn run(
        self,
        socket: &ReceiveSocket,
        limits: &Limits,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        match self {
            Self::Recvmmsg => recvmmsg::run(socket, limits.receive_slot_count, stop, sink),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Why a receiver ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Waiting for the socket failed
    #[error("waiting for datagrams failed: {0}")]
    Wait(#[source] io::Error),
    /// Reading the socket failed
    #[error("reading datagrams from the UDP socket failed: {0}")]
    Read(#[source] io::Error),
}

/// Asks receivers to end; clones ask the same ones. It wakes them from their wait.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// A request that has not been made yet.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(rustix::event::eventfd(0, flags)?)))
    }

    /// Makes the request; it stays made.
    pub fn request(&self) {
        // The counter is never read, so it stays above zero and the descriptor stays readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Host;
    use std::net::UdpSocket;
    use std::sync::mpsc;
    use std::thread;

    /// Sends on what it is given.
    struct Forward(mpsc::Sender<Event>);

    #[derive(Debug, PartialEq, Eq)]
    enum Event {
        Drain(Vec<Vec<u8>>),
        Dropped(u32),
    }

    impl Sink for Forward {
        fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
            let datagrams = datagrams.map(<[u8]>::to_vec).collect();
            self.0.send(Event::Drain(datagrams)).unwrap();
        }

        fn kernel_dropped(&mut self, count: u32, _queue_bytes: usize) {
            self.0.send(Event::Dropped(count)).unwrap();
        }
    }

    fn limits() -> Limits {
        Limits::derive(3, Host { memory_bytes: 1 << 30, cgroup_limit_bytes: None })
    }

    fn send(socket: &ReceiveSocket, count: usize) -> Vec<Vec<u8>> {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagrams: Vec<_> =
            (0..count).map(|index| format!("{index:0500}").into_bytes()).collect();
        for datagram in &datagrams {
            sender.send_to(datagram, socket.local_address()).unwrap();
        }
        datagrams
    }

    fn received(events: impl Iterator<Item = Event>) -> (Vec<Vec<u8>>, u32) {
        let mut datagrams = Vec::new();
        let mut dropped_count = 0;
        for event in events {
            match event {
                Event::Drain(more) => datagrams.extend(more),
                Event::Dropped(count) => dropped_count += count,
            }
        }
        (datagrams, dropped_count)
    }

    #[test]
    fn datagrams_come_in_order_and_what_is_queued_at_the_stop_comes_too() {
        let socket = ReceiveSocket::bind("127.0.0.1:0", 256 * 1024).unwrap();
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let sent = send(&socket, 50);
        stop.request();
        Backend::choose().run(&socket, &limits(), &stop, &mut Forward(sender)).unwrap();
        assert_eq!(received(events.into_iter()), (sent, 0));
    }

    #[test]
    fn a_receiver_sleeps_until_there_is_something_and_ends_when_it_is_asked_to() {
        let socket = ReceiveSocket::bind("127.0.0.1:0", 256 * 1024).unwrap();
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        thread::scope(|scope| {
            let run =
                || Backend::choose().run(&socket, &limits(), &stop, &mut Forward(sender.clone()));
            let receiver = scope.spawn(run);
            for _ in 0..3 {
                let sent = send(&socket, 1);
                assert_eq!(events.recv().unwrap(), Event::Drain(sent));
            }
            stop.request();
            receiver.join().unwrap().unwrap();
        });
        assert_eq!(events.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn every_datagram_is_either_received_or_reported_as_dropped() {
        let socket = ReceiveSocket::bind("127.0.0.1:0", 32 * 1024).unwrap();
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let sent = send(&socket, 1_000);
        stop.request();
        Backend::choose().run(&socket, &limits(), &stop, &mut Forward(sender)).unwrap();
        let (datagrams, dropped_count) = received(events.into_iter());
        assert!(dropped_count > 0 && !datagrams.is_empty());
        assert_eq!(datagrams.len() + dropped_count as usize, sent.len());
        assert_eq!(datagrams, sent[..datagrams.len()]);
    }

    #[test]
    fn a_sender_that_never_pauses_does_not_keep_a_receiver_from_ending() {
        let socket = ReceiveSocket::bind("127.0.0.1:0", 64 * 1024).unwrap();
        let stop = Stop::new().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    send(&socket, 10);
                }
            });
            let (sender, events) = mpsc::channel();
            stop.request();
            Backend::choose().run(&socket, &limits(), &stop, &mut Forward(sender)).unwrap();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            drop(events);
        });
    }
}
