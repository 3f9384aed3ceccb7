//! `GetServiceGraph` and `GetTraceGraph`.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::graph;
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
        // The graph of everything would pass for that of the group.
        if request.group_name.is_some_and(|name| name != "Default") || request.group_arn.is_some() {
            return Err(Failure::invalid(
                "The sandbox has no groups: leave GroupName and GroupARN out",
            ));
        }
        self.service_graph(request.start_time, request.end_time)
    }

    /// The graph of all traces with a document in the time from `start` to `end`.
    pub(super) fn service_graph(&self, start: f64, end: f64) -> Result<Answer, Failure> {
        check_range(start, end)?;
        let mut traces = self.lock().store.all();
        traces.retain(|trace| graph::is_within(trace, start, end));
        Ok(json!({
            "StartTime": start,
            "EndTime": end,
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
            let message = format!("{count} trace ids, at most {TRACE_ID_COUNT_MAX}");
            return Err(Failure::invalid(message));
        }
        let state = self.lock();
        let found = request.trace_ids.iter().filter_map(|id| state.store.get(id));
        let traces: Vec<_> = found.collect();
        drop(state);
        Ok(json!({"Services": graph::services(&traces), "NextToken": null}).into())
    }
}
