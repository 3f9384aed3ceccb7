//! The `tokio-uring` backend: one-shot reads on the tokio-uring runtime, several in flight.
//!
//! In: a socket. Out: datagrams, lent to a [`Sink`], in no order. Bound: [`READ_COUNT_MAX`] reads.
//! When full: the kernel keeps datagrams in the socket's queue. Thread: the receiver's.
//!
//! The backend is used only if the operator asks for it. At 20,000/s it costs 4.1 us of CPU time a
//! datagram, `uring` 0.70 us and `recvmmsg` 0.65 us
//! (`perf/results/2026-11-25-receive-epyc.md`, AMD EPYC). Each read owns its buffer until it is
//! finished; then another read starts in its place.

use super::RECEIVE_SLOT_BYTES;
use super::source::{Source, Taken};
use super::{ReceiveError, Receiver, Sink, Stop, sys};
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio_uring::{BufResult, Runtime};

/// Largest number of reads in flight. Each finished read wakes the thread, so more reads cost more.
const READ_COUNT_MAX: usize = 64;

/// Longest wait for a datagram. tokio-uring submits reads before it sleeps and ignores an error of
/// this call (`io_uring_enter`), so that a longer sleep could miss every datagram.
const SUBMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Receives until `stop` is requested, then takes the datagrams that the kernel has queued.
pub(super) fn run(
    receiver: &mut Receiver,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ReceiveError> {
    let socket = receiver.socket().try_clone().map_err(ReceiveError::Setup)?;
    let read_count = receiver.slot_count().min(READ_COUNT_MAX);
    let runtime = runtime().map_err(ReceiveError::Setup)?;
    let mut source = TokioUring::new(&runtime, socket.into(), stop, read_count, read)
        .map_err(ReceiveError::Setup)?;
    receiver.run(&mut source, stop, sink)?;
    drop(source);
    receiver.drain_queue(sink)
}

/// Creates the runtime on the calling thread.
///
/// # Errors
///
/// Returns the kernel's error if io_uring cannot be set up.
pub(super) fn runtime() -> io::Result<Runtime> {
    let mut builder = tokio_uring::builder();
    builder.entries(2 * u32::try_from(READ_COUNT_MAX).unwrap_or(u32::MAX));
    Runtime::new(&builder)
}

/// Reads one datagram into `buffer` and returns both.
async fn read(
    socket: Rc<tokio_uring::net::UdpSocket>,
    buffer: Vec<u8>,
) -> BufResult<usize, Vec<u8>> {
    socket.read(buffer).await
}

/// The type of the function [`read`]. `F` is the type of its future, which has no name in Rust.
type Read<F> = fn(Rc<tokio_uring::net::UdpSocket>, Vec<u8>) -> F;

/// One read, in flight or finished.
struct Place<F> {
    read: Pin<Box<F>>,
    /// The buffer and the length of its datagram in bytes, once the read has finished.
    done: Option<(Vec<u8>, usize)>,
}

struct TokioUring<'a, F> {
    runtime: &'a Runtime,
    socket: Rc<tokio_uring::net::UdpSocket>,
    stop: AsyncFd<OwnedFd>,
    read: Read<F>,
    places: Places<F>,
    is_stopped: bool,
}

/// All reads, and how many of them have finished.
struct Places<F> {
    all: Vec<Place<F>>,
    done_count: usize,
    failure: Option<io::Error>,
}

impl<F: Future<Output = BufResult<usize, Vec<u8>>>> Places<F> {
    /// Polls every unfinished read. The first poll of a read starts it.
    fn poll(&mut self, context: &mut Context<'_>) {
        for place in self.all.iter_mut().filter(|place| place.done.is_none()) {
            if let Poll::Ready((result, buffer)) = place.read.as_mut().poll(context) {
                let length = result.unwrap_or_else(|error| {
                    self.failure = Some(error);
                    0
                });
                place.done = Some((buffer, length));
                self.done_count += 1;
            }
        }
    }

    fn are_done(&self) -> bool {
        self.done_count == self.all.len()
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let done = self.all.iter().filter_map(|place| place.done.as_ref());
        done.map(|(buffer, length)| &buffer[..*length])
    }

