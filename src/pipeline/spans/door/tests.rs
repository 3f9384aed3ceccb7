//! Tests of both ports over real connections, with the reading end of the queue behind them.

use super::*;
use crate::base::grpc_server;
use crate::base::http_server::{self, Port};
use crate::base::memory::{CHUNK_BYTES, ChunkPool};
use crate::pipeline::spans::{SpanQueue, SpanRequest};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use xrayd_otlp::grpc::{EXPORT_PATH, frame};
use xrayd_otlp::message::Span;
use xrayd_otlp::{Source, datagram};

struct Ports {
    http: SocketAddr,
    grpc: SocketAddr,
    queue: SpanQueue,
    account: Arc<Account>,
    door: Arc<Door>,
}

/// Starts both ports with the limits of `megabytes` for spans, and `chunk_count` chunks.
async fn start(megabytes: u64, chunk_count: usize) -> Ports {
    let limits =
        DoorLimits::within(megabytes << 20, 1_024, super::Ports { http: true, grpc: true });
    let account = Arc::<Account>::default();
    let pool = ChunkPool::new(chunk_count, 0);
    let (writer, queue) = SpanQueue::new(pool, Arc::clone(&account));
    let door = Door::new(writer, Arc::clone(&account), &limits);
    let port = |name, counts| Port { name, share: "a part", counts: Arc::clone(counts) };
    let handler = HttpDoor::new(Arc::clone(&door), limits.http);
    let http_port = port("OTLP/HTTP port", &account.otlp.http);
    let http = http_server::Server::new(handler, limits.http, http_port);
    let (grpc, bytes_max) = (GrpcDoor::new(Arc::clone(&door)), limits.message_bytes_max);
    let grpc_port = port("OTLP/gRPC port", &account.otlp.grpc);
    let grpc = grpc_server::Server::new(grpc, limits.grpc, bytes_max, grpc_port);
    let listeners = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
    let [http_listener, grpc_listener] = listeners;
    let (http_listener, grpc_listener) =
        (http_listener.await.unwrap(), grpc_listener.await.unwrap());
    let addresses = [&http_listener, &grpc_listener].map(|listener| listener.local_addr().unwrap());
    tokio::spawn(http.serve(Arc::new(http_listener)));
    tokio::spawn(grpc.serve(Arc::new(grpc_listener)));
    Ports { http: addresses[0], grpc: addresses[1], queue, account, door }
}

impl Ports {
    fn exports(&self, export: Export) -> u64 {
        self.account.otlp.exports(export).get()
    }

    fn take(&mut self) -> Option<SpanRequest> {
        self.queue.take()
    }
}

/// Returns the body of a request with a span that has just ended and has a name of this length.
fn spans(name_bytes: usize) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ns = u64::try_from(now.as_nanos()).unwrap();
    of_span(Span {
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        name: "n".repeat(name_bytes),
        start_time_unix_nano: now_ns,
        end_time_unix_nano: now_ns,
        ..Span::default()
    })
}

