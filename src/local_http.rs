//! The TCP port: a small HTTP server for the daemon's own pages.
//!
//! In: HTTP/1.1 requests on the TCP address. Out: `GET /health`, `/ready`, `/metrics` and `/tail`;
//! every other request goes to the [`Fallback`], if there is one. Bounds: connections at a time,
//! and of them those with such a request; a time for a request's header and for its body, a size
//! for each, a number of large bodies. Runs on the main thread's runtime, beside the flow.
//!
//! **A daemon must not be killed because its clients hang**: its own pages are answered whatever
//! they do. There are more connections than requests of clients at a time, and when all are taken
//! the one that has waited longest, for its client or for its turn, gives way (`line.rs`).

mod line;
mod slow;

use crate::address::is_loopback;
use crate::health::Health;
use crate::log::RateLimit;
use crate::metrics::{self, Metrics};
use crate::panics;
use crate::tail::{Tail, WAIT_TIME};
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use line::{Line, Seat};
use slow::{Phase, WatchedStream};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::{debug, error, warn};

/// Connections at a time; for another one, one that waits gives way.
const CONNECTION_COUNT_MAX: usize = 256;

/// Requests at a time that are not for the daemon's own pages; more wait for [`READ_TIMEOUT`].
const REQUEST_COUNT_MAX: usize = 128;

/// A request's header, and then its body, must be complete by then.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no more requests after this time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The request that it has then must be over by this time: 10 s each for the header, its turn, a
/// place for the body and the body, and the 60 s that a client's call may take.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(110);

/// What is left of its last answer must be on its way by then when a connection gives way.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's header beyond this size, or this number of lines, is refused.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADER_COUNT_MAX: usize = 100;

/// A request body beyond this size is refused.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Request bodies beyond this size wait for a place; the others, those of sampling calls among
/// them, never wait for large ones, and there are no more of them than requests.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Large bodies at a time at most, until their requests are answered: together 20 MB.
const LARGE_BODY_COUNT_MAX: usize = 4;

static PANICKED: RateLimit = RateLimit::once_a_minute();

/// What answers the requests that the daemon has no page for.
pub trait Fallback: Send + Sync {
    /// Refuses a request for its head's sake, with this answer: then its body is not kept.
    fn refuse(&self, _head: &Parts) -> Option<Response<Bytes>> {
        None
    }

    /// Answers a request.
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + '_>>;
}

/// The daemon's own pages, and what lies behind them.
pub struct Pages {
    health: Health,
    metrics: Metrics,
    fallback: Option<Arc<dyn Fallback>>,
    tail: Option<Arc<Tail>>,
    requests: Semaphore,
    large_bodies: Semaphore,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// Pages of `health` and `metrics`, and `fallback` for everything else.
    pub fn new(health: Health, metrics: Metrics, fallback: Option<Arc<dyn Fallback>>) -> Self {
        let requests = Semaphore::new(REQUEST_COUNT_MAX);
        let large_bodies = Semaphore::new(LARGE_BODY_COUNT_MAX);
        Self { health, metrics, fallback, tail: None, requests, large_bodies }
    }

    /// The same pages, with what `tail` has for programs on this host.
    #[must_use]
    pub fn with_tail(self, tail: Option<Arc<Tail>>) -> Self {
        Self { tail, ..self }
    }