    /// Starts a new read in place of each finished one, with the same buffer.
    fn give_back(&mut self, read: impl Fn(Vec<u8>) -> F) {
        for place in &mut self.all {
            if let Some((mut buffer, _)) = place.done.take() {
                buffer.clear();
                place.read.set(read(buffer));
            }
        }
        self.done_count = 0;
    }
}

impl<'a, F: Future<Output = BufResult<usize, Vec<u8>>>> TokioUring<'a, F> {
    /// Hands over the datagrams of the finished reads, for the last time. A read that a shutdown or
    /// an error has ended looks like an empty datagram. Empty datagrams are ignored later anyway.
    fn hand_over_done(&self, sink: &mut impl Sink) {
        sink.drain(self.places.datagrams().filter(|datagram| !datagram.is_empty()));
    }

    fn new(
        runtime: &'a Runtime,
        socket: UdpSocket,
        stop: &Stop,
        read_count: usize,
        read: Read<F>,
    ) -> io::Result<Self> {
        let socket = Rc::new(tokio_uring::net::UdpSocket::from_std(socket));
        let place = |_| Place {
            read: Box::pin(read(Rc::clone(&socket), Vec::with_capacity(RECEIVE_SLOT_BYTES))),
            done: None,
        };
        let all = (0..read_count).map(place).collect();
        let stop = stop.as_fd().try_clone_to_owned()?;
        let stop = runtime.block_on(async { sys::watch(stop) })?;
        let places = Places { all, done_count: 0, failure: None };
        Ok(Self { runtime, socket, stop, read, places, is_stopped: false })
    }
}

impl<F: Future<Output = BufResult<usize, Vec<u8>>>> Source for TokioUring<'_, F> {
    fn wait(&mut self) -> Result<bool, ReceiveError> {
        let Self { runtime, stop, places, is_stopped, .. } = self;
        let event = poll_fn(|context| {
            if let Poll::Ready(ready) = stop.poll_read_ready(context) {
                *is_stopped = true;
                return Poll::Ready(ready.map(drop));
            }
            places.poll(context);
            if places.done_count == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
        });
        match runtime.block_on(async { tokio::time::timeout(SUBMIT_INTERVAL, event).await }) {
            Ok(waited) => waited.map_err(ReceiveError::Wait)?,
            // The next wait submits the reads, if they are not submitted yet.
            Err(_elapsed) => {}
        }
        Ok(self.is_stopped)
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        // tokio-uring submits reads only when its runtime sleeps. So after a pause this backend
        // sleeps until there is a datagram. The other backends never sleep here.
        if self.places.done_count == 0 && self.wait()? {
            return Ok(Taken::default());
        }
        self.hand_over_waited(sink)
    }

    /// Starts a new read in place of each finished one, too. Reads that were submitted before may
    /// take a datagram each while the receiver sheds: their buffers are there already.
    fn hand_over_waited(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        if let Some(error) = self.places.failure.take()
            && !super::take::is_transient(&error)
            && !super::take::is_of_memory(&error)
        {
            return Err(ReceiveError::Read(error));
        }
        let taken = Taken::of(self.places.datagrams(), self.places.are_done());
        if taken.datagram_count > 0 {
            sink.drain(self.places.datagrams());
            self.places.give_back(|buffer| (self.read)(Rc::clone(&self.socket), buffer));
        }
        Ok(taken)
    }

    /// Shuts the socket down for reading: the reads in flight then finish, with the queued
    /// datagrams first.
    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        // The call returns ENOTCONN, but the socket is shut down nevertheless.
        let _ = self.socket.shutdown(Shutdown::Read);
        let Self { runtime, places, .. } = self;
        let mut end = poll_fn(|context| {
            places.poll(context);
            if places.are_done() { Poll::Ready(()) } else { Poll::Pending }
        });
        runtime.block_on(async {
            while tokio::time::timeout(SUBMIT_INTERVAL, &mut end).await.is_err() {}
        });
        self.hand_over_done(sink);
        Ok(())
    }

    /// Reads in flight are left to the runtime, which cancels them when it is dropped. tokio-uring
    /// has no other way to end them, but to shut down the socket.
    fn abandon(&mut self, sink: &mut impl Sink) {
        self.hand_over_done(sink);
    }
}
