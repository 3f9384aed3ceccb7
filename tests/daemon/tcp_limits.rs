//! The limits of the TCP port, with the signing proxy behind it.

use super::client::{Client, RULES, call, calls, start, start_at};
use super::endpoint::Endpoint;
use super::fake::Fake;
use super::process::PATIENCE;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_body_of_5_mb_is_passed_on_and_a_larger_one_is_refused() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let mut body = vec![b'x'; 5 * 1024 * 1024];
    let mut client = Client::connect(daemon.tcp);
    assert_eq!(client.call("POST /v1/traces", "", &body).status, 200);
    assert_eq!(calls(&endpoint)[0].body, body);
    body.push(b'x');
    let answer = client.call("POST /v1/traces", "", &body);
    assert_eq!(answer.status, 413);
    assert!(answer.message().contains("5 MB"), "{answer:?}");
    // With chunked encoding the daemon does not know the size of the body in advance.
    let mut client = Client::connect(daemon.tcp);
    client.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(format!("{:x}\r\n", body.len()).as_bytes());
    client.write(&[&body[..], b"\r\n0\r\n\r\n"].concat());
    assert_eq!(client.answer().status, 413);
    // A client that sends `Expect: 100-continue` is refused at once.
    client.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n");
    client.write(b"Expect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    assert_eq!(calls(&endpoint).len(), 1);
    assert_eq!(daemon.metric("xray_tcp_requests_too_large_total"), 3);
    // Small bodies in chunks are accepted; they are forwarded without chunked encoding.
    let mut client = Client::connect(daemon.tcp);
    client.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let last = calls(&endpoint).pop().unwrap();
    assert_eq!(last.body, b"abc");
    assert!(!last.headers.contains_key("transfer-encoding"));
}

#[test]
fn slow_and_oversized_requests_are_cut_and_disturb_nobody() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let mut kept = Client::connect(daemon.tcp);
    assert_eq!(kept.call(RULES, "", b"{}").status, 200);
    let mut slow_later = Client::connect(daemon.tcp);
    assert_eq!(slow_later.call(RULES, "", b"{}").status, 200);
    let started_at = Instant::now();
    slow_later.write(b"POST /GetSampl");
    let slow: Vec<Client> =
        ["", "POST /GetSampl", "POST /GetSamplingRules HTTP/1.1\r\nHost: x\r\nA: "]
            .map(|start| {
                let mut client = Client::connect(daemon.tcp);
                client.write(start.as_bytes());
                client
            })
            .into();
    let mut slow_body = Client::connect(daemon.tcp);
    slow_body.write(b"POST /GetSamplingRules HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
    let mut large = Client::connect(daemon.tcp);
    let header = format!("POST /GetSamplingRules HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(100_000));
    large.try_write(header.as_bytes());
    let text = large.rest();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text:?}");
    let many = "A: b\r\n".repeat(200);
    assert_eq!(call(&daemon, RULES, &many, b"").status, 431);
    assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    assert!(daemon.get("/metrics").contains("xray_alive 1"));
    for client in slow.into_iter().chain([slow_later]) {
        assert_eq!(client.rest(), "");
    }
    let answer = slow_body.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    let passed = started_at.elapsed();
    assert!(passed > Duration::from_secs(9), "{passed:?}");
    // Three first headers, a later header and a body.
    daemon.wait_for_metric("xray_tcp_requests_slow_total", 5);
    daemon.wait_for_metric("xray_tcp_requests_too_large_total", 2);
    // These limits do not close a connection between two calls: `kept` has been idle for 11 s.
    thread::sleep(Duration::from_secs(11).saturating_sub(passed));
    assert_eq!(kept.call(RULES, "", b"{}").status, 200);
    assert_eq!(calls(&endpoint).len(), 4);
}

#[test]
fn connections_that_are_kept_make_room_for_others() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let mut kept = Vec::new();
    for _ in 0..300 {
        let mut client = Client::connect(daemon.tcp);
        assert_eq!(client.call(RULES, "", b"{}").status, 200);
        kept.push(client);
    }
    assert!(daemon.get("/metrics").contains("xray_alive 1"));
    // The daemon has closed only the oldest connections.
    for client in &mut kept[100..] {
        assert_eq!(client.call(RULES, "", b"{}").status, 200);
    }
    assert_eq!(kept.swap_remove(0).rest(), "");
}

#[test]
fn a_client_that_has_ended_its_side_gets_a_quick_answer_and_a_late_one_is_given_up() {
    let service = Fake::start(|_| None);
    let daemon = start_at(&service.url(), "");
    let after_end = |request: &str| {
        let mut stream = TcpStream::connect(daemon.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = after_end("GET /health");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The service never answers, so the daemon gives the call up.
    assert_eq!(after_end("GET /GetSamplingRules"), "");
}
