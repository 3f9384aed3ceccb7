//! Tests the kit with itself: a socket receives the documents that the sender sends, and the
//! endpoint counts the documents that a client uploads.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod compare;
mod confine;
mod spans;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use xrayd_perf::clock;
use xrayd_perf::document::{HEADER, Mark};
use xrayd_perf::endpoint::{Delays, Endpoint, Faults, Options as EndpointOptions};
use xrayd_perf::sender::{self, Load, Options, Size};

/// Returns a socket whose reads time out after 30 s.
fn receiver() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

fn options(receiver: &UdpSocket, load: Load) -> Options {
    Options {
        target: receiver.local_addr().unwrap(),
        load,
        size: Size::Fixed(400),
        socket_count: 1,
        seed: 1,
        gso: false,
        first_sequence: 0,
        count_max: u64::MAX,
    }
}

/// Receives this many datagrams and returns their documents.
fn receive(receiver: &UdpSocket, count: usize) -> Vec<String> {
    let mut buffer = vec![0; 65_536];
    let mut next = || {
        let length = receiver.recv(&mut buffer).expect("a datagram arrives");
        let document =
            buffer[..length].strip_prefix(HEADER).expect("the datagram has the header line");
        String::from_utf8(document.to_vec()).expect("the document is UTF-8")
    };
    (0..count).map(|_| next()).collect()
}

fn mark(document: &str) -> Mark {
    let start = Mark::find(document.as_bytes()).expect("the document has a mark");
    Mark::read(&document.as_bytes()[start..]).expect("the mark is complete")
}

/// Calls the endpoint. Returns the status line and the body of the answer.
fn call(endpoint: &Endpoint, path: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(endpoint.address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (header, body) = answer.split_once("\r\n\r\n").expect("the answer has a header and a body");
    (header.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn endpoint(faults: Faults) -> Endpoint {
    Endpoint::start(EndpointOptions { tls: None, faults, ..EndpointOptions::default() }).unwrap()
}

fn upload(documents: &[String]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "TraceSegmentDocuments": documents })).unwrap()
}

#[test]
fn every_datagram_has_the_next_number_and_the_time_it_was_sent() {
    for (gso, socket_count) in [(false, 1), (false, 3), (true, 1)] {
        let receiver = receiver();
        let before_ns = clock::now_ns();
        let options =
            Options { gso, socket_count, first_sequence: 7, ..options(&receiver, Load::Once(50)) };
        let report = sender::start(&options).unwrap().wait().unwrap();
        assert_eq!(report.sent_count, 50);
        let documents = receive(&receiver, 50);
        let mut marks: Vec<Mark> = documents.iter().map(|document| mark(document)).collect();
        marks.sort_unstable_by_key(|mark| mark.sequence);
        for (mark, sequence) in marks.iter().zip(7..) {
            assert_eq!(mark.sequence, sequence);
            assert!((before_ns..=clock::now_ns()).contains(&mark.time_ns));
        }
        assert!(documents.iter().all(|document| document.len() == 400));
    }
}

#[test]
fn a_paced_load_is_no_faster_than_asked_for_and_ends_when_it_is_stopped() {
    let receiver = receiver();
    let sender = sender::start(&options(&receiver, Load::Paced { rate: 500.0, burst: 0 })).unwrap();
    receive(&receiver, 50);
    let report = sender.stop().unwrap();
    assert_eq!(report.burst, 1);
    assert!(report.sent_count >= 50);
    assert!(report.sent_count as f64 <= report.seconds * 500.0 + 1.0, "{report:?}");
}

#[test]
fn recorded_documents_arrive_as_json_of_many_sizes() {
    let receiver = receiver();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/segments");
    let load = Load::Paced { rate: 2_000.0, burst: 0 };
    let options =
        Options { size: Size::Mix(folder.into()), count_max: 30, ..options(&receiver, load) };
    let sender = sender::start(&options).unwrap();
    let documents = receive(&receiver, 30);
    assert_eq!(sender.wait().unwrap().sent_count, 30);
    let sizes: std::collections::BTreeSet<usize> = documents.iter().map(String::len).collect();
    assert!(sizes.len() > 5, "{sizes:?}");
    // On a busy machine the test may read late, so all documents must fit into the smallest queue.
    assert!(documents.iter().map(String::len).sum::<usize>() < 60_000);
    for (document, sequence) in documents.iter().zip(0..) {
        assert_eq!(mark(document).sequence, sequence);
        let parsed: serde_json::Value =
            serde_json::from_str(document).expect("the document is JSON");
        assert_eq!(parsed["id"], format!("{sequence:016x}"));
    }
}

#[test]
fn the_endpoint_counts_each_document_once_and_how_late_it_was() {
    let receiver = receiver();
    sender::start(&options(&receiver, Load::Once(50))).unwrap().wait().unwrap();
    let documents = receive(&receiver, 50);
    let endpoint = endpoint(Faults::default());
    let (status, body) = call(&endpoint, "/TraceSegments", &upload(&documents[..30]));
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, r#"{"UnprocessedTraceSegments":[]}"#);
    call(&endpoint, "/TraceSegments", &upload(&documents[20..]));
    let counts = endpoint.counts();
    assert_eq!((counts.delivered_count, counts.duplicate_count), (50, 10));
    assert_eq!(counts.request_count, 2);
    let latencies = endpoint.percentiles_us(0, 50, &[0.0, 1.0]);
    assert!(0.0 < latencies[0] && latencies[0] <= latencies[1], "{latencies:?}");
    endpoint.reset(Faults::default());
    assert_eq!(endpoint.counts().delivered_count, 0);
}

