//! Tests of the classification, with answers of X-Ray and of other servers.

use super::super::encoding::ANSWER_BYTES_MAX;
use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::Value;
use std::io::Write;

type Headers<'a> = &'a [(&'static str, &'static str)];

const REQUEST_ID_HEADER: (&str, &str) = ("X-Amzn-RequestId", "1-2-3");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Classifies an answer to a request that was signed at 12:00 on 1 June 2026.
fn reading(status: u16, headers: Headers<'_>, body: Option<&[u8]>) -> Reading {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let signed_at = httpdate::parse_http_date("Mon, 01 Jun 2026 12:00:00 GMT").unwrap();
    read(StatusCode::from_u16(status).unwrap(), &headers, body, signed_at)
}

fn answer(status: u16, headers: Headers<'_>, body: &str) -> Outcome {
    reading(status, headers, Some(body.as_bytes())).outcome
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Returns whether an answer with a success status means that all documents were processed.
fn is_delivery(reading: &Reading) -> bool {
    match &reading.outcome {
        Outcome::Accepted { unprocessed } => unprocessed.is_empty(),
        Outcome::Failed { failure: Failure::NotXRay, .. } => false,
        other => panic!("{other:?}"),
    }
}

fn failure(status: u16, headers: Headers<'_>, body: &str) -> Failure {
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
    for body in ["{}", " {}\n", "{ }", r#"{"UnprocessedTraceSegments":null}"#] {
        assert_eq!(answer(200, &[], body), Outcome::Accepted { unprocessed: vec![] });
    }
}

#[test]
fn any_server_answers_with_success_and_only_x_ray_with_its_request_id_or_its_body() {
    for body in [
        "",
        " \n",
        "<html>log in</html>",
        r#"{"error":"please log in"}"#,
        r#"{"message":null}"#,
        "[]x",
        "[]",
        "[{}]",
        "5",
        "null",
        "{\"UnprocessedTraceSegments\":[",
    ] {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(failure(status, &[], body), Failure::NotXRay, "{status} {body}");
        }
        // With a request id, any body means success. If the body is neither empty nor a JSON
        // object, `unread_reason` is set.
        let read = reading(200, &[REQUEST_ID_HEADER], Some(body.as_bytes()));
        assert!(is_delivery(&read), "{body}: {read:?}");
        let is_known = body.trim().is_empty() || serde_json::from_str::<Object>(body).is_ok();
        assert_eq!(read.unread_reason.is_none(), is_known, "{body}: {read:?}");
    }
    // A request id in another header has no effect, and a request id does not turn an error into
    // a success.
    assert_eq!(
        failure(200, &[("x-amzn-trace-id", "1"), ("server", "x-amzn-requestid")], ""),
        Failure::NotXRay
    );
    assert_eq!(failure(302, &[REQUEST_ID_HEADER], ""), RETRY);
}

type Object = std::collections::BTreeMap<String, Value>;

