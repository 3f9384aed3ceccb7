//! Makes the datagrams of the demo: a dozen traces of a small web shop from the last seconds.
//!
//! In: the time. Out: datagrams (header line and document) of [`TRACE_COUNT`] traces with new
//! random ids. The shop runs on two hosts. Among the traces are a slow query, a call that was tried
//! again, an order that goes through a queue, a chain of exceptions, a throttled table, a request
//! that is still in progress, and a trace that crosses from an X-Ray SDK to a service with
//! OpenTelemetry, whose spans come in the form of AWS's UDP exporters. Bound: thirty datagrams. No
//! I/O, no clock, but random ids. The caller sends the datagrams through UDP, so that the daemon
//! handles them like those of an SDK.

mod shop;
mod spans;
mod trace;

use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trace::Trace;

/// Number of traces of the demo.
pub const TRACE_COUNT: usize = 13;

const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// Makes the documents of a trace.
type Story = fn(&Trace) -> Vec<Value>;

/// The traces of X-Ray SDKs, each with its start in seconds before now. The oldest is first.
const STORIES: [(f64, Story); TRACE_COUNT - 1] = [
    (58.0, shop::home),
    (52.5, shop::cached),
    (47.2, shop::import),
    (41.0, shop::search),
    (34.6, shop::queued_order),
    (27.1, shop::missing_item),
    (21.4, shop::cart),
    (16.3, shop::throttled_cart),
    (11.9, shop::retried_order),
    (6.4, shop::checkout),
    (2.5, shop::report),
    (1.5, shop::failed_order),
];

/// Start of the trace with OpenTelemetry, in seconds before now.
const MIXED_SECONDS_AGO: f64 = 8.6;

/// Returns the datagrams. Those of one trace are in the order in which the services would have sent
/// them.
pub fn datagrams(now: SystemTime) -> Vec<Vec<u8>> {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
    let stories = STORIES.iter().enumerate();
    let mut texts: Vec<String> = stories
        .flat_map(|(number, (seconds_ago, story))| {
            story(&Trace::new(since_1970 - seconds_ago, number))
        })
        .map(|document| document.to_string())
        .collect();
    texts.extend(spans::recommendations(&Trace::new(since_1970 - MIXED_SECONDS_AGO, 1)));
    texts.into_iter().map(|text| format!("{HEADER}{text}").into_bytes()).collect()
}

#[cfg(test)]
mod tests;
