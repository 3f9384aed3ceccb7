//! The endpoint for spans of OpenTelemetry: OTLP/HTTP with protobuf.

use super::{State, lock, take};
use crate::spans::marks;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::sync::Mutex;
use xrayd_otlp::grpc::{Refusal, code};
use xrayd_otlp::{Encoding, answer};

/// Path of requests with spans.
pub(super) const PATH: &str = "/v1/traces";

/// Answers a request with spans.
pub(super) async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return refused("the body is cut off", state) };
    let body = body.to_bytes();
    let Some(is_gzip) = form(&parts.headers) else {
        return refused("the kit's endpoint reads protobuf, without compression or gzip", state);
    };
    let Ok((marks, foreign_count)) = marks(&body, is_gzip) else {
        return refused("the body is not what its headers say", state);
    };
    if let Some(refusal) = take(state, &marks, body.len() as u64).await {
        return refusal;
    }
    lock(state).counts.foreign_count += foreign_count;
    protobuf(StatusCode::OK, answer::accepted(Encoding::Protobuf, 0, ""))
}

/// Returns whether the body is compressed, or `None` if the endpoint cannot read its form.
fn form(headers: &HeaderMap) -> Option<bool> {
    let encoding = headers.get(CONTENT_TYPE).and_then(|value| Encoding::of(value.as_bytes()));
    let coding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    match (encoding, coding) {
        (Some(Encoding::Protobuf), None | Some(b"identity")) => Some(false),
        (Some(Encoding::Protobuf), Some(b"gzip")) => Some(true),
        _ => None,
    }
}

fn refused(reason: &str, state: &Mutex<State>) -> Response<Full<Bytes>> {
    lock(state).counts.unreadable_count += 1;
    let refusal = Refusal::new(code::INVALID_ARGUMENT, reason);
    protobuf(StatusCode::BAD_REQUEST, answer::refused(Encoding::Protobuf, &refusal))
}

fn protobuf(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(Encoding::Protobuf.content_type());
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