#[test]
fn a_request_that_fails_on_purpose_delivers_nothing() {
    let receiver = receiver();
    sender::start(&options(&receiver, Load::Once(5))).unwrap().wait().unwrap();
    let body = upload(&receive(&receiver, 5));
    let endpoint = endpoint(Faults { failed_share: 1.0, ..Faults::default() });
    assert_eq!(call(&endpoint, "/TraceSegments", &body).0, "HTTP/1.1 503 Service Unavailable");
    endpoint.reset(Faults { throttled_share: 1.0, ..Faults::default() });
    assert_eq!(call(&endpoint, "/TraceSegments", &body).0, "HTTP/1.1 429 Too Many Requests");
    let counts = endpoint.counts();
    assert_eq!((counts.delivered_count, counts.throttled_count), (0, 1));
}

#[test]
fn the_other_calls_of_a_daemon_are_answered() {
    let endpoint = endpoint(Faults::default());
    assert_eq!(call(&endpoint, "/TelemetryRecords", b"{}").1, "{}");
    assert_eq!(endpoint.counts().telemetry_count, 1);
    for path in ["/GetSamplingRules", "/SamplingTargets"] {
        let (status, body) = call(&endpoint, path, b"{}");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap().is_object());
    }
    assert_eq!(call(&endpoint, "/elsewhere", b"").0, "HTTP/1.1 404 Not Found");
}

/// Answers that nobody waits for.
fn never() -> Faults {
    Faults { delays: Delays::constant(Duration::from_secs(3_600)), ..Faults::default() }
}

/// Waits until this many calls wait for their answers.
fn wait_for_waiting(endpoint: &Endpoint, count: u64) {
    let start = Instant::now();
    while endpoint.counts().waiting_count != count {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", endpoint.counts());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Opens an HTTP/2 connection without TLS.
async fn connect(endpoint: &Endpoint) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(endpoint.address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Makes this many calls at once on a connection. Returns how many were answered with success.
async fn calls(sender: &SendRequest<Full<Bytes>>, count: usize) -> usize {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        tasks.push(tokio::spawn(async move {
            let request = Request::post("http://x/TraceSegments").body(Full::default()).unwrap();
            sender.ready().await.unwrap();
            sender.send_request(request).await.is_ok_and(|answer| answer.status() == 200)
        }));
    }
    let mut success_count = 0;
    for task in tasks {
        success_count += usize::from(task.await.unwrap());
    }
    success_count
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn calls_wait_beside_each_other_on_streams_and_on_connections() {
    let endpoint = endpoint(never());
    let mut connections = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(endpoint.address).unwrap();
        stream
            .write_all(b"POST /TraceSegments HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
        connections.push(stream);
    }
    wait_for_waiting(&endpoint, 50);
    let runtime = runtime();
    runtime.block_on(async {
        for _ in 0..5 {
            let sender = connect(&endpoint).await;
            tokio::spawn(async move { calls(&sender, 200).await });
        }
        while endpoint.counts().waiting_count < 1_050 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(endpoint.counts().waiting_count_max, 1_050);
    // Broken connections wait for nothing.
    drop((runtime, connections));
    wait_for_waiting(&endpoint, 0);
}

#[test]
fn a_connection_has_no_more_streams_than_the_endpoint_allows() {
    let faults = Faults { delays: Delays::constant(Duration::from_millis(5)), ..Faults::default() };
    let options =
        EndpointOptions { tls: None, faults, stream_count_max: 8, ..EndpointOptions::default() };
    let endpoint = Endpoint::start(options).unwrap();
    runtime().block_on(async {
        let sender = connect(&endpoint).await;
        // The client learns the limit with the first answer.
        assert_eq!(calls(&sender, 1).await, 1);
        assert_eq!(calls(&sender, 40).await, 40);
    });
    assert_eq!(endpoint.counts().waiting_count_max, 8);
}

#[test]
fn a_service_accepts_no_more_documents_than_its_rate() {
    let receiver = receiver();
    sender::start(&options(&receiver, Load::Once(60))).unwrap().wait().unwrap();
    let documents = receive(&receiver, 60);
    // The documents of one second may come at once; more come after half a minute.
    let faults = Faults { documents_per_s: Some(50.0), ..Faults::default() };
    let endpoint = endpoint(faults);
    let status = |documents| call(&endpoint, "/TraceSegments", &upload(documents)).0;
    assert_eq!(status(&documents[..50]), "HTTP/1.1 200 OK");
    assert_eq!(
        status(&[documents.as_slice(), &documents].concat()),
        "HTTP/1.1 429 Too Many Requests"
    );
    assert_eq!(endpoint.counts().delivered_count, 50);
}
