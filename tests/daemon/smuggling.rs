//! Requests to the TCP port that a proxy in front of the daemon may read otherwise than the daemon
//! (request smuggling), and clients that break off. Each connection gets the answers to the
//! requests that RFC 9112 sees, and the service gets exactly these.

use super::client::{Client, RULES, call, start_at};
use super::fake::{Fake, Request};
use super::process::Daemon;
use super::smuggling_rows::{HIDDEN, Row, all, bytes_of};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Follows each row on the same connection. Its answer shows that the daemon has read the row to
/// its end and goes on.
const PROBE: &str = "GET /health HTTP/1.1|Host: probe|Connection: close||";

/// The service, and a daemon that has made one call.
fn service_and_daemon() -> (Fake, Daemon) {
    // No page of the daemon has this status.
    let service = Fake::start(|_| Some(("202 Accepted", "{}".to_owned())));
    let daemon = start_at(&service.url(), "");
    assert_eq!(call(&daemon, RULES, "", b"{}").status, 202);
    (service, daemon)
}

/// Returns the calls of clients since the first `seen_count` requests: line and body.
fn calls_after(service: &Fake, seen_count: usize) -> Vec<String> {
    let requests = service.requests();
    requests[seen_count..].iter().map(|call| format!("{} {}", call.line, call.body)).collect()
}

/// Returns the statuses of all answers in `bytes`. The last entry is 0 if they end within one.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            statuses.push(0);
            break;
        };
        let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
        let status = head.strip_prefix("http/1.").unwrap()[2..5].parse().unwrap();
        let length = head.split("content-length: ").nth(1).and_then(|it| it.lines().next());
        let length = length.map_or(0, |length| length.parse().unwrap());
        statuses.push(if bytes.len() < end + 4 + length { 0 } else { status });
        bytes = &bytes[(end + 4 + length).min(bytes.len())..];
    }
    statuses
}

/// Sends bytes on a new connection, and returns what comes back until the daemon closes it.
fn exchange(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(daemon.tcp);
    client.try_write(bytes);
    client.rest_bytes()
}

