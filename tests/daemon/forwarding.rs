//! Answers on the TCP port: what the signing proxy forwards, what it refuses, and the format of the
//! metrics.

use super::answers::{CallAnswer, gzip};
use super::client::{Client, RULES, call, calls, start};
use super::endpoint::Endpoint;
use super::fake::Fake;
use super::process::{Daemon, daemon_command, with_credentials};

/// A session token with every kind of character that tokens have.
const TOKEN: &str = "IQoJb3JpZ2luX2VjEA/aCXVzLWVhc3QtMSJ+HMEUCIQDhidden==";

#[test]
fn metrics_are_plain_text_unless_open_metrics_is_asked_for() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let prometheus = "Accept: application/openmetrics-text;version=1.0.0;q=0.6,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
    for (accept, content_type) in [
        ("", plain),
        ("Accept: */*\r\n", plain),
        ("Accept: text/plain, application/openmetrics-text;q=0.5\r\n", plain),
        (prometheus, open),
    ] {
        let answer = call(&daemon, "GET /metrics", accept, b"");
        assert_eq!(answer.header("content-type"), Some(content_type), "{accept}");
        let text = String::from_utf8(answer.body).unwrap();
        let is_open = content_type == open;
        assert_eq!(text.ends_with("# EOF\n"), is_open, "{text}");
        let kind = if is_open { "segments_sent" } else { "segments_sent_total" };
        assert!(text.contains(&format!("# TYPE xray_{kind} counter\n")), "{text}");
        assert!(text.contains("\nxray_segments_sent_total 0\n"), "{text}");
    }
}

#[test]
fn a_long_answer_is_forwarded_and_is_never_whole_in_memory() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    let before_bytes = daemon.peak_memory_bytes();
    let body: Vec<u8> = (0..15 * 1024 * 1024_u32).map(|index| (index % 251) as u8).collect();
    let answer = |body: &[u8]| CallAnswer { body: body.to_vec(), ..CallAnswer::default() };
    endpoint.change(|rules| rules.call_answer = answer(&body));
    let got = call(&daemon, RULES, "", b"{}");
    assert_eq!((got.status, got.body.len()), (200, body.len()));
    assert!(got.body == body);
    let grown_bytes = daemon.peak_memory_bytes() - before_bytes;
    assert!(grown_bytes < 8 * 1024 * 1024, "{grown_bytes}");

    let too_long = vec![0; 16 * 1024 * 1024 + 1];
    endpoint.change(|rules| rules.call_answer = answer(&too_long));
    let refused = call(&daemon, RULES, "", b"{}");
    assert_eq!(refused.status, 502);
    assert!(refused.message().contains("16777216 bytes"), "{refused:?}");
    daemon.wait_for_metric("xray_proxy_answers_too_large_total", 1);
    daemon.wait_for_metric("xray_proxy_requests_total{outcome=\"answered\"}", 2);
    daemon.wait_for_line("of a client failed: the answer of the service is longer than");
}

/// Starts a daemon whose credentials have [`TOKEN`].
fn with_token(url: &str) -> Daemon {
    let mut command = daemon_command(url, &[]);
    with_credentials(&mut command).env("AWS_SESSION_TOKEN", TOKEN);
    Daemon::spawn(command)
}

