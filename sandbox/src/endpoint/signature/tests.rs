//! Tests of the signature check. A test signs a request with aws-sigv4, changes one detail of the
//! request, and verifies it.

use super::*;
use http::{HeaderMap, HeaderValue, Request};

const BODY: &[u8] = b"{\"TraceSegmentDocuments\":[\"{}\"]}";

fn now() -> SystemTime {
    parse_time("20260131T120000Z").unwrap()
}

fn credentials(token: Option<&str>) -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", token.map(str::to_owned), None, "test")
}

struct Signing<'a> {
    credentials: Credentials,
    service: &'a str,
    region: &'a str,
    time: SystemTime,
    token_mode: SessionTokenMode,
    target: &'a str,
    /// Whether to sign also the headers that aws-sigv4 does not sign by default.
    signs_all: bool,
}

fn signing(token: Option<&str>) -> Signing<'static> {
    Signing {
        credentials: credentials(token),
        service: "xray",
        region: "eu-central-1",
        time: now(),
        token_mode: SessionTokenMode::Include,
        target: "/TraceSegments",
        signs_all: false,
    }
}

fn signed(signing: &Signing<'_>) -> Parts {
    let mut request = Request::post(signing.target)
        .header("host", "127.0.0.1:2001")
        .header("content-type", "application/json")
        .header("x-amzn-xray-timestamp", "1700000000.000000000")
        .header("user-agent", "xray-agent")
        .body(())
        .unwrap();
    let mut settings = SigningSettings::default();
    settings.session_token_mode = signing.token_mode;
    if signing.signs_all {
        settings.excluded_headers = None;
    }
    let identity = signing.credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(signing.region)
        .name(signing.service)
        .time(signing.time)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let headers = request.headers().iter();
    let headers: Vec<(&str, &str)> =
        headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let body = SignableBody::Bytes(BODY);
    let signable = SignableRequest::new("POST", signing.target, headers.into_iter(), body).unwrap();
    let instructions = sign(signable, &parameters).unwrap().into_parts().0;
    instructions.apply_to_request_http1x(&mut request);
    request.into_parts().0
}

fn check(parts: &Parts, token: Option<&str>) -> Result<(), Refusal> {
    verify(&credentials(token), parts, BODY, now())
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).unwrap());
}

/// Replaces `from` with `to` in the Authorization header.
fn edit(parts: &mut Parts, from: &str, to: &str) {
    let value = parts.headers[AUTHORIZATION].to_str().unwrap().to_owned();
    assert!(value.contains(from), "{value}");
    set(&mut parts.headers, "authorization", &value.replacen(from, to, 1));
}

#[test]
fn a_request_signed_by_the_sdk_is_accepted_with_and_without_a_session_token() {
    for token in [None, Some("the+token/=")] {
        let parts = signed(&signing(token));
        let authorization = parts.headers[AUTHORIZATION].to_str().unwrap();
        assert_eq!(authorization.contains(TOKEN_HEADER), token.is_some());
        assert_eq!(check(&parts, token), Ok(()));
    }
}

/// Checks signatures that botocore 1.43.11 (`SigV4Auth.add_auth`) made for this request, with its
/// clock set to 2026-01-31T12:00:00Z. The daemon signs with aws-sigv4, and the sandbox verifies
/// with aws-sigv4. Without this test, a mistake of aws-sigv4 would stay unnoticed.
#[test]
fn a_request_signed_by_botocore_is_accepted() {
    for (token, headers, signature) in [
        (
            None,
            "content-type;host;x-amz-date;x-amzn-xray-timestamp",
            "98056b655c36761f200bf3e6096151d0fb80bca1b6cb1dca21bc0a6060d05c8f",
        ),
        (
            Some("the+token/="),
            "content-type;host;x-amz-date;x-amz-security-token;x-amzn-xray-timestamp",
            "863cf6c737678fa2cad4a062f3399ae79958009331a9d6ecbb07ab8621e53ec2",
        ),
    ] {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260131/eu-central-1/xray/aws4_request, \
             SignedHeaders={headers}, Signature={signature}"
        );
        let mut request = Request::post("/TraceSegments")
            .header("Host", "127.0.0.1:2001")
            .header("Content-Type", "application/json")
            .header("X-Amzn-Xray-Timestamp", "1700000000.000000000")
            .header("X-Amz-Date", "20260131T120000Z")
            .header("Authorization", authorization);
        if let Some(token) = token {
            request = request.header("X-Amz-Security-Token", token);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(check(&parts, token), Ok(()));
    }
}

