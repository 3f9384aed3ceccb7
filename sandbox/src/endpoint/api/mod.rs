//! Answers the requests. There is one file for each group of operations.
//!
//! In: the body or the query of a request. Out: an [`Answer`](super::answer::Answer) or a
//! [`Failure`]. Bound: the number of ids, documents or traces in one request, see each file.
//! Thread: any. An operation copies snapshots from the store under the lock, and builds its answer
//! without the lock.

mod batch_get_traces;
mod export;
mod page_requests;
mod page_search;
mod page_trace;
mod put_segments;
mod sampling_rules;
mod service_graph;
mod trace_summaries;

pub use export::{encoding_of, read_stored};
pub use put_segments::DOCUMENT_COUNT_MAX;

use super::answer::Failure;
use super::filter::Expression;
use serde::Deserialize;

/// Largest number of trace ids in one request of `GetTraceGraph`.
const TRACE_ID_COUNT_MAX: usize = 100;

/// Parses the JSON body of a request.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("The body of the request is not valid: {error}")))
}

/// Parses the filter expression of a request. An empty text counts as no filter.
fn parse_filter(text: Option<&str>) -> Result<Option<Expression>, Failure> {
    let text = text.filter(|text| !text.trim().is_empty());
    let expression = text.map(Expression::parse).transpose();
    expression.map_err(|error| Failure::invalid(error.to_string()))
}

/// Checks that a time range does not end before it starts. Both ends belong to the range.
fn check_range(start: f64, end: f64) -> Result<(), Failure> {
    if start <= end {
        return Ok(());
    }
    Err(Failure::invalid("StartTime is after EndTime"))
}
