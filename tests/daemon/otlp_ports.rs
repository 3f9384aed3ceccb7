//! The ports for OpenTelemetry's spans: their start and end, and clients that are hostile, while
//! segments arrive over UDP.

use super::answers::gzip;
use super::client::{Client, request, start};
use super::exporter::{
    EXPORT, PORTS, PROTOBUF, answer_spans, arrived, endpoint, export, port, spans,
};
use super::process::{HEADER, PATIENCE, config_file, run_to_end};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The beginning of a connection over HTTP/2, with the empty frame of settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn a_port_that_another_program_has_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for key in ["HttpAddress", "GrpcAddress"] {
        let keys = format!("Otlp: {{{key}: \"{address}\"}}\nRegion: eu-west-1");
        let config = config_file(folder.path(), &keys);
        let (code, log) = run_to_end(&["-c", &config, "-b", "127.0.0.1:0", "-t", "127.0.0.1:0"]);
        assert_eq!(code, Some(1), "{log}");
        let text = format!("TCP {address} for OpenTelemetry's spans (Otlp.{key}) cannot be opened");
        assert!(log.contains(&text), "{log}");
    }
    let config = config_file(folder.path(), "Otlp: {HttpAddress: \"4318\"}");
    let (code, log) = run_to_end(&["-c", &config]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("Otlp.HttpAddress") && log.contains("is not HOST:PORT"), "{log}");
}

#[test]
fn a_request_that_is_being_read_at_the_end_is_answered_and_its_spans_are_sent() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, &format!("{PORTS}ShutdownSeconds: 120"));
    let http = port(&daemon, "HTTP");
    assert_eq!(export(http, &spans("first")).status, 200);
    let body = spans("last");
    let bytes = request(EXPORT, PROTOBUF, &body);
    let (begin, end) = bytes.split_at(bytes.len() - 5);
    let mut client = Client::connect(http);
    client.write(begin);
    // The port has begun to read the request before it closes: a newer connection is answered.
    assert_eq!(export(http, &spans("second")).status, 200);
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_until("the port is closed", || TcpStream::connect(http).is_err());
    client.write(end);
    let answer = client.answer();
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{text}");
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert_eq!(arrived(&endpoint), ["first", "last", "second"], "{log}");
    assert!(log.contains("Account of spans: received=3 replayed=0 sent=3 "), "{log}");
}

#[test]
fn without_memory_exporters_may_try_again_and_every_accepted_span_is_sent_later() {
    let endpoint = endpoint();
    answer_spans(&endpoint, 503);
    let daemon = start(&endpoint, &format!("{PORTS}TotalBufferSizeMB: 6"));
    let http = port(&daemon, "HTTP");
    let mut accepted = BTreeSet::new();
    let mut export_next = |index: usize| {
        let name = format!("{index:05}{}", "n".repeat(100_000));
        let answer = export(http, &spans(&name));
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        if answer.status == 200 {
            accepted.insert(name);
        }
        answer
    };
    let refused = (0..1_000).map(&mut export_next).find(|answer| answer.status == 503).unwrap();
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    daemon.wait_for_line("The memory for spans is full (half of -m)");
    answer_spans(&endpoint, 200);
    let mut indices = 1_000..;
    daemon.wait_until("there is room again", || export_next(indices.next().unwrap()).status == 200);
    let count = accepted.len() as u64;
    assert!(count > 5, "{count}");
    daemon.wait_for_metric("xray_otlp_spans_sent_total{signal=\"spans\"}", count);
    assert_eq!(arrived(&endpoint).into_iter().collect::<BTreeSet<_>>(), accepted);
    let full = "xray_otlp_port_requests_total{signal=\"spans\",outcome=\"full\"}";
    assert!(daemon.metric(full) > 0);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = format!("Account of spans: received={count} replayed=0 sent={count} ");
    assert!(log.contains(&account), "{log}");
}

/// Sends bytes, ends the client's side, and reads until the daemon closes the connection. The
/// daemon may close it before.
fn send_all(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn hostile_clients_of_both_ports_delay_no_segment_and_no_span() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, &format!("{PORTS}TotalBufferSizeMB: 24"));
    let (http, grpc) = (port(&daemon, "HTTP"), port(&daemon, "gRPC"));
    // Clients that begin something and hang: more than the ports have connections.
    let mut hanging = Vec::new();
    for index in 0..150 {
        let address = [http, grpc][index % 2];
        let begin: &[u8] = match index % 3 {
            0 => b"",
            1 => b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Le",
            _ => PREFACE,
        };
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(begin);
        hanging.push(stream);
    }
    let resets: Vec<u8> = (0..5_000)
        .flat_map(|index| {
            let stream = 2 * index + 1;
            // Method POST, scheme http and path /, then a reset.
            [frame(1, 4, stream, &[0x83, 0x86, 0x84]), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let headers_without_end: Vec<u8> = std::iter::once(frame(1, 0, 1, &[0x83, 0x86, 0x84]))
        .chain((0..1_000).map(|_| frame(9, 0, 1, &[b'x'; 1_000])))
        .flatten()
        .collect();
    let pings: Vec<u8> = (0..10_000).flat_map(|_| frame(6, 0, 0, &[7; 8])).collect();
    let settings: Vec<u8> = (0..10_000).flat_map(|_| frame(4, 0, 0, &[])).collect();
    let floods = [resets, headers_without_end, pings, settings, vec![b'x'; 100_000]];
    let bomb = gzip(&vec![0; 16 << 20]);
    let segment = |index: usize| format!("{HEADER}{{\"id\":\"{index:016x}\"}}");
    let mut segment_count = 0;
    for flood in &floods {
        send_all(grpc, &[PREFACE, flood].concat());
        send_all(http, flood);
        let coded = format!("{PROTOBUF}Content-Encoding: gzip\r\n");
        assert_eq!(Client::connect(http).call(EXPORT, &coded, &bomb).status, 413);
        daemon.send((segment_count..segment_count + 20).map(segment));
        segment_count += 20;
        daemon.wait_for_arrivals(&endpoint, segment_count);
        assert_eq!(export(http, &spans("good")).status, 200);
    }
    daemon.wait_until("the spans have arrived", || arrived(&endpoint).len() == floods.len());
    let closed = |protocol: &str| {
        let reason = "reason=\"count\"";
        let name = "xray_otlp_port_connections_closed_total";
        let labels = format!("{{signal=\"spans\",protocol=\"{protocol}\",{reason}}}");
        daemon.metric(&format!("{name}{labels}"))
    };
    assert!(closed("http") + closed("grpc") > 0);
    drop(hanging);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
