//! Classifies the answer of X-Ray's endpoint for spans of OpenTelemetry (OTLP over HTTP).
//!
//! In: the status, headers and body of an answer. Out: a [`Reading`], as for other requests.
//! Thread: any. No I/O, no clock.
//!
//! An answer with an error has the message as a `google.rpc.Status` in the encoding of the request.
//! In protobuf it has no error code of AWS, so the message and the status decide. A request that
//! was partly taken is not sent again, as the protocol says
//! (<https://opentelemetry.io/docs/specs/otlp/#partial-success-1>).

use super::{
    Failure, Outcome, PartialSuccess, REQUEST_ID, Reading, SERVICE_HEADERS, excerpt, retry_after,
    service_time, skew,
};
use crate::aws::encoding::{Unreadable, decode};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use std::borrow::Cow;
use std::time::{Duration, SystemTime};
use xrayd_otlp::Encoding;
use xrayd_otlp::reply;

/// A part of the message with which the endpoint refuses every request while Transaction Search is
/// off. The whole message: "The OTLP API is supported with CloudWatch Logs as a Trace Segment
/// Destination. Please enable the CloudWatch Logs destination for your traces using the
/// UpdateTraceSegmentDestination API".
const SEARCH_OFF: &str = "cloudwatch logs as a trace segment destination";

/// Classifies the answer to a request with spans, which was signed with the time `signed_at`.
/// `body` is `None` if the body is longer than the daemon reads.
pub fn read_spans(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    signed_at: SystemTime,
) -> Reading {
    let body = body.map_or(Err(Unreadable::TooLarge), |body| decode(headers, body));
    let is_too_large = body == Err(Unreadable::TooLarge);
    let encoding = headers.get(CONTENT_TYPE).and_then(|value| Encoding::of(value.as_bytes()));
    let (outcome, partial, unread_reason) = match status.is_success() {
        true => success(status, headers, encoding, body),
        false => (error(status, headers, encoding, body, signed_at), None, None),
    };
    Reading {
        service_time: service_time(headers, &outcome),
        request_id: headers.get(REQUEST_ID).cloned(),
        status: Some(status.as_u16()),
        waited: Duration::ZERO,
        outcome,
        partial,
        unread_reason,
        is_too_large,
    }
}

type Success = (Outcome, Option<PartialSuccess>, Option<String>);

/// Classifies an answer with a success status. It comes from the service if it has a request id, or
/// if it is an answer of OTLP.
fn success(
    status: StatusCode,
    headers: &HeaderMap,
    encoding: Option<Encoding>,
    body: Result<Cow<'_, [u8]>, Unreadable>,
) -> Success {
    let accepted = Outcome::Accepted { unprocessed: Vec::new() };
    let (partial, shown) = match (&body, encoding) {
        (Ok(body), Some(encoding)) => (reply::accepted(encoding, body), excerpt(body)),
        (Ok(body), None) => (None, excerpt(body)),
        (Err(unreadable), _) => (None, unreadable.to_string()),
    };
    match partial {
        Some(partial) => {
            let partial = (partial != PartialSuccess::default()).then_some(partial);
            (accepted, partial, None)
        }
        None if headers.contains_key(REQUEST_ID) => {
            let is_empty = body.is_ok_and(|body| body.trim_ascii().is_empty());
            (accepted, None, (!is_empty).then_some(shown))
        }
        None => {
            let reason = format!("{status}, but the answer does not come from X-Ray: {shown}");
            (Outcome::Failed { failure: Failure::NotXRay, reason }, None, None)
        }
    }
}

/// Classifies an answer without a success status.
fn error(
    status: StatusCode,
    headers: &HeaderMap,
    encoding: Option<Encoding>,
    body: Result<Cow<'_, [u8]>, Unreadable>,
    signed_at: SystemTime,
) -> Outcome {
    let message = match (&body, encoding) {
        (Ok(body), Some(Encoding::Protobuf)) => reply::refused(Encoding::Protobuf, body),
        _ => None,
    };
    let Some(message) = message else {
        // JSON, with the error codes of other operations or without any; or no answer of the
        // service.
        let outcome = super::error(status, headers, body, signed_at);
        return match outcome {
            Outcome::Failed { reason, .. } if is_search_off(&reason) => search_off(reason),
            outcome => outcome,
        };
    };
    let code = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let code = code.map(super::bare_code).unwrap_or_default();
    let text = excerpt(message.as_bytes());
    let reason =
        if code.is_empty() { format!("{status}: {text}") } else { format!("{code}: {text}") };
    if is_search_off(&message) {
        return search_off(reason);
    }
    let failure = super::failure_by_code(code, headers, signed_at)
        .or_else(|| failure_by_message(&message, headers, signed_at))
        .unwrap_or_else(|| failure_by_status(status, headers));
    Outcome::Failed { failure, reason }
}

fn is_search_off(message: &str) -> bool {
    message.to_ascii_lowercase().contains(SEARCH_OFF)
}

fn search_off(reason: String) -> Outcome {
    Outcome::Failed { failure: Failure::TransactionSearchOff, reason }
}

