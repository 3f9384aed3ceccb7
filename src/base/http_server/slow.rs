//! A timeout for the header of a request. It does not apply to idle connections.
//!
//! In: reads of a connection. Out: the same reads, or an error when a header takes too long. Bound:
//! a timeout. For the first header, it starts when the connection is opened. For each later header,
//! it starts with the first byte of the header. Thread: main.
//!
//! SDKs ask for sampling targets every ten seconds, on a connection that they keep open. If the
//! server closed connections after ten idle seconds, it could close one at the moment when the SDK
//! sends its next request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

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

/// A connection of a client. A read returns an error if the header of a request takes too long.
#[derive(Debug)]
pub struct WatchedStream {
    stream: TcpStream,
    phase: Arc<Phase>,
    header_timeout: Duration,
    /// The number of the request with the expected header, and the timer for this header. `None`
    /// while no timer runs.
    deadline: Option<(usize, Pin<Box<Sleep>>)>,
}

impl WatchedStream {
    /// Returns `stream` with a timeout for headers. The timer for the first header starts now.
    pub fn new(stream: TcpStream, phase: Arc<Phase>, header_timeout: Duration) -> Self {
        let deadline = Some((0, Box::pin(tokio::time::sleep(header_timeout))));
        Self { stream, phase, header_timeout, deadline }
    }

    /// Starts the timer when the first bytes of a header arrive. Bytes that arrive while a request
    /// is in progress belong to the body of this request, so they start no timer.
    fn saw_bytes(&mut self) {
        if self.deadline.is_none() {
            self.deadline = self.phase.awaited_header().map(|header| {
                let sleep = tokio::time::sleep(self.header_timeout);
                (header, Box::pin(sleep))
            });
        }
    }

    /// Removes the timer if its header is complete.
    fn forget_complete(&mut self) {
        let begun_count = self.phase.begun_count.load(Ordering::Relaxed);
        self.deadline.take_if(|(header, _)| *header != begun_count);
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some((_, sleep)) => sleep.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.forget_complete();
        let before_bytes = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before_bytes {
            self.saw_bytes();
        }
        if self.poll_late(context).is_ready() {
            let late = "the header of a request was not complete in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
