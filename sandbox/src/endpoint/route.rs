//! Maps a method and a path to a call.
//!
//! In: the method and the path. Out: a [`Call`], or a [`Failure`] that lists the allowed methods or
//! the available operations. The paths of the service are from its API model. The sandbox defines
//! the paths of the page. No I/O, no clock.

use super::answer::Failure;
use http::Method;

/// The action that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    /// An operation of the service's API. The method is always POST.
    Service(Operation),
    /// `POST /v1/traces`: spans of OpenTelemetry.
    Export,
    /// `POST /v1/metrics` and `POST /v1/logs`: signals of OpenTelemetry that the sandbox refuses.
    OtherSignal(&'static str),
    /// `GET /` and `GET /page/NAME`: a file of the page.
    Asset(&'a str),
    /// `GET /traces`: a list of traces for scripts.
    List,
    /// `GET /traces/ID`: one trace for scripts.
    Show(&'a str),
    /// `GET /api/traces`: the traces that changed after a revision, for the page.
    PageTraces,
    /// `DELETE /api/traces`: removes all traces.
    PageClear,
    /// `GET /api/search`: the traces that match a text, for the page.
    PageSearch,
    /// `GET /api/refused`: what was refused, for the page.
    PageRefused,
    /// `DELETE /api/refused`: forgets what was refused.
    PageForgetRefused,
    /// `GET /api/traces/ID`: the documents of one trace, for the page.
    PageTrace(&'a str),
    /// `GET /api/service-graph`: the service graph, for the page.
    PageServiceGraph,
    /// `GET /api/sampling-rules`: the sampling rules, for the page.
    PageRules,
    /// `PUT /api/sampling-rules`: replaces all sampling rules.
    PageSetRules,
    /// `GET /api/info`: addresses and credentials, for the page.
    PageInfo,
}

/// An operation of the service's API. The variants have the names of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    PutTraceSegments,
    PutTelemetryRecords,
    GetTraceSummaries,
    BatchGetTraces,
    GetServiceGraph,
    GetTraceGraph,
    GetSamplingRules,
    GetSamplingTargets,
    CreateSamplingRule,
    UpdateSamplingRule,
    DeleteSamplingRule,
}

/// The path of each operation of the service's API.
const OPERATIONS: &[(&str, Operation)] = &[
    ("/TraceSegments", Operation::PutTraceSegments),
    ("/TelemetryRecords", Operation::PutTelemetryRecords),
    ("/TraceSummaries", Operation::GetTraceSummaries),
    ("/Traces", Operation::BatchGetTraces),
    ("/ServiceGraph", Operation::GetServiceGraph),
    ("/TraceGraph", Operation::GetTraceGraph),
    ("/GetSamplingRules", Operation::GetSamplingRules),
    ("/SamplingTargets", Operation::GetSamplingTargets),
    ("/CreateSamplingRule", Operation::CreateSamplingRule),
    ("/UpdateSamplingRule", Operation::UpdateSamplingRule),
    ("/DeleteSamplingRule", Operation::DeleteSamplingRule),
];

impl Operation {
    /// Returns whether a request for the operation must be signed, because the operation writes.
    ///
    /// A request that only reads may be signed or unsigned: SDKs send unsigned requests for
    /// sampling rules, and the daemon's proxy signs these requests.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::PutTraceSegments
                | Self::PutTelemetryRecords
                | Self::CreateSamplingRule
                | Self::UpdateSamplingRule
                | Self::DeleteSamplingRule
        )
    }
}

impl<'a> Call<'a> {
    /// Finds the call for a method and a path.
    ///
    /// # Errors
    ///
    /// Returns a failure: 404 for an unknown path, and 405 for a wrong method.
    pub fn find(method: &Method, path: &'a str) -> Result<Self, Failure> {
        let taken = Self::taken(path);
        if taken.is_empty() {
            // All operations of the service use POST. A request with another method is probably
            // from a browser or from curl.
            let is_operation = *method == Method::POST;
            return Err(if is_operation { unknown_operation() } else { Failure::no_such_path() });
        }
        let found = taken.iter().find(|(taken, _)| taken == method);
        found.map(|(_, call)| *call).ok_or_else(|| {
            let allow: Vec<&str> = taken.iter().map(|(method, _)| method.as_str()).collect();
            Failure::wrong_method(&allow.join(", "))
        })
    }

    /// Returns the HTTP methods that a path accepts, and the call that each method makes.
    fn taken(path: &'a str) -> Vec<(Method, Self)> {
        if let Some((_, operation)) = OPERATIONS.iter().find(|(known, _)| *known == path) {
            return vec![(Method::POST, Self::Service(*operation))];
        }
        let get = |call| vec![(Method::GET, call)];
        let post = |call| vec![(Method::POST, call)];
        match path {
            // Some exporters write a slash at the end.
            "/v1/traces" | "/v1/traces/" => post(Self::Export),
            "/v1/metrics" | "/v1/metrics/" => post(Self::OtherSignal("metrics")),
            "/v1/logs" | "/v1/logs/" => post(Self::OtherSignal("logs")),
            "/" => get(Self::Asset("index.html")),
            "/traces" => get(Self::List),
            "/api/traces" => {
                vec![(Method::GET, Self::PageTraces), (Method::DELETE, Self::PageClear)]
            }
            "/api/search" => get(Self::PageSearch),
            "/api/refused" => {
                vec![(Method::GET, Self::PageRefused), (Method::DELETE, Self::PageForgetRefused)]
            }
            "/api/service-graph" => get(Self::PageServiceGraph),
            "/api/sampling-rules" => {
                vec![(Method::GET, Self::PageRules), (Method::PUT, Self::PageSetRules)]
            }
            "/api/info" => get(Self::PageInfo),
            _ => {
                let below = |prefix: &str| path.strip_prefix(prefix);
                let call = (below("/page/").map(Self::Asset))
                    .or_else(|| below("/traces/").map(Self::Show))
                    .or_else(|| below("/api/traces/").map(Self::PageTrace));
                call.map_or_else(Vec::new, get)
            }
        }
    }
}

/// Returns whether a path is one of OpenTelemetry's protocol.
pub fn is_of_otlp(path: &str) -> bool {
    path.starts_with("/v1/")
}

fn unknown_operation() -> Failure {
    let names = OPERATIONS.iter().map(|(_, operation)| format!("{operation:?}"));
    Failure::unknown_operation(&names.collect::<Vec<_>>().join(", "))
}
