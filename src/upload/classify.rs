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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to a request that was signed at noon on the first of June 2026.
    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Outcome {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let signed_at = httpdate::parse_http_date("Mon, 01 Jun 2026 12:00:00 GMT").unwrap();
        classify(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), signed_at)
    }

    fn failure(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Failure {
        match answer(status, headers, body) {
            Outcome::Failed { failure, .. } => failure,
            Outcome::Accepted { .. } => panic!("{status} {body} is accepted"),
        }
    }

    const RETRY: Failure = Failure::Retry { retry_after: None };

    #[test]
    fn success_names_the_documents_that_were_not_processed() {
        let body = r#"{"UnprocessedTraceSegments":[
            {"Id":"1","ErrorCode":"InvalidTraceId","Message":"bad"},{"ErrorCode":"ParseError"},{}]}"#;
        let Outcome::Accepted { unprocessed } = answer(200, &[], body) else { panic!() };
        assert_eq!(unprocessed.len(), 3);
        assert_eq!(unprocessed[0].id.as_deref(), Some("1"));
        assert_eq!(unprocessed[1].error_code.as_deref(), Some("ParseError"));
        let body = r#"{"UnprocessedTraceSegments":[null,{"Id":5}]}"#;
        let Outcome::Accepted { unprocessed } = answer(200, &[], body) else { panic!() };
        assert!(unprocessed.iter().all(|one| one.id.is_none()) && unprocessed.len() == 2);
        for body in ["", " \n", "{}", r#"{"UnprocessedTraceSegments":null}"#] {
            assert_eq!(answer(200, &[], body), Outcome::Accepted { unprocessed: vec![] });
        }
    }

    #[test]
    fn success_in_somebody_elses_words_is_no_success() {
        for body in ["<html>log in</html>", "[]x", "[]", "5", "{\"UnprocessedTraceSegments\":["] {
            assert_eq!(failure(200, &[], body), RETRY, "{body}");
        }
    }

    #[test]
    fn documents_not_processed_for_a_passing_reason_may_go_again() {
        for (code, is_passing) in [
            (Some("ThrottledException"), true),
            (Some("InternalFailure"), true),
            (Some("ServiceUnavailable"), true),
            (Some("InvalidTraceId"), false),
            (Some("ParseError"), false),
            (None, false),
        ] {
            let error_code = code.map(str::to_owned);
            let one = Unprocessed { id: None, error_code, message: None };
            assert_eq!(one.is_passing(), is_passing, "{code:?}");
        }
    }

    #[test]
    fn throttling_is_known_by_its_code_and_by_its_status() {
        for (status, body) in [
            (429, ""),
            (429, r#"{"message":"slow down"}"#),
            (400, r#"{"__type":"ThrottledException"}"#),
            (400, r#"{"__type":"com.amazonaws.xray#ThrottlingException","message":"x"}"#),
            (400, r#"{"__type":"ThrottledException","message":"x","Message":5}"#),
            (503, r#"{"__type":"SlowDown"}"#),
        ] {
            let retry_after = Some(Duration::from_secs(7));
            let expected = Failure::Throttle { retry_after };
            assert_eq!(failure(status, &[("retry-after", "7")], body), expected, "{status} {body}");
        }
        let headers = [("x-amzn-errortype", "ThrottledException:http://internal.example.com/")];
        assert_eq!(failure(400, &headers, ""), Failure::Throttle { retry_after: None });
    }

    #[test]
    fn an_expired_token_is_known_whatever_the_status() {
        for status in [400, 403] {
            let body = r#"{"__type":"ExpiredTokenException","message":"expired"}"#;
            assert_eq!(failure(status, &[], body), Failure::Expired);
        }
    }

    #[test]
    fn what_an_operator_can_mend_is_denied() {
        for (status, body) in [
            (403, r#"{"__type":"AccessDeniedException","message":"not allowed"}"#),
            (403, r#"{"__type":"UnrecognizedClientException","message":5}"#),
            (400, r#"{"__type":"InvalidSignatureException"}"#),
            (403, r#"{"message":"Forbidden"}"#),
            (401, "{}"),
        ] {
            assert_eq!(failure(status, &[], body), Failure::Denied, "{status} {body}");
        }
        // A page of a proxy on the way is not the service's word.
        assert_eq!(failure(403, &[], "<html>forbidden</html>"), RETRY);
    }

    #[test]
    fn a_clock_far_from_the_services_is_known_by_the_date_of_the_answer() {
        let far = [("date", "Mon, 01 Jun 2026 13:00:00 GMT")];
        let near = [("date", "Mon, 01 Jun 2026 12:01:00 GMT")];
        let service_time = httpdate::parse_http_date(far[0].1).unwrap();
        for (code, otherwise) in [
            ("RequestTimeTooSkewed", RETRY),
            ("InvalidSignatureException", Failure::Denied),
            ("SignatureDoesNotMatch", Failure::Denied),
        ] {
            let body = format!(r#"{{"__type":"{code}"}}"#);
            assert_eq!(failure(403, &far, &body), Failure::Skew { service_time });
            assert_eq!(failure(403, &near, &body), otherwise);
            assert_eq!(failure(403, &[], &body), otherwise);
            assert_eq!(failure(403, &[("date", "yesterday")], &body), otherwise);
        }
    }

    #[test]
    fn only_faults_of_the_request_itself_are_looked_for_in_its_documents() {
        for (status, body, is_too_large) in [
            (400, r#"{"__type":"InvalidRequestException","Message":"bad"}"#, false),
            (400, r#"{"message":"bad"}"#, false),
            (413, "", true),
            (413, "<html>too large</html>", true),
        ] {
            let expected = Failure::Split { is_too_large };
            assert_eq!(failure(status, &[], body), expected, "{status} {body}");
        }
        for (status, body) in [
            (500, ""),
            (503, "<html>"),
            (301, ""),
            (404, ""),
            (408, ""),
            (400, "<html>bad request</html>"),
            (400, r#"{"__type":"SomethingNewException"}"#),
        ] {
            assert_eq!(failure(status, &[], body), RETRY, "{status} {body}");
        }
    }

    #[test]
    fn a_failing_service_may_say_when_to_come_again() {
        let retry_after = Some(Duration::from_secs(20));
        let expected = Failure::Retry { retry_after };
        assert_eq!(failure(503, &[("retry-after", "20")], ""), expected);
        let retry_after = Some(RETRY_AFTER_MAX);
        assert_eq!(
            failure(503, &[("retry-after", "4000000000")], ""),
            Failure::Retry { retry_after }
        );
    }

    #[test]
    fn what_the_service_shows_of_a_session_token_is_cut_off() {
        let body = r#"{"message":"Wrong: 'POST\nx-amz-date:1\nX-Amz-Security-Token:secret\n'"}"#;
        for body in [body, "Wrong: 'POST x-amz-date:1 x-amz-security-token: secret"] {
            let Outcome::Failed { reason, .. } = answer(403, &[], body) else { panic!("{body}") };
            assert!(reason.ends_with("x-amz-date:1 ") && !reason.contains("secret"), "{reason}");
        }
    }

    #[test]
    fn the_reason_holds_code_and_message_and_no_more_than_an_excerpt() {
        let body = r#"{"__type":"AccessDeniedException","message":"not allowed"}"#;
        let Outcome::Failed { reason, .. } = answer(403, &[], body) else { panic!() };
        assert_eq!(reason, "AccessDeniedException: not allowed");
        for body in ["<b>\n".repeat(10_000), format!(r#"{{"message":"{}"}}"#, "x\\n".repeat(9_000))]
        {
            let Outcome::Failed { reason, .. } = answer(502, &[], &body) else { panic!() };
            assert!(reason.len() < 600 && !reason.contains('\n'), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_has_an_outcome(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let status = StatusCode::from_u16(status).unwrap();
            let _ = classify(status, &HeaderMap::new(), &body, SystemTime::now());
        }
    }
}
