//! The signing proxy: clients call the service through the TCP port. The daemon signs and forwards
//! some calls and refuses others. Slow calls must not delay other calls.

use super::answers::{CallAnswer, Clock};
use super::client::{Client, RULES, call, calls, start};
use super::delivery::settle_once;
use super::endpoint::{Endpoint, Way};
use super::load::{Load, document};
use super::process::{Daemon, HEADER, config_file, daemon_command, wait_until};
use super::tls::Authority;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

#[test]
fn what_clients_send_is_signed_and_sent_without_the_headers_of_their_connection() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    // Go sends no Content-Type, Ruby sends its own signature, and other clients send hop-by-hop
    // headers.
    let foreign = "Authorization: AWS4-HMAC-SHA256 Credential=bogus/x, SignedHeaders=host, \
                   Signature=0\r\nX-Amz-Date: 20000101T000000Z\r\nX-Amz-Security-Token: bogus\r\n\
                   X-Amz-Content-Sha256: bogus\r\nAuthorization: Basic bogus\r\n";
    let hops = "Connection: keep-alive, X-Secret\r\nX-Secret: bogus\r\nKeep-Alive: 5\r\n\
                Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\n\
                Proxy-Authorization: Basic bogus\r\nX-Forwarded-For: bogus\r\n";
    let rest = "Content-Type: application/x-protobuf\r\nUser-Agent: sdk/1\r\nX-Other: kept\r\n\
                Content-Encoding: gzip\r\n";
    let body = b"\x1f\x8b\x00\xff any bytes";
    call(&daemon, RULES, "", b"");
    call(&daemon, RULES, foreign, b"{}");
    call(&daemon, "POST /SamplingTargets?a=b", hops, b"{}");
    let answer = call(&daemon, "POST /v1/traces", rest, body);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
    assert_eq!(call(&daemon, "GET /TelemetryRecords", "", b"").status, 200);
    let calls = calls(&endpoint);
    let targets: Vec<_> =
        calls.iter().map(|call| (call.method.as_str(), &call.target[..])).collect();
    assert_eq!(
        targets,
        [
            ("POST", "/GetSamplingRules"),
            ("POST", "/GetSamplingRules"),
            ("POST", "/SamplingTargets?a=b"),
            ("POST", "/v1/traces"),
            ("GET", "/TelemetryRecords"),
        ]
    );
    for call in &calls {
        let headers = format!("{:?}", call.headers);
        assert!(!headers.contains("bogus"), "{headers}");
        assert_eq!(call.headers.get_all("authorization").iter().count(), 1, "{headers}");
        assert_eq!(call.headers["host"].to_str().unwrap(), endpoint.address.to_string());
        for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade"] {
            assert!(!call.headers.contains_key(name), "{headers}");
        }
    }
    assert!(!calls[0].headers.contains_key("content-type"));
    // A server may refuse a POST without a length, even if its body is empty (RFC 9110, section
    // 8.6).
    assert_eq!(calls[0].headers["content-length"], "0");
    assert!(!calls[4].headers.contains_key("content-length"));
    assert_eq!(calls[3].body, body);
    for (name, value) in
        [("content-encoding", "gzip"), ("user-agent", "sdk/1"), ("x-other", "kept")]
    {
        assert_eq!(calls[3].headers[name], value);
    }
    daemon.wait_for_metric("xray_proxy_requests_total{outcome=\"answered\"}", 5);
    let (_, log) = daemon.stop();
    assert!(!log.contains("bogus") && !log.contains("secret"), "{log}");
}

#[test]
fn a_call_with_a_further_slash_reaches_the_service_by_its_usual_path() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    // A sampler whose address ends in a slash sends the first form.
    for path in ["//GetSamplingRules", "/SamplingTargets/", "//v1/traces/?a=b"] {
        assert_eq!(call(&daemon, &format!("POST {path}"), "", b"{}").status, 200, "{path}");
    }
    let targets: Vec<_> = calls(&endpoint).into_iter().map(|call| call.target).collect();
    assert_eq!(targets, ["/GetSamplingRules", "/SamplingTargets", "/v1/traces?a=b"]);
}

