//! Classifies the answer to a request: the service accepted the request, or the request failed for
//! a certain reason.
//!
//! In: the status, headers and body of an answer. Out: an [`Outcome`]. Thread: any. No I/O, no
//! clock.
//!
//! The error code decides before the status, because AWS services use status 400 also for
//! throttling, expired tokens and bad signatures. An unknown error is retried. A single answer
//! never causes documents to be dropped: a refused batch is bisected first, and an answer of a
//! server that is not X-Ray is retried ([`Failure::NotXRay`]).
//!
//! An answer with a success status comes from X-Ray if it has a request id ([`REQUEST_ID`]), or if
//! its body has the form of an X-Ray answer. The status is not enough, because any web server sends
//! status 200: a captive portal, a proxy, an `nginx` with its default page. The request id alone is
//! enough. If an answer has a request id but its body cannot be read, X-Ray has still accepted the
//! request, and sending it again would duplicate its documents. It is then unknown which documents
//! X-Ray did not process. The log reports this, and all documents count as sent.

mod spans;

pub use spans::read_spans;
pub use xrayd_otlp::reply::PartialSuccess;

use super::answer::{ErrorBody, SuccessBody, Unprocessed};
use super::encoding::{Unreadable, decode};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// The header with the request id. All answers of AWS have it, successes and errors.
pub const REQUEST_ID: &str = "x-amzn-requestid";

/// Largest number of characters of an unexpected answer that the log shows.
const EXCERPT_CHARACTERS_MAX: usize = 200;

/// The header with the session token, which is a secret. When the service rejects a signature, its
/// error message lists the signed headers with their values. The log shows only the part of the
/// message before this header.
const TOKEN_HEADER: &str = "x-amz-security-token";

/// Upper bound for the `Retry-After` of an answer: 5 minutes. Longer values are reduced to it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Smallest difference between the clocks at which the host's clock counts as wrong: 4 minutes. AWS
/// accepts a signature if its time differs by up to 5 minutes. So with a smaller difference, the
/// clock is not the reason why the service rejects a signature.
const SKEW_MIN: Duration = Duration::from_secs(4 * 60);

/// Headers that only answers of AWS have.
const SERVICE_HEADERS: [&str; 2] = ["x-amzn-requestid", "x-amzn-errortype"];

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service accepted the request.
    Accepted {
        /// Documents that the service did not process.
        unprocessed: Vec<Unprocessed>,
    },
    /// The service did not accept the request, or did not answer.
    Failed {
        /// The kind of failure. It decides what the caller does next.
        failure: Failure,
        /// Description of the failure for the log.
        reason: String,
    },
}

/// Why a request failed. Each kind needs its own action before the request can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The failure is temporary: retry the request.
    Retry {
        /// How long to wait before the retry, if the service asks for it (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The service throttles: retry, and send all documents more slowly.
    Throttle {
        /// How long to wait before the retry, if the service asks for it (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The credentials have expired: fetch new ones, then retry.
    Expired,
    /// The credentials are unknown or lack a permission: an operator must fix this.
    Denied,
    /// The host's clock differs too much from the clock of the service: sign the retried request
    /// with the service's time.
    Skew {
        /// Time of the service, from the `Date` header of the answer.
        service_time: SystemTime,
    },
    /// The request was refused because of a document: bisect the batch to find the document.
    Split {
        /// Whether the service refused the request because it is too large. Smaller requests, each
        /// with half of the batch, may then be accepted.
        is_too_large: bool,
    },
    /// The answer has a success status, but does not come from X-Ray: retry a few times.
    NotXRay,
    /// X-Ray takes no spans of OpenTelemetry, because Transaction Search is off: an operator must
    /// switch it on.
    TransactionSearchOff,
}

/// The outcome of a request, and facts about the answer that only counters and the log need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The outcome: the service accepted the request, or the request failed.
    pub outcome: Outcome,
    /// The number of spans that the service rejected, and its reason or warning; `None` if it gives
    /// neither. Requests with documents have no such answer.
    pub partial: Option<PartialSuccess>,
    /// The reason why the list of unprocessed documents is unknown or incomplete. `None` if the
    /// list is complete, or if the request failed.
    pub unread_reason: Option<String>,
    /// Whether the body of the answer is longer than the daemon reads.
    pub is_too_large: bool,
    /// HTTP status of the answer. `None` if there is no answer.
    pub status: Option<u16>,
    /// The request id of AWS, from the headers of the answer.
    pub request_id: Option<HeaderValue>,
    /// Time of the service, from the `Date` header. `None` if the answer has no such header, or if
    /// it may come from a server that is not X-Ray.
    pub service_time: Option<SystemTime>,
    /// The time that the request waited for a connection.
    pub waited: Duration,
}

