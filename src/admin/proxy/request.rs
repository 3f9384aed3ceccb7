//! The decision about a client's request before it is sent to the service: it is refused, or it is
//! signed.
//!
//! In: the head and the body of a request. Out: the reason why it is refused, or the signed
//! request. Thread: any. No I/O, no clock.

use super::{headers, query};
use crate::aws::{RequestBody, SignError, Signer};
use crate::base::http_server::sent_by_web_page;
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use std::time::SystemTime;

pub use super::paths::{AllowedPaths, correct};

/// Longest target (path and query) of a request, in bytes. The proxy puts the path of the endpoint
/// in front of it, and the `http` crate limits the result to 64 kB.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Returns why a request is refused, and the status of the answer. Returns `None` if it
/// is not refused.
pub fn refusal(head: &Parts, paths: &AllowedPaths) -> Option<(StatusCode, String)> {
    let target_bytes = head.uri.path_and_query().map_or(0, |it| it.as_str().len());
    let query = query::check(head.uri.query().unwrap_or_default());
    let refusal = if let Some(header) = sent_by_web_page(head) {
        let why = format!("requests of web pages ({header}) are not forwarded");
        (StatusCode::FORBIDDEN, why)
    } else if head.method == Method::TRACE {
        // The answer to TRACE contains the request, with its signature and the session token.
        (StatusCode::METHOD_NOT_ALLOWED, "TRACE is not forwarded".to_owned())
    } else if !paths.allows(head.uri.path()) {
        let why = "the daemon does not forward this path; ProxyServer.AllowedPaths in cfg.yaml \
                   allows more paths";
        (StatusCode::FORBIDDEN, why.to_owned())
    } else if target_bytes > TARGET_BYTES_MAX {
        let why = format!("the target is longer than {TARGET_BYTES_MAX} bytes");
        (StatusCode::URI_TOO_LONG, why)
    } else if let Err(error) = query {
        (StatusCode::BAD_REQUEST, format!("the request cannot be signed as it is sent: {error}"))
    } else {
        return None;
    };
    Some(refusal)
}

/// Returns the request to the service for a client's request that is not refused, signed with
/// `credentials` and the time `signed_at`.
///
/// # Errors
///
/// Returns an error if the credentials have characters that headers cannot contain.
pub fn signed(
    signer: &Signer,
    credentials: &Credentials,
    (head, body): (&Parts, &Bytes),
    signed_at: SystemTime,
) -> Result<Request<RequestBody>, SignError> {
    let root = PathAndQuery::from_static("/");
    let target = head.uri.path_and_query().unwrap_or(&root);
    let headers = headers::for_service(head.headers.clone());
    let parts = (head.method.clone(), target, headers);
    let mut request = signer.sign_for_client(parts, body.clone(), credentials, signed_at)?;
    if body.is_empty() {
        headers::state_empty_body(&head.method, request.headers_mut());
    }
    Ok(request)
}
