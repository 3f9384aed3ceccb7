//! Which headers go on: of a client's request to the service, and of the answer to the client.
//!
//! Hop-by-hop headers end here, because whatever is removed after the signature would make it
//! invalid (RFC 9110, section 7.6.1). Pure code.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// Meant for this connection alone, with or without `Connection` naming them.
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

/// Of a request: what a client has signed with, which is nothing to us, and what is made anew for
/// the next connection. `Expect` is settled, since the body is there.
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

/// The headers of a client's request that are signed and sent.
pub(super) fn for_service(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    for name in &REPLACED {
        headers.remove(name);
    }
    headers
}

/// The headers of the service's answer that the client gets. Content-Length stays where the answer
/// has no body to measure, that to HEAD.
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
