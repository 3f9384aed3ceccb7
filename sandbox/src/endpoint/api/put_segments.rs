//! Answers `PutTraceSegments` and `PutTelemetryRecords`.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::parse;
use crate::model::document::{Document, Violation};
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
        let (mut kept, mut unprocessed) = (Vec::new(), Vec::new());
        for Text(text) in &request.documents {
            match Document::parse(text) {
                Ok(document) => kept.push(document),
                Err(fault) => unprocessed.push(unprocessed_json(&fault)),
            }
        }
        let mut state = self.lock();
        state.account.kept_document_count += kept.len() as u64;
        state.account.unprocessed_document_count += unprocessed.len() as u64;
        state.write_documents(&kept);
        for document in kept {
            state.store.insert(document, now);
        }
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
