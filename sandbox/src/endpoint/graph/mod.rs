//! Builds the service graph of a list of traces.
//!
//! In: traces. Out: the `Services` of `GetServiceGraph` and `GetTraceGraph`, each with its counts.
//! The nodes are the services that sent segments, the called services that sent none, and one
//! client for each service at which a trace begins. Bound: the size of the traces; histograms round
//! response times to [`DIGITS`] digits. No I/O, no clock.

mod hops;

pub use hops::{Hop, Service, Source, hops};

use crate::model::document::rounded;
use crate::model::document::{Document, Part};
use crate::model::store::Snapshot;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Number of significant digits of a response time in a histogram.
const DIGITS: u32 = 2;

/// The key of a node: its name and its type. Nodes are sorted by this key.
type Key = (String, String);

#[derive(Debug, Default)]
struct Node {
    is_root: bool,
    sends_segments: bool,
    counts: Counts,
    edges: BTreeMap<Key, Counts>,
}

/// The counts of requests of a node or an edge in the service graph.
#[derive(Debug, Default)]
struct Counts {
    /// Earliest start and latest end of the requests, in seconds since 1970.
    span: Option<(f64, f64)>,
    ok: u64,
    throttle: u64,
    other_error: u64,
    fault: u64,
    response_time_seconds: f64,
    /// Number of requests by response time in microseconds, rounded to [`DIGITS`] digits.
    histogram: BTreeMap<u64, u64>,
}

impl Counts {
    fn add(&mut self, part: &Part) {
        let end = part.end_time.unwrap_or(part.start_time);
        let (first, last) = self.span.unwrap_or((part.start_time, end));
        self.span = Some((first.min(part.start_time), last.max(end)));
        // A request without an end has no result yet, so it is not counted.
        let Some(duration) = part.duration_seconds() else { return };
        let flags = part.flags;
        let count = match (flags.fault, flags.throttle, flags.error) {
            (true, _, _) => &mut self.fault,
            (_, true, _) => &mut self.throttle,
            (_, _, true) => &mut self.other_error,
            _ => &mut self.ok,
        };
        *count += 1;
        let duration = duration.max(0.0);
        self.response_time_seconds += duration;
        *self.histogram.entry(rounded_us(duration)).or_default() += 1;
    }

    fn statistics(&self) -> Value {
        let errors = self.throttle + self.other_error;
        json!({
            "OkCount": self.ok,
            "ErrorStatistics": {
                "ThrottleCount": self.throttle,
                "OtherCount": self.other_error,
                "TotalCount": errors,
            },
            "FaultStatistics": {"OtherCount": self.fault, "TotalCount": self.fault},
            "TotalCount": self.ok + errors + self.fault,
            "TotalResponseTime": rounded(self.response_time_seconds),
        })
    }

    fn histogram(&self) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "the number has two significant digits")]
        let entries = self
            .histogram
            .iter()
            .map(|(us, count)| json!({"Value": *us as f64 / 1e6, "Count": count}));
        Value::Array(entries.collect())
    }
}

/// Converts seconds to microseconds, rounded to [`DIGITS`] significant digits.
fn rounded_us(seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    let us = (seconds * 1e6).round() as u64;
    let digits = us.checked_ilog10().map_or(0, |log| log + 1);
    let unit = 10_u64.pow(digits.saturating_sub(DIGITS));
    us.saturating_add(unit / 2) / unit * unit
}

/// Returns the nodes of the service graph of `traces`, sorted by name.
pub fn services(traces: &[Snapshot]) -> Value {
    let mut nodes: BTreeMap<Key, Node> = BTreeMap::new();
    for trace in traces {
        for hop in hops(&trace.documents) {
            add(&mut nodes, &hop);
        }
    }
    let ids: BTreeMap<Key, usize> = nodes.keys().cloned().zip(0..).collect();
    Value::Array(nodes.iter().map(|(key, node)| node_json(key, node, &ids)).collect())
}

fn key(service: Service<'_>) -> Key {
    (service.name.to_owned(), service.type_name.to_owned())
}

fn add(nodes: &mut BTreeMap<Key, Node>, hop: &Hop<'_>) {
    let target = key(hop.target);
    let node = nodes.entry(target.clone()).or_default();
    node.is_root |= hop.source == Source::Client;
    node.sends_segments |= hop.segment.is_some();
    if let Some(part) = hop.own() {
        node.counts.add(part);
    }
    let source = match hop.source {
        Source::Service(service) => key(service),
        Source::Client => key(hop.client()),
        Source::Unknown => return,
    };
    if let Some(part) = hop.seen() {
        let source = nodes.entry(source).or_default();
        source.edges.entry(target).or_default().add(part);
    }
}

fn node_json((name, type_name): &Key, node: &Node, ids: &BTreeMap<Key, usize>) -> Value {
    let edges = node.edges.iter().map(|(target, counts)| {
        let (start, end) = counts.span.unwrap_or_default();
        json!({
            "ReferenceId": ids[target],
            "StartTime": start,
            "EndTime": end,
            "SummaryStatistics": counts.statistics(),
            "ResponseTimeHistogram": counts.histogram(),
            "Aliases": [],
        })
    });
    // A client has no counts, so its time range comes only from its calls.
    let spans = node.edges.values().filter_map(|counts| counts.span);
    let span = node.counts.span.into_iter().chain(spans);
    let (start, end) =
        span.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).unwrap_or_default();
    json!({
        "ReferenceId": ids[&(name.clone(), type_name.clone())],
        "Name": name,
        "Names": [name],
        "Root": node.is_root,
        "Type": type_name,
        "State": if node.sends_segments { "active" } else { "unknown" },
        "StartTime": start,
        "EndTime": end,
        "Edges": edges.collect::<Vec<_>>(),
        "SummaryStatistics": node.counts.statistics(),
        "DurationHistogram": node.counts.histogram(),
        "ResponseTimeHistogram": node.counts.histogram(),
    })
}

/// Returns whether any document of the trace overlaps the time from `start` to `end`, in seconds
/// since 1970.
pub fn is_within(trace: &Snapshot, start: f64, end: f64) -> bool {
    let is_in = |document: &Document| {
        document.start_time <= end && document.end_time.unwrap_or(document.start_time) >= start
    };
    trace.documents.iter().any(|document| is_in(document))
}

#[cfg(test)]
mod tests;
