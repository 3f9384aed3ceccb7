//! From answer to outcome: what the service said, and so what becomes of the batch.
//!
//! Pure code. By error code first and by status second, because services answer throttling,
//! expiry and bad signatures with status 400 too. What is unknown is tried again; nothing is
//! dropped for what one answer says alone (see `refusal`, and [`Failure::NotXRay`]).
//!
//! An answer of success is X-Ray's if it has a request id ([`REQUEST_ID`]), or if its body has the
//! form of X-Ray's. Any web server answers with status 200: a captive portal, a proxy, an `nginx`
//! without a page. The request id alone is enough: where the body cannot be read, X-Ray has still
//! taken the request, and to send it again would double its documents. Which of them X-Ray has not
//! processed is then unknown; the log says so, and all of them count as sent.

use super::answer::{ErrorBody, SuccessBody, Unprocessed};
use super::encoding::{Unreadable, decode};
use http::{HeaderMap, StatusCode};
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// The header of each answer of the service, whatever its status.
const REQUEST_ID: &str = "x-amzn-requestid";

/// How much of an unexpected answer a log line shows.
const EXCERPT_CHARACTERS_MAX: usize = 200;

/// The service shows the signed headers when it takes a signature for wrong. What follows this
/// one is a secret.
const TOKEN_HEADER: &str = "x-amz-security-token";

/// A longer `Retry-After` is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A service takes signatures that are up to five minutes old or young; nearer than this, it is
/// not the clock.
const SKEW_MIN: Duration = Duration::from_secs(4 * 60);

/// Headers that only the service's own answers have.
const SERVICE_HEADERS: [&str; 2] = ["x-amzn-requestid", "x-amzn-errortype"];

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service took the batch, but for the documents named.
    Accepted {
        /// Documents that it did not process.
        unprocessed: Vec<Unprocessed>,
    },
    /// It did not, for a reason that may be mended.
    Failed {
        /// How.
        failure: Failure,
        /// For the log.
        reason: String,
    },
}

/// What has to happen before a batch can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It passes: try again.
    Retry {
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The service allows fewer documents: try again, and all more slowly.
    Throttle {
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The credentials have expired: fetch new ones, then try again.
    Expired,
    /// The credentials are not allowed this, or not known: an operator can mend it.
    Denied,
    /// Our clock is far from the service's: sign with the service's time.
    Skew {
        /// The `Date` of the answer.
        service_time: SystemTime,
    },
    /// Refused for the sake of a document: find out which one.
    Split {
        /// Refused for its size, which half of the documents do not have.
        is_too_large: bool,
    },
    /// An answer of success that nothing shows to be the service's: try again, a few times.
    NotXRay,
}

/// An outcome, and what of the answer was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What the service said.
    pub outcome: Outcome,
    /// Why it is not known, or not for all documents, which the service did not process though it
    /// accepted the request.
    pub unread_reason: Option<String>,
    /// Whether the body is longer than is read.
    pub is_too_large: bool,
    /// The date that the service vouches for.
    pub service_time: Option<SystemTime>,
}

impl Outcome {
    /// A failure that passes.
    pub fn retry(reason: String) -> Self {
        Self::Failed { failure: Failure::Retry { retry_after: None }, reason }
    }
}

impl From<Outcome> for Reading {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, unread_reason: None, is_too_large: false, service_time: None }
    }
}

impl Unprocessed {
    /// Whether the service may process the document when it comes again.
    pub fn is_transient(&self) -> bool {
        let code = self.error_code.as_deref().unwrap_or_default();
        self.is_throttled()
            || code.starts_with("Internal")
            || code.contains("Unavailable")
            || code.contains("Timeout")
    }

    /// Whether the service processes fewer documents than it got.
    pub fn is_throttled(&self) -> bool {
        is_throttle(self.error_code.as_deref().unwrap_or_default())
    }
}

/// Classifies an answer of the service to a request that was signed with the time `signed_at`.
pub fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    signed_at: SystemTime,
) -> Outcome {
    read(status, headers, Some(body), signed_at).outcome
}

/// The same, with what was not read. `body` is `None` where it is longer than is read.
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
    Reading { outcome, unread_reason, is_too_large, service_time }
}

/// Reads an answer of success; with the outcome, why its list of documents is not known.
fn success(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Cow<'_, [u8]>, Unreadable>,
) -> (Outcome, Option<String>) {
    let has_request_id = headers.contains_key(REQUEST_ID);
    let (read, shown) = match &body {
        // With the request id, no document is unprocessed; without it, any server may answer so.
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
            let reason = format!("{status}, but the answer is not X-Ray's: {shown}");
            (Outcome::Failed { failure: Failure::NotXRay, reason }, None)
        }
    }
}

/// Reads an answer that is no success.
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
            Ok(body) => format!("{status}: {}", excerpt(body)),
            Err(unreadable) => format!("{status}, and the answer cannot be read: {unreadable}"),
        },
        (None, code) => format!("{code} ({status})"),
    };
    let failure = failure_by_code(code, headers, signed_at)
        .unwrap_or_else(|| failure_by_status(status, headers, code.is_empty() && is_object));
    Outcome::Failed { failure, reason }
}

/// What a known error code means, whatever the status beside it.
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

/// What a status means beside a code that is absent or unknown. `is_without_code` says that the answer
/// is a JSON object without a code.
fn failure_by_status(status: StatusCode, headers: &HeaderMap, is_without_code: bool) -> Failure {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Throttle { retry_after: retry_after(headers) },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::Split { is_too_large: true },
        // In the service's own words; a page of a proxy on the way is no word on the documents.
        StatusCode::BAD_REQUEST if is_without_code => Failure::Split { is_too_large: false },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_without_code => Failure::Denied,
        _ => Failure::Retry { retry_after: retry_after(headers) },
    }
}

/// The names under which AWS services throttle.
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

/// The date that an answer vouches for, if it is the service's: it took the batch, or refuses it in
/// words of its own. A page of a proxy on the way vouches for nothing.
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

/// The service's time, if it is far from the one that the request was signed with.
fn skew(headers: &HeaderMap, signed_at: SystemTime) -> Option<Failure> {
    let service_time = date(headers)?;
    let distance = match service_time.duration_since(signed_at) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration(),
    };
    (distance >= SKEW_MIN).then_some(Failure::Skew { service_time })
}

/// The name in `namespace#Name:http://...`.
fn bare_code(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default().trim()
}

/// Whole seconds; the form with a date is not used by the service.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The start of a text, on one line, without control characters and without a session token.
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
