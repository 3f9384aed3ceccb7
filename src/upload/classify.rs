//! From answer to outcome: what the service said, and so what becomes of the batch.
//!
//! Pure code. By error code first and by status second, because services answer throttling,
//! expiry and bad signatures with status 400 too. What is unknown is tried again; nothing is
//! dropped for what an answer says alone (see `refusal`).

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// An answer beyond this size is not the service's, and is not read to its end.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

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
}

impl Outcome {
    /// A failure that passes.
    pub fn retry(reason: String) -> Self {
        Self::Failed { failure: Failure::Retry { retry_after: None }, reason }
    }
}

/// A document that the service did not process. Any field may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprocessed {
    /// The segment's id.
    pub id: Option<String>,
    /// For example `InvalidTraceId`.
    pub error_code: Option<String>,
    /// The service's explanation.
    pub message: Option<String>,
}

/// The text under the first of these names that has one; what is of another type is none.
fn text<'a>(value: &'a Value, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| value.get(name)?.as_str())
}

/// The documents that an answer of success names. An answer without a body names none, as for the
/// original; `None` is an answer in somebody else's words.
fn unprocessed(body: &[u8]) -> Option<Vec<Unprocessed>> {
    if body.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let answer: Value = serde_json::from_slice(body).ok()?;
    let named = answer.as_object()?.get("UnprocessedTraceSegments").and_then(Value::as_array);
    let one = |entry: &Value| Unprocessed {
        id: text(entry, &["Id"]).map(str::to_owned),
        error_code: text(entry, &["ErrorCode"]).map(str::to_owned),
        message: text(entry, &["Message"]).map(str::to_owned),
    };
    Some(named.map(|entries| entries.iter().map(one).collect()).unwrap_or_default())
}

impl Unprocessed {
    /// Whether the service may process the document when it comes again.
    pub fn is_passing(&self) -> bool {
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
    if status.is_success() {
        return match unprocessed(body) {
            Some(unprocessed) => Outcome::Accepted { unprocessed },
            // A captive portal or a proxy: the service itself answers in JSON.
            None => Outcome::retry(format!(
                "{status}, but the answer is not the service's: {}",
                excerpt(body)
            )),
        };
    }
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let code = header.or_else(|| text(&answer, &["__type", "code", "Code"]));
    let code = code.map(bare_code).unwrap_or_default();
    let reason = match (text(&answer, &["message", "Message"]), code) {
        (Some(message), "") => format!("{status}: {}", excerpt(message.as_bytes())),
        (Some(message), code) => format!("{code}: {}", excerpt(message.as_bytes())),
        (None, "") => format!("{status}: {}", excerpt(body)),
        (None, code) => format!("{code} ({status})"),
    };
    let failure = failure_by_code(code, headers, signed_at).unwrap_or_else(|| {
        failure_by_status(status, headers, code.is_empty() && answer.is_object())
    });
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

/// What a status means beside a code that is absent or unknown. `is_wordless` says that the answer
/// is a JSON object without a code.
fn failure_by_status(status: StatusCode, headers: &HeaderMap, is_wordless: bool) -> Failure {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Throttle { retry_after: retry_after(headers) },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::Split { is_too_large: true },
        // In the service's own words; a page of a proxy on the way is no word on the documents.
        StatusCode::BAD_REQUEST if is_wordless => Failure::Split { is_too_large: false },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_wordless => Failure::Denied,
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

/// The service's time, if it is far from the one that the request was signed with.
fn skew(headers: &HeaderMap, signed_at: SystemTime) -> Option<Failure> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let service_time = httpdate::parse_http_date(date).ok()?;
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
