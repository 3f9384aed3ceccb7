//! Builds HTTP responses in the form that the clients of the service and browsers expect.
//!
//! In: the result of a call, an [`Answer`] or a [`Failure`]. Out: the HTTP response. Its security
//! headers make a browser use the stated content type and load only the sandbox's own files. No
//! I/O, no clock.

use super::signature::Refusal;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use xrayd_otlp::grpc::{self, code};
use xrayd_otlp::{Encoding, answer};

/// Header in which the service names the type of an error.
pub const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

const JSON: &str = "application/json";

/// Content security policy of every response.
///
/// A browser loads only the sandbox's own files, and other websites cannot embed the page. The page
/// inserts text from documents as text and never as markup. If markup from a document ever reached
/// the page by mistake, this policy would keep its scripts from running.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// A successful answer. Its status is 200.
#[derive(Debug)]
pub struct Answer {
    /// Value of the header Content-Type.
    pub content_type: &'static str,
    /// Body of the response.
    pub body: Bytes,
    /// Whether the answer is a file of the page. A browser may cache a file, but must ask the
    /// sandbox before it uses the file again (`no-cache`). Other answers are not cached
    /// (`no-store`).
    pub is_asset: bool,
}

impl Answer {
    /// Returns an answer with the given JSON text.
    pub fn text(json: String) -> Self {
        Self { content_type: JSON, body: json.into(), is_asset: false }
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::text(value.to_string())
    }
}

/// An error answer.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    error_type: &'static str,
    message: String,
    /// Methods that the path accepts, for the header Allow.
    allow: Option<HeaderValue>,
    /// Encoding of a body for an exporter of OpenTelemetry.
    otlp: Option<Encoding>,
}

impl Failure {
    /// Returns a failure with a status, an error type and a message.
    pub fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: message.into(), allow: None, otlp: None }
    }

    /// Returns the failure (400) for a request that is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestException", message)
    }

    /// Returns the failure (403) for a request from an origin that is not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// Returns the failure (404) for a trace that the store does not have.
    pub fn no_such_trace() -> Self {
        let message = "The sandbox does not have this trace, or has it no longer";
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    /// Returns the failure (404) for an unknown path.
    pub fn no_such_path() -> Self {
        let message = "This path does not exist. Try GET / in a browser, or GET /traces";
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// Returns the failure (404) for an operation that the sandbox does not have. `known` lists the
    /// available operations.
    pub fn unknown_operation(known: &str) -> Self {
        let message = format!("The sandbox does not have this operation. It has {known}");
        Self::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// Returns the failure (405) for a wrong method. `allow` lists the methods that the path
    /// accepts.
    pub fn wrong_method(allow: &str) -> Self {
        let message = format!("This path accepts only {allow}");
        let failure =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowedException", message);
        Self { allow: HeaderValue::from_str(allow).ok(), ..failure }
    }

    /// Returns the failure with a body for an exporter of OpenTelemetry.
    #[must_use]
    pub fn in_otlp(self, encoding: Encoding) -> Self {
        Self { otlp: Some(encoding), ..self }
    }

    /// Returns the message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the content type and the body of the answer.
    fn body(&self) -> (&'static str, Bytes) {
        let Some(encoding) = self.otlp else {
            let body = json!({"__type": self.error_type, "message": self.message});
            return (JSON, body.to_string().into());
        };
        let code = match self.status {
            StatusCode::FORBIDDEN => code::PERMISSION_DENIED,
            StatusCode::NOT_FOUND => code::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED => code::UNIMPLEMENTED,
            StatusCode::PAYLOAD_TOO_LARGE => code::RESOURCE_EXHAUSTED,
            _ => code::INVALID_ARGUMENT,
        };
        let refusal = grpc::Refusal::new(code, &self.message);
        (encoding.content_type(), answer::refused(encoding, &refusal))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(StatusCode::FORBIDDEN, refusal.error_type(), refusal.to_string())
    }
}

/// Builds the HTTP response of a call.
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
            let (content_type, body) = failure.body();
            headers.insert(ERROR_TYPE, HeaderValue::from_static(failure.error_type));
            headers.extend(failure.allow.map(|allow| (ALLOW, allow)));
            (content_type, "no-store", failure.status, body)
        }
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    *response.status_mut() = status;
    *response.body_mut() = body;
    response
}
