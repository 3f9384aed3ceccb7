//! Answers requests for export over HTTP.
//!
//! In: requests of the port. Out: answers in the content type of the request: an
//! `ExportTraceServiceResponse`, or a `google.rpc.Status`. A client tries again after 429, 502, 503
//! and 504, and after no other status, see <https://opentelemetry.io/docs/specs/otlp/#failures>.
//! Bound: that of the server. Thread: `otlp`.

use super::Door;
use crate::base::account::Export;
use crate::base::http_server::{
    AnswerBody, ConnectionSlot, Handler, Lane, Requests, ServerLimits, refuse, sent_by_web_page,
};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use xrayd_otlp::coding::{self, CodingError};
use xrayd_otlp::grpc::{Refusal, code};
use xrayd_otlp::{Encoding, answer};

/// A client that got no turn may try again after this time.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// The handler of the port for OTLP over HTTP.
#[derive(Debug)]
pub struct HttpDoor {
    door: Arc<Door>,
    requests: Requests,
}

impl HttpDoor {
    /// Returns the handler for a server with these limits.
    pub fn new(door: Arc<Door>, limits: ServerLimits) -> Self {
        Self { door, requests: Requests::new(limits).with_errors(error_answer) }
    }

    /// Returns the answer to a request that is refused because of its head.
    fn refusal(&self, head: &Parts) -> Option<Response<Bytes>> {
        let (status, refusal) = if let Some(header) = sent_by_web_page(head) {
            let why = format!("requests of web pages ({header}) are refused");
            (StatusCode::FORBIDDEN, Refusal::new(code::PERMISSION_DENIED, why))
        } else if let Some(signal) = other_signal(head.uri.path()) {
            self.door.count(Export::OtherSignal);
            let refusal = Refusal::new(code::NOT_FOUND, self.door.refuse_signal(signal));
            return Some(refused(head, StatusCode::NOT_FOUND, &refusal));
        } else if !["/v1/traces", "/v1/traces/"].contains(&head.uri.path()) {
            let why = "unknown path; POST /v1/traces takes spans";
            (StatusCode::NOT_FOUND, Refusal::new(code::NOT_FOUND, why))
        } else if head.method != Method::POST {
            let refusal = Refusal::new(code::UNIMPLEMENTED, "only POST is allowed here");
            (StatusCode::METHOD_NOT_ALLOWED, refusal)
        } else if encoding_of(head).is_none() {
            let why = "the content type is not supported; application/x-protobuf and \
                       application/json are";
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, Refusal::new(code::INVALID_ARGUMENT, why))
        } else if let Err(refusal) = self.door.look() {
            (StatusCode::SERVICE_UNAVAILABLE, refusal)
        } else {
            return None;
        };
        self.door.count_result(&Err(refusal.clone()));
        let mut answer = refused(head, status, &refusal);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        Some(answer)
    }

    /// Answers a request with a complete body.
    fn export(&self, head: &Parts, body: &Bytes) -> Response<Bytes> {
        let encoding = encoding_of(head).unwrap_or(Encoding::Protobuf);
        let mut codings = head.headers.get_all(CONTENT_ENCODING).iter();
        let coding = codings.next().map(HeaderValue::as_bytes);
        let (mut is_unknown, has_more) = (false, codings.next().is_some());
        let result = self.door.with_buffer(|buffer| {
            let inflate = |limit_bytes, buffer| {
                let decoded = match has_more {
                    false => coding::decode(coding, body, limit_bytes, buffer),
                    true => Err(CodingError::Unknown),
                };
                decoded.map_err(|error| {
                    is_unknown = matches!(error, CodingError::Unknown);
                    let is_large = matches!(error, CodingError::TooLarge(_));
                    let invalid = code::INVALID_ARGUMENT;
                    let code = if is_large { code::RESOURCE_EXHAUSTED } else { invalid };
                    Refusal::new(code, error.to_string())
                })
            };
            self.door.export(encoding, inflate, buffer)
        });
        self.door.count_result(&result);
        match result {
            Ok((refused_count, why)) => {
                let body = answer::accepted(encoding, refused_count, &why);
                answer_of(encoding, StatusCode::OK, body)
            }
            Err(refusal) => {
                let mut answer = refused(head, status_of(&refusal, is_unknown), &refusal);
                if is_unknown {
                    let known = HeaderValue::from_static("gzip, deflate, identity");
                    answer.headers_mut().insert(ACCEPT_ENCODING, known);
                }
                answer
            }
        }
    }
}

impl Handler for HttpDoor {
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        _is_local: bool,
    ) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        if let Some(refusal) = self.refusal(&head) {
            return refuse(&head, body, refusal, slot).await.map(AnswerBody::from);
        }
        let request = Request::from_parts(head, body);
        let answer = |request: Request<Bytes>| async move {
            let (head, body) = request.into_parts();
            self.export(&head, &body).map(AnswerBody::from)
        };
        self.requests.with_body(request, (slot, Lane::Other), answer).await
    }
}

/// Returns the encoding that the content type of a request names.
fn encoding_of(head: &Parts) -> Option<Encoding> {
    head.headers.get(CONTENT_TYPE).and_then(|value| Encoding::of(value.as_bytes()))
}

/// Returns the signal of a path that is not the one of traces.
fn other_signal(path: &str) -> Option<&'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    ["metrics", "logs"].into_iter().find(|signal| path.strip_prefix("/v1/") == Some(signal))
}

/// Returns the status for a refused request.
fn status_of(refusal: &Refusal, is_unknown_coding: bool) -> StatusCode {
    match refusal.code {
        _ if is_unknown_coding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ if refusal.retry_after.is_some() => StatusCode::SERVICE_UNAVAILABLE,
        code::RESOURCE_EXHAUSTED => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Returns the answer to a request whose body could not be read.
fn error_answer(head: &Parts, status: StatusCode, why: &str) -> Response<Bytes> {
    let refusal = match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            Refusal::new(code::UNAVAILABLE, why).retry_after(BUSY_TIME)
        }
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(code::RESOURCE_EXHAUSTED, why),
        StatusCode::REQUEST_TIMEOUT => Refusal::new(code::DEADLINE_EXCEEDED, why),
        _ => Refusal::new(code::INVALID_ARGUMENT, why),
    };
    refused(head, status, &refusal)
}

/// Returns the answer to a refused request, in its content type, or in JSON if that is not known.
fn refused(head: &Parts, status: StatusCode, refusal: &Refusal) -> Response<Bytes> {
    let encoding = encoding_of(head).unwrap_or(Encoding::Json);
    let mut answer = answer_of(encoding, status, answer::refused(encoding, refusal));
    if let Some(time) = refusal.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(time.as_secs().max(1)));
    }
    answer
}

fn answer_of(encoding: Encoding, status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(encoding.content_type());
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