#[test]
fn the_list_of_documents_beside_a_request_id_is_read() {
    let body = r#"{"UnprocessedTraceSegments":[{"Id":"1"}]}"#;
    for headers in [&[][..], &[REQUEST_ID_HEADER]] {
        let Reading { outcome, unread_reason, .. } = reading(200, headers, Some(body.as_bytes()));
        let Outcome::Accepted { unprocessed } = outcome else { panic!("{outcome:?}") };
        assert_eq!((unprocessed.len(), unread_reason), (1, None));
    }
    let entries = vec!["{}"; 51].join(",");
    let body = format!(r#"{{"UnprocessedTraceSegments":[{entries}]}}"#);
    let Reading { outcome, unread_reason, .. } = reading(200, &[], Some(body.as_bytes()));
    let Outcome::Accepted { unprocessed } = outcome else { panic!("{outcome:?}") };
    assert_eq!(unprocessed.len(), 50);
    assert!(unread_reason.is_some_and(|why| why.contains("51 documents")));
}

#[test]
fn compressed_answers_say_the_same() {
    let accepted = gzip(r#"{"UnprocessedTraceSegments":[]}"#);
    assert!(is_delivery(&reading(200, &[GZIP], Some(&accepted))));
    let throttled = gzip(r#"{"__type":"ThrottledException","message":"slow down"}"#);
    let Outcome::Failed { failure, reason } = reading(400, &[GZIP], Some(&throttled)).outcome
    else {
        panic!()
    };
    assert_eq!(failure, Failure::Throttle { retry_after: None });
    assert_eq!(reason, "ThrottledException: slow down");
    for (header, body) in [
        (GZIP, &accepted[..accepted.len() - 1]),
        (GZIP, b"{}"),
        (("content-encoding", "br"), b"{}"),
        (("content-encoding", "gzip, gzip"), &accepted),
    ] {
        let read = reading(200, &[header], Some(body));
        assert!(!is_delivery(&read) && !read.is_too_large, "{header:?} {read:?}");
        let read = reading(200, &[header, REQUEST_ID_HEADER], Some(body));
        assert!(is_delivery(&read) && read.unread_reason.is_some(), "{header:?} {read:?}");
        // If the body of an error cannot be read, the status decides.
        let Outcome::Failed { failure, reason } = reading(429, &[header], Some(body)).outcome
        else {
            panic!()
        };
        assert_eq!(failure, Failure::Throttle { retry_after: None });
        assert!(reason.starts_with("429 Too Many Requests, and"), "{reason}");
        assert!(matches!(reading(400, &[header], Some(body)).outcome,
            Outcome::Failed { failure, .. } if failure == RETRY));
    }
}

#[test]
fn an_answer_that_is_too_long_is_classified_by_its_head() {
    let long = gzip(&" ".repeat(ANSWER_BYTES_MAX + 1));
    for (headers, body) in [(&[][..], None), (&[GZIP], Some(&long[..]))] {
        let read = reading(200, headers, body);
        assert!(!is_delivery(&read) && read.is_too_large, "{read:?}");
        let read = reading(200, &[headers, &[REQUEST_ID_HEADER]].concat(), body);
        assert!(
            is_delivery(&read) && read.is_too_large && read.unread_reason.is_some(),
            "{read:?}"
        );
        let read = reading(503, headers, body);
        assert!(read.is_too_large && read.unread_reason.is_none(), "{read:?}");
        let Outcome::Failed { failure, reason } = read.outcome else { panic!() };
        assert_eq!(failure, RETRY);
        assert!(reason.contains("longer than 131072 bytes"), "{reason}");
    }
}

#[test]
fn documents_not_processed_for_a_transient_reason_are_sent_again() {
    for (code, is_transient) in [
        (Some("ThrottledException"), true),
        (Some("InternalFailure"), true),
        (Some("ServiceUnavailable"), true),
        (Some("InvalidTraceId"), false),
        (Some("ParseError"), false),
        (None, false),
    ] {
        let error_code = code.map(str::to_owned);
        let one = Unprocessed { id: None, error_code, message: None };
        assert_eq!(one.is_transient(), is_transient, "{code:?}");
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
fn failures_that_an_operator_must_fix_are_denied() {
    for (status, body) in [
        (403, r#"{"__type":"AccessDeniedException","message":"not allowed"}"#),
        (403, r#"{"__type":"UnrecognizedClientException","message":5}"#),
        (400, r#"{"__type":"InvalidSignatureException"}"#),
        (403, r#"{"message":"Forbidden"}"#),
        (401, "{}"),
    ] {
        assert_eq!(failure(status, &[], body), Failure::Denied, "{status} {body}");
    }
    // A web page with status 403 comes from a proxy, so the credentials are not at fault: retry.
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
    assert_eq!(failure(503, &[("retry-after", "4000000000")], ""), Failure::Retry { retry_after });
}

#[test]
fn a_session_token_in_a_message_is_cut_off() {
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
    for body in ["<b>\n".repeat(10_000), format!(r#"{{"message":"{}"}}"#, "x\\n".repeat(9_000))] {
        let Outcome::Failed { reason, .. } = answer(502, &[], &body) else { panic!() };
        assert!(reason.len() < 600 && !reason.contains('\n'), "{reason}");
    }
}

proptest! {
    #[test]
    fn any_answer_has_an_outcome(
        status in 100u16..1000,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let _ = classify(status, &HeaderMap::new(), &body, SystemTime::now());
    }

    #[test]
    fn text_of_another_server_is_never_a_delivery(
        body in prop_oneof!["[^{\\s]\\PC{0,40}", "\\{\"[a-z]{0,20}\":1\\}"],
    ) {
        prop_assert_eq!(failure(200, &[], &body), Failure::NotXRay);
    }
}

#[test]
fn only_answers_of_the_service_give_a_date() {
    let date = ("date", "Mon, 01 Jun 2026 12:00:05 GMT");
    let time = |status, headers: &[(&'static str, &'static str)], body| {
        let outcome = answer(status, headers, body);
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        service_time(&headers, &outcome)
    };
    let expected = httpdate::parse_http_date(date.1).ok();
    assert_eq!(time(200, &[date], "{}"), expected);
    assert_eq!(time(403, &[date, ("x-amzn-errortype", "AccessDenied")], "{}"), expected);
    assert_eq!(time(500, &[date, ("x-amzn-requestid", "1-2-3")], ""), expected);
    assert_eq!(time(502, &[date], "<html>"), None, "a proxy");
    assert_eq!(time(200, &[date], "<html>log in</html>"), None, "a captive portal");
    assert_eq!(time(200, &[], "{}"), None);
    assert_eq!(time(200, &[("date", "yesterday")], "{}"), None);
}
