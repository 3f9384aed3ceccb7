//! Which call a path and a method are.
//!
//! In: the method and the path. Out: a [`Call`], or a [`Failure`] that names what the path takes.
//! The service's own paths are those of its API model; those of the page are ours. Pure code.

use super::answer::Failure;
use http::Method;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<'a> {
    /// The service's API, always with POST.
    Service(Operation),
    /// `GET /`, `GET /page/NAME`.
    Asset(&'a str),
    /// `GET /traces`.
    List,
    /// `GET /traces/ID`.
    Show(&'a str),
    /// `GET /api/traces`.
    PageTraces,
    /// `DELETE /api/traces`.
    PageClear,
    /// `GET /api/traces/ID`.
    PageTrace(&'a str),
    /// `GET /api/service-graph`.
    PageServiceGraph,
    /// `GET /api/sampling-rules`.
    PageRules,
    /// `PUT /api/sampling-rules`.
    PageSetRules,
    /// `GET /api/info`.
    PageInfo,
}

/// An operation of the service.
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

/// The paths of the operations.
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
    /// Whether it changes something; then it has to be signed. SDKs ask for sampling rules
    /// unsigned, the daemon's proxy signs that: either is fine, as for anything that only reads.
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
    /// The call that `method` and `path` are.
    pub fn find(method: &Method, path: &'a str) -> Result<Self, Failure> {
        let taken = Self::taken(path);
        if taken.is_empty() {
            // The service's operations are all POST; whoever asks otherwise has a browser, or curl.
            let is_operation = *method == Method::POST;
            return Err(if is_operation { unknown_operation() } else { Failure::no_such_path() });
        }
        let found = taken.iter().find(|(taken, _)| taken == method);
        found.map(|(_, call)| *call).ok_or_else(|| {
            let allow: Vec<&str> = taken.iter().map(|(method, _)| method.as_str()).collect();
            Failure::wrong_method(&allow.join(", "))
        })
    }

    /// What a path takes.
    fn taken(path: &'a str) -> Vec<(Method, Self)> {
        if let Some((_, operation)) = OPERATIONS.iter().find(|(known, _)| *known == path) {
            return vec![(Method::POST, Self::Service(*operation))];
        }
        let get = |call| vec![(Method::GET, call)];
        match path {
            "/" => get(Self::Asset("index.html")),
            "/traces" => get(Self::List),
            "/api/traces" => {
                vec![(Method::GET, Self::PageTraces), (Method::DELETE, Self::PageClear)]
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

fn unknown_operation() -> Failure {
    let names = OPERATIONS.iter().map(|(_, operation)| format!("{operation:?}"));
    Failure::unknown_operation(&names.collect::<Vec<_>>().join(", "))
}
