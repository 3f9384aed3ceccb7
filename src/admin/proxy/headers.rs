//! Selects the headers that the proxy forwards, from the client to the service and back.
//!
//! In: the headers of a request or of an answer. Out: the headers to forward. Hop-by-hop headers
//! are removed (RFC 9110, section 7.6.1). They are removed before the request is signed, because
//! removing a signed header makes the signature invalid. Thread: any. No I/O, no clock.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Headers for one connection only (hop-by-hop headers). The proxy never forwards them, even if the
/// header `Connection` does not list them.
pub(super) const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers of a client's request that are not forwarded: the headers of the client's own signature,
/// the headers that the HTTP client sets anew, and `X-Forwarded-For`. `Expect` is not needed any
/// longer, because the proxy has already received the whole body.
pub(super) const REPLACED: [HeaderName; 8] = [
    AUTHORIZATION,
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
    HOST,
    CONTENT_LENGTH,
    EXPECT,
    HeaderName::from_static("x-forwarded-for"),
];

/// Returns the headers of a client's request that are forwarded to the service.
pub(super) fn for_service(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    for name in &REPLACED {
        headers.remove(name);
    }
    headers
}

/// Adds `Content-Length: 0` to a request without a body if its method usually has a body (RFC 9110,
/// section 8.6). hyper writes no length for an empty body, and a server may then answer 411. Some
/// samplers fetch their rules with such a POST.
pub(super) fn state_empty_body(method: &Method, headers: &mut HeaderMap) {
    if [Method::POST, Method::PUT, Method::PATCH].contains(method) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Returns the headers of the service's answer that are forwarded to the client. `Content-Length`
/// is removed, because hyper sets it from the length of the body. It is kept in the answer to a
/// HEAD request, because this answer has no body.
pub(super) fn for_client(mut headers: HeaderMap, is_head: bool) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    if !is_head {
        headers.remove(CONTENT_LENGTH);
    }
    headers
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
