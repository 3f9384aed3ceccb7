//! A document that is JSON by the grammar of RFC 8259 is treated as JSON, whatever the size of its
//! numbers and the escape sequences of its strings.
//!
//! Python's json is the second opinion: `tests/python/json_documents.py` makes documents and says
//! what is in them.

use super::answers::Reply;
use super::endpoint::Endpoint;
use super::process::{Daemon, HEADER};
use serde::Deserializer;
use serde::de::{Error, Visitor};
use std::fmt;
use std::path::Path;
use std::process::Command;
use xrayd::pipeline::segment::{Form, Parser, Segment, Span};
use xrayd_sandbox::model::document::Document;

/// The number of documents of one run.
const DOCUMENT_COUNT: usize = 4_000;

/// Metadata with an integer beyond 64 bits, as the SDK for Python writes a UUID that is a number.
const LARGE_INTEGER: &str = r#"{"name":"shop","id":"bf019b00daccd0b4","trace_id":"1-6b0c71a6-03b521eb9a2c342e1df966e6","start_time":1795977638.1,"end_time":1795977638.2,"metadata":{"default":{"order":18446744073709551616}}}"#;

/// An annotation that ends in half an emoji, as JavaScript's `slice()` and `JSON.stringify` leave
/// it.
const HALF_AN_EMOJI: &str = r#"{"name":"shop","id":"e3749ea6d7cb5d05","trace_id":"1-6b0c71a6-89fa14ac8d4c062af603ec08","start_time":1795977638.1,"end_time":1795977638.2,"annotations":{"title":"Order for Ann \ud83d"}}"#;

#[test]
fn a_large_integer_and_half_an_emoji_hide_neither_the_trace_id_nor_the_id() {
    for (document, ids) in [
        (LARGE_INTEGER, ("1-6b0c71a6-03b521eb9a2c342e1df966e6", "bf019b00daccd0b4")),
        (HALF_AN_EMOJI, ("1-6b0c71a6-89fa14ac8d4c062af603ec08", "e3749ea6d7cb5d05")),
    ] {
        // The daemon knows the trace id only if it has found both fields in the document.
        let entries = serde_json::json!([{"Id": ids.1, "ErrorCode": "InvalidSegment"}]);
        let answer = serde_json::json!({"UnprocessedTraceSegments": entries}).to_string();
        let endpoint = Endpoint::scripted(move |_| Reply::Answer(answer.clone()));
        let daemon = Daemon::start(&endpoint.url(), &[], &[]);
        daemon.send([format!("{HEADER}{document}")]);
        daemon.wait_for_metric("xray_segments_rejected_total{reason=\"unprocessed\"}", 1);
        assert_eq!(daemon.metric("xray_documents_not_json_total"), 0);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        let line = format!("Unprocessed trace ID, {}, segment {}, InvalidSegment", ids.0, ids.1);
        assert!(log.contains(&line), "{log}");
        assert!(!log.contains("not JSON"), "{log}");
        assert_eq!(endpoint.sorted_documents(), [document]);
    }
}

/// Runs other documents with `FUZZ_SEED=7 cargo test --test daemon json::`.
#[test]
fn the_parsers_of_the_daemon_and_of_the_sandbox_find_what_python_finds() {
    let seed = std::env::var("FUZZ_SEED").unwrap_or_else(|_| "1".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/json_documents.py");
    let mut python = Command::new("python3");
    python.arg(script).args([&seed, &DOCUMENT_COUNT.to_string()]);
    let output = python.output().expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut parser = Parser::default();
    let mut document_count = 0;
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [document, kind, trace_id, id] = words[..] else { panic!("{line}") };
        let document = hex::decode(document).unwrap();
        let ids = [trace_id, id].map(|id| hex::decode(id.trim_matches('-')).unwrap());
        let shown = format!("seed {seed}: {:?}", String::from_utf8_lossy(&document));
        check_the_daemons(&mut parser, &document, kind, &ids, &shown);
        if kind != "bytes" {
            check_the_sandboxs(std::str::from_utf8(&document).unwrap(), kind, &ids, &shown);
        }
        document_count += 1;
    }
    assert_eq!(document_count, DOCUMENT_COUNT);
}

fn check_the_daemons(
    parser: &mut Parser,
    document: &[u8],
    kind: &str,
    ids: &[Vec<u8>; 2],
    shown: &str,
) {
    let datagram = [HEADER.as_bytes(), document].concat();
    let segment = parser.parse(&datagram).unwrap();
    assert_eq!(segment.document, document, "{shown}");
    let form = match kind {
        "bytes" => Form::Bytes,
        "text" => Form::Text,
        _ => Form::Json,
    };
    // A number of more than a double outside of an object is not looked into.
    let is_looked_into =
        document.trim_ascii_start().first().is_some_and(|byte| b"{[".contains(byte));
    if kind != "other" || is_looked_into {
        assert_eq!(segment.fields.form, form, "{shown}");
    }
    let found = [segment.fields.trace_id, segment.fields.id].map(|span| decoded(&segment, span));
    if kind == "bytes" {
        // Python has replacement characters for the invalid bytes.
        let lossy =
            |ids: &[Vec<u8>; 2]| ids.each_ref().map(|id| String::from_utf8_lossy(id).into_owned());
        assert_eq!(lossy(&found), lossy(ids), "{shown}");
    } else {
        assert_eq!(&found, ids, "{shown}");
    }
}

/// Returns the field without its escape sequences. A lone surrogate has three bytes.
fn decoded(segment: &Segment<'_>, span: Span) -> Vec<u8> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a string")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    let Some(field) = span.of(segment.document) else { return Vec::new() };
    let quoted = [b"\"", field, b"\""].concat();
    serde_json::Deserializer::from_slice(&quoted).deserialize_bytes(Bytes).unwrap()
}

/// The sandbox shows U+FFFD for a lone surrogate.
fn check_the_sandboxs(document: &str, kind: &str, ids: &[Vec<u8>; 2], shown: &str) {
    let read = Document::read(document);
    assert_eq!(read.is_some(), kind == "object", "{shown}");
    let Some(read) = read else { return };
    for (found, expected) in [&read.trace_id, &read.id].into_iter().zip(ids) {
        assert_eq!(*found, with_replacements(expected), "{shown}");
    }
}

/// Returns text in which U+FFFD takes the place of each lone surrogate (three bytes).
fn with_replacements(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // The standard library reports a surrogate as three invalid bytes, one by one.
        if chunk.invalid().first() == Some(&0xed) {
            text.push('\u{fffd}');
        }
    }
    text
}
