//! Answers, in the forms that the service and a browser expect.
//!
//! In: what a call came to, as an [`Answer`] or a [`Failure`]. Out: the HTTP response, with the
//! headers that keep a browser from taking it for anything else. Pure code.

use super::signature::Refusal;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// Where the service names the kind of an error.
pub const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

const JSON: &str = "application/json";

/// Nothing but the sandbox's own files, and no page around it: names in documents are text to the
/// page, and if one ever were not, it could do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// A good answer.
#[derive(Debug)]
pub struct Answer {
    /// What it is.
    pub content_type: &'static str,
    /// Its text.
    pub body: Bytes,
    /// Whether it is always the same, so that a browser may keep it and ask whether it still is.
    pub is_asset: bool,
}

impl Answer {
    /// JSON as it was put together.
    pub fn text(json: String) -> Self {
        Self { content_type: JSON, body: json.into(), is_asset: false }
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::text(value.to_string())
    }
}

/// An answer that is not a 200.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    error_type: &'static str,
    message: String,
    /// The methods that the path takes.
    allow: Option<HeaderValue>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: message.into(), allow: None }
    }

    /// The request is not one that can be answered.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestException", message)
    }

    /// The request comes from where none may come from.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// There is no such trace.
    pub fn no_such_trace() -> Self {
        let message = "There is no such trace, or no longer";
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    /// There is no such path.
    pub fn no_such_path() -> Self {
        let message = "There is no such path; try GET / in a browser, or GET /traces";
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// There is no operation of the service at that path; `known` names those that there are.
    pub fn unknown_operation(known: &str) -> Self {
        let message = format!("The sandbox does not have this operation. It has {known}");
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// The path takes other methods, named in `allow`.
    pub fn wrong_method(allow: &str) -> Self {
        let message = format!("This path takes {allow} only");
        let failure =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedException", message);
        Self { allow: HeaderValue::from_str(allow).ok(), ..failure }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(StatusCode::FORBIDDEN, refusal.error_type(), refusal.to_string())
    }
}

/// The HTTP response.
pub fn respond(outcome: Result<Answer, Failure>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    let (content_type, cache, status, body) = match outcome {
        Ok(answer) => {
            let cache = if answer.is_asset { "no-cache" } else { "no-store" };
            (answer.content_type, cache, StatusCode::OK, answer.body)
        }
        Err(failure) => {
            let body = json!({"__type": failure.error_type, "message": failure.message});
            headers.insert(ERROR_TYPE, HeaderValue::from_static(failure.error_type));
            headers.extend(failure.allow.map(|allow| (ALLOW, allow)));
            (JSON, "no-store", failure.status, body.to_string().into())
        }
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    *response.status_mut() = status;
    *response.body_mut() = body;
    response
}