fn of_span(span: Span) -> Vec<u8> {
    let document = datagram::document(&Source::default(), vec![span]);
    datagram::decode(datagram::form(&document).unwrap().1).unwrap()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request over HTTP, with these lines of the header, and returns the answer.
async fn post(address: SocketAddr, target: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = match headers.contains("Transfer-Encoding") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!(
        "{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}{length}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: answer[end + 4..].to_vec() }
}

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn each_form_of_a_body_over_http_is_in_the_queue_with_its_own_bytes() {
    let mut ports = start(64, 1_024).await;
    let body = spans(200);
    let (half, rest) = body.split_at(body.len() / 2);
    let chunked = [
        format!("{:x}\r\n", half.len()).as_bytes(),
        half,
        format!("\r\n{:x}\r\n", rest.len()).as_bytes(),
        rest,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for (coding, sent) in [
        ("", body.clone()),
        ("Content-Encoding: identity\r\n", body.clone()),
        ("Content-Encoding: gzip\r\n", gzip(&body)),
        ("Content-Encoding: deflate\r\n", deflate(&body)),
        ("Transfer-Encoding: chunked\r\n", chunked),
    ] {
        for path in ["/v1/traces", "/v1/traces/"] {
            let target = format!("POST {path}");
            let headers = format!("{PROTOBUF}{coding}");
            let answer = post(ports.http, &target, &headers, &sent).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]), "{coding}");
            assert_eq!(answer.header("content-type"), "application/x-protobuf");
            let request = ports.take().expect(coding);
            assert_eq!(request.body.concat(), body, "{coding}");
            assert_eq!(request.encoding, Encoding::Protobuf);
        }
    }
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"startTimeUnixNano":"{now}"}}]}}]}}]}}"#
    );
    let answer = post(ports.http, "POST /v1/traces", JSON, json.as_bytes()).await;
    assert_eq!((answer.status, &*answer.text()), (200, "{}"));
    assert_eq!(answer.header("content-type"), "application/json");
    let request = ports.take().unwrap();
    assert_eq!((request.encoding, request.body.concat()), (Encoding::Json, json.into_bytes()));
    assert_eq!((ports.exports(Export::Accepted), ports.account.received.get()), (11, 11));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_over_http_in_the_form_of_the_request() {
    let mut ports = start(64, 1_024).await;
    for content_type in [PROTOBUF, JSON] {
        let form = content_type.trim().split_once(": ").unwrap().1;
        let large = vec![0; (5 << 20) + 1];
        let answer = post(ports.http, "POST /v1/traces", content_type, &large).await;
        assert_eq!((answer.status, answer.header("content-type")), (413, form));
        assert!(answer.text().contains("larger than 5 MB"), "{}", answer.text());
        let headers = format!("{content_type}Transfer-Encoding: chunked\r\n");
        let answer = post(ports.http, "POST /v1/traces", &headers, b"no chunk\r\n").await;
        assert_eq!((answer.status, answer.header("content-type")), (400, form));
        assert!(answer.text().contains("body is incomplete"), "{}", answer.text());
    }
    assert!(ports.take().is_none());
}

#[tokio::test]
async fn what_is_no_request_for_export_is_refused_over_http_with_a_reason() {
    let mut ports = start(64, 1_024).await;
    let good = spans(10);
    let varint = [&[0x0a][..], &[0xff; 10], &[1]].concat();
    let bomb = gzip(&vec![0; 6 << 20]);
    let types = [PROTOBUF, JSON];
    for content_type in types {
        let expected = content_type.trim().split_once(": ").unwrap().1;
        let coded = |coding: &str| format!("{content_type}Content-Encoding: {coding}\r\n");
        for (what, headers, body, status, why) in [
            ("text", content_type.to_owned(), &b"<html>"[..], 400, "the body is not the"),
            (
                "a length beyond the end",
                content_type.to_owned(),
                b"\x0a\xff\xff\xff\xff\x07",
                400,
                "",
            ),
            ("a varint of 11 bytes", content_type.to_owned(), &varint, 400, "the body is not the"),
            ("no gzip", coded("gzip"), &good, 400, "the body is not gzip, or is cut off"),
            ("a bomb", coded("gzip"), &bomb, 413, "more than 5242880 bytes"),
            ("zstd", coded("zstd"), &good, 415, "gzip, deflate and identity are"),
            (
                "two codings",
                coded("gzip") + "Content-Encoding: gzip\r\n",
                &good,
                415,
                "not supported",
            ),
            ("a web page", format!("{content_type}Origin: null\r\n"), &good, 403, "(Origin)"),
            (
                "another site",
                format!("{content_type}Sec-Fetch-Site: cross-site\r\n"),
                &good,
                403,
                "(Sec-",
            ),
        ] {
            let answer = post(ports.http, "POST /v1/traces", &headers, body).await;
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
            assert_eq!(answer.header("content-type"), expected, "{what}");
            assert!(answer.text().contains(why), "{what}: {}", answer.text());
            assert_eq!(answer.header("retry-after"), "", "{what}");
        }
    }
    for (target, headers, status, header) in [
        ("POST /v1/traces", "Content-Type: text/plain\r\n", 415, ("", "")),
        ("POST /v1/traces", "", 415, ("", "")),
        ("GET /v1/traces", PROTOBUF, 405, ("allow", "POST")),
        ("OPTIONS /v1/traces", "", 405, ("allow", "POST")),
        ("POST /v1/metrics", PROTOBUF, 404, ("", "")),
        ("POST /v1/logs/", JSON, 404, ("", "")),
        ("POST /v1development/profiles", PROTOBUF, 404, ("", "")),
        ("POST /v1/tracesx", PROTOBUF, 404, ("", "")),
        ("GET /health", "", 404, ("", "")),
    ] {
        let answer = post(ports.http, target, headers, &good).await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.header(header.0), header.1, "{target}");
    }
    let metrics = post(ports.http, "POST /v1/metrics", JSON, b"{}").await.text();
    assert!(metrics.contains("OTEL_METRICS_EXPORTER=none"), "{metrics}");
    assert_eq!(ports.exports(Export::OtherSignal), 3);
    assert_eq!(ports.account.received.get(), 0);
    assert!(ports.take().is_none());
    // After all this the port works.
    assert_eq!(post(ports.http, "POST /v1/traces", PROTOBUF, &good).await.status, 200);
}

