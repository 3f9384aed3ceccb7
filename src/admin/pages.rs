//! The handler of the TCP port: answers the daemon's own paths, and passes all other requests to
//! the fallback.
//!
//! In: requests of the HTTP server. Out: the answers to `GET /health`, `/ready`, `/metrics` and
//! `/tail`, and a page about them for `GET /`, unless the fallback has one. Every other request
//! goes to the [`Fallback`]. Bound: [`Requests`]
//! limits the requests for the fallback. The daemon's own paths have no such limit, so that they
//! are always answered. Thread: main.

use crate::admin::health::{Detail, Health};
use crate::admin::metrics::{self, Metrics};
use crate::base::address::is_loopback;
use crate::base::http_server::{
    AnswerBody, ConnectionSlot, Handler, Lane, Requests, ServerLimits, error_answer, json,
    last_answer, refuse, too_many_requests,
};
use crate::pipeline::tail::{Tail, WAIT_TIME};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, VARY};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use std::pin::Pin;
use std::sync::Arc;

/// The page for `GET /`: what is at this port.
const START_PAGE: &str = concat!(
    "xrayd ",
    env!("CARGO_PKG_VERSION"),
    ", a daemon that sends trace segments to AWS X-Ray\n\n\
     GET /health    whether the daemon is alive\n\
     GET /ready     whether it delivers, and if not, why\n\
     GET /metrics   the account of all segments, and other metrics\n\
     GET /tail      the segments, for `xray tail` on this host; needs Tail: true in cfg.yaml\n\n\
     SDKs send segments to the UDP port, and ask at this port for their sampling rules. Other paths\n\
     are refused, unless ProxyServer.AllowedPaths in cfg.yaml has them.\n\n\
     `xray verify` checks whether segments arrive. `xray help` lists flags and documents.\n"
);

/// Answers the requests for all paths except the daemon's own paths, for example `/health`.
pub trait Fallback: Send + Sync {
    /// Returns whether it answers requests for `/`. If not, the daemon says what is at the port.
    fn has_start_page(&self) -> bool {
        true
    }

    /// Decides, before the body is read, whether a request is refused because of its method, path
    /// or headers. Returns the answer to a refused request. Returns `None` if it is not refused.
    fn refuse(&self, head: &Parts) -> Option<Response<Bytes>>;

    /// Returns the lane of a request that was not refused.
    fn lane(&self, head: &Parts) -> Lane;

    /// Answers a request that was not refused.
    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send + '_>>;
}

/// The handler of the TCP port, with the daemon's own paths and the fallback.
pub struct Pages {
    health: Health,
    metrics: Metrics,
    fallback: Arc<dyn Fallback>,
    tail: Option<Arc<Tail>>,
    /// Advice for a program on this host that may not use `/tail`.
    tail_advice: String,
    requests: Requests,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// Returns a handler that answers with `health` and `metrics`, and passes all other requests to
    /// `fallback`. The server has these limits.
    pub fn new(
        health: Health,
        metrics: Metrics,
        fallback: Arc<dyn Fallback>,
        limits: ServerLimits,
    ) -> Self {
        let requests = Requests::new(limits);
        Self { health, metrics, fallback, tail: None, tail_advice: String::new(), requests }
    }

    /// Returns the handler with the additional path `/tail`. It answers with the segments in
    /// `tail`, but only to programs on this host. If there is no tail, it answers with `advice`.
    #[must_use]
    pub fn with_tail(self, tail: Option<Arc<Tail>>, advice: String) -> Self {
        Self { tail, tail_advice: advice, ..self }
    }

