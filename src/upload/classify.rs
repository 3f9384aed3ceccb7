//! From answer to outcome: what the service said, and so what becomes of the batch.
//!
//! Pure code. By error code first and by status second, because services answer throttling,
//! expiry and bad signatures with status 400 too. What is unknown is tried again.

use http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// An answer beyond this size is not the service's, and is not read to its end.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How much of an unexpected answer a log line shows.
const EXCERPT_CHARACTERS_MAX: usize = 200;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service took the batch, but for the documents named.
    Accepted {
        /// Documents that it did not process.
        unprocessed: Vec<Unprocessed>,
    },
    /// A passing failure: try again.
    Retry {
        /// For the log.
        reason: String,
    },
    /// The service allows fewer requests: try again, more slowly.
    Throttle {
        /// For the log.
        reason: String,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
    /// The service does not take the credentials, or not any more: try again, with new ones if
    /// there are any.
    Credentials {
        /// For the log.
        reason: String,
    },
    /// Trying again cannot help.
    Refused {
        /// For the log.
        reason: String,
    },
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

/// Classifies an answer of the service.
pub fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if status.is_success() {
        return match unprocessed(body) {
            Some(unprocessed) => Outcome::Accepted { unprocessed },
            // A captive portal or a proxy: the service itself answers in JSON.
            None => Outcome::Retry {
                reason: format!("{status}, but the answer is not the service's: {}", excerpt(body)),
            },
        };
    }
    let failure: Value = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let code = header.or_else(|| text(&failure, &["__type", "code", "Code"]));
    let code = code.map(bare_code).unwrap_or_default();
    let reason = match (text(&failure, &["message", "Message"]), code) {
        (Some(message), "") => format!("{status}: {message}"),
        (Some(message), code) => format!("{code}: {message}"),
        (None, "") => format!("{status}: {}", excerpt(body)),
        (None, code) => format!("{code} ({status})"),
    };
    match code {
        "ThrottledException"
        | "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "SlowDown" => Outcome::Throttle { reason, retry_after: retry_after(headers) },
        "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "AccessDeniedException"
        | "AccessDenied" => Outcome::Credentials { reason },
        "InvalidRequestException" | "ValidationException" | "SerializationException" => {
            Outcome::Refused { reason }
        }
        _ => match status {
            StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Throttle { reason, retry_after: retry_after(headers) }
            }
            StatusCode::PAYLOAD_TOO_LARGE => Outcome::Refused { reason },
            // In the service's own words; a page of a proxy on the way is no word on the documents.
            StatusCode::BAD_REQUEST if code.is_empty() && failure.is_object() => {
                Outcome::Refused { reason }
            }
            _ => Outcome::Retry { reason },
        },
    }
}

/// The name in `namespace#Name:http://...`.
fn bare_code(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default().trim()
}

/// Whole seconds; the form with a date is not used by the service.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 =
        headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(300)))
}

fn excerpt(body: &[u8]) -> String {
    let start = &body[..body.len().min(4 * EXCERPT_CHARACTERS_MAX)];
    let text: String =
        String::from_utf8_lossy(start).chars().take(EXCERPT_CHARACTERS_MAX).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Outcome {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        classify(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

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
            assert!(matches!(answer(200, &[], body), Outcome::Retry { .. }), "{body}");
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
        ] {
            let headers = [("retry-after", "7")];
            let Outcome::Throttle { retry_after, .. } = answer(status, &headers, body) else {
                panic!("{status} {body}")
            };
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        let headers = [("x-amzn-errortype", "ThrottledException:http://internal.example.com/")];
        assert!(matches!(answer(400, &headers, ""), Outcome::Throttle { retry_after: None, .. }));
    }

    #[test]
    fn expired_credentials_are_known_whatever_the_status() {
        for status in [400, 403] {
            let body = r#"{"__type":"ExpiredTokenException","message":"expired"}"#;
            assert!(matches!(answer(status, &[], body), Outcome::Credentials { .. }));
        }
        let body = r#"{"__type":"UnrecognizedClientException","message":5}"#;
        assert!(matches!(answer(403, &[], body), Outcome::Credentials { .. }));
    }

    #[test]
    fn only_faults_of_the_request_itself_are_refused() {
        for (status, body) in [
            (400, r#"{"__type":"InvalidRequestException","Message":"bad"}"#),
            (400, r#"{"message":"bad"}"#),
            (413, ""),
        ] {
            assert!(
                matches!(answer(status, &[], body), Outcome::Refused { .. }),
                "{status} {body}"
            );
        }
        for (status, body) in [
            (500, ""),
            (503, "<html>"),
            (301, ""),
            (404, ""),
            (408, ""),
            (400, "<html>bad request</html>"),
            (403, "<html>forbidden</html>"),
            (400, r#"{"__type":"SomethingNewException"}"#),
        ] {
            assert!(matches!(answer(status, &[], body), Outcome::Retry { .. }), "{status} {body}");
        }
    }

    #[test]
    fn the_reason_holds_code_and_message_and_no_more_than_an_excerpt() {
        let body = r#"{"__type":"AccessDeniedException","message":"not allowed"}"#;
        let Outcome::Credentials { reason } = answer(403, &[], body) else { panic!() };
        assert_eq!(reason, "AccessDeniedException: not allowed");
        let Outcome::Retry { reason } = answer(502, &[], &"<b>\n".repeat(10_000)) else { panic!() };
        assert!(reason.len() < 600 && !reason.contains('\n'), "{reason}");
    }

    proptest! {
        #[test]
        fn any_answer_has_an_outcome(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = classify(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &body);
        }
    }
}
