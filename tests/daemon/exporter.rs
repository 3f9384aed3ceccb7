//! An exporter of OpenTelemetry's spans over HTTP, and an endpoint for what the daemon sends.

use super::answers::CallAnswer;
use super::client::{Answer, Client, calls};
use super::endpoint::Endpoint;
use super::process::Daemon;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use xrayd_otlp::message::Span;
use xrayd_otlp::{Encoding, Request, Source, coding, datagram};

/// Both ports, on free ports of the system.
pub const PORTS: &str = "Otlp: {HttpAddress: \"127.0.0.1:0\", GrpcAddress: \"127.0.0.1:0\"}\n\
    Socket: {UDPAddress: \"127.0.0.1:0\", TCPAddress: \"127.0.0.1:0\"}\n";

/// The method and the path of a request for export.
pub const EXPORT: &str = "POST /v1/traces";
/// The header line of a request in protobuf.
pub const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

/// Returns the address of the port for `protocol`.
pub fn port(daemon: &Daemon, protocol: &str) -> SocketAddr {
    let text = format!("spans are taken over {protocol} at ");
    let line = daemon.wait_for_line(&text);
    line.split(&text).nth(1).unwrap().trim().parse().unwrap()
}

/// Returns the body of a request with one span that has this name.
pub fn spans(name: &str) -> Vec<u8> {
    spans_of(&[name])
}

/// Returns the body of a request with a span for each of these names.
pub fn spans_of(names: &[&str]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ns = u64::try_from(now.as_nanos()).unwrap();
    let spans = names.iter().map(|&name| Span {
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        name: name.to_owned(),
        start_time_unix_nano: now_ns,
        end_time_unix_nano: now_ns,
        ..Span::default()
    });
    let document = datagram::document(&Source::default(), spans.collect());
    datagram::decode(datagram::form(&document).unwrap().1).unwrap()
}

/// An endpoint that accepts spans.
pub fn endpoint() -> Endpoint {
    let endpoint = Endpoint::start();
    answer_spans(&endpoint, 200);
    endpoint
}

/// Lets an endpoint answer all requests with spans with this status.
pub fn answer_spans(endpoint: &Endpoint, status: u16) {
    let headers = vec![("content-type", "application/x-protobuf")];
    let answer = CallAnswer { status, headers, body: Vec::new() };
    endpoint.change(|rules| rules.call_answer = answer);
}

/// Returns the names of the spans that have arrived at an endpoint, sorted.
pub fn arrived(endpoint: &Endpoint) -> Vec<String> {
    let mut names = Vec::new();
    for call in calls(endpoint) {
        assert_eq!(call.target, "/v1/traces");
        let coding = call.headers.get("content-encoding").map(|value| value.as_bytes());
        let mut buffer = Vec::new();
        let body = coding::decode(coding, &call.body, 5 << 20, &mut buffer).unwrap();
        let request = Request::parse(Encoding::Protobuf, body).unwrap();
        request.spans(|received| names.push(received.unwrap().span.name));
    }
    names.sort();
    names
}

/// Sends a request over a new connection.
pub fn export(address: SocketAddr, body: &[u8]) -> Answer {
    Client::connect(address).call(EXPORT, PROTOBUF, body)
}
