//! The calls, one file for each group of them.
//!
//! In: the body or the query of a request. Out: an [`Answer`](super::answer::Answer) or a
//! [`Failure`]. Each takes what it needs out of the store under the lock and works on that outside
//! of it.

mod batch_get_traces;
mod page_requests;
mod put_segments;
mod sampling_rules;
mod service_graph;
mod trace_summaries;

pub use put_segments::DOCUMENT_COUNT_MAX;

use super::answer::Failure;
use super::filter::Expression;
use serde::Deserialize;

/// Traces in one answer of `GetTraceGraph`, and ids in one request.
const TRACE_ID_COUNT_MAX: usize = 100;

/// The fields of a request's body.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("Could not parse: {error}")))
}

/// The filter that a request asks for; an empty one is none.
fn parse_filter(text: Option<&str>) -> Result<Option<Expression>, Failure> {
    let text = text.filter(|text| !text.trim().is_empty());
    let expression = text.map(Expression::parse).transpose();
    expression.map_err(|error| Failure::invalid(error.to_string()))
}

/// A time range, both ends of which belong to it.
fn check_range(start: f64, end: f64) -> Result<(), Failure> {
    if start <= end {
        return Ok(());
    }
    Err(Failure::invalid("StartTime lies behind EndTime"))
}
