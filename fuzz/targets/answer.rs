//! Any answer of a service, or of what stands in its way, compressed or not: classified without a
//! panic, and never taken for a success that it is not.

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

/// Whether a body that is not compressed is one of X-Ray's.
fn is_x_rays(body: &[u8]) -> bool {
    let fields = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body);
    fields.is_ok_and(|it| it.is_empty() || it.contains_key("UnprocessedTraceSegments"))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
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
        // Whole, or damaged anywhere: by chance alone no input would be decoded.
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