#[test]
fn the_answer_of_the_service_is_given_back_as_it_is() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let body = b"\x1f\x8b\x08 no matter what\x00\xff".to_vec();
    for status in [200, 204, 302, 400, 403, 429, 500, 503] {
        let headers = vec![
            ("content-type", "x/y"),
            ("x-amzn-errortype", "ThrottledException"),
            ("x-amzn-requestid", "1-2-3"),
            ("connection", "x-hop"),
            ("x-hop", "bogus"),
            ("keep-alive", "timeout=7"),
        ];
        let body = if status == 204 { Vec::new() } else { body.clone() };
        endpoint
            .change(|rules| rules.call_answer = CallAnswer { status, headers, body: body.clone() });
        let answer = call(&daemon, RULES, "", b"{}");
        assert_eq!((answer.status, &answer.body), (status, &body));
        assert_eq!(answer.header("content-type"), Some("x/y"));
        assert_eq!(answer.header("x-amzn-errortype"), Some("ThrottledException"));
        assert_eq!(answer.header("x-amzn-requestid"), Some("1-2-3"));
        assert_eq!((answer.header("x-hop"), answer.header("keep-alive")), (None, None));
    }
    // The daemon forwarded each call once. It does not retry calls of clients.
    assert_eq!(calls(&endpoint).len(), 8);
}

#[test]
fn other_paths_and_web_pages_are_refused_and_never_reach_the_service() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "ProxyServer: {AllowedPaths: [/GetGroups]}");
    let paths = [
        "/",
        "/GetTraceSummaries",
        "/TraceSegments/../GetTraceSummaries",
        "/x//TraceSegments",
        "/GetGroups/",
        "/Trace%53egments",
        "/GetGroups%2f..%2fx",
        "/v1/metrics",
    ];
    for path in paths {
        let answer = call(&daemon, &format!("POST {path}"), "", b"{}");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.message().contains("ProxyServer.AllowedPaths"), "{answer:?}");
    }
    let answer = call(&daemon, RULES, "Origin: http://evil.example\r\n", b"{}");
    assert_eq!(answer.status, 403);
    assert!(answer.message().contains("Origin"), "{answer:?}");
    let long = call(&daemon, &format!("{RULES}?{}", "x".repeat(9000)), "", b"{}");
    assert_eq!(long.status, 414);
    assert_eq!(calls(&endpoint).len(), 0);
    assert_eq!(daemon.metric("xray_proxy_requests_total{outcome=\"refused\"}"), 10);
    assert_eq!(call(&daemon, "POST /GetGroups", "", b"{}").status, 200);
    let open = start(&endpoint, "ProxyServer: {AllowedPaths: [\"*\"]}");
    assert_eq!(call(&open, "POST /GetTraceSummaries?a=%20", "", b"{}").status, 200);
    assert_eq!(calls(&endpoint)[1].target, "/GetTraceSummaries?a=%20");
}

