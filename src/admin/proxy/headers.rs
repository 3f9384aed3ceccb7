//! Selects the headers that the proxy forwards, from the client to the service and back.
//!
//! In: the headers of a request or of an answer. Out: the headers to forward. Hop-by-hop headers
//! are removed (RFC 9110, section 7.6.1), and before the request is signed: removing a signed
//! header later would make the signature invalid. Thread: any; the functions are pure.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// Hop-by-hop headers. They are removed even if `Connection` does not name them.
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

/// Headers of a request that are removed: those of the client's own signature, and those that are
/// set anew for the request to the service. `Expect` has been handled, since the body is complete.
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

/// Returns the headers of a client's request to send to the service.
pub(super) fn for_service(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    for name in &REPLACED {
        headers.remove(name);
    }
    headers
}

/// Returns the headers of the service's answer to send to the client. `Content-Length` is removed,
/// because hyper sets it from the body; it is kept for HEAD, whose answer has no body.
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