impl Outcome {
    /// Returns the outcome of a request that failed temporarily.
    pub fn retry(reason: String) -> Self {
        Self::Failed { failure: Failure::Retry { retry_after: None }, reason }
    }
}

impl From<Outcome> for Reading {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            partial: None,
            unread_reason: None,
            is_too_large: false,
            status: None,
            request_id: None,
            service_time: None,
            waited: Duration::ZERO,
        }
    }
}

impl Unprocessed {
    /// Returns whether the service may process the document if it is sent again.
    pub fn is_transient(&self) -> bool {
        let code = self.error_code.as_deref().unwrap_or_default();
        self.is_throttled()
            || code.starts_with("Internal")
            || code.contains("Unavailable")
            || code.contains("Timeout")
    }

    /// Returns whether the document was not processed because of throttling.
    pub fn is_throttled(&self) -> bool {
        is_throttle(self.error_code.as_deref().unwrap_or_default())
    }
}

/// Classifies the answer to a request that was signed with the time `signed_at`.
pub fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    signed_at: SystemTime,
) -> Outcome {
    read(status, headers, Some(body), signed_at).outcome
}

/// Classifies an answer as [`classify`] does, and also returns the other fields of [`Reading`].
/// `body` is `None` if the body is longer than the daemon reads.
pub fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    signed_at: SystemTime,
) -> Reading {
    let body = body.map_or(Err(Unreadable::TooLarge), |body| decode(headers, body));
    let is_too_large = body == Err(Unreadable::TooLarge);
    let (outcome, unread_reason) = match status.is_success() {
        true => success(status, headers, body),
        false => (error(status, headers, body, signed_at), None),
    };
    let service_time = service_time(headers, &outcome);
    let request_id = headers.get(REQUEST_ID).cloned();
    let status = Some(status.as_u16());
    Reading {
        outcome,
        partial: None,
        unread_reason,
        is_too_large,
        status,
        request_id,
        service_time,
        waited: Duration::ZERO,
    }
}

/// Classifies an answer with a success status. Also returns the reason why the list of unprocessed
/// documents is unknown or incomplete; `None` if it is complete.
fn success(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Cow<'_, [u8]>, Unreadable>,
) -> (Outcome, Option<String>) {
    let has_request_id = headers.contains_key(REQUEST_ID);
    let (read, shown) = match &body {
        // If the answer has a request id, an empty body means that all documents were processed.
        // Without a request id, an answer with an empty body can come from any server.
        Ok(body) if body.trim_ascii().is_empty() => {
            (Some(SuccessBody::default()), format!("it is empty and has no {REQUEST_ID}"))
        }
        Ok(body) => (SuccessBody::read(body), excerpt(body)),
        Err(unreadable) => (None, unreadable.to_string()),
    };
    match read {
        Some(read) if read.is_from_x_ray || has_request_id => {
            let SuccessBody { unprocessed, unprocessed_count: count, .. } = read;
            let unread_reason = (count > unprocessed.len())
                .then(|| format!("it names {count} documents, and only the first were read"));
            (Outcome::Accepted { unprocessed }, unread_reason)
        }
        None if has_request_id => (Outcome::Accepted { unprocessed: Vec::new() }, Some(shown)),
        _ => {
            let reason = format!("{status}, but the answer does not come from X-Ray: {shown}");
            (Outcome::Failed { failure: Failure::NotXRay, reason }, None)
        }
    }
}

