//! Tests the load for spans: with the kit's endpoint and floor, with servers that refuse, and with
//! the real daemon.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xrayd_otlp::{Encoding, answer};
use xrayd_perf::endpoint::{Endpoint, Faults, Options as EndpointOptions};
use xrayd_perf::spans::SPAN_COUNT;
use xrayd_perf::spans::sender::{self, Options, Protocol, Report};

const KIT: &str = env!("CARGO_BIN_EXE_xrayd-perf");
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends this many batches at once and returns the report.
fn send(target: SocketAddr, protocol: Protocol, is_gzip: bool, batch_count_max: u64) -> Report {
    send_from(0, target, protocol, is_gzip, batch_count_max)
}

/// Sends this many batches at once, with numbers from `first_batch` on.
fn send_from(
    first_batch: u64,
    target: SocketAddr,
    protocol: Protocol,
    is_gzip: bool,
    batch_count_max: u64,
) -> Report {
    let options = Options {
        target,
        protocol,
        rate: 1e9,
        is_gzip,
        connection_count: 2,
        seed: 1,
        first_batch,
        batch_count_max,
    };
    sender::start(options).unwrap().wait().unwrap()
}

/// The number of spans of this many batches.
fn spans(batch_count: u64) -> u64 {
    batch_count * SPAN_COUNT as u64
}

/// Waits until this many spans are delivered, each of them once.
fn wait_for_spans(endpoint: &Endpoint, count: u64) {
    let start = Instant::now();
    while endpoint.counts().delivered_count < count {
        assert!(start.elapsed() < PATIENCE, "{:?}", endpoint.counts());
        std::thread::sleep(Duration::from_millis(5));
    }
    let counts = endpoint.counts();
    assert_eq!((counts.delivered_count, counts.duplicate_count), (count, 0));
    assert_eq!((counts.foreign_count, counts.unreadable_count), (0, 0));
}

/// A process that is killed when this value is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_endpoint_counts_each_span_of_a_request_and_what_it_cannot_read() {
    let endpoint =
        Endpoint::start(EndpointOptions { tls: None, ..EndpointOptions::default() }).unwrap();
    for (is_gzip, bytes) in [(false, 150..2_000), (true, 20..150)] {
        endpoint.reset(Faults::default());
        let report = send(endpoint.address, Protocol::Http, is_gzip, 3);
        assert_eq!((report.offered_count, report.accepted_count), (spans(3), spans(3)));
        assert!(bytes.contains(&(report.body_bytes / spans(3))), "{report:?}");
        wait_for_spans(&endpoint, spans(3));
        assert_eq!(endpoint.counts().body_bytes, report.body_bytes);
    }
    let status = |headers: &str, body: &str| {
        let mut stream = TcpStream::connect(endpoint.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
             content-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    };
    const BAD: &str = "HTTP/1.1 400 Bad Request";
    let protobuf = "content-type: application/x-protobuf\r\n";
    assert_eq!(status(protobuf, "\n\u{5}"), BAD);
    assert_eq!(status(&format!("{protobuf}content-encoding: gzip\r\n"), "no gzip"), BAD);
    assert_eq!(status(&format!("{protobuf}content-encoding: br\r\n"), ""), BAD);
    assert_eq!(status("content-type: application/json\r\n", "{}"), BAD);
    assert_eq!(status(protobuf, ""), "HTTP/1.1 200 OK");
    assert_eq!(endpoint.counts().unreadable_count, 4);
}

#[test]
fn a_sender_counts_what_an_http_server_refuses_and_rejects() {
    let faults = |throttled_share, failed_share| Faults {
        throttled_share,
        failed_share,
        ..Faults::default()
    };
    for faults in [faults(1.0, 0.0), faults(0.0, 1.0)] {
        let options = EndpointOptions { tls: None, faults, ..EndpointOptions::default() };
        let endpoint = Endpoint::start(options).unwrap();
        let report = send(endpoint.address, Protocol::Http, false, 2);
        assert_eq!((report.accepted_count, report.refused_count), (0, spans(2)), "{report:?}");
        assert!(report.first_trouble.is_some());
        assert_eq!(endpoint.counts().delivered_count, 0);
    }
    // A server that rejects five spans of each request, and closes each connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || reject_five(stream.unwrap()));
        }
    });
    let report = send(address, Protocol::Http, true, 3);
    assert_eq!((report.accepted_count, report.rejected_count), (spans(3) - 15, 15), "{report:?}");
    assert_eq!(report.first_trouble.as_deref(), Some("too old"));
}

