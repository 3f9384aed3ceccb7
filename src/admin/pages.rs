//! The daemon's own pages on the TCP port, and what lies behind them.
//!
//! In: requests. Out: `GET /health`, `/ready`, `/metrics` and `/tail`; every other request goes to
//! the [`Fallback`], if there is one. Runs on the main thread's runtime, beside the flow.

use crate::admin::health::Health;
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
    requests: Requests,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// Pages of `health` and `metrics`, and `fallback` for everything else.
    pub fn new(health: Health, metrics: Metrics, fallback: Option<Arc<dyn Fallback>>) -> Self {
        Self { health, metrics, fallback, tail: None, requests: Requests::default() }
    }

    /// The same pages, with what `tail` has for programs on this host.
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

    /// What has come, for `xray tail`: documents may hold secrets, so for nobody else than programs
    /// on this host. A browser is none: a page could be made to ask by a name of its own.
    async fn tail_answer(&self, head: &Parts, is_local: bool) -> Response<Bytes> {
        let Some(tail) = &self.tail else {
            let why = "this daemon cannot be followed; Tail: true in its configuration lets it be";
            return error_answer(StatusCode::NOT_FOUND, why);
        };
        let host = head.headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
        let is_for_loopback = host.is_some_and(|host| host.is_ok_and(|host| is_loopback(&host)));
        let is_browser =
            ["origin", "sec-fetch-site"].iter().any(|it| head.headers.contains_key(*it));
        if head.method != Method::GET || !is_local || !is_for_loopback || is_browser {
            return error_answer(StatusCode::FORBIDDEN, "only programs on this host may follow");
        }
        let after = head.uri.query().and_then(|query| query.strip_prefix("after="));
        let Ok(after) = after.map(str::parse).transpose() else {
            return error_answer(StatusCode::BAD_REQUEST, "after= is the number of a segment");
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

    async fn own_answer(&self, path: &str) -> Response<Bytes> {
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

impl Handler for Pages {
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> Response<Bytes> {
        let path = request.uri().path();
        if path == "/tail" {
            // It keeps its place in the line: who follows gives way to who asks how the daemon is.
            let (head, _) = request.into_parts();
            return tokio::select! {
                biased;
                answer = self.tail_answer(&head, is_local) => answer,
                () = slot.asked_to_close() => too_many_requests(),
            };
        }
        if matches!(path, "/health" | "/ready" | "/metrics") {
            slot.stop_waiting();
            return match *request.method() {
                Method::GET | Method::HEAD => self.own_answer(path).await,
                _ => {
                    let why = "only GET is allowed here";
                    let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, why);
                    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                    answer
                }
            };
        }
        let Some(fallback) = &self.fallback else {
            let why = "there is no such page; there are GET /health, /ready and /metrics";
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

fn page((status, body): (StatusCode, serde_json::Value)) -> Response<Bytes> {
    json(status, &body)
}
