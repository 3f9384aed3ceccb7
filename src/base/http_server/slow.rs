//! The timeouts of a connection: for the header of a request, for a client that takes no answer,
//! for one that has ended its side, and for an idle connection. Also the memory for a long header.
//!
//! In: reads and writes of a connection. Out: the same reads and writes, or an error when a header
//! or a client is too slow; the end of the stream when the connection was idle for too long. Bound:
//! a timeout each. For the first header, it starts when the connection is opened. For each later
//! header, it starts with the first byte of the header. Thread: main.
//!
//! SDKs ask for sampling targets every ten seconds, on a connection that they keep open. If the
//! server closed connections after ten idle seconds, or at a certain age, it could close one at the
//! moment when the SDK sends its next request.

use super::connections::ConnectionSlot;
use super::memory::Reservation;
use super::{HEADER_BYTES_MAX, READ_TIMEOUT, SHORT_HEADER_BYTES};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Time after its last answer at which an idle connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that has ended its side of the connection gets an answer that is complete within this
/// time. After it the request is given up: the client has most likely closed the connection.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(1);

/// A client must take this many bytes of an answer in each [`READ_TIMEOUT`], or all that is left.
const TAKEN_BYTES_MIN: usize = 64 * 1024;

/// The progress of a connection: the number of requests that were begun, and the number of requests
/// that were answered.
#[derive(Debug, Default)]
pub struct Phase {
    begun_count: AtomicUsize,
    over_count: AtomicUsize,
}