#[test]
fn a_token_added_after_signing_is_accepted_and_has_to_be_the_right_one() {
    let token_mode = SessionTokenMode::Exclude;
    let mut parts = signed(&Signing { token_mode, ..signing(Some("token")) });
    assert!(!parts.headers[AUTHORIZATION].to_str().unwrap().contains(TOKEN_HEADER));
    assert_eq!(check(&parts, Some("token")), Ok(()));
    set(&mut parts.headers, TOKEN_HEADER, "tokem");
    assert_eq!(check(&parts, Some("token")), Err(Refusal::UnknownKey("another session token")));
    parts.headers.remove(TOKEN_HEADER);
    assert_eq!(check(&parts, Some("token")), Err(Refusal::UnknownKey("no session token")));
}

#[test]
fn a_token_where_none_belongs_is_refused() {
    let parts = signed(&signing(Some("token")));
    let refusal = check(&parts, None).unwrap_err();
    assert_eq!(refusal.error_type(), "UnrecognizedClientException");
}

#[test]
fn any_region_is_accepted_and_is_part_of_the_signature() {
    let mut parts = signed(&Signing { region: "moon-1", ..signing(None) });
    assert_eq!(check(&parts, None), Ok(()));
    edit(&mut parts, "/moon-1/", "/moon-2/");
    assert_eq!(check(&parts, None), Err(Refusal::Mismatch));
    edit(&mut parts, "/moon-2/", "//");
    assert_eq!(check(&parts, None), Err(Refusal::Scope("a region.")));
}

#[test]
fn a_query_takes_part_in_the_signature() {
    let mut parts = signed(&Signing { target: "/a%20b?y=2&x=1%2F3", ..signing(None) });
    assert_eq!(check(&parts, None), Ok(()));
    parts.uri = "/a%20b?y=2&x=1%2F4".parse().unwrap();
    assert_eq!(check(&parts, None), Err(Refusal::Mismatch));
}

#[test]
fn every_changed_part_of_the_request_breaks_the_signature() {
    type Change = fn(&mut Parts);
    let changes: [(&str, Change); 7] = [
        ("method", |parts| parts.method = http::Method::PUT),
        ("path", |parts| parts.uri = "/TraceSegment".parse().unwrap()),
        ("host", |parts| set(&mut parts.headers, "host", "127.0.0.1:2002")),
        ("a signed header", |parts| set(&mut parts.headers, "content-type", "text/json")),
        ("a second value", |parts| {
            parts.headers.append("content-type", HeaderValue::from_static("a/b"));
        }),
        ("date", |parts| set(&mut parts.headers, DATE_HEADER, "20260131T120001Z")),
        ("fewer signed headers", |parts| edit(parts, "content-type;", "")),
    ];
    for (what, change) in changes {
        let mut parts = signed(&signing(None));
        assert_eq!(check(&parts, None), Ok(()));
        change(&mut parts);
        assert_eq!(check(&parts, None), Err(Refusal::Mismatch), "{what}");
    }
    let parts = signed(&signing(None));
    let body = &BODY[1..];
    assert_eq!(verify(&credentials(None), &parts, body, now()), Err(Refusal::Mismatch));
    let other = Credentials::new("AKIDEXAMPLE", "Secret", None, None, "test");
    assert_eq!(verify(&other, &parts, BODY, now()), Err(Refusal::Mismatch));
}

#[test]
fn every_flipped_digit_of_the_signature_is_noticed() {
    let parts = signed(&signing(None));
    let value = parts.headers[AUTHORIZATION].to_str().unwrap().to_owned();
    let first = value.find("Signature=").unwrap() + "Signature=".len();
    assert_eq!(value.len() - first, 64);
    for at in first..value.len() {
        let mut flipped = value.clone().into_bytes();
        flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
        let mut parts = signed(&signing(None));
        set(&mut parts.headers, "authorization", std::str::from_utf8(&flipped).unwrap());
        assert_eq!(check(&parts, None), Err(Refusal::Mismatch));
    }
    let mut shorter = signed(&signing(None));
    set(&mut shorter.headers, "authorization", &value[..value.len() - 1]);
    assert_eq!(check(&shorter, None), Err(Refusal::Mismatch));
}

#[test]
fn a_header_that_was_not_signed_may_change() {
    let mut parts = signed(&signing(None));
    set(&mut parts.headers, "user-agent", "another");
    assert_eq!(check(&parts, None), Ok(()));
}

#[test]
fn a_header_that_is_often_left_out_counts_when_the_client_signed_it() {
    let mut parts = signed(&Signing { signs_all: true, ..signing(None) });
    let authorization = parts.headers[AUTHORIZATION].to_str().unwrap();
    assert!(authorization.contains(";user-agent;"), "{authorization}");
    assert_eq!(check(&parts, None), Ok(()));
    set(&mut parts.headers, "user-agent", "another");
    assert_eq!(check(&parts, None), Err(Refusal::Mismatch));
}

