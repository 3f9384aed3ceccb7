//! Answers `GetServiceGraph` and `GetTraceGraph`.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::graph;
use super::super::summary::Summary;
use super::{TRACE_ID_COUNT_MAX, check_range, parse};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetServiceGraph {
    start_time: f64,
    end_time: f64,
    #[serde(default)]
    group_name: Option<String>,
    #[serde(default, rename = "GroupARN")]
    group_arn: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetTraceGraph {
    trace_ids: Vec<String>,
}

impl Sandbox {
    pub(in super::super) fn get_service_graph(&self, body: &[u8]) -> Result<Answer, Failure> {
        let request: GetServiceGraph = parse(body)?;
        // The sandbox has no groups. The graph of all traces would be a wrong answer for a group.
        if request.group_name.is_some_and(|name| name != "Default") || request.group_arn.is_some() {
            return Err(Failure::invalid(
                "The sandbox has no groups. Leave out GroupName and GroupARN",
            ));
        }
        self.service_graph(Some(request.start_time), Some(request.end_time))
    }

    /// Answers with the service graph of all traces that have a document between `start` and `end`,
    /// in seconds since 1970. Without a start or an end, the answer has that of the traces.
    pub(super) fn service_graph(
        &self,
        start: Option<f64>,
        end: Option<f64>,
    ) -> Result<Answer, Failure> {
        let (from, to) = (start.unwrap_or(f64::MIN), end.unwrap_or(f64::MAX));
        check_range(from, to)?;
        let mut traces = self.lock().store.all();
        traces.retain(|trace| graph::is_within(trace, from, to));
        let summaries = || traces.iter().map(Summary::of);
        let first = || summaries().map(|summary| summary.start_time).reduce(f64::min);
        let last = |it: Summary<'_>| it.end_time.unwrap_or(it.start_time).max(it.start_time);
        Ok(json!({
            "StartTime": start.or_else(first),
            "EndTime": end.or_else(|| summaries().map(last).reduce(f64::max)),
            "Services": graph::services(&traces),
            "ContainsOldGroupVersions": false,
            "NextToken": null,
        })
        .into())
    }

    pub(in super::super) fn get_trace_graph(&self, body: &[u8]) -> Result<Answer, Failure> {
        let request: GetTraceGraph = parse(body)?;
        let count = request.trace_ids.len();
        if count > TRACE_ID_COUNT_MAX {
            let message = format!(
                "The request has {count} trace ids. At most {TRACE_ID_COUNT_MAX} are allowed"
            );
            return Err(Failure::invalid(message));
        }
        let state = self.lock();
        let found = request.trace_ids.iter().filter_map(|id| state.store.get(id));
        let traces: Vec<_> = found.collect();
        drop(state);
        Ok(json!({"Services": graph::services(&traces), "NextToken": null}).into())
    }
}