#[test]
fn the_session_token_that_the_service_quotes_reaches_no_client() {
    let service = Fake::start(|request| {
        let token = request.header("x-amz-security-token");
        assert_eq!(token, TOKEN);
        let token =
            if request.line.ends_with("?json") { token.replace('/', "\\/") } else { token.into() };
        let message = format!(
            "The request signature we calculated does not match. The Canonical String for this \
             request should have been\\n'POST\\n/GetSamplingRules\\n\\nhost:x\\n\
             x-amz-security-token:{token}\\n\\nhost;x-amz-security-token\\nabc'"
        );
        Some(("403 Forbidden", format!("{{\"message\":\"{message}\"}}")))
    });
    let daemon = with_token(&service.url());
    for target in [RULES.to_owned(), format!("{RULES}?json")] {
        let answer = call(&daemon, &target, "", b"{}");
        assert_eq!(answer.status, 403);
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains("x-amz-security-token:(redacted)\\n\\nhost;x-amz"), "{text}");
        assert!(text.contains("signature we calculated") && !text.contains("hidden"), "{text}");
    }
    let (_, log) = daemon.stop();
    assert!(!log.contains("hidden"), "{log}");

    let endpoint = Endpoint::start();
    let daemon = with_token(&endpoint.url());
    for (encoding, body, expected) in [
        ("gzip", gzip(format!("{{\"message\":\"{TOKEN}\"}}").as_bytes()), "(redacted)"),
        ("br", b"whatever this is".to_vec(), "its encoding \\\"br\\\" is not known"),
        ("gzip", b"\x1f\x8b\x08 damaged".to_vec(), "it cannot be decoded"),
    ] {
        let headers = vec![("content-encoding", encoding), ("x-amzn-errortype", "X")];
        endpoint.change(|rules| rules.call_answer = CallAnswer { status: 400, headers, body });
        let answer = call(&daemon, RULES, "", b"{}");
        assert_eq!((answer.status, answer.header("content-encoding")), (400, None));
        assert_eq!(answer.header("x-amzn-errortype"), Some("X"));
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains(expected) && !text.contains("hidden"), "{text}");
    }
}

#[test]
fn what_cannot_be_signed_or_comes_from_a_web_page_is_refused_with_the_reason() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let target = |query: &str| format!("{RULES}?{query}");
    let site = |site: &str| format!("Sec-Fetch-Site: {site}\r\n");
    let refused = [
        (target("a=b+c"), String::new(), 400, "plus sign"),
        (target("a=%ff"), String::new(), 400, "not UTF-8"),
        (target("a=%2"), String::new(), 400, "two hexadecimal digits"),
        (target("a&&b"), String::new(), 400, "empty parameter"),
        (target("X-Amz-Signature=0"), String::new(), 400, "signature of its own"),
        ("TRACE /GetSamplingRules".to_owned(), String::new(), 405, "TRACE"),
        (RULES.to_owned(), site("cross-site"), 403, "Sec-Fetch-Site"),
        (RULES.to_owned(), site("same-site"), 403, "Sec-Fetch-Site"),
        ("GET /GetSamplingRules".to_owned(), site("cross-site"), 403, "Sec-Fetch-Site"),
    ];
    for (target, headers, status, why) in &refused {
        let answer = call(&daemon, target, headers, b"{}");
        assert_eq!(answer.status, *status, "{target} {headers}");
        assert!(answer.message().contains(why), "{target}: {answer:?}");
    }
    assert_eq!(calls(&endpoint).len(), 0);
    let count = daemon.metric("xray_proxy_requests_total{outcome=\"refused\"}");
    assert_eq!(count, refused.len() as u64);
    for (target, headers) in [
        (target("a=b%20c&d=%2B&e=%C3%A4"), String::new()),
        (RULES.to_owned(), site("same-origin")),
        (RULES.to_owned(), site("none")),
    ] {
        assert_eq!(call(&daemon, &target, &headers, b"{}").status, 200, "{target} {headers}");
    }
}

#[test]
fn an_answer_after_which_the_connection_is_closed_says_so() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    for request in [
        // The body does not come, so that the connection cannot be used any longer.
        "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\
         Expect: 100-continue\r\n\r\n",
        "GET /x HTTP/1.1\r\nA: \x01\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = Client::connect(daemon.tcp);
        client.write(request.as_bytes());
        let answer = client.answer();
        assert_eq!(answer.header("connection"), Some("close"), "{request:?} {answer:?}");
        assert_eq!(client.rest(), "", "{request:?}");
    }
    let mut client = Client::connect(daemon.tcp);
    for _ in 0..3 {
        assert_eq!(client.call(RULES, "", b"{}").header("connection"), None);
    }
}
