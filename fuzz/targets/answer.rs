//! Fuzzes the classification of answers: any answer of the service, or of a proxy, compressed or
//! not. There must be no panic, and only an answer of X-Ray may count as success.

#![no_main]

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::UNIX_EPOCH;
use xrayd::aws::{Outcome, classify};

/// Returns whether an uncompressed body has the form of X-Ray's answer to an upload.
fn is_x_rays(body: &[u8]) -> bool {
    let fields = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body);
    fields.is_ok_and(|it| it.is_empty() || it.contains_key("UnprocessedTraceSegments"))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("a Vec accepts every write");
    encoder.finish().expect("a Vec accepts every write")
}

type Input<'a> = (u16, Option<&'a [u8]>, Option<&'a [u8]>, Option<&'a [u8]>, u8, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let (status, error_type, retry_after, encoding, form, body) = input;
    let Ok(status) = StatusCode::from_u16(100 + status % 500) else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-amzn-errortype", error_type),
        ("retry-after", retry_after),
        ("content-encoding", encoding),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            headers.insert(name, value);
        }
    }
    let has_request_id = form & 1 > 0;
    if has_request_id {
        headers.insert("x-amzn-requestid", HeaderValue::from_static("1-2-3"));
    }
    if form & 2 > 0 {
        // The body is compressed here, and may be damaged in one byte: random input would almost
        // never be valid gzip.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let mut compressed = gzip(body);
        let place = usize::from(form >> 3) % compressed.len();
        compressed[place] ^= if form & 4 > 0 { 0xff } else { 0 };
        let outcome = classify(status, &headers, &compressed, UNIX_EPOCH);
        check(status, has_request_id, body, &outcome);
    } else {
        let outcome = classify(status, &headers, body, UNIX_EPOCH);
        if !headers.contains_key(CONTENT_ENCODING) {
            check(status, has_request_id, body, &outcome);
        }
    }
});

fn check(status: StatusCode, has_request_id: bool, body: &[u8], outcome: &Outcome) {
    match outcome {
        Outcome::Accepted { unprocessed } => {
            assert!(status.is_success());
            assert!(has_request_id || is_x_rays(body));
            assert!(unprocessed.len() <= 50);
        }
        Outcome::Failed { .. } => assert!(!status.is_success() || !has_request_id),
    }
}