/// Classifies an answer without a success status.
fn error(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Cow<'_, [u8]>, Unreadable>,
    signed_at: SystemTime,
) -> Outcome {
    let read = body.as_deref().ok().and_then(ErrorBody::read);
    let is_object = read.is_some();
    let ErrorBody { code, message } = read.unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let code = header.or(code.as_deref()).map(bare_code).unwrap_or_default();
    let reason = match (message, code) {
        (Some(message), "") => format!("{status}: {}", excerpt(message.as_bytes())),
        (Some(message), code) => format!("{code}: {}", excerpt(message.as_bytes())),
        (None, "") => match &body {
            Ok(body) if body.trim_ascii().is_empty() => format!("{status}, with an empty body"),
            Ok(body) => format!("{status}: {}", excerpt(body)),
            Err(unreadable) => format!("{status}, and the answer cannot be read: {unreadable}"),
        },
        (None, code) => format!("{code} ({status})"),
    };
    let failure = failure_by_code(code, headers, signed_at)
        .unwrap_or_else(|| failure_by_status(status, headers, code.is_empty() && is_object));
    Outcome::Failed { failure, reason }
}

/// Returns the kind of failure for an error code of AWS. Returns `None` if the code is unknown.
fn failure_by_code(code: &str, headers: &HeaderMap, signed_at: SystemTime) -> Option<Failure> {
    if is_throttle(code) {
        return Some(Failure::Throttle { retry_after: retry_after(headers) });
    }
    Some(match code {
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Failure::Expired,
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => {
            skew(headers, signed_at).unwrap_or(Failure::Retry { retry_after: None })
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            skew(headers, signed_at).unwrap_or(Failure::Denied)
        }
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnrecognizedClientException" => Failure::Denied,
        "RequestEntityTooLarge" | "RequestTooLargeException" => {
            Failure::Split { is_too_large: true }
        }
        "InvalidRequestException" | "ValidationException" | "SerializationException" => {
            Failure::Split { is_too_large: false }
        }
        _ => return None,
    })
}

/// Returns the kind of failure for an HTTP status, for an answer with a missing or unknown error
/// code. `is_without_code` means that the body is a JSON object without an error code.
fn failure_by_status(status: StatusCode, headers: &HeaderMap, is_without_code: bool) -> Failure {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Throttle { retry_after: retry_after(headers) },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::Split { is_too_large: true },
        // An answer with a JSON body comes from the service. Other answers may come from a proxy,
        // which has not checked the documents.
        StatusCode::BAD_REQUEST if is_without_code => Failure::Split { is_too_large: false },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_without_code => Failure::Denied,
        _ => Failure::Retry { retry_after: retry_after(headers) },
    }
}

/// Returns whether an error code stands for throttling.
fn is_throttle(code: &str) -> bool {
    code.contains("Throttl")
        || [
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
            "LimitExceededException",
            "ProvisionedThroughputExceededException",
            "SlowDown",
        ]
        .contains(&code)
}

/// Returns the `Date` of an answer of X-Ray. An answer counts as one of X-Ray if its outcome is
/// `Accepted` or if it has a header of AWS. Returns `None` for other answers.
fn service_time(headers: &HeaderMap, outcome: &Outcome) -> Option<SystemTime> {
    let is_accepted = matches!(outcome, Outcome::Accepted { .. });
    let is_service =
        is_accepted || SERVICE_HEADERS.iter().any(|header| headers.contains_key(*header));
    if is_service { date(headers) } else { None }
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
}

/// Returns [`Failure::Skew`] if the service's time differs by at least [`SKEW_MIN`] from the time
/// of the signature.
fn skew(headers: &HeaderMap, signed_at: SystemTime) -> Option<Failure> {
    let service_time = date(headers)?;
    let distance = match service_time.duration_since(signed_at) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    (distance >= SKEW_MIN).then_some(Failure::Skew { service_time })
}

/// Returns the bare name of an error code: `Name` for `namespace#Name:http://...`.
fn bare_code(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default().trim()
}

/// Returns the waiting time in the header `Retry-After`. Only a number of seconds is accepted,
/// because AWS does not send a date there.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Returns the start of `text` for the log. Control characters are replaced by spaces, and the text
/// is cut before a session token.
fn excerpt(text: &[u8]) -> String {
    let start = &text[..text.len().min(4 * EXCERPT_CHARACTERS_MAX)];
    let start = String::from_utf8_lossy(start);
    let token_at = start.to_ascii_lowercase().find(TOKEN_HEADER);
    let start = &start[..token_at.unwrap_or(start.len())];
    let visible = |character: char| if character.is_control() { ' ' } else { character };
    start.chars().take(EXCERPT_CHARACTERS_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests;
