//! Tests of the endpoint, with requests that aws-sigv4 signed.

mod export;
mod page_requests;
mod page_search;

use super::answer::ERROR_TYPE;
use super::*;
use crate::model::QUIET_TIME;
use crate::model::document::DOCUMENT_SIZE_BYTES_MAX;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};

fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test")
}

fn request(method: &str, path: &str, body: &str) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:1");
    request.body(Bytes::from(body.to_owned())).unwrap()
}

fn signed_at(path: &str, body: &str, time: SystemTime) -> Request<Bytes> {
    let mut request = request("POST", path, body);
    let identity = credentials().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("xray")
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let headers = [("host", "localhost:1")].into_iter();
    let signable =
        SignableRequest::new("POST", path, headers, SignableBody::Bytes(body.as_bytes())).unwrap();
    let instructions = sign(signable, &parameters).unwrap().into_parts().0;
    instructions.apply_to_request_http1x(&mut request);
    request
}

fn signed(path: &str, body: &str) -> Request<Bytes> {
    signed_at(path, body, SystemTime::now())
}

fn put(documents: &[&str]) -> Request<Bytes> {
    signed("/TraceSegments", &json!({"TraceSegmentDocuments": documents}).to_string())
}

/// Returns the bytes of a short word as hexadecimal digits, with leading zeros.
fn digits(word: &str, count: usize) -> String {
    let digits: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0>count$}")
}

fn trace_id(word: &str) -> String {
    format!("1-581cf771-{}", digits(word, 24))
}

fn segment(trace: &str, id: &str) -> String {
    json!({"trace_id": trace_id(trace), "id": digits(id, 16), "name": "shop", "start_time": 1.0,
        "end_time": 1.25})
    .to_string()
}

fn json_of(response: &Response<Bytes>) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

/// Returns the status and the error type. Checks that header and body have the same error type.
fn failure(response: &Response<Bytes>) -> (u16, String) {
    let body = json_of(response);
    let error_type = response.headers()[ERROR_TYPE].to_str().unwrap();
    assert_eq!(body["__type"], error_type);
    assert!(!body["message"].as_str().unwrap().is_empty());
    (response.status().as_u16(), error_type.to_owned())
}

#[test]
fn signed_documents_are_kept_and_the_others_named_as_unprocessed() {
    let sandbox = Sandbox::new(credentials());
    let no_name = segment("t1", "x").replace("name", "nom");
    let large = format!("{}{}", segment("t1", "y"), " ".repeat(DOCUMENT_SIZE_BYTES_MAX));
    let response = sandbox.answer(put(&[
        &segment("t1", "a"),
        "T1SAAEC",
        &no_name,
        &segment("t2", "b"),
        &large,
    ]));
    assert_eq!(response.status(), 200);
    let answer = json_of(&response);
    let unprocessed = answer["UnprocessedTraceSegments"].as_array().unwrap();
    let told: Vec<_> =
        unprocessed.iter().map(|entry| (entry["ErrorCode"].as_str(), entry.get("Id"))).collect();
    let x = json!(digits("x", 16));
    assert_eq!(
        told,
        [
            (Some("ParseError"), None),
            (Some("MissingName"), Some(&x)),
            (Some("DocumentTooLarge"), None)
        ]
    );
    assert!(unprocessed[0]["Message"].as_str().unwrap().starts_with("Invalid segment. ErrorCode"));
    assert_eq!(
        sandbox.account(),
        Account {
            accepted_request_count: 1,
            kept_document_count: 2,
            unprocessed_document_count: 3,
            ..Account::default()
        }
    );
}

#[test]
fn fifty_documents_are_taken_and_fifty_one_are_a_400() {
    let sandbox = Sandbox::new(credentials());
    let document = segment("t", "a");
    let documents = vec![document.as_str(); 51];
    assert_eq!(sandbox.answer(put(&documents[..50])).status(), 200);
    let refused = failure(&sandbox.answer(put(&documents)));
    assert_eq!(refused, (400, "InvalidRequestException".to_owned()));
    assert_eq!(sandbox.account().kept_document_count, 50);
}

