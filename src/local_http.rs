//! The TCP port: a small HTTP server for the daemon's own pages.
//!
//! In: HTTP/1.1 requests on the TCP address. Out: `GET /metrics`; every other request goes to the
//! [`Fallback`], if there is one. Bounds: connections at a time, a time for a request's header and
//! for its body, a size for its body. Runs on the main thread's runtime, beside the flow.

use crate::metrics::{self, Metrics};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTION_COUNT_MAX: usize = 128;

/// A request's header, and then its body, must be complete by then.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection ends after this time, whatever its client does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// A request body beyond this size is refused.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Request bodies read at a time at most: together 20 MB.
const BODY_COUNT_MAX: usize = 4;

/// What answers the requests that the daemon has no page for.
pub trait Fallback: Send + Sync {
    /// Answers a request.
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + '_>>;
}

/// The daemon's own pages, and what lies behind them.
pub struct Pages {
    metrics: Metrics,
    fallback: Option<Arc<dyn Fallback>>,
    bodies: Semaphore,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// `metrics`, and `fallback` for everything else.
    pub fn new(metrics: Metrics, fallback: Option<Arc<dyn Fallback>>) -> Self {
        Self { metrics, fallback, bodies: Semaphore::new(BODY_COUNT_MAX) }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Bytes> {
        if request.uri().path() == "/metrics" {
            return self.answer_metrics(request.method()).await;
        }
        let Some(fallback) = &self.fallback else {
            return failure(StatusCode::NOT_FOUND, "there is no such page; there is GET /metrics");
        };
        let (parts, body) = request.into_parts();
        let _place = self.bodies.acquire().await.expect("it is never closed");
        let body = Limited::new(body, BODY_BYTES_MAX).collect();
        match tokio::time::timeout(READ_TIMEOUT, body).await {
            Ok(Ok(body)) => fallback.answer(Request::from_parts(parts, body.to_bytes())).await,
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                failure(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is larger than 5 MB")
            }
            Ok(Err(_)) => failure(StatusCode::BAD_REQUEST, "the request's body broke off"),
            Err(_) => failure(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly"),
        }
    }

    async fn answer_metrics(&self, method: &Method) -> Response<Bytes> {
        if method != Method::GET && method != Method::HEAD {
            let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed here");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let mut answer = Response::new(self.metrics.text().await.into());
        let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
        answer
    }
}

fn failure(status: StatusCode, message: &str) -> Response<Bytes> {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Serves `pages` on `listener` until the future is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    serve_connection(stream, pages).await;
                    drop(place);
                });
            }
            Err(error) => accept_failed(&error).await,
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

async fn serve_connection(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request).await.map(Full::new)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("A connection to the TCP port ended: {error}"),
        Err(_) => debug!("A connection to the TCP port was open for too long"),
    }
}
