//! Refuses requests whose head has more than one meaning, or none.
//!
//! In: the head of a request, as hyper has read it. Out: the answer to a request that is refused,
//! or nothing. Bound: none of its own; hyper bounds the head. Thread: any. No I/O, no clock.
//!
//! A proxy in front of the daemon may read such a request otherwise than hyper. Then the proxy and
//! the daemon disagree about where the request ends or whom it is for (request smuggling). hyper
//! itself refuses broken lines and lengths. It takes what is checked here, against RFC 9112.

use super::{error_answer, last_answer};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

/// Returns the answer to a request that is refused because of its head. The connection is closed
/// after this answer. Returns `None` if the head has one meaning.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response<Bytes>> {
    let (status, why) = if *request.method() == Method::CONNECT {
        // The next bytes would not be HTTP for a proxy that takes the request for a tunnel.
        (StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not supported: this is no forward proxy")
    } else {
        target_error(request.method(), request.uri())
            .or_else(|| host_error(request.version(), request.headers()))
            .or_else(|| connection_error(request.headers()))
            .map(|why| (StatusCode::BAD_REQUEST, why))
            .or_else(|| coding_error(request.headers()))?
    };
    Some(last_answer(error_answer(status, why)))
}

/// Returns why the target of a request is refused. A target is a path, or a whole address of http
/// or https; it may be `*` for the method OPTIONS (RFC 9112, section 3.2).
fn target_error(method: &Method, target: &Uri) -> Option<&'static str> {
    let is_good = match (target.scheme(), target.authority()) {
        (None, None) => target.path() != "*" || *method == Method::OPTIONS,
        (Some(scheme), Some(authority)) => {
            let has_user = authority.as_str().contains('@');
            (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS) && !has_user
        }
        _ => false,
    };
    (!is_good).then_some("the target of the request is neither a path nor an address of http")
}

/// Returns why the `Host` headers of a request are refused. There must be exactly one, or at most
/// one in HTTP/1.0. It may be empty, and may have the characters that Go's server takes, and so the
/// original daemon (RFC 9112, section 3.2).
fn host_error(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return (version == Version::HTTP_11).then_some("the request has no Host header");
    };
    if hosts.next().is_some() {
        return Some("the request has more than one Host header");
    }
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte);
    (!host.as_bytes().iter().all(is_good)).then_some("the Host header is not a host with a port")
}

/// Returns why the `Connection` headers of a request are refused. hyper does not look for `close`
/// in one that is no text.
fn connection_error(headers: &HeaderMap) -> Option<&'static str> {
    let mut values = headers.get_all(CONNECTION).iter();
    let is_bad = values.any(|value| value.to_str().is_err());
    is_bad.then_some("the Connection header is not text")
}

/// Returns why the transfer codings of a request are refused, with the status of the answer. hyper
/// has checked that the last one is `chunked`. It must be the only one, because hyper removes no
/// other from the body (RFC 9112, section 6.1).
fn coding_error(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings: Vec<&[u8]> =
        lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).collect();
    codings.pop();
    let is_known = |coding: &&[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked")
    };
    match codings.iter().all(is_known) {
        true if codings.is_empty() => None,
        true => Some((StatusCode::BAD_REQUEST, "the request names the coding chunked twice")),
        false => {
            let why = "the request has a transfer coding besides chunked, which is not supported";
            Some((StatusCode::NOT_IMPLEMENTED, why))
        }
    }
}
