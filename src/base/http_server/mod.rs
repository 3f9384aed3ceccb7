//! A small HTTP server that stays responsive when clients are slow or hang.
//!
//! In: HTTP/1.1 requests on a TCP port, and a [`Handler`] that answers them. Out: the answers of
//! the handler. Bound: [`ServerLimits`]: a number of connections, and one budget of memory for
//! connections, headers, bodies and answers; a time and a size for the header and for the body of a
//! request; a number of requests at a time ([`Requests`]). When full: the connection that has
//! waited longest is closed (`connections.rs`). Thread: main.
//!
//! Orchestrators kill a daemon that does not answer `/health`. Therefore slow clients must not keep
//! the server from answering this path. The server allows more connections than requests at a time.
//! So some connections have no request in progress, and the server can close one of these for a new
//! connection.

mod accept;
mod answer;
mod body;
mod connections;
mod head;
mod memory;
mod slow;
#[cfg(test)]
mod tests;
mod web_page;

pub(super) use accept::Acceptor;
pub use answer::{AnswerBody, StreamError};
pub(super) use body::{BodyError, read as read_body};
pub use body::{ErrorForm, Lane, Requests, refuse};
pub use connections::{ConnectionSlot, Port};
pub(super) use memory::Reservation;
pub use web_page::sent_by_web_page;

use crate::base::panics;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slow::{Busy, Phase, WatchedStream};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

/// Time in which the header of a request must be complete. The body then has the same time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stay open after the shutdown has begun, to finish its last request.
/// The sum is: 10 s for the header, 10 s for the body, 10 s to wait for the turn of the request, 60
/// s for the answer, and 10 s of reserve.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(100);

/// How long a connection that is asked to close may stay open to write the rest of its last answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest header of a request: 16 KiB and 100 lines. Requests with a larger header are refused.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADER_COUNT_MAX: usize = 100;

/// A header of fewer bytes needs no memory besides [`CONNECTION_BYTES`].
const SHORT_HEADER_BYTES: usize = 4 * 1024;

/// Memory that an open connection needs while it waits for a request, in bytes: its task, hyper's
/// buffers for reading and writing, and a short header.
pub const CONNECTION_BYTES: usize = 12 * 1024;

/// Memory that a request needs besides its connection and its body, in bytes: the parsed header,
/// and the answer on its way to the client.
const REQUEST_BYTES: usize = 16 * 1024;

/// Answers the requests of a [`Server`].
pub trait Handler: Send + Sync + 'static {
    /// Answers a request on the connection `slot`. The connection counts as waiting until the
    /// handler calls [`ConnectionSlot::stop_waiting`]. `is_local` is whether the client has a
    /// loopback address.
    fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> impl Future<Output = Response<AnswerBody>> + Send;

    /// Called when the shutdown begins. The handler must now finish answers that wait for an event.
    fn close(&self) {}
}

/// Returns an answer with an error status. Its body is a JSON object with the field `message`.
pub fn error_answer(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "message": message }))
}

/// Why a request is not processed that gets status 503.
const TOO_MANY: &str = "too many requests are in progress; try again later";

/// Returns the answer (status 503) to a request that is not processed, because there are too many
/// requests.
pub fn too_many_requests() -> Response<Bytes> {
    last_answer(error_answer(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY))
}

/// Returns `answer` with the header that tells the client that the connection is closed after it.
pub fn last_answer<B>(mut answer: Response<B>) -> Response<B> {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Returns an answer with `body` as JSON.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// The limits of a [`Server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Memory for connections, headers, bodies and answers together, in bytes.
    pub memory_bytes: usize,
    /// Largest number of open connections.
    pub connection_count_max: usize,
}

/// An HTTP server for one TCP port.
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    acceptor: Arc<Acceptor>,
}

impl<H: Handler> Server<H> {
    /// Returns a server for `port`. `handler` answers its requests.
    pub fn new(handler: H, limits: ServerLimits, port: Port) -> Arc<Self> {
        Arc::new(Self { handler, acceptor: Acceptor::new(limits, port) })
    }