    /// Answers a request of the connection in `seat`, which has waited for it; `is_local`: its
    /// client is on this host.
    async fn answer(
        &self,
        request: Request<Incoming>,
        seat: &Seat,
        is_local: bool,
    ) -> Response<Bytes> {
        let path = request.uri().path();
        if path == "/tail" {
            // It keeps its place in the line: who follows gives way to who asks how the daemon is.
            let (head, _) = request.into_parts();
            return tokio::select! {
                biased;
                answer = self.tail_page(&head, is_local) => answer,
                () = seat.dismissed() => crowded(),
            };
        }
        if matches!(path, "/health" | "/ready" | "/metrics") {
            seat.stay();
            return match *request.method() {
                Method::GET | Method::HEAD => self.own_page(path).await,
                _ => {
                    let why = "only GET is allowed here";
                    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, why);
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                    answer
                }
            };
        }
        let Some(fallback) = &self.fallback else {
            let why = "there is no such page; there are GET /health, /ready and /metrics";
            return failure(StatusCode::NOT_FOUND, why);
        };
        match self.turn(seat).await {
            Some(_turn) => self.pass_to(&**fallback, request).await,
            None => crowded(),
        }
    }

    /// Waits until it is the turn of a request; `None` when that takes too long, or its connection
    /// has to give way.
    async fn turn(&self, seat: &Seat) -> Option<SemaphorePermit<'_>> {
        let turn = tokio::select! {
            biased;
            turn = tokio::time::timeout(READ_TIMEOUT, self.requests.acquire()) => turn.ok()?.ok(),
            () = seat.dismissed() => None,
        };
        seat.stay();
        turn
    }

    async fn pass_to(
        &self,
        fallback: &dyn Fallback,
        request: Request<Incoming>,
    ) -> Response<Bytes> {
        let (head, mut body) = request.into_parts();
        if let Some(refusal) = fallback.refuse(&head) {
            discard(&head, body).await;
            return refusal;
        }
        let too_large = "the request's body is larger than 5 MB";
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            discard(&head, body).await;
            return failure(StatusCode::PAYLOAD_TOO_LARGE, too_large);
        }
        let is_small = body.size_hint().upper().is_some_and(|size| size <= SMALL_BODY_BYTES_MAX);
        let place = async { if is_small { None } else { self.large_bodies.acquire().await.ok() } };
        let Ok(_place) = tokio::time::timeout(READ_TIMEOUT, place).await else {
            let why = "too many large requests are on their way already; try again";
            return failure(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        match tokio::time::timeout(READ_TIMEOUT, read(&mut body)).await {
            Ok(Ok(bytes)) => fallback.answer(Request::from_parts(head, bytes)).await,
            Ok(Err(BodyError::TooLarge)) => {
                discard(&head, body).await;
                failure(StatusCode::PAYLOAD_TOO_LARGE, too_large)
            }
            Ok(Err(BodyError::Broken)) => {
                failure(StatusCode::BAD_REQUEST, "the request's body broke off")
            }
            Err(_) => failure(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly"),
        }
    }

    /// What has come, for `xray tail`: documents may hold secrets, so for nobody else than programs
    /// on this host. A browser is none: a page could be made to ask by a name of its own.
    async fn tail_page(&self, head: &Parts, is_local: bool) -> Response<Bytes> {
        let Some(tail) = &self.tail else {
            let why = "this daemon cannot be followed; Tail: true in its configuration lets it be";
            return failure(StatusCode::NOT_FOUND, why);
        };
        let host = head.headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
        let is_for_loopback = host.is_some_and(|host| host.is_ok_and(|host| is_loopback(&host)));
        let is_browser =
            ["origin", "sec-fetch-site"].iter().any(|it| head.headers.contains_key(*it));
        if head.method != Method::GET || !is_local || !is_for_loopback || is_browser {
            return failure(StatusCode::FORBIDDEN, "only programs on this host may follow");
        }
        let after = head.uri.query().and_then(|query| query.strip_prefix("after="));
        let Ok(after) = after.map(str::parse).transpose() else {
            return failure(StatusCode::BAD_REQUEST, "after= is the number of a segment");
        };
        match tail.read(after, WAIT_TIME).await {
            Ok(body) => {
                let mut answer = Response::new(body);
                let content_type = HeaderValue::from_static("application/json");
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
            Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    async fn own_page(&self, path: &str) -> Response<Bytes> {
        match path {
            "/health" => page(self.health.live().await),
            "/ready" => page(self.health.ready()),
            _ => {
                let mut answer = Response::new(self.metrics.text().await.into());
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
        }
    }
}

/// Why there is no body.
enum BodyError {
    TooLarge,
    Broken,
}

/// The whole body.
async fn read(body: &mut Incoming) -> Result<Bytes, BodyError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads what is left of a body and forgets it, for a while: a connection that is closed with bytes
/// unread is reset, and the client may then never see its answer. Who asks first has sent nothing.
async fn discard(head: &Parts, mut body: Incoming) {
    if !head.headers.contains_key(EXPECT) {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(READ_TIMEOUT, rest).await;
    }
}

/// An answer of the daemon's own: a JSON object with a message.
pub fn failure(status: StatusCode, message: &str) -> Response<Bytes> {
    page((status, serde_json::json!({ "message": message })))
}

/// What a connection that has to give way is answered.
fn crowded() -> Response<Bytes> {
    let why = "too many requests are on their way already; try again";
    let mut answer = failure(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn page((status, body): (StatusCode, serde_json::Value)) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// The server of the TCP port.
#[derive(Debug)]
pub struct Server {
    pages: Pages,
    places: Arc<Semaphore>,
    line: Arc<Line>,
    is_ending: watch::Sender<bool>,
}

impl Server {
    /// A server of `pages`.
    pub fn new(pages: Pages) -> Arc<Self> {
        Arc::new(Self {
            pages,
            places: Arc::new(Semaphore::new(CONNECTION_COUNT_MAX)),
            line: Arc::default(),
            is_ending: watch::Sender::new(false),
        })
    }

    /// Serves on `listener` until [`finish`](Self::finish), or until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        tokio::select! {
            () = self.ending() => {}
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
            if self.places.available_permits() == 0 {
                self.line.dismiss_first();
            }
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.expect("it is never closed");
            let server = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(panicked) = panics::caught(server.serve_connection(stream)).await {
                    PANICKED.log(|more| {
                        error!("A connection to the TCP port met {panicked} and is closed{more}")
                    });
                }
                drop(place);
            });
        }
    }

    /// Takes no more requests, and waits until those under way are answered; for `time` at most.
    pub async fn finish(&self, time: Duration) {
        self.is_ending.send_replace(true);
        if let Some(tail) = &self.pages.tail {
            tail.close();
        }
        let all = u32::try_from(CONNECTION_COUNT_MAX).expect("a small number");
        if tokio::time::timeout(time, self.places.acquire_many(all)).await.is_err() {
            let count = CONNECTION_COUNT_MAX - self.places.available_permits();
            warn!("{count} calls of clients on the TCP port are cut off: no time is left for them");
        }
    }

    async fn serve_connection(&self, stream: TcpStream) {
        let peer = stream.peer_addr();
        let is_local = peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        let phase = Arc::new(Phase::default());
        let stream = WatchedStream::new(stream, Arc::clone(&phase), READ_TIMEOUT);
        let seat = &self.line.join();
        let service = service_fn(|request| {
            let busy = phase.busy();
            async move {
                let mut answer = self.answer(request, seat, is_local).await;
                if *self.is_ending.borrow() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                drop(busy);
                seat.wait();
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
            () = self.has_had_its_time(seat) => {
                let Some(time) = time_left(seat, &phase) else { return };
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

    /// What the pages answer; where that panics, that it did.
    async fn answer(
        &self,
        request: Request<Incoming>,
        seat: &Seat,
        is_local: bool,
    ) -> Response<Bytes> {
        let path = request.uri().path().to_owned();
        let answer = panics::caught(async {
            panics::inject("page");
            self.pages.answer(request, seat, is_local).await
        });
        answer.await.unwrap_or_else(|panicked| {
            PANICKED.log(|more| error!("Answering {path} on the TCP port met {panicked}{more}"));
            failure(StatusCode::INTERNAL_SERVER_ERROR, &panicked.to_string())
        })
    }

    /// Waits until the connection in `seat` is to take no more requests.
    async fn has_had_its_time(&self, seat: &Seat) {
        tokio::select! {
            () = seat.dismissed() => {}
            _ = tokio::time::timeout(CONNECTION_TIMEOUT, self.ending()) => {}
        }
    }

    /// Waits until no connection is to take more requests.
    async fn ending(&self) {
        // The sender is there for as long as this is.
        let _ = self.is_ending.subscribe().wait_for(|is_ending| *is_ending).await;
    }
}

/// How long a connection that takes no more requests may last.
fn time_left(seat: &Seat, phase: &Phase) -> Option<Duration> {
    match phase.awaited_header() {
        // The client has had no answer, and waits for none.
        Some(0) if seat.is_dismissed() => None,
        Some(_) if seat.is_dismissed() => Some(WRITE_TIMEOUT),
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