#[test]
fn a_write_must_be_signed_and_recent() {
    let sandbox = Sandbox::new(credentials());
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let body = r#"{"TraceSegmentDocuments":[],"TelemetryRecords":[]}"#;
    for path in ["/TraceSegments", "/TelemetryRecords"] {
        let answer = |request| sandbox.answer_at(request, now, Instant::now());
        let status_and_type = failure(&answer(request("POST", path, body)));
        assert_eq!(status_and_type, (403, "MissingAuthenticationTokenException".to_owned()));
        let late = answer(signed_at(path, body, now - Duration::from_secs(301)));
        assert_eq!(failure(&late), (403, "InvalidSignatureException".to_owned()));
        let message = json_of(&late)["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Signature expired"), "{message}");
        let mut changed = signed_at(path, body, now);
        *changed.body_mut() = Bytes::from_static(b"{}");
        assert_eq!(failure(&answer(changed)), (403, "InvalidSignatureException".to_owned()));
        let good = answer(signed_at(path, body, now));
        assert_eq!(good.status(), 200);
        assert!(good.headers().get(ERROR_TYPE).is_none());
    }
    let account = sandbox.account();
    assert_eq!((account.accepted_request_count, account.refused_request_count), (2, 6));
}

#[test]
fn telemetry_is_answered_with_an_empty_object() {
    let sandbox = Sandbox::new(credentials());
    let response = sandbox.answer(signed("/TelemetryRecords", r#"{"TelemetryRecords":[]}"#));
    assert_eq!((response.status().as_u16(), json_of(&response)), (200, json!({})));
}

#[test]
fn bodies_that_are_no_request_are_a_400() {
    let sandbox = Sandbox::new(credentials());
    for body in ["", "{}", "[", "{\"TraceSegmentDocuments\":[1]}", &"[".repeat(10_000)] {
        assert_eq!(failure(&sandbox.answer(signed("/TraceSegments", body))).0, 400, "{body}");
    }
    assert_eq!(failure(&sandbox.answer(request("POST", "/SamplingTargets", "x"))).0, 400);
}

#[test]
fn an_unknown_operation_is_answered_with_the_known_ones() {
    let sandbox = Sandbox::new(credentials());
    let answer = sandbox.answer(signed("/Groups", "{}"));
    assert_eq!(failure(&answer), (404, "UnknownOperationException".to_owned()));
    let message = json_of(&answer)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("PutTraceSegments, "), "{message}");
    assert!(message.ends_with("DeleteSamplingRule"), "{message}");
}

#[test]
fn sampling_calls_are_answered_signed_or_not() {
    let sandbox = Sandbox::new(credentials());
    let statistics = r#"{"SamplingStatisticsDocuments":[{"RuleName":"Default"}]}"#;
    for make in [signed, |path: &str, body: &str| request("POST", path, body)] {
        let rules = sandbox.answer(make("/GetSamplingRules", "{}"));
        assert_eq!(rules.status(), 200);
        let rules = json_of(&rules);
        assert_eq!(rules["SamplingRuleRecords"][0]["SamplingRule"]["RuleName"], "Default");
        let targets = json_of(&sandbox.answer(make("/SamplingTargets", statistics)));
        assert_eq!(targets["SamplingTargetDocuments"][0]["RuleName"], "Default");
    }
    assert_eq!(sandbox.answer(request("POST", "/GetSamplingRules", "")).status(), 200);
}

#[test]
fn traces_are_listed_newest_first_and_given_back_as_they_came() {
    let sandbox = Sandbox::new(credentials());
    let odd = format!(" {}\n", segment("t1", "a").replace("\"shop\"", "\"caf\\u00e9\""));
    sandbox.answer(put(&[&odd, &segment("t2", "b"), &segment("t1", "c")]));
    let list = json_of(&sandbox.answer(request("GET", "/traces", "")));
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        list[0],
        json!({"id": trace_id("t1"), "start_time": 1.0, "duration_seconds": 0.25,
        "segment_count": 2, "services": ["café", "shop"], "in_progress": false, "fault": false,
        "error": false, "throttle": false})
    );
    assert_eq!(list[1]["id"], trace_id("t2"));
    let trace = sandbox.answer(request("GET", &format!("/traces/{}", trace_id("t1")), ""));
    assert!(std::str::from_utf8(trace.body()).unwrap().contains(&odd));
    let trace = json_of(&trace);
    assert_eq!(
        (&trace["id"], &trace["documents"][1]["id"]),
        (&json!(trace_id("t1")), &json!(digits("c", 16)))
    );
    // GET requests are not counted in the account. Only POST requests are counted.
    assert_eq!(sandbox.account().accepted_request_count, 1);
}

