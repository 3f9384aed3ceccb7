//! Answers of the service, and what they mean.

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
    assert_eq!(failure(503, &[("retry-after", "4000000000")], ""), Failure::Retry { retry_after });
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
    for body in ["<b>\n".repeat(10_000), format!(r#"{{"message":"{}"}}"#, "x\\n".repeat(9_000))] {
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
