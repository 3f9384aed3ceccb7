//! Answers `BatchGetTraces` requests, which ask for the documents of some traces.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::summary::Summary;
use super::parse;
use crate::model::store::Snapshot;
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest number of trace ids in one request. It is the limit of the service.
const BATCH_TRACE_COUNT_MAX: usize = 5;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetTraces {
    trace_ids: Vec<String>,
}

impl Sandbox {
    pub(in super::super) fn batch_get_traces(&self, body: &[u8]) -> Result<Answer, Failure> {
        let request: BatchGetTraces = parse(body)?;
        let count = request.trace_ids.len();
        if count > BATCH_TRACE_COUNT_MAX {
            return Err(Failure::invalid(format!(
                "The request has {count} trace ids. At most {BATCH_TRACE_COUNT_MAX} are allowed"
            )));
        }
        let (mut traces, mut unknown) = (Vec::new(), Vec::new());
        let state = self.lock();
        for id in request.trace_ids {
            match state.store.get(&id) {
                Some(trace) => traces.push(trace),
                None => unknown.push(id),
            }
        }
        drop(state);
        Ok(json!({
            "Traces": traces.iter().map(trace_json).collect::<Vec<_>>(),
            "UnprocessedTraceIds": unknown,
            "NextToken": null,
        })
        .into())
    }
}

fn trace_json(trace: &Snapshot) -> Value {
    let segments = trace.documents.iter();
    let segments = segments.map(|segment| json!({"Id": segment.id, "Document": segment.text}));
    json!({
        "Id": &*trace.id,
        "Duration": Summary::of(trace).duration_seconds(),
        "LimitExceeded": trace.evicted_document_count > 0,
        "Segments": segments.collect::<Vec<_>>(),
    })
}