#[test]
fn unknown_traces_and_paths_are_a_404_and_wrong_methods_a_405() {
    let sandbox = Sandbox::new(credentials());
    for path in [
        "/traces/none",
        "/traces/",
        "/traces/%1b%5b",
        "/page/",
        "/page/x.js",
        "/page/../mod.rs",
        "/TraceSegments/",
        "/tracesX",
        "/api/traces/none",
        "/api",
    ] {
        assert_eq!(failure(&sandbox.answer(request("GET", path, ""))).0, 404, "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/TraceSegments", "POST"),
        ("PUT", "/TelemetryRecords", "POST"),
        ("GET", "/GetSamplingRules", "POST"),
        ("DELETE", "/traces", "GET"),
        ("POST", "/", "GET"),
        ("PUT", "/api/traces", "GET, DELETE"),
        ("DELETE", "/api/sampling-rules", "GET, PUT"),
        ("POST", "/traces/t1", "GET"),
    ] {
        let response = sandbox.answer(request(method, path, ""));
        assert_eq!(failure(&response).0, 405, "{path}");
        assert_eq!(response.headers()[ALLOW], allow);
    }
}

#[test]
fn trees_come_when_a_trace_is_quiet_and_the_rest_at_the_end() {
    let sandbox = Sandbox::new(credentials());
    let start = Instant::now();
    assert_eq!(sandbox.next_quiet(QUIET_TIME), None);
    let wall = SystemTime::now();
    sandbox.answer_at(put(&[&segment("t1", "a")]), wall, start);
    sandbox.answer_at(put(&[&segment("t2", "b")]), wall, start + QUIET_TIME);
    assert_eq!(sandbox.next_quiet(QUIET_TIME), Some(start + QUIET_TIME));
    let trees = sandbox.take_quiet(start + QUIET_TIME, QUIET_TIME, 9);
    let tree = |trace: &str| format!("{}  250 ms  1 segment\n└─ shop  250 ms", trace_id(trace));
    assert_eq!(trees, [tree("t1")]);
    assert_eq!(sandbox.take_all(), [tree("t2")]);
    assert_eq!(sandbox.next_quiet(QUIET_TIME), None);
}

#[test]
fn the_limits_hold_and_evictions_are_counted() {
    let limits = Limits { trace_count_max: 3, ..Limits::default() };
    let sandbox = Sandbox::with(credentials(), About::default(), limits);
    for index in 0..10 {
        sandbox.answer(put(&[&segment(&format!("t{index}"), "a")]));
    }
    let list = json_of(&sandbox.answer(request("GET", "/traces", "")));
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(sandbox.account().evicted_trace_count, 7);
    assert_eq!(sandbox.account().evicted_document_count, 7);
}

#[test]
fn several_threads_may_call_at_once() {
    let sandbox = Sandbox::new(credentials());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for index in 0..20 {
                    let document = segment(&format!("t{thread}-{index}"), "a");
                    assert_eq!(sandbox.answer(put(&[&document])).status(), 200);
                    sandbox.take_quiet(Instant::now(), QUIET_TIME, 9);
                }
            });
        }
    });
    assert_eq!(sandbox.account().kept_document_count, 80);
    assert_eq!(sandbox.take_all().len(), 80);
}

#[test]
fn the_secret_is_not_in_the_debug_output() {
    let text = format!("{:?}", Sandbox::new(Credentials::new("AK", "hush", None, None, "test")));
    assert!(text.contains("AK") && !text.contains("hush"));
}
