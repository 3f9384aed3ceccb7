//! A small HTTP server: many slow clients, few requests at a time.
//!
//! In: HTTP/1.1 requests on a TCP port, and a [`Handler`] that answers them. Out: its answers.
//! Bounds: connections at a time; a time for a request's header and for its body, a size for each;
//! requests and large bodies at a time ([`Requests`]). Runs on the main thread's runtime.
//!
//! **A daemon must not be killed because its clients hang**: a handler's own pages are answered
//! whatever they do. There are more connections than requests at a time, and when all are taken the
//! one that has waited longest, for its client or for its turn, gives way (`connections.rs`).

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

/// Connections at a time; for another one, one that waits gives way.
const CONNECTION_COUNT_MAX: usize = 256;

/// A request's header, and then its body, must be complete by then.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no more requests after this time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The request that it has then must be over by this time: 10 s each for the header, its turn, a
/// permit for the body and the body, and the 60 s that a client's call may take.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(110);

/// What is left of its last answer must be on its way by then when a connection gives way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's header beyond this size, or this number of lines, is refused.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADER_COUNT_MAX: usize = 100;

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// What answers the requests of a [`Server`].
pub trait Handler: Send + Sync + 'static {
    /// Answers a request of the connection in `slot`, which has waited for it; `is_local`: its
    /// client is on this host.
    fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// No more requests are taken: an answer that waits for something to come is ended.
    fn close(&self) {}
}

/// An answer of the daemon's own: a JSON object with a message.
pub fn error_answer(status: StatusCode, message: &str) -> Response<Bytes> {
    json(status, &serde_json::json!({ "message": message }))
}

/// What a connection that has to give way is answered.
pub fn too_many_requests() -> Response<Bytes> {
    let why = "too many requests are on their way already; try again";
    let mut answer = error_answer(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer with this value.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// The server of the TCP port.
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    connection_permits: Arc<Semaphore>,
    connections: Arc<Connections>,
    is_shutting_down: watch::Sender<bool>,
}

impl<H: Handler> Server<H> {
    /// A server whose requests `handler` answers.
    pub fn new(handler: H) -> Arc<Self> {
        Arc::new(Self {
            handler,
            connection_permits: Arc::new(Semaphore::new(CONNECTION_COUNT_MAX)),
            connections: Arc::default(),
            is_shutting_down: watch::Sender::new(false),
        })
    }

    /// Serves on `listener` until [`finish`](Self::finish), or until the future is dropped.
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

    /// Takes no more requests, and waits until those under way are answered; for `time` at most.
    pub async fn finish(&self, time: Duration) {
        self.is_shutting_down.send_replace(true);
        self.handler.close();
        let all = u32::try_from(CONNECTION_COUNT_MAX).expect("a small number");
        if tokio::time::timeout(time, self.connection_permits.acquire_many(all)).await.is_err() {
            let count = CONNECTION_COUNT_MAX - self.connection_permits.available_permits();
            warn!("{count} calls of clients on the TCP port are cut off: no time is left for them");
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
            // Its own time for a header would also end connections that are idle between requests.
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
                // Whatever is being answered is answered to its end.
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

    /// What the handler answers; where that panics, that it did.
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

    /// Waits until the connection in `slot` is to take no more requests.
    async fn must_close(&self, slot: &ConnectionSlot) {
        tokio::select! {
            () = slot.asked_to_close() => {}
            _ = tokio::time::timeout(CONNECTION_TIMEOUT, self.shutting_down()) => {}
        }
    }

    /// Waits until no connection is to take more requests.
    async fn shutting_down(&self) {
        // The sender is there for as long as this is.
        let _ =
            self.is_shutting_down.subscribe().wait_for(|is_shutting_down| *is_shutting_down).await;
    }
}

/// How long a connection that takes no more requests may last.
fn time_left(slot: &ConnectionSlot, phase: &Phase) -> Option<Duration> {
    match phase.awaited_header() {
        // The client has had no answer, and waits for none.
        Some(0) if slot.is_asked_to_close() => None,
        Some(_) if slot.is_asked_to_close() => Some(WRITE_TIMEOUT),
        _ => Some(LAST_REQUEST_TIMEOUT),
    }
}

async fn accept_failed(error: &io::Error) {
    // A connection that its client has given up already is nobody's concern.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        warn!("The TCP port cannot take a connection: {error}");
        // Out of file descriptors: the same error would come at once again.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