#[test]
fn an_unknown_key_is_named_before_anything_is_computed() {
    let mut parts = signed(&signing(None));
    edit(&mut parts, "AKIDEXAMPLE", "AKIDEXAMPLF");
    let refusal = check(&parts, None).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownKey("unknown access key"));
    assert_eq!(refusal.error_type(), "UnrecognizedClientException");
}

#[test]
fn a_signature_is_good_for_five_minutes_either_way_and_no_longer() {
    let second = Duration::from_secs(1);
    for time in [now() - CLOCK_DIFFERENCE_MAX, now() + CLOCK_DIFFERENCE_MAX] {
        assert_eq!(check(&signed(&Signing { time, ..signing(None) }), None), Ok(()));
    }
    let time = now() - CLOCK_DIFFERENCE_MAX - second;
    let refusal = check(&signed(&Signing { time, ..signing(None) }), None).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "Signature expired: 20260131T115459Z is now earlier than 20260131T115500Z \
         (20260131T120000Z - 5 min.)"
    );
    assert_eq!(refusal.error_type(), "InvalidSignatureException");
    let time = now() + CLOCK_DIFFERENCE_MAX + second;
    let refusal = check(&signed(&Signing { time, ..signing(None) }), None).unwrap_err();
    assert!(refusal.to_string().starts_with("Signature not yet current: 20260131T120501Z"));
}

#[test]
fn the_scope_has_to_be_of_this_service_and_day() {
    let parts = signed(&Signing { service: "s3", ..signing(None) });
    let refusal = check(&parts, None).unwrap_err();
    assert_eq!(refusal.to_string(), "Credential should be scoped to correct service: 'xray'.");
    for (from, to, scope) in [
        ("/20260131/", "/20260130/", "the date of X-Amz-Date."),
        ("aws4_request", "aws5_request", "a terminator of 'aws4_request'."),
    ] {
        let mut parts = signed(&signing(None));
        edit(&mut parts, from, to);
        assert_eq!(check(&parts, None), Err(Refusal::Scope(scope)));
    }
}

#[test]
fn a_missing_part_is_named() {
    let mut unsigned = signed(&signing(None));
    unsigned.headers.remove(AUTHORIZATION);
    assert_eq!(check(&unsigned, None), Err(Refusal::Unsigned));
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("Credential=", "Credentials="),
        ("SignedHeaders=", "Signed="),
        ("Signature=", "Signatur="),
        ("/aws4_request", ""),
        ("AKIDEXAMPLE/20260131/eu-central-1/xray/aws4_request", "AKIDEXAMPLE"),
        ("content-type;host", "host;content-type"),
        ("host;", "host;host;"),
    ] {
        let mut parts = signed(&signing(None));
        edit(&mut parts, from, to);
        let refusal = check(&parts, None).unwrap_err();
        assert_eq!(refusal.error_type(), "IncompleteSignatureException", "{from}: {refusal}");
    }
    let mut twice = signed(&signing(None));
    twice.headers.append(AUTHORIZATION, twice.headers[AUTHORIZATION].clone());
    assert!(matches!(check(&twice, None), Err(Refusal::Incomplete(_))));
    for (from, header) in [("host;", "host"), (";x-amz-date", DATE_HEADER)] {
        let mut parts = signed(&signing(None));
        edit(&mut parts, from, "");
        assert_eq!(check(&parts, None), Err(Refusal::HeaderNotSigned(header)));
    }
    for header in ["host", "content-type", DATE_HEADER] {
        let mut parts = signed(&signing(None));
        parts.headers.remove(header);
        assert_eq!(check(&parts, None), Err(Refusal::HeaderMissing(header.to_owned())));
    }
}

#[test]
fn the_authority_of_http_2_stands_in_for_the_host_header() {
    let mut parts = signed(&signing(None));
    parts.headers.remove(HOST);
    parts.uri = "http://127.0.0.1:2001/TraceSegments".parse().unwrap();
    assert_eq!(check(&parts, None), Ok(()));
    parts.uri = "http://127.0.0.1:2002/TraceSegments".parse().unwrap();
    assert_eq!(check(&parts, None), Err(Refusal::Mismatch));
}

#[test]
fn an_invalid_date_is_refused() {
    for text in [
        "",
        "20260131T120000",
        "20261331T120000Z",
        "20260230T120000Z",
        "2026013112000000Z",
        "+0260131T120000Z",
    ] {
        let mut parts = signed(&signing(None));
        set(&mut parts.headers, DATE_HEADER, text);
        assert!(matches!(check(&parts, None), Err(Refusal::Incomplete(_))), "{text}");
    }
}

#[test]
fn headers_outside_of_ascii_are_refused_without_a_panic() {
    let mut parts = signed(&signing(None));
    let value = HeaderValue::from_bytes("naïve".as_bytes()).unwrap();
    parts.headers.insert("content-type", value);
    assert!(matches!(check(&parts, None), Err(Refusal::NotSignable(_))));
}