/// Reads a request and answers it with a partial success.
fn reject_five(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let body = answer::accepted(Encoding::Protobuf, 5, "too old");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

#[test]
fn a_sender_counts_what_a_grpc_server_refuses() {
    for (status, refused_count) in [("8", spans(2)), ("14", spans(2)), ("3", 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || super::runtime().block_on(refuse(listener, status)));
        let report = send(address, Protocol::Grpc, false, 2);
        assert_eq!((report.accepted_count, report.refused_count), (0, refused_count), "{report:?}");
        assert_eq!(report.failed_count, spans(2) - refused_count);
        assert!(report.first_trouble.unwrap().contains("full"));
    }
}

/// Answers each call with this status of gRPC.
async fn refuse(listener: TcpListener, status: &'static str) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            let answer = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", status)
                .header("grpc-message", "full");
            Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

/// Waits until a server listens on an address.
fn wait_for_server(address: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < PATIENCE, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_floor_passes_all_spans_on() {
    floor_passes_all_spans_on(&["--spans"]);
}

#[test]
fn the_floor_passes_all_spans_on_with_compression() {
    floor_passes_all_spans_on(&["--spans", "--gzip"]);
}

fn floor_passes_all_spans_on(flags: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    let endpoint = Endpoint::start(EndpointOptions::default()).unwrap();
    fs::write(&authority, endpoint.authority.as_deref().unwrap()).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(KIT);
    command.arg("floor").args(flags).arg("--authority").arg(&authority);
    command.args(["--listen", &listen.to_string()]);
    command.args(["--endpoint", &endpoint.address.to_string()]);
    let _floor = Process(command.spawn().unwrap());
    wait_for_server(listen);
    // More than fit into one request to the endpoint.
    for (first_batch, is_gzip) in [(0, false), (20, true)] {
        let report = send_from(first_batch, listen, Protocol::Http, is_gzip, 20);
        assert_eq!(report.accepted_count, spans(20), "{report:?}");
    }
    wait_for_spans(&endpoint, spans(40));
    assert!((2..40).contains(&endpoint.counts().request_count), "{:?}", endpoint.counts());
}

/// Returns the daemon of this build.
pub fn daemon() -> PathBuf {
    let program = Path::new(KIT).with_file_name("xray");
    assert!(program.exists(), "build the daemon first: cargo test -p xrayd --test tidy --no-run");
    program
}

/// A running daemon.
struct Daemon {
    process: Process,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Daemon {
    /// Starts the daemon of this build with ports for spans.
    fn start(endpoint: &Endpoint, folder: &Path, compression: &str) -> Self {
        let program = Path::new(KIT).with_file_name("xray");
        assert!(
            program.exists(),
            "build the daemon first: cargo test -p xrayd --test tidy --no-run"
        );
        let (authority, config) = (folder.join("authority.pem"), folder.join("cfg.yaml"));
        fs::write(&authority, endpoint.authority.as_deref().unwrap()).unwrap();
        let text = format!(
            "Version: 2\nEndpoint: \"{}\"\nSocket:\n  UDPAddress: 127.0.0.1:0\n  \
             TCPAddress: 127.0.0.1:0\nOtlp:\n  HttpAddress: 127.0.0.1:0\n  \
             GrpcAddress: 127.0.0.1:0\n  Compression: {compression}\n",
            endpoint.url()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(daemon());
        command.args(["-n", "us-east-1", "-c"]).arg(&config).current_dir(folder);
        command.env_clear().envs([
            ("HOME", "/nonexistent"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_CA_BUNDLE", authority.to_str().unwrap()),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Process(child);
        let mut listening = |protocol: &str| {
            let text = format!("spans are taken over {protocol} at ");
            let line = lines.find_map(|line| Some(line.ok()?.split_once(&text)?.1.to_owned()));
            line.expect("the daemon logs its ports").parse().unwrap()
        };
        let (http, grpc) = (listening("HTTP"), listening("gRPC"));
        Self { process, lines, http, grpc }
    }

    /// Stops the daemon and returns its account of spans.
    fn stop(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let text = "Account of spans: ";
        let account =
            self.lines.find_map(|line| Some(line.ok()?.split_once(text)?.1.to_owned())).unwrap();
        // The pipe stays open until the end of the daemon, so that it can log all lines.
        self.lines.by_ref().for_each(drop);
        assert!(self.process.0.wait().unwrap().success());
        account
    }
}

#[test]
fn the_daemon_delivers_all_spans_that_it_has_accepted() {
    daemon_delivers_all("none");
}

#[test]
fn the_daemon_delivers_all_spans_that_it_has_accepted_with_compression() {
    daemon_delivers_all("gzip");
}

fn daemon_delivers_all(compression: &str) {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(EndpointOptions::default()).unwrap();
    let daemon = Daemon::start(&endpoint, folder.path(), compression);
    for (first_batch, target, protocol, is_gzip) in [
        (0, daemon.http, Protocol::Http, false),
        (3, daemon.http, Protocol::Http, true),
        (6, daemon.grpc, Protocol::Grpc, false),
        (9, daemon.grpc, Protocol::Grpc, true),
    ] {
        let report = send_from(first_batch, target, protocol, is_gzip, 3);
        assert_eq!(report.accepted_count, spans(3), "{report:?}");
    }
    wait_for_spans(&endpoint, spans(12));
    let account = daemon.stop();
    let expected = format!("received={0} replayed=0 sent={0} ", spans(12));
    assert!(account.starts_with(&expected), "{account}");
}