#[tokio::test]
async fn refused_spans_are_a_partial_success_and_if_all_are_refused_an_error() {
    let mut ports = start(64, 1_024).await;
    ports.account.clock.confirm_date(std::time::SystemTime::now());
    let (good, old) = (spans(10), of_span(Span { start_time_unix_nano: 7, ..Span::default() }));
    let answer = post(ports.http, "POST /v1/traces", PROTOBUF, &[&good[..], &old].concat()).await;
    assert_eq!(answer.status, 200);
    // Field 1 is the message, its field 1 the number of spans that were refused.
    assert!(answer.body.starts_with(b"\x0a") && answer.body[2..].starts_with(b"\x08\x01\x12"));
    assert!(answer.text().contains("a span was refused: it started more than 14 days ago"));
    assert_eq!(ports.take().unwrap().body.concat(), good);
    let answer = post(ports.http, "POST /v1/traces", PROTOBUF, &old).await;
    assert_eq!(answer.status, 400);
    let counts = [Export::Accepted, Export::Partial, Export::Refused].map(|it| ports.exports(it));
    assert_eq!(counts, [0, 1, 1]);
    assert_eq!(ports.account.otlp.refused_spans(SpanRefusal::Old).get(), 2);
}

#[tokio::test]
async fn without_memory_a_client_may_try_again_and_later_it_succeeds() {
    let mut ports = start(64, 4).await;
    let body = spans(3 * CHUNK_BYTES);
    assert_eq!(post(ports.http, "POST /v1/traces", PROTOBUF, &body).await.status, 200);
    for (headers, has) in [(PROTOBUF, "google.rpc.RetryInfo"), (JSON, "\"retryDelay\":\"1s\"")] {
        let answer = post(ports.http, "POST /v1/traces", headers, &body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert!(answer.text().contains(has), "{}", answer.text());
    }
    let call = call(ports.grpc, EXPORT_PATH, &[], frame(&body).to_vec()).await;
    assert_eq!(call.status, "8");
    // The length of the details is that of a status with a RetryInfo.
    assert!(call.details.len() > 60, "{}", call.details);
    assert_eq!((ports.exports(Export::Full), ports.account.received.get()), (3, 1));
    ports.take().unwrap();
    assert_eq!(post(ports.http, "POST /v1/traces", PROTOBUF, &body).await.status, 200);
    ports.door.close();
    let answer = post(ports.http, "POST /v1/traces", PROTOBUF, &spans(1)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

struct Call {
    http_status: u16,
    status: String,
    message: String,
    details: String,
    body: Vec<u8>,
}

/// Makes a call of gRPC, with these headers.
async fn call(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Call {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = ::http::Request::post(format!("http://{address}{path}"));
    request = request.header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    let text = |name: &str| {
        trailers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default().to_owned()
    };
    Call {
        http_status: head.status.as_u16(),
        status: text("grpc-status"),
        message: text("grpc-message"),
        details: text("grpc-status-details-bin"),
        body: body.to_bytes().to_vec(),
    }
}

#[tokio::test]
async fn calls_over_grpc_are_taken_or_refused_like_requests_over_http() {
    let mut ports = start(128, 1_024).await;
    ports.account.clock.confirm_date(std::time::SystemTime::now());
    let body = spans(200);
    let gzipped = |body: &[u8]| {
        let mut frame = frame(&gzip(body)).to_vec();
        frame[0] = 1;
        frame
    };
    for (headers, sent) in [
        (&[][..], frame(&body).to_vec()),
        (&[("grpc-encoding", "gzip")], frame(&body).to_vec()),
        (&[("grpc-encoding", "gzip")], gzipped(&body)),
    ] {
        let call = call(ports.grpc, EXPORT_PATH, headers, sent).await;
        assert_eq!((call.http_status, &*call.status, &call.body[..]), (200, "0", &[0; 5][..]));
        assert_eq!(ports.take().unwrap().body.concat(), body);
    }
    let old = of_span(Span { start_time_unix_nano: 7, ..Span::default() });
    let partial = frame(&[&body[..], &old].concat()).to_vec();
    let answer = call(ports.grpc, EXPORT_PATH, &[], partial).await;
    assert_eq!((&*answer.status, &answer.body[7..9]), ("0", &b"\x08\x01"[..]));
    assert_eq!(ports.take().unwrap().body.concat(), body);
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    let logs = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let gzip_header = [("grpc-encoding", "gzip")];
    let zstd = [("grpc-encoding", "zstd")];
    let good = frame(&body).to_vec();
    for (path, headers, body, status, why) in [
        (EXPORT_PATH, &[][..], frame(&old).to_vec(), "3", "14 days"),
        (EXPORT_PATH, &[], frame(b"<html>").to_vec(), "3", "the body is not the protobuf"),
        (EXPORT_PATH, &[], body.clone(), "3", "not one frame"),
        (EXPORT_PATH, &gzip_header, gzipped(&vec![0; 5 << 20]), "8", "more than 4194304 bytes"),
        (EXPORT_PATH, &[], frame(&vec![0; (4 << 20) + 1]).to_vec(), "8", "is larger than"),
        (EXPORT_PATH, &zstd, gzipped(&body), "12", "gzip, deflate and identity are"),
        (EXPORT_PATH, &[("origin", "null")], good.clone(), "7", "web pages"),
        (metrics, &[], good.clone(), "12", "OTEL_METRICS_EXPORTER=none"),
        (logs, &[], good.clone(), "12", "OTEL_LOGS_EXPORTER=none"),
        ("/grpc.health.v1.Health/Check", &[], good.clone(), "12", "traces only"),
    ] {
        let call = call(ports.grpc, path, headers, body).await;
        assert_eq!(call.status, status, "{why}: {}", call.message);
        assert!(call.message.contains(why), "{why}: {}", call.message);
        assert_eq!(call.details, "", "{why}");
    }
    assert_eq!((ports.exports(Export::OtherSignal), ports.account.received.get()), (2, 4));
    assert!(ports.take().is_none());
}

#[tokio::test]
async fn the_buffer_for_inflated_requests_does_not_stay_large() {
    let ports = start(128, 1_024).await;
    let body = spans(100_000);
    let large = body.repeat(40);
    let headers = format!("{PROTOBUF}Content-Encoding: gzip\r\n");
    assert_eq!(post(ports.http, "POST /v1/traces", &headers, &gzip(&large)).await.status, 200);
    assert!(ports.door.buffer.lock().unwrap().capacity() <= KEPT_BYTES);
}
