//! Answers `PutTraceSegments` and `PutTelemetryRecords`.
//!
//! The documents of OpenTelemetry's UDP exporters come with `PutTraceSegments` too, because the
//! daemon forwards each document as it is. Each becomes the documents of its spans. Metrics have no
//! place in X-Ray: they are counted and otherwise ignored.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::parse;
use crate::model::document::{Document, Violation};
use crate::model::span::{self, Content};
use crate::model::store::Moment;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Largest number of documents in one request. It is the limit of the service.
pub const DOCUMENT_COUNT_MAX: usize = 50;

#[derive(Deserialize)]
struct PutTraceSegments<'a> {
    #[serde(borrow, rename = "TraceSegmentDocuments")]
    documents: Vec<Text<'a>>,
}

/// A string of the JSON body. It is borrowed from the body if it contains no escape sequences. The
/// newtype is needed because serde never borrows for a bare `Cow` inside a `Vec`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutTelemetryRecords {
    #[expect(dead_code, reason = "the field is parsed only to check that it is a list")]
    telemetry_records: Vec<IgnoredAny>,
}

impl Sandbox {
    pub(in super::super) fn put_trace_segments(
        &self,
        body: &[u8],
        now: Moment,
    ) -> Result<Answer, Failure> {
        let request: PutTraceSegments<'_> = parse(body)?;
        let count = request.documents.len();
        if count > DOCUMENT_COUNT_MAX {
            return Err(Failure::invalid(format!(
                "The request has {count} trace segment documents. At most {DOCUMENT_COUNT_MAX} are \
                 allowed"
            )));
        }
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        let (mut rejected_span_count, mut metrics_document_count) = (0, 0);
        let mut last_rejection = None;
        for Text(text) in &request.documents {
            match span::read_datagram(text) {
                Some(Ok(Content::Spans(spans))) => {
                    kept.extend(spans.documents);
                    rejected_span_count += spans.rejected_count as u64;
                    if spans.rejected_count > 0 {
                        last_rejection = Some(spans.why);
                    }
                }
                Some(Ok(Content::Metrics)) => metrics_document_count += 1,
                Some(Err(why)) => {
                    let detail = format!("Not the form of OpenTelemetry's UDP exporters: {why}");
                    refused.push((Violation::of_text("ParseError", detail), text));
                }
                None => match Document::parse(text) {
                    Ok(document) => kept.push(document),
                    Err(fault) => refused.push((fault, text)),
                },
            }
        }
        let unprocessed: Vec<Value> =
            refused.iter().map(|(fault, _)| unprocessed_json(fault)).collect();
        let mut state = self.lock();
        state.account.unprocessed_document_count += unprocessed.len() as u64;
        for (fault, text) in &refused {
            state.refused.add(fault, text, now.wall_seconds);
        }
        state.account.metrics_document_count += metrics_document_count;
        if let Some(why) = last_rejection {
            state.reject_spans(rejected_span_count, why, now);
        }
        state.keep(kept, now);
        drop(state);
        Ok(json!({"UnprocessedTraceSegments": unprocessed}).into())
    }

    /// Accepts telemetry and does not store it. The daemon shows its own counters at `/metrics`.
    pub(in super::super) fn put_telemetry_records(body: &[u8]) -> Result<Answer, Failure> {
        parse::<PutTelemetryRecords>(body)?;
        Ok(json!({}).into())
    }
}

fn unprocessed_json(fault: &Violation) -> Value {
    let mut entry = json!({"ErrorCode": fault.code, "Message": fault.to_string()});
    if let Some(id) = &fault.id {
        entry["Id"] = json!(id);
    }
    entry
}
