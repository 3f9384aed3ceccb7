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

mod answer;
mod body;
mod connections;
mod head;
mod memory;
mod slow;
#[cfg(test)]
mod tests;
mod web_page;

pub use answer::{AnswerBody, StreamError};
pub use body::{ErrorForm, Lane, Requests, refuse};
pub use connections::{ConnectionSlot, Port};
pub use web_page::sent_by_web_page;

use crate::base::account::CloseReason;
use crate::base::log::LogLimit;
use crate::base::panics;
use bytes::Bytes;
use connections::Connections;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use slow::{Busy, Phase, WatchedStream};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, error, warn};

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

/// Largest number of connections that are closed at once because file descriptors are missing. The
/// rest of the daemon needs some of these descriptors, for example to reach the service.
const CLOSED_FOR_DESCRIPTORS_COUNT: usize = 8;

/// Pause before the next attempt to accept a connection after a failure: short if other connections
/// were closed, so that descriptors become free.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE_AFTER_CLOSING: Duration = Duration::from_millis(20);

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
    connection_permits: Arc<Semaphore>,
    connection_count_max: usize,
    connections: Arc<Connections>,
    is_shutting_down: watch::Sender<bool>,
    panicked: LogLimit,
    not_accepted: LogLimit,
}

impl<H: Handler> Server<H> {
    /// Returns a server for `port`. `handler` answers its requests.
    pub fn new(handler: H, limits: ServerLimits, port: Port) -> Arc<Self> {
        Arc::new(Self {
            handler,
            connection_permits: Arc::new(Semaphore::new(limits.connection_count_max)),
            connection_count_max: limits.connection_count_max,
            connections: Connections::new(limits.memory_bytes, port),
            is_shutting_down: watch::Sender::new(false),
            panicked: LogLimit::once_a_minute(),
            not_accepted: LogLimit::once_a_minute(),
        })
    }

    /// Accepts and serves connections until [`finish`](Self::finish) is called.
    pub async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        tokio::select! {
            () = self.shutting_down() => {}
            never = self.accept(&listener) => match never {},
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        let mut may_close_single = false;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // The client closed the connection before it was accepted. This is normal.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    may_close_single = !self.accept_failed(&error, may_close_single).await;
                    continue;
                }
            };
            may_close_single = false;
            let has_room = self.connection_permits.available_permits() > 0;
            let permit = Arc::clone(&self.connection_permits).acquire_owned();
            let permit = self.connections.make_room(CloseReason::Count, has_room, permit).await;
            let permit = permit.expect("it is never closed");
            let memory = self.connections.reserve(CONNECTION_BYTES).await;
            // The connection is known from now on, so that it can make room for the next one before
            // its task has begun.
            let slot = Arc::new(self.connections.register());
            let server = Arc::clone(self);
            let peer = stream.peer_addr();
            let is_local = peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
            tokio::spawn(async move {
                let served = server.serve_connection(stream, &slot, is_local);
                if let Err(panicked) = panics::caught(served).await {
                    let name = server.name();
                    server.panicked.log(|more| {
                        error!("A connection to the {name} met {panicked} and is closed{more}")
                    });
                }
                drop((permit, memory));
            });
        }
    }

    /// Stops accepting requests. Waits until the requests in progress are answered, at most `time`.
    pub async fn finish(&self, time: Duration) {
        self.is_shutting_down.send_replace(true);
        self.handler.close();
        let all = u32::try_from(self.connection_count_max).expect("a small number");
        if tokio::time::timeout(time, self.connection_permits.acquire_many(all)).await.is_err() {
            let count = self.connection_count_max - self.connection_permits.available_permits();
            let name = self.name();
            warn!("{count} requests on the {name} are aborted: the time for the shutdown is over");
        }
    }

    /// Serves a connection over any stream, until it ends. It does not count as a connection to the
    /// port.
    pub async fn serve_stream<S>(&self, stream: S, is_local: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let slot = Arc::new(self.connections.register());
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
                let is_last = slot.is_asked_to_close() || *self.is_shutting_down.borrow();
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
            () = self.must_close(slot) => {
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
                debug!("A connection to the {} ended: {error}", self.name());
            }
            Err(_) => debug!("A connection to the {} was open for too long", self.name()),
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
            let name = self.name();
            self.panicked.log(|more| error!("Answering {path} on the {name} met {panicked}{more}"));
            last_answer(error_answer(StatusCode::INTERNAL_SERVER_ERROR, &panicked.to_string()))
                .map(AnswerBody::from)
        })
    }

    fn name(&self) -> &'static str {
        self.connections.port.name
    }

    /// Waits until the connection `slot` must stop accepting requests. This is when it is asked to
    /// close, or when the server shuts down.
    async fn must_close(&self, slot: &ConnectionSlot) {
        tokio::select! {
            () = slot.asked_to_close() => {}
            () = self.shutting_down() => {}
        }
    }

    /// Waits until the shutdown of the server begins.
    async fn shutting_down(&self) {
        // No error is possible: `self` holds the sending end.
        let _ =
            self.is_shutting_down.subscribe().wait_for(|is_shutting_down| *is_shutting_down).await;
    }

    /// Waits before the next attempt to accept a connection. If file descriptors or memory of the
    /// kernel are missing, first closes connections that wait, the older half of them. Returns
    /// whether a connection was closed.
    ///
    /// The newer half stays open. accept(2) fails without a free descriptor even if no client
    /// waits, and the connection that was accepted last may not have sent its request yet.
    async fn accept_failed(&self, error: &io::Error, may_close_single: bool) -> bool {
        let number = error.raw_os_error().map(Errno::from_raw_os_error);
        let is_short_of =
            [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Some).contains(&number);
        let name = self.name();
        self.not_accepted.log(|more| warn!("The {name} cannot accept a connection: {error}{more}"));
        let has_closed = is_short_of
            && self.connections.close_older_half(
                CloseReason::Descriptors,
                CLOSED_FOR_DESCRIPTORS_COUNT,
                may_close_single,
            ) > 0;
        tokio::time::sleep(if has_closed { ACCEPT_PAUSE_AFTER_CLOSING } else { ACCEPT_PAUSE })
            .await;
        has_closed
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
