//! The `tokio-uring` backend: one-shot receives on the tokio-uring runtime, several in flight.
//!
//! By choice only: perf/results has what it costs beside the others. Each read owns its buffer
//! until it is done; a finished read starts again in its place.

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
use tokio::io::unix::AsyncFd;
use tokio_uring::{BufResult, Runtime};

/// Reads in flight at most: each wakes the thread on its own, so that more cost more.
const READ_COUNT_MAX: usize = 64;

/// Receives until `stop` is asked for and what the kernel had queued by then is taken.
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

/// The runtime, on the calling thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    let mut builder = tokio_uring::builder();
    builder.entries(2 * u32::try_from(READ_COUNT_MAX).unwrap_or(u32::MAX));
    Runtime::new(&builder)
}

/// One read into a buffer that comes back with it.
async fn read(
    socket: Rc<tokio_uring::net::UdpSocket>,
    buffer: Vec<u8>,
) -> BufResult<usize, Vec<u8>> {
    socket.read(buffer).await
}

/// Starts a [`read`]; its type has no other name.
type Read<F> = fn(Rc<tokio_uring::net::UdpSocket>, Vec<u8>) -> F;

/// A place for one read at a time.
struct Place<F> {
    read: Pin<Box<F>>,
    /// The buffer and the length of its datagram, when the read is done.
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

/// The places, and how many of them are done.
struct Places<F> {
    all: Vec<Place<F>>,
    done_count: usize,
    failure: Option<io::Error>,
}

impl<F: Future<Output = BufResult<usize, Vec<u8>>>> Places<F> {
    /// Takes over the reads that are done; reads that were not started yet are.
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

    /// Gives the buffers back to their places.
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
        runtime
            .block_on(poll_fn(|context| {
                if let Poll::Ready(ready) = stop.poll_read_ready(context) {
                    *is_stopped = true;
                    return Poll::Ready(ready.map(drop));
                }
                places.poll(context);
                if places.done_count == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
            }))
            .map_err(ReceiveError::Wait)?;
        Ok(self.is_stopped)
    }

    fn take(&mut self, sink: &mut impl Sink) -> Result<Taken, ReceiveError> {
        // The runtime only submits reads when it sleeps; so this sleeps until there is something
        // also after a pause, where the other backends would only look.
        if self.places.done_count == 0 && self.wait()? {
            return Ok(Taken::default());
        }
        if let Some(error) = self.places.failure.take()
            && !super::take::is_transient(&error)
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

    /// A socket that is shut down for reading answers the reads in flight, after what is queued.
    fn finish(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        // It says that the socket is not connected, and is shut down all the same.
        let _ = self.socket.shutdown(Shutdown::Read);
        let Self { runtime, places, .. } = self;
        runtime.block_on(poll_fn(|context| {
            places.poll(context);
            if places.are_done() { Poll::Ready(()) } else { Poll::Pending }
        }));
        // What the shutdown has ended looks like an empty datagram; a real one says as little.
        sink.drain(self.places.datagrams().filter(|datagram| !datagram.is_empty()));
        Ok(())
    }
}