#[test]
fn without_credentials_or_a_service_the_answer_says_why() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(daemon_command(&endpoint.url(), &[]));
    let answer = call(&daemon, RULES, "", b"{}");
    assert_eq!(answer.status, 502);
    assert!(answer.message().contains("no credentials"), "{answer:?}");
    assert_eq!(endpoint.connection_count(), 0);
    let daemon = start(&endpoint, "ProxyServer: {TimeoutSeconds: 1}");
    for (way, status, why) in [
        (Way::Down, 502, "refused"),
        (Way::Reset, 502, "cannot be reached"),
        (Way::Half("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), 502, "could not be read"),
        (Way::BlackHole, 504, "within 1 s"),
    ] {
        endpoint.set_way(way);
        // The endpoint applies a fault shortly after `set_way`, so the call is repeated until it
        // fails as expected.
        wait_until(why, || {
            let answer = call(&daemon, RULES, "", b"{}");
            answer.status == status && answer.message().contains(why)
        });
    }
    endpoint.set_way(Way::Open);
    wait_until("the service is back", || call(&daemon, RULES, "", b"{}").status == 200);
    daemon.wait_for_metric_of_at_least("xray_proxy_requests_total{outcome=\"failed\"}", 4);
    daemon.wait_for_line("POST \"/GetSamplingRules\" of a client failed");
}

#[test]
fn a_call_that_is_refused_because_of_the_clock_is_signed_with_the_services_time() {
    let endpoint = Endpoint::start();
    let skew = Clock { offset_seconds: 3600, code: "RequestTimeTooSkewed" };
    endpoint.change(|rules| rules.clock = Some(skew));
    let daemon = start(&endpoint, "");
    let body = br#"{"TraceSegmentDocuments":["{}"]}"#;
    let answer = call(&daemon, "POST /TraceSegments", "", body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(endpoint.request_count(), 2);
    // The daemon also applies the corrected time to uploads.
    daemon.send([format!("{}{{}}", HEADER)]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    assert_eq!(endpoint.request_count(), 3);
}

#[test]
fn a_call_that_is_refused_after_its_clock_was_corrected_is_answered_so() {
    let endpoint = Endpoint::start();
    let skew = Clock { offset_seconds: 3600, code: "RequestTimeTooSkewed" };
    endpoint.change(|rules| rules.clock = Some(skew));
    let daemon = start(&endpoint, "");
    let body = br#"{"TraceSegmentDocuments":["poison"]}"#;
    let answer = call(&daemon, "POST /TraceSegments", "", body);
    assert_eq!(answer.status, 400, "{answer:?}");
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("InvalidRequestException"), "{answer:?}");
    assert_eq!(endpoint.request_count(), 2);
}

#[test]
fn sampling_calls_are_answered_while_uploads_and_other_calls_hang() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.hangs_uploads = true);
    let daemon = start(&endpoint, "");
    daemon.send((0..2_000).map(|index| format!("{}{}", HEADER, document(index))));
    daemon.wait_for_metric("xray_segments_received_total", 2_000);
    // 40 uploads of clients exceed the limit of 32 calls in flight.
    let mut hanging: Vec<Client> = (0..40).map(|_| Client::connect(daemon.tcp)).collect();
    for client in &mut hanging {
        client.write(b"POST /TraceSegments HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    }
    for _ in 0..20 {
        assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
        assert!(daemon.get("/metrics").contains("xray_alive 1"));
    }
    let statuses: Vec<u16> = hanging.iter_mut().map(|client| client.answer().status).collect();
    assert!(statuses.iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 504).count(), 32);
}

/// Makes a call while a `credential_process` is still running. Returns whether the call was
/// answered. The daemon waits for credentials for 1 s, which may be too short on a busy machine.
fn waits_for_credentials() -> bool {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let process = r#"sh -c 'sleep 0.4; echo "{\"Version\":1,\"AccessKeyId\":\"AKIDNEW\",\"SecretAccessKey\":\"s\"}"'"#;
    std::fs::write(&config, format!("[default]\ncredential_process = {process}\n")).unwrap();
    let mut command = daemon_command(&endpoint.url(), &[]);
    command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let daemon = Daemon::spawn(command);
    let answer = call(&daemon, RULES, "", b"{}");
    answer.status == 200 && daemon.log().contains("Credentials found")
}

#[test]
fn a_call_at_the_start_waits_for_credentials_for_a_moment() {
    assert!((0..10).any(|_| waits_for_credentials()), "no call was answered");
}

#[test]
fn a_thousand_calls_on_fifty_connections_and_the_segments_beside_them_all_arrive() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start_within_memory(&daemon, 20_000, document);
    let address = daemon.tcp;
    let clients = (0..50).map(|number| {
        thread::spawn(move || {
            let mut client = Client::connect(address);
            for index in 0..20 {
                let body = format!("{{\"number\":{}}}", number * 20 + index);
                let answer = client.call(RULES, "", body.as_bytes());
                assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
                // The pause makes the calls last about as long as the load of segments.
                thread::sleep(Duration::from_millis(50));
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
    daemon.wait_for_count("sent by the load", 10_000, || load.sent_count() as u64);
    let sent = load.stop();
    let mut bodies: Vec<_> = calls(&endpoint).into_iter().map(|call| call.body).collect();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 1_000);
    daemon.wait_for_metric("xray_proxy_requests_total{outcome=\"answered\"}", 1_000);
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn calls_are_answered_over_both_versions_of_http_under_a_private_authority() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[protocol]));
        let bundle = authority.path.to_str().unwrap();
        let daemon = Daemon::start(&endpoint.url(), &[], &[("AWS_CA_BUNDLE", bundle)]);
        let hops = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\
                    TE: trailers\r\n";
        for _ in 0..3 {
            let answer = call(&daemon, RULES, hops, b"{}");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
        }
        assert_eq!(calls(&endpoint).len(), 3);
        assert!(endpoint.connection_count() == 1 || protocol != b"h2");
    }
}

/// Starts a service that answers each connection with these bytes. It then closes the connection,
/// or keeps it open. Returns its URL.
fn service_with_answer(answer: Vec<u8>, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The head and the short body of a call arrive together.
            let _ = stream.read(&mut [0; 8192]);
            // The daemon closes the connection in the middle of an answer that is too long.
            let _ = stream.write_all(&answer);
            if !closes {
                open.push(stream);
            }
        }
    });
    url
}

