//! OTLP exporters send traces through the signing proxy. Each body in `tests/otlp` was recorded
//! from a real exporter. Its name has the language, the form and the compression of the body.

use super::answers::CallAnswer;
use super::client::{Client, calls, start};
use super::endpoint::Endpoint;
use std::fs;
use std::path::Path;

/// Returns the names and the bodies in `tests/otlp`, in the order of the names.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otlp");
    let mut recorded: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect();
    recorded.sort();
    recorded
}

/// Returns the media type and the encoding of a body with this name.
fn form(name: &str) -> (&'static str, Option<&str>) {
    let media_type =
        if name.contains("-json") { "application/json" } else { "application/x-protobuf" };
    (media_type, ["gzip", "deflate"].into_iter().find(|encoding| name.ends_with(encoding)))
}

#[test]
fn recorded_bodies_of_exporters_arrive_byte_for_byte_with_their_form() {
    let recorded = recorded();
    assert!(recorded.len() >= 9, "{} bodies", recorded.len());
    let endpoint = Endpoint::start();
    // An empty message of protobuf: the service has taken all spans.
    let headers = vec![("content-type", "application/x-protobuf")];
    let taken = CallAnswer { status: 200, headers, body: Vec::new() };
    endpoint.change(|rules| rules.call_answer = taken);
    let daemon = start(&endpoint, "");
    let mut client = Client::connect(daemon.tcp);
    for (name, body) in &recorded {
        let (media_type, encoding) = form(name);
        let encoding = encoding.map(|name| format!("Content-Encoding: {name}\r\n"));
        let headers = format!("Content-Type: {media_type}\r\n{}", encoding.unwrap_or_default());
        let answer = client.call("POST /v1/traces", &headers, body);
        assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]), "{name}");
        assert_eq!(answer.header("content-type"), Some("application/x-protobuf"), "{name}");
    }
    let calls = calls(&endpoint);
    assert_eq!(calls.len(), recorded.len());
    for (call, (name, body)) in calls.iter().zip(&recorded) {
        let header = |name| call.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((&call.target[..], header("content-type")), ("/v1/traces", Some(form(name).0)));
        assert_eq!(header("content-encoding"), form(name).1, "{name}");
        assert!(call.body == *body, "{name} has not arrived unchanged");
    }
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