/// Returns the kind of failure for the message of a refused signature.
fn failure_by_message(
    message: &str,
    headers: &HeaderMap,
    signed_at: SystemTime,
) -> Option<Failure> {
    let message = message.to_ascii_lowercase();
    if message.contains("token") && message.contains("expired") {
        return Some(Failure::Expired);
    }
    message.contains("signature").then(|| skew(headers, signed_at))?
}

/// Returns the kind of failure for the status of an answer whose body is a `google.rpc.Status`, so
/// that it comes from a server of OTLP. The protocol says which statuses may be tried again,
/// <https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>.
fn failure_by_status(status: StatusCode, headers: &HeaderMap) -> Failure {
    let is_service = SERVICE_HEADERS.iter().any(|header| headers.contains_key(*header));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Throttle { retry_after: retry_after(headers) },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::Split { is_too_large: true },
        StatusCode::BAD_REQUEST => Failure::Split { is_too_large: false },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_service => Failure::Denied,
        _ => Failure::Retry { retry_after: retry_after(headers) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use xrayd_otlp::answer;
    use xrayd_otlp::grpc::Refusal;

    const OFF: &str =
        "The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination.";

    fn read(status: u16, headers: &[(&'static str, &'static str)], body: &[u8]) -> Reading {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        read_spans(status, &map, Some(body), SystemTime::now())
    }

    fn failure(reading: Reading) -> Failure {
        match reading.outcome {
            Outcome::Failed { failure, .. } => failure,
            Outcome::Accepted { .. } => panic!("accepted"),
        }
    }

    const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
    const JSON: (&str, &str) = ("content-type", "application/json");
    const ID: (&str, &str) = ("x-amzn-requestid", "1-2");

    #[test]
    fn what_the_service_has_not_taken_of_an_accepted_request_is_read_in_both_encodings() {
        for (header, encoding) in [(PROTOBUF, Encoding::Protobuf), (JSON, Encoding::Json)] {
            let body = answer::accepted(encoding, 3, "too old");
            let reading = read(200, &[header], &body);
            assert_eq!(reading.outcome, Outcome::Accepted { unprocessed: Vec::new() });
            let partial = reading.partial.unwrap();
            assert_eq!((partial.rejected_count, partial.message.as_str()), (3, "too old"));
            let whole = read(200, &[header], &answer::accepted(encoding, 0, ""));
            assert_eq!(whole.partial, None);
        }
    }

    #[test]
    fn a_success_is_the_services_if_it_has_a_request_id_or_is_an_answer_of_otlp() {
        assert!(matches!(read(200, &[ID], b"").outcome, Outcome::Accepted { .. }));
        let unread = read(200, &[ID], b"<html>");
        assert!(
            matches!(unread.outcome, Outcome::Accepted { .. }) && unread.unread_reason.is_some()
        );
        for headers in [&[][..], &[("content-type", "text/html")], &[JSON]] {
            assert_eq!(failure(read(200, headers, b"<html>")), Failure::NotXRay);
        }
    }

    #[test]
    fn refusals_are_classified_by_code_message_and_status() {
        let throttle = Failure::Throttle { retry_after: Some(Duration::from_secs(7)) };
        let retry =
            |seconds: Option<u64>| Failure::Retry { retry_after: seconds.map(Duration::from_secs) };
        let split = |is_too_large| Failure::Split { is_too_large };
        let after = ("retry-after", "7");
        let code = ("x-amzn-errortype", "ThrottledException:");
        for (status, headers, message, expected) in [
            (429, &[PROTOBUF, after][..], "slow down", throttle),
            (400, &[PROTOBUF, code, after], "Rate exceeded", throttle),
            (502, &[PROTOBUF], "no", retry(None)),
            (503, &[PROTOBUF, after], "no", retry(Some(7))),
            (504, &[PROTOBUF], "no", retry(None)),
            (400, &[PROTOBUF], "a span is bad", split(false)),
            (413, &[PROTOBUF], "too large", split(true)),
            (400, &[PROTOBUF, ID], OFF, Failure::TransactionSearchOff),
            (403, &[PROTOBUF, ID], "The security token is expired", Failure::Expired),
            (403, &[PROTOBUF, ID], "The security token is invalid.", Failure::Denied),
            // A proxy on the way may answer so.
            (403, &[PROTOBUF], "no", retry(None)),
        ] {
            let body = answer::refused(Encoding::Protobuf, &Refusal::new(3, message));
            assert_eq!(failure(read(status, headers, &body)), expected, "{status} {message}");
        }
        let json = format!("{{\"code\":3,\"message\":\"{OFF}\"}}");
        assert_eq!(failure(read(400, &[JSON], json.as_bytes())), Failure::TransactionSearchOff);
        let json = b"{\"__type\":\"ExpiredTokenException\",\"message\":\"no\"}";
        assert_eq!(failure(read(403, &[JSON], json)), Failure::Expired);
        assert_eq!(failure(read(400, &[JSON], b"{\"code\":3,\"message\":\"no\"}")), split(false));
        assert_eq!(failure(read(400, &[], b"<html>")), retry(None));
    }
}