/// A mark that a request is in progress. Drop the mark when the request is answered.
#[derive(Debug)]
pub struct Busy(Arc<Phase>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.over_count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Phase {
    /// Marks the begin of a request. Call this when the header of the request is complete. Drop the
    /// returned mark when the request is answered.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.begun_count.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Returns the number of the next request on this connection, counted from 0; its header is
    /// expected. Returns `None` while a request is in progress.
    pub fn awaited_header(&self) -> Option<usize> {
        let begun_count = self.begun_count.load(Ordering::Relaxed);
        (begun_count == self.over_count.load(Ordering::Relaxed)).then_some(begun_count)
    }
}

/// The timer of a connection that waits for a header.
#[derive(Debug)]
struct Deadline {
    /// The number of the request with the expected header.
    header: usize,
    /// Whether no byte of the header has arrived.
    is_idle: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(header: usize, is_idle: bool) -> Self {
        let time = if is_idle { IDLE_TIMEOUT } else { READ_TIMEOUT };
        Self { header, is_idle, sleep: Box::pin(tokio::time::sleep(time)) }
    }
}

type Reserving = Pin<Box<dyn Future<Output = Reservation> + Send>>;

/// The memory for a header that is longer than [`SHORT_HEADER_BYTES`].
enum HeaderMemory {
    /// The header is short so far.
    None,
    Awaited(Reserving),
    Reserved(#[allow(dead_code, reason = "it is held for its drop")] Reservation),
}

/// A connection of a client, with its timeouts.
pub struct WatchedStream<S> {
    stream: S,
    phase: Arc<Phase>,
    slot: Arc<ConnectionSlot>,
    /// The timer for a header. `None` while a request is in progress.
    deadline: Option<Deadline>,
    /// Bytes of the current header so far, and the memory for them.
    header_bytes: usize,
    header_memory: HeaderMemory,
    /// Whether it is counted that the client was too slow. The connection then ends.
    has_noted: bool,
    /// The timer of a client that does not take its answer, and the bytes that it has taken since
    /// the timer started.
    taking: Option<(Pin<Box<Sleep>>, usize)>,
    /// The timer of a client that has ended its side of the connection while its request is
    /// answered.
    half_closed: Option<Pin<Box<Sleep>>>,
}

impl<S> WatchedStream<S> {
    /// Returns `stream` with its timeouts. The timer for the first header starts now.
    pub fn new(stream: S, phase: Arc<Phase>, slot: Arc<ConnectionSlot>) -> Self {
        Self {
            stream,
            phase,
            slot,
            deadline: Some(Deadline::new(0, false)),
            header_bytes: 0,
            header_memory: HeaderMemory::None,
            has_noted: false,
            taking: None,
            half_closed: None,
        }
    }

    /// Counts the bytes of a header. The first of them starts the header's timer. Bytes that arrive
    /// while a request is in progress belong to the body of this request.
    fn saw_bytes(&mut self, count: usize) {
        if let Some(header) = self.phase.awaited_header() {
            self.header_bytes += count;
            if self.deadline.as_ref().is_none_or(|deadline| deadline.is_idle) {
                self.deadline = Some(Deadline::new(header, false));
            }
        }
    }

    /// Sets the timer of an idle connection. Removes the timer and the memory of a header that is
    /// complete.
    fn update(&mut self) {
        let begun_count = self.phase.begun_count.load(Ordering::Relaxed);
        if self.deadline.take_if(|deadline| deadline.header != begun_count).is_some() {
            self.header_bytes = 0;
            self.header_memory = HeaderMemory::None;
        }
        if self.deadline.is_none() {
            let idle = self.phase.awaited_header().map(|header| Deadline::new(header, true));
            self.deadline = idle;
        }
    }

    /// Waits for the memory of a long header.
    fn poll_memory(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.header_bytes < SHORT_HEADER_BYTES {
            return Poll::Ready(());
        }
        if matches!(self.header_memory, HeaderMemory::None) {
            let slot = Arc::clone(&self.slot);
            let reserving = async move { slot.reserve(HEADER_BYTES_MAX).await };
            self.header_memory = HeaderMemory::Awaited(Box::pin(reserving));
        }
        if let HeaderMemory::Awaited(reserving) = &mut self.header_memory {
            let reservation = ready!(reserving.as_mut().poll(context));
            self.header_memory = HeaderMemory::Reserved(reservation);
        }
        Poll::Ready(())
    }

    /// Waits, at the end of the client's bytes, while a complete request is answered. hyper would
    /// otherwise drop the request at once. When the answer is written, hyper reads again.
    fn poll_half_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.phase.awaited_header().is_some() || self.slot.is_waiting() {
            return Poll::Ready(());
        }
        let sleep = || Box::pin(tokio::time::sleep(HALF_CLOSED_TIMEOUT));
        self.half_closed.get_or_insert_with(sleep).as_mut().poll(context)
    }

    /// Returns the result of a write, or an error if the client has taken too little for too long.
    fn taken(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                let bytes_max = TAKEN_BYTES_MIN;
                self.taking.take_if(|(_, taken_bytes)| {
                    *taken_bytes += count;
                    *taken_bytes >= bytes_max
                });
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                let (sleep, _) = self
                    .taking
                    .get_or_insert_with(|| (Box::pin(tokio::time::sleep(READ_TIMEOUT)), 0));
                ready!(sleep.as_mut().poll(context));
                if !self.has_noted {
                    self.has_noted = true;
                    self.slot.note_slow();
                }
                let late = "the client did not take its answer in time";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.update();
        if let Some(deadline) = &mut self.deadline
            && deadline.sleep.as_mut().poll(context).is_ready()
        {
            if deadline.is_idle {
                // No bytes: the end of the stream. hyper then closes the connection in order.
                return Poll::Ready(Ok(()));
            }
            if !self.has_noted {
                self.has_noted = true;
                self.slot.note_slow();
            }
            let late = "the header of a request was not complete in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        ready!(self.poll_memory(context));
        let before_bytes = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read_bytes = buffer.filled().len() - before_bytes;
        if read_bytes > 0 {
            self.saw_bytes(read_bytes);
        } else if buffer.remaining() > 0 {
            ready!(self.poll_half_closed(context));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(context, written)
    }

    /// hyper calls this when it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taking = None;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.taken(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_awaited_unless_a_request_is_being_answered() {
        let phase = Arc::new(Phase::default());
        assert_eq!(phase.awaited_header(), Some(0));
        let busy = phase.busy();
        assert_eq!(phase.awaited_header(), None);
        drop(busy);
        assert_eq!(phase.awaited_header(), Some(1));
    }
}