#[test]
fn a_long_answer_that_does_not_end_is_cut_off_with_its_reason_and_a_whole_one_is_not() {
    let head = |length: &str| format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n").into_bytes();
    let of_length = |length: usize| head(&format!("Content-Length: {length}"));
    let part = vec![b'x'; 100_000];
    // 17 MiB in one piece of unknown length.
    let endless =
        [head("Transfer-Encoding: chunked"), b"1100000\r\n".to_vec(), vec![b'x'; 17 << 20]];
    for (answer, closes, reason, timeout_seconds, too_large_count) in [
        ([of_length(100_000), part.clone()].concat(), true, "", 60, 0),
        ([of_length(100_001), part.clone()].concat(), true, "is cut off: ", 60, 0),
        (
            [of_length(100_001), part].concat(),
            false,
            "is cut off: no answer of the service within 1 s",
            1,
            0,
        ),
        (endless.concat(), false, "is cut off: the answer of the service is longer than", 60, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = config_file(
            folder.path(),
            &format!("ProxyServer: {{TimeoutSeconds: {timeout_seconds}}}"),
        );
        let daemon = Daemon::start(&service_with_answer(answer, closes), &["-c", &config], &[]);
        let mut client = Client::connect(daemon.tcp);
        let request = format!("{RULES} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        client.write(request.as_bytes());
        if reason.is_empty() {
            assert_eq!(client.answer().body.len(), 100_000);
        } else {
            // The client sees that the answer is not whole: the connection ends before it.
            let text = client.rest();
            let line = daemon.wait_for_line("of a client is cut off");
            assert!(line.contains(reason) && line.contains("GetSamplingRules"), "{line}");
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(text.starts_with("HTTP/1.1 200") && body.len() >= 16 * 1024, "{}", body.len());
            assert!(!body.ends_with("0\r\n\r\n") && body.len() < 17 << 20, "{}", body.len());
        }
        let count = |outcome: &str| {
            daemon.metric(&format!("xray_proxy_requests_total{{outcome=\"{outcome}\"}}"))
        };
        let is_whole = u64::from(reason.is_empty());
        assert_eq!((count("answered"), count("failed")), (is_whole, 1 - is_whole), "{reason}");
        assert_eq!(daemon.metric("xray_proxy_answers_too_large_total"), too_large_count);
        daemon.stop();
    }
}
