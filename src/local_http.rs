//! The TCP port: a small HTTP server for the daemon's own pages.
//!
//! In: HTTP/1.1 requests on the TCP address. Out: `GET /health`, `/ready` and `/metrics`; every
//! other request goes to the [`Fallback`], if there is one. Bounds: connections at a time, a time
//! for a request's header and for its body, a size for each, a number of large bodies. Runs on the
//! main thread's runtime, beside the flow.
//!
//! A daemon must not be killed because its clients hang: connections that wait for a place are
//! looked at, and those that ask for one of the daemon's own pages need none.

mod slow;

use crate::health::Health;
use crate::metrics::{self, Metrics};
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slow::{Phase, WatchedStream};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

/// Connections that are served at a time; while more wait none is kept for its next request.
const CONNECTION_COUNT_MAX: usize = 128;

/// Connections that are open at a time; more wait in the kernel's queue.
const OPEN_COUNT_MAX: usize = 512;

/// How long an own page may be asked for without a place.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// How a request for an own page begins.
const OWN_PAGES: [&[u8]; 3] = [b"GET /health", b"GET /ready", b"GET /metrics"];

/// A request's header, and then its body, must be complete by then.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection takes no more requests after this time.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The request that it has then must be over by this time: 10 s each for the header, a place for the
/// body and the body, and the 60 s that a client's call may take.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(100);

/// A request's header beyond this size, or this number of lines, is refused.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HEADER_COUNT_MAX: usize = 100;

/// A request body beyond this size is refused.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Request bodies beyond this size wait for a place; the others, those of sampling calls among
/// them, never wait for large ones, and there are no more of them than connections.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Large bodies at a time at most, until their requests are answered: together 20 MB.
const LARGE_BODY_COUNT_MAX: usize = 4;

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

/// What is asked of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    /// The place of one that is between requests: others wait for it.
    Place,
    /// The end of each, after the request that it has.
    End,
}

/// The daemon's own pages, and what lies behind them.
pub struct Pages {
    health: Health,
    metrics: Metrics,
    fallback: Option<Arc<dyn Fallback>>,
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
        let large_bodies = Semaphore::new(LARGE_BODY_COUNT_MAX);
        Self { health, metrics, fallback, large_bodies }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Bytes> {
        let path = request.uri().path();
        if matches!(path, "/health" | "/ready" | "/metrics") {
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
    places: Semaphore,
    /// Connections that wait for a place.
    waiting_count: AtomicUsize,
    want: watch::Sender<Want>,
}

impl Server {
    /// A server of `pages`.
    pub fn new(pages: Pages) -> Arc<Self> {
        Arc::new(Self {
            pages,
            places: Semaphore::new(CONNECTION_COUNT_MAX),
            waiting_count: AtomicUsize::new(0),
            want: watch::Sender::new(Want::Nothing),
        })
    }

    /// Serves on `listener` until [`finish`](Self::finish), or until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut want = self.want.subscribe();
        tokio::select! {
            _ = want.wait_for(|want| *want == Want::End) => {}
            never = self.accept(&listener) => match never {},
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        let open = Arc::new(Semaphore::new(OPEN_COUNT_MAX));
        loop {
            let is_open = Arc::clone(&open).acquire_owned().await.expect("it is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(self);
                    tokio::spawn(async move {
                        server.serve_in_place(stream).await;
                        drop(is_open);
                    });
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    }

    /// Serves a connection when there is a place for it; at once if it asks for an own page.
    async fn serve_in_place(&self, stream: TcpStream) {
        if let Ok(_place) = self.places.try_acquire() {
            return self.serve_connection(stream, true).await;
        }
        let first_look = tokio::time::timeout(FIRST_LOOK_TIMEOUT, asks_for_own_page(&stream));
        if first_look.await.unwrap_or(false) {
            return self.serve_connection(stream, false).await;
        }
        self.wants_place(true);
        let _place = self.places.acquire().await.expect("it is never closed");
        self.wants_place(false);
        self.serve_connection(stream, true).await;
    }

    /// Has others give up their places while somebody waits for one.
    fn wants_place(&self, begins: bool) {
        let waiting_count = match begins {
            true => self.waiting_count.fetch_add(1, Ordering::Relaxed) + 1,
            false => self.waiting_count.fetch_sub(1, Ordering::Relaxed) - 1,
        };
        let now = if waiting_count > 0 { Want::Place } else { Want::Nothing };
        self.want
            .send_if_modified(|want| *want != Want::End && std::mem::replace(want, now) != now);
    }

    /// Takes no more requests, and waits until those under way are answered; for `time` at most.
    pub async fn finish(&self, time: Duration) {
        self.want.send_replace(Want::End);
        let all = u32::try_from(CONNECTION_COUNT_MAX).expect("a small number");
        if tokio::time::timeout(time, self.places.acquire_many(all)).await.is_err() {
            let count = CONNECTION_COUNT_MAX - self.places.available_permits();
            warn!("{count} calls of clients on the TCP port are cut off: no time is left for them");
        }
    }

    /// `is_kept`: whether it may have another request after the first.
    async fn serve_connection(&self, stream: TcpStream, is_kept: bool) {
        let phase = Arc::new(Phase::default());
        let stream = WatchedStream::new(stream, Arc::clone(&phase), READ_TIMEOUT);
        let service = service_fn(|request| {
            let busy = phase.busy();
            async move {
                let mut answer = self.pages.answer(request).await;
                if !is_kept || *self.want.borrow() != Want::Nothing {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                drop(busy);
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
            _ = tokio::time::timeout(CONNECTION_TIMEOUT, self.is_unwanted(&phase)) => {
                // Whatever is being answered is answered to its end.
                served.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_REQUEST_TIMEOUT, served).await
            }
        };
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("A connection to the TCP port ended: {error}"),
            Err(_) => debug!("A connection to the TCP port was open for too long"),
        }
    }

    /// Waits until a connection at this phase is to take no more requests.
    async fn is_unwanted(&self, phase: &Phase) {
        let mut want = self.want.subscribe();
        loop {
            match *want.borrow_and_update() {
                Want::End => return,
                Want::Place if phase.is_between_requests() => return,
                Want::Place | Want::Nothing => {}
            }
            if want.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether the first bytes of a connection ask for one of the daemon's own pages.
async fn asks_for_own_page(stream: &TcpStream) -> bool {
    let mut start = [0; 16];
    loop {
        let Ok(count @ 1..) = stream.peek(&mut start).await else { return false };
        let start = &start[..count];
        if let Some(page) =
            OWN_PAGES.iter().find(|page| page.starts_with(&start[..start.len().min(page.len())]))
        {
            if count >= page.len() {
                return true;
            }
            // The rest is on its way: what is there already would be there again at once.
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            return false;
        }
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
