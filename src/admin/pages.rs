//! The handler of the TCP port: answers the daemon's own paths, and passes all other requests to
//! the fallback.
//!
//! In: requests of the HTTP server. Out: the answers to `GET /health`, `/ready`, `/metrics` and
//! `/tail`. Every other request goes to the [`Fallback`], if there is one. Bound: [`Requests`]
//! limits the requests for the fallback. The daemon's own paths have no such limit, so that they
//! are always answered. Thread: main.

use crate::admin::health::{Detail, Health};
use crate::admin::metrics::{self, Metrics};
use crate::base::address::is_loopback;
use crate::base::http_server::{
    ConnectionSlot, Handler, Requests, discard, error_answer, json, too_many_requests,
};
use crate::pipeline::tail::{Tail, WAIT_TIME};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;

/// Answers the requests for all paths except the daemon's own paths, for example `/health`.
pub trait Fallback: Send + Sync {
    /// Decides, before the body is read, whether a request is refused because of its method, path
    /// or headers. Returns the answer to a refused request. Returns `None` if it is not refused.
    fn refuse(&self, _head: &Parts) -> Option<Response<Bytes>> {
        None
    }

    /// Answers a request that was not refused.
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + '_>>;
}

/// The handler of the TCP port, with the daemon's own paths and the fallback.
pub struct Pages {
    health: Health,
    metrics: Metrics,
    fallback: Option<Arc<dyn Fallback>>,
    tail: Option<Arc<Tail>>,
    requests: Requests,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// Returns a handler that answers with `health` and `metrics`, and passes all other requests to
    /// `fallback`.
    pub fn new(health: Health, metrics: Metrics, fallback: Option<Arc<dyn Fallback>>) -> Self {
        Self { health, metrics, fallback, tail: None, requests: Requests::default() }
    }

    /// Returns the handler with the additional path `/tail`. It answers with the segments in
    /// `tail`, but only to programs on this host.
    #[must_use]
    pub fn with_tail(self, tail: Option<Arc<Tail>>) -> Self {
        Self { tail, ..self }
    }

    async fn pass_to_fallback(
        &self,
        fallback: &dyn Fallback,
        request: Request<Incoming>,
    ) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        if let Some(refusal) = fallback.refuse(&head) {
            discard(&head, body).await;
            return refusal;
        }
        let request = Request::from_parts(head, body);
        self.requests.with_body(request, |request| fallback.answer(request)).await
    }

    /// Answers `GET /tail` with the received segments, for `xray tail`.
    ///
    /// Documents may contain secrets, so only programs on this host get an answer. Requests of
    /// browsers are refused. Otherwise a web page could read the segments, with a host name that
    /// its owner makes resolve to a loopback address (DNS rebinding).
    async fn tail_answer(&self, head: &Parts, is_local: bool) -> Response<Bytes> {
        let Some(tail) = &self.tail else {
            let why = "tail is not enabled; set Tail: true in the configuration of the daemon";
            return error_answer(StatusCode::NOT_FOUND, why);
        };
        let is_browser =
            ["origin", "sec-fetch-site"].iter().any(|it| head.headers.contains_key(*it));
        if head.method != Method::GET || !is_local || !is_for_loopback(head) || is_browser {
            return error_answer(StatusCode::FORBIDDEN, "only programs on this host may use /tail");
        }
        let after = head.uri.query().and_then(|query| query.strip_prefix("after="));
        let Ok(after) = after.map(str::parse).transpose() else {
            return error_answer(StatusCode::BAD_REQUEST, "after= must be the number of a segment");
        };
        match tail.read(after, WAIT_TIME).await {
            Ok(body) => {
                let mut answer = Response::new(body);
                let content_type = HeaderValue::from_static("application/json");
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
            Err(error) => error_answer(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    async fn own_answer(&self, head: &Parts) -> Response<Bytes> {
        match head.uri.path() {
            "/health" => page(self.health.live().await),
            "/ready" => {
                let detail = if is_for_loopback(head) { Detail::Full } else { Detail::Code };
                page(self.health.ready(detail))
            }
            _ => {
                let mut answer = Response::new(self.metrics.text().await.into());
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
        }
    }
}

impl Handler for Pages {
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> Response<Bytes> {
        let path = request.uri().path();
        if path == "/tail" {
            // `stop_waiting` is not called here. So this connection counts as waiting, and it can
            // be closed to make room for a new connection, for example one that asks for `/health`.
            let (head, _) = request.into_parts();
            return tokio::select! {
                biased;
                answer = self.tail_answer(&head, is_local) => answer,
                () = slot.asked_to_close() => too_many_requests(),
            };
        }
        if matches!(path, "/health" | "/ready" | "/metrics") {
            slot.stop_waiting();
            let (head, _) = request.into_parts();
            return match head.method {
                Method::GET | Method::HEAD => self.own_answer(&head).await,
                _ => {
                    let why = "only GET is allowed here";
                    let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, why);
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                    answer
                }
            };
        }
        let Some(fallback) = &self.fallback else {
            let why = "unknown path; GET /health, /ready and /metrics are available";
            return error_answer(StatusCode::NOT_FOUND, why);
        };
        match self.requests.admit(slot).await {
            Some(_permit) => self.pass_to_fallback(&**fallback, request).await,
            None => too_many_requests(),
        }
    }

    fn close(&self) {
        if let Some(tail) = &self.tail {
            tail.close();
        }
    }
}

/// Returns whether the `Host` header of a request is a loopback name or address. Programs on this
/// host use such a name. An orchestrator or a web page uses another.
fn is_for_loopback(head: &Parts) -> bool {
    let host = head.headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
    host.is_some_and(|host| host.is_ok_and(|host| is_loopback(&host)))
}

fn page((status, body): (StatusCode, serde_json::Value)) -> Response<Bytes> {
    json(status, &body)
}
