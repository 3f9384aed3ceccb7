//! Any answer of a service, or of what stands in its way: classified without a panic, and never
//! taken for a success that it is not.

#![no_main]

use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use std::time::UNIX_EPOCH;
use xrayd::upload::{Outcome, classify};

fuzz_target!(|input: (u16, Option<&[u8]>, Option<&[u8]>, &[u8])| {
    let (status, error_type, retry_after, body) = input;
    let Ok(status) = StatusCode::from_u16(100 + status % 500) else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-amzn-errortype", error_type), ("retry-after", retry_after)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            headers.insert(name, value);
        }
    }
    let outcome = classify(status, &headers, body, UNIX_EPOCH);
    if let Outcome::Accepted { .. } = outcome {
        assert!(status.is_success());
        // An answer without a body is the service's too; anything else has to be JSON.
        let is_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
        assert!(is_json || body.trim_ascii().is_empty());
    }
});