    /// Accepts and serves connections until [`finish`](Self::finish) is called.
    pub async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        let serve = |stream: TcpStream, slot: Arc<ConnectionSlot>| {
            let server = Arc::clone(&self);
            let peer = stream.peer_addr();
            let is_local = peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
            async move { server.serve_connection(stream, &slot, is_local).await }
        };
        self.acceptor.accept(&listener, CONNECTION_BYTES, serve).await;
    }

    /// Stops accepting requests. Waits until the requests in progress are answered, at most `time`.
    pub async fn finish(&self, time: Duration) {
        self.acceptor.stop();
        self.handler.close();
        self.acceptor.finish(time).await;
    }

    /// Serves a connection over any stream, until it ends. It does not count as a connection to the
    /// port.
    pub async fn serve_stream<S>(&self, stream: S, is_local: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let slot = Arc::new(self.acceptor.connections.register());
        self.serve_connection(stream, &slot, is_local).await;
    }

    async fn serve_connection<S>(&self, stream: S, slot: &Arc<ConnectionSlot>, is_local: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let phase = Arc::new(Phase::default());
        let stream = WatchedStream::new(stream, Arc::clone(&phase), Arc::clone(slot));
        let service = service_fn(|request| {
            let busy = Answering { _busy: phase.busy(), slot: Arc::clone(slot) };
            async move {
                let answer = self.answer(request, slot, is_local).await;
                let is_last = self.acceptor.is_last(slot);
                let answer = if is_last { last_answer(answer) } else { answer };
                Ok::<_, Infallible>(answer.map(|body| body.keeping(busy)))
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's own timeout is off, because it would also close connections that are idle
            // between two requests. `WatchedStream` has timeouts instead.
            .header_read_timeout(None)
            // This bounds hyper's buffers for reading and for writing.
            .max_buf_size(HEADER_BYTES_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_headers(HEADER_COUNT_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => Ok(result),
            () = self.acceptor.must_close(slot) => {
                let Some(time) = time_left(slot, &phase) else { return };
                // The request in progress is still answered, then the connection is closed.
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(time, served).await
            }
        };
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if error.is_parse_too_large() {
                    slot.note_too_large();
                }
                debug!("A connection to the {} ended: {error}", self.acceptor.name());
            }
            Err(_) => debug!("A connection to the {} was open for too long", self.acceptor.name()),
        }
    }

    /// Returns the handler's answer, or status 500 if the handler panics.
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> Response<AnswerBody> {
        let path = request.uri().path().to_owned();
        let answer = panics::caught(async {
            panics::inject("page");
            if let Some(refusal) = head::refusal(&request) {
                let (head, body) = request.into_parts();
                return refuse(&head, body, refusal, slot).await.map(AnswerBody::from);
            }
            self.handler.answer(request, slot, is_local).await
        });
        answer.await.unwrap_or_else(|panicked| {
            self.acceptor.say_panicked(&path, &panicked);
            last_answer(error_answer(StatusCode::INTERNAL_SERVER_ERROR, &panicked.to_string()))
                .map(AnswerBody::from)
        })
    }
}

/// A mark that a connection answers a request, until the answer is written.
struct Answering {
    _busy: Busy,
    slot: Arc<ConnectionSlot>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.slot.start_waiting();
    }
}

/// Returns how long a connection may stay open after it stopped accepting requests. Returns `None`
/// if it must be closed immediately.
fn time_left(slot: &ConnectionSlot, phase: &Phase) -> Option<Duration> {
    match phase.awaited_header() {
        // The client has not sent a complete request, so there is no answer to write.
        Some(0) if slot.is_asked_to_close() => None,
        Some(_) if slot.is_asked_to_close() => Some(WRITE_TIMEOUT),
        _ => Some(LAST_REQUEST_TIMEOUT),
    }
}
