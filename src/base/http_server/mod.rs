//! A small HTTP server that stays responsive when clients are slow or hang.
//!
//! In: HTTP/1.1 requests on a TCP port, and a [`Handler`] that answers them. Out: the answers of
//! the handler. Bound: [`CONNECTION_COUNT_MAX`] connections; a time and a size for the header and
//! for the body of a request; a number of requests and of large bodies at a time ([`Requests`]).
//! When full: the connection that has waited longest is closed (`connections.rs`). Thread: main.
//!
//! Orchestrators kill a daemon that does not answer `/health`. Therefore slow clients must not keep
//! the server from answering this path. The server allows more connections than requests at a time.
//! So some connections have no request in progress, and the server can close one of these for a new
//! connection.

mod body;
mod connections;
mod slow;

pub use body::{Requests, discard};
pub use connections::ConnectionSlot;

use crate::base::log::LogLimit;
use crate::base::panics;
use bytes::Bytes;
use connections::Connections;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slow::{Phase, WatchedStream};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, error, warn};

/// Largest number of open connections. When one more connection arrives, the server closes the
/// connection that has waited longest.
const CONNECTION_COUNT_MAX: usize = 256;

/// Time in which the header of a request must be complete. The body then has the same time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Age at which a connection stops accepting new requests.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may stay open after [`CONNECTION_TIMEOUT`], to finish its last request.
/// The sum is: 10 s for the header, 10 s to wait for the permit of the request, 10 s to wait for
/// the permit of a large body, 10 s for the body, 60 s for the answer, and 10 s of reserve.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(110);

/// How long a connection that is asked to close may stay open to write the rest of its last answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest header of a request: 64 KiB and 100 lines. Requests with a larger header are refused.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADER_COUNT_MAX: usize = 100;

static PANICKED: LogLimit = LogLimit::once_a_minute();

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
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// Called when the shutdown begins. The handler must now finish answers that wait for an event.
    fn close(&self) {}
}

/// Returns an answer with an error status. Its body is a JSON object with the field `message`.
pub fn error_answer(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "message": message }))
}

/// Returns the answer (status 503) to a request that is not processed, because there are too many
/// requests.
pub fn too_many_requests() -> Response<Bytes> {
    let why = "too many requests are in progress; try again later";
    let mut answer = error_answer(StatusCode::SERVICE_UNAVAILABLE, why);
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

/// An HTTP server for one TCP port.
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    connection_permits: Arc<Semaphore>,
    connections: Arc<Connections>,
    is_shutting_down: watch::Sender<bool>,
}

impl<H: Handler> Server<H> {
    /// Returns a server. `handler` answers its requests.
    pub fn new(handler: H) -> Arc<Self> {
        Arc::new(Self {
            handler,
            connection_permits: Arc::new(Semaphore::new(CONNECTION_COUNT_MAX)),
            connections: Arc::default(),
            is_shutting_down: watch::Sender::new(false),
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
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            };
            if self.connection_permits.available_permits() == 0 {
                self.connections.close_longest_waiting();
            }
            let permit = Arc::clone(&self.connection_permits).acquire_owned().await;
            let permit = permit.expect("it is never closed");
            let server = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(panicked) = panics::caught(server.serve_connection(stream)).await {
                    PANICKED.log(|more| {
                        error!("A connection to the TCP port met {panicked} and is closed{more}")
                    });
                }
                drop(permit);
            });
        }
    }

    /// Stops accepting requests. Waits until the requests in progress are answered, at most `time`.
    pub async fn finish(&self, time: Duration) {
        self.is_shutting_down.send_replace(true);
        self.handler.close();
        let all = u32::try_from(CONNECTION_COUNT_MAX).expect("a small number");
        if tokio::time::timeout(time, self.connection_permits.acquire_many(all)).await.is_err() {
            let count = CONNECTION_COUNT_MAX - self.connection_permits.available_permits();
            warn!(
                "{count} requests on the TCP port are aborted: the time for the shutdown is over"
            );
        }
    }

    async fn serve_connection(&self, stream: TcpStream) {
        let peer = stream.peer_addr();
        let is_local = peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let phase = Arc::new(Phase::default());
        let stream = WatchedStream::new(stream, Arc::clone(&phase), READ_TIMEOUT);
        let slot = &self.connections.register();
        let service = service_fn(|request| {
            let busy = phase.busy();
            async move {
                let mut answer = self.answer(request, slot, is_local).await;
                if *self.is_shutting_down.borrow() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                drop(busy);
                slot.start_waiting();
                Ok::<_, Infallible>(answer.map(Full::new))
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's own timeout is off, because it would also close connections that are idle
            // between two requests. `WatchedStream` has a timeout instead.
            .header_read_timeout(None)
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
            Ok(Err(error)) => debug!("A connection to the TCP port ended: {error}"),
            Err(_) => debug!("A connection to the TCP port was open for too long"),
        }
    }

    /// Returns the handler's answer, or status 500 if the handler panics.
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> Response<Bytes> {
        let path = request.uri().path().to_owned();
        let answer = panics::caught(async {
            panics::inject("page");
            self.handler.answer(request, slot, is_local).await
        });
        answer.await.unwrap_or_else(|panicked| {
            PANICKED.log(|more| error!("Answering {path} on the TCP port met {panicked}{more}"));
            error_answer(StatusCode::INTERNAL_SERVER_ERROR, &panicked.to_string())
        })
    }

    /// Waits until the connection `slot` must stop accepting requests. This is when it is asked to
    /// close, when it is [`CONNECTION_TIMEOUT`] old, or when the server shuts down.
    async fn must_close(&self, slot: &ConnectionSlot) {
        tokio::select! {
            () = slot.asked_to_close() => {}
            _ = tokio::time::timeout(CONNECTION_TIMEOUT, self.shutting_down()) => {}
        }
    }

    /// Waits until the shutdown of the server begins.
    async fn shutting_down(&self) {
        // No error is possible: `self` holds the sending end.
        let _ =
            self.is_shutting_down.subscribe().wait_for(|is_shutting_down| *is_shutting_down).await;
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

async fn accept_failed(error: &io::Error) {
    // `ConnectionAborted`: the client closed the connection before it was accepted. This is normal.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        warn!("The TCP port cannot accept a connection: {error}");
        // For example, the process can have no file descriptors left. Then each further call of
        // `accept` fails immediately, so wait before the next call.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