/// The values that must be the same before and after the hostile clients: file descriptors, and the
/// memory of the TCP port with one connection.
fn held(daemon: &Daemon) -> (usize, u64) {
    let bytes = daemon.metric("xray_memory_holder_bytes{holder=\"tcp_port\"}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count();
    (descriptors, bytes)
}

/// Asserts that the daemon lives, holds nothing more than before, and has sent only requests with
/// one meaning.
fn assert_unharmed(service: &Fake, daemon: Daemon, before: (usize, u64)) {
    assert!(daemon.get("/health").starts_with("HTTP/1.1 200 "));
    daemon.wait_until("all connections have given back what they held", || {
        let now = held(&daemon);
        now.0 <= before.0 && now.1 <= before.1
    });
    for request in service.requests() {
        let text = format!("{request:?}");
        assert_eq!(request.all("host"), [service.address.to_string()], "{text}");
        assert_eq!(request.all("transfer-encoding"), [""; 0], "{text}");
        assert!(request.all("content-length").len() <= 1, "{text}");
        assert_eq!(request.all("authorization").len(), 1, "{text}");
        assert!(!request.line.contains("hidden"), "{text}");
    }
    daemon.stop();
}

#[test]
fn a_connection_gets_the_answers_to_the_requests_of_rfc_9112_and_no_hidden_one_is_sent() {
    let (service, daemon) = service_and_daemon();
    let before = held(&daemon);
    let mut failures = Vec::new();
    for Row { name, text, answers, calls } in all() {
        let seen_count = service.requests().len();
        let answer = exchange(&daemon, &[bytes_of(&text), bytes_of(PROBE)].concat());
        let told = statuses(&answer);
        let made = calls_after(&service, seen_count);
        let calls: Vec<String> = calls
            .iter()
            .map(|call| call.replace("{hidden}", &HIDDEN.replace('|', "\r\n")))
            .collect();
        if told != answers || made != calls {
            failures.push(format!("{name}: {told:?} for {answers:?}, {made:?} for {calls:?}"));
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), daemon.log());
    assert!(all().len() >= 40);
    assert_unharmed(&service, daemon, before);
}

#[test]
fn a_refused_head_is_answered_with_the_reason_and_the_end_of_the_connection() {
    let (service, daemon) = service_and_daemon();
    for (head, status, why) in [
        ("POST /GetSamplingRules HTTP/1.1||", 400, "no Host header"),
        ("GET /health HTTP/1.1|Host: x|Host: x||", 400, "more than one Host header"),
        ("GET /ready HTTP/1.1|Host: a/b||", 400, "not a host with a port"),
        ("CONNECT x:443 HTTP/1.1|Host: x:443||", 405, "no forward proxy"),
        ("POST * HTTP/1.1|Host: x||", 400, "neither a path nor an address"),
        ("GET / HTTP/1.1|Host: x|Transfer-Encoding: gzip, chunked||0||", 501, "besides chunked"),
        ("GET / HTTP/1.1|Host: x|Transfer-Encoding: chunked, chunked||0||", 400, "chunked twice"),
    ] {
        let mut client = Client::connect(daemon.tcp);
        client.write(&bytes_of(head));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{head}");
        assert!(answer.message().contains(why), "{head}: {answer:?}");
        assert_eq!(client.rest(), "", "{head}");
    }
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn a_whole_address_as_target_counts_instead_of_the_host_header() {
    let daemon = start_at("http://127.0.0.1:9", "Tail: true");
    let status = |target: &str, host: &str| {
        let text = format!("GET {target} HTTP/1.1|Host: {host}|Connection: close||");
        statuses(&exchange(&daemon, &bytes_of(&text)))
    };
    assert_eq!(status("/tail", "localhost"), [200]);
    assert_eq!(status("http://localhost:2000/tail", "rebound.example"), [200]);
    assert_eq!(status("http://rebound.example/tail", "localhost"), [403]);
}

#[test]
fn requests_that_come_byte_by_byte_are_read_like_others() {
    let (service, daemon) = service_and_daemon();
    let before = held(&daemon);
    let chunked =
        "POST /GetSamplingRules HTTP/1.1|Host: x|Transfer-Encoding: chunked||2;a=b|ab|0||";
    let sized = format!(
        "POST /GetSamplingRules HTTP/1.1|Host: x|Content-Length: {}||",
        HIDDEN.replace('|', "12").len()
    );
    let text = format!("{chunked}{sized}{HIDDEN}|{chunked}{PROBE}");
    let mut stream = TcpStream::connect(daemon.tcp).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in bytes_of(&text) {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(statuses(&answer), [202, 202, 202, 200]);
    let hidden = format!("POST /GetSamplingRules {}", HIDDEN.replace('|', "\r\n"));
    let chunked = "POST /GetSamplingRules ab";
    assert_eq!(calls_after(&service, 1), [chunked, &hidden, chunked]);
    assert_unharmed(&service, daemon, before);
}

#[test]
fn endless_heads_and_targets_are_refused_or_cut_and_send_nothing() {
    let (service, daemon) = service_and_daemon();
    let before = held(&daemon);
    let large = "x".repeat(1_000_000);
    let start = "POST /GetSamplingRules HTTP/1.1|Host: x|";
    for text in [
        format!("POST /GetSamplingRules?{} HTTP/1.1|Host: x||", "x".repeat(100_000)),
        format!("POST /{large} HTTP/1.1|Host: x||"),
        format!("{large} /GetSamplingRules HTTP/1.1|Host: x||"),
        format!("{start}A: {large}||"),
        format!("{start}{large}: a||"),
        format!("{start}{}|", "A: b|".repeat(200_000)),
        format!("{start}Transfer-Encoding: chunked||2;{large}|ab|0||"),
        format!("{start}Transfer-Encoding: chunked||0|A: {large}||"),
        format!("{start}Transfer-Encoding: chunked||{}|", "f".repeat(1_000_000)),
        "|".repeat(500_000),
    ] {
        let told = statuses(&exchange(&daemon, &bytes_of(&text)));
        // The end of a connection with unread bytes may overtake the answer.
        assert!(told.iter().all(|it| [0, 400, 414, 431].contains(it)), "{told:?} {text:.70}");
        assert!(told.len() <= 1, "{told:?} {text:.70}");
    }
    assert_eq!(service.requests().len(), 1);
    assert_unharmed(&service, daemon, before);
}

/// How a client ends its connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// It says that it sends nothing more, and still reads.
    Half,
    /// It closes the connection.
    Close,
    /// It resets the connection.
    Reset,
}

#[test]
fn connections_that_end_anywhere_send_no_unfinished_request_and_leave_nothing_behind() {
    let (service, daemon) = service_and_daemon();
    let before = held(&daemon);
    let whole = "POST /GetSamplingRules HTTP/1.1|Host: x|Content-Length: 8||{\"a\": 1}";
    let chunked =
        "POST /GetSamplingRules HTTP/1.1|Host: x|Transfer-Encoding: chunked||8|{\"a\": 1}|0||";
    let mut finished_count = 0;
    for text in [whole, chunked] {
        let bytes = bytes_of(text);
        let places = (0..=bytes.len()).step_by(7).chain([bytes.len() - 1, bytes.len()]);
        for place in places {
            for end in [End::Half, End::Close, End::Reset] {
                let mut stream = TcpStream::connect(daemon.tcp).unwrap();
                stream.write_all(&bytes[..place]).unwrap();
                if end == End::Reset {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                finished_count += usize::from(place == bytes.len());
                if end == End::Half {
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer);
                    let told = statuses(&answer);
                    let expected: &[u16] = if place == bytes.len() { &[202] } else { &[400] };
                    assert!(
                        told.is_empty() && place < bytes.len() || told == expected,
                        "{told:?} {place} {text}"
                    );
                }
            }
        }
    }
    let made = calls_after(&service, 1);
    assert!(made.len() <= finished_count, "{made:?}");
    assert!(made.iter().all(|call| call == "POST /GetSamplingRules {\"a\": 1}"), "{made:?}");
    assert_unharmed(&service, daemon, before);
}

impl Request {
    /// Returns the values of all headers with this name.
    fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}