    async fn pass_to_fallback(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
    ) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        if let Some(refusal) = self.fallback.refuse(&head) {
            return refuse(&head, body, refusal, slot).await.map(AnswerBody::from);
        }
        let lane = self.fallback.lane(&head);
        let request = Request::from_parts(head, body);
        let answer = |request| self.fallback.answer(request);
        self.requests.with_body(request, (slot, lane), answer).await
    }

    /// Answers `GET /tail` with the received segments, for `xray tail`.
    ///
    /// Documents may contain secrets, so only programs on this host get an answer. Requests of
    /// browsers are refused. Otherwise a web page could read the segments, with a host name that
    /// its owner makes resolve to a loopback address (DNS rebinding).
    async fn tail_answer(&self, head: &Parts, is_local: bool) -> Response<Bytes> {
        let Some(tail) = &self.tail else {
            // The advice names a file of this host.
            let why = match is_local && is_for_loopback(head) {
                true => &self.tail_advice,
                false => "tail is not enabled; set Tail: true in the configuration of the daemon",
            };
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

    /// Answers a request for one of the daemon's own paths.
    async fn own_page(
        &self,
        head: &Parts,
        slot: &ConnectionSlot,
        is_local: bool,
    ) -> Response<Bytes> {
        match head.uri.path() {
            // `stop_waiting` is not called here. So this connection counts as waiting, and it can
            // be closed to make room for a new connection, for example one that asks for `/health`.
            "/tail" => tokio::select! {
                biased;
                answer = self.tail_answer(head, is_local) => answer,
                () = slot.asked_to_close() => too_many_requests(),
            },
            _ => {
                slot.stop_waiting();
                if [Method::GET, Method::HEAD].contains(&head.method) {
                    return self.own_answer(head, slot).await;
                }
                let why = "only GET is allowed here";
                let mut answer = error_answer(StatusCode::METHOD_NOT_ALLOWED, why);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
        }
    }

    async fn own_answer(&self, head: &Parts, slot: &ConnectionSlot) -> Response<Bytes> {
        match head.uri.path() {
            "/" => {
                let mut answer = Response::new(Bytes::from_static(START_PAGE.as_bytes()));
                let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer
            }
            "/health" => page(self.health.live().await),
            "/ready" => {
                let detail = if is_for_loopback(head) { Detail::Full } else { Detail::Code };
                page(self.health.ready(detail))
            }
            _ => {
                let format = metrics::Format::accepted_by(&head.headers);
                let text = self.metrics.text(format, slot.memory_used_bytes()).await;
                let mut answer = Response::new(text.into());
                let content_type = HeaderValue::from_static(format.content_type());
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
                answer.headers_mut().insert(VARY, ACCEPT.into());
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
    ) -> Response<AnswerBody> {
        let path = request.uri().path();
        let is_own = matches!(path, "/health" | "/ready" | "/metrics" | "/tail");
        // Only a request of a person. All else stays with the fallback.
        let is_start = path == "/" && [Method::GET, Method::HEAD].contains(request.method());
        if !is_own && (!is_start || self.fallback.has_start_page()) {
            return self.pass_to_fallback(request, slot).await;
        }
        let (head, body) = request.into_parts();
        let answer = self.own_page(&head, slot, is_local).await;
        // An unread body ends the connection.
        let answer = if body.is_end_stream() { answer } else { last_answer(answer) };
        answer.map(AnswerBody::from)
    }

    fn close(&self) {
        if let Some(tail) = &self.tail {
            tail.close();
        }
    }
}

/// Returns whether a request is for a loopback name or address. Programs on this host use such a
/// name. An orchestrator or a web page uses another. The name is in the `Host` header, but if the
/// target is a whole address, the header does not count (RFC 9112, section 3.2.2).
fn is_for_loopback(head: &Parts) -> bool {
    if let Some(authority) = head.uri.authority() {
        return is_loopback(authority);
    }
    let host = head.headers.get(HOST).map(|host| Authority::try_from(host.as_bytes()));
    host.is_some_and(|host| host.is_ok_and(|host| is_loopback(&host)))
}

fn page((status, body): (StatusCode, serde_json::Value)) -> Response<Bytes> {
    json(status, &body)
}
