//! Answers the requests of the page (`/api/...`), and the lists for scripts (`/traces`).

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::sampling::Rule;
use super::super::summary::Summary;
use super::page_trace::rows_json;
use super::parse;
use crate::model::document::{Annotation, Http};
use crate::model::store::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Largest number of traces in an answer of `GET /traces`.
const LISTED_TRACE_COUNT_MAX: usize = 100;

/// Largest number of traces in an answer of `GET /api/traces` without the parameter `limit`.
const PAGE_TRACE_COUNT: usize = 10_000;

/// Largest number of service names in a summary.
const SERVICE_NAME_COUNT_MAX: usize = 8;

/// The decoded query parameters of a request.
#[derive(Debug, Default)]
struct Query {
    since: u64,
    limit: Option<usize>,
    start: Option<f64>,
    end: Option<f64>,
}

impl Query {
    fn parse(query: Option<&str>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let wrong = || Failure::invalid(format!("The parameter {name} is not a valid number"));
            let seconds = || value.parse().ok().filter(|it: &f64| it.is_finite()).ok_or_else(wrong);
            match &*name {
                "since" => parsed.since = value.parse().map_err(|_| wrong())?,
                "limit" => parsed.limit = Some(value.parse().map_err(|_| wrong())?),
                "start" => parsed.start = Some(seconds()?),
                "end" => parsed.end = Some(seconds()?),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

#[derive(Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

impl Sandbox {
    pub(in super::super) fn list(&self) -> Answer {
        let newest = self.lock().store.newest(LISTED_TRACE_COUNT_MAX);
        let entries = newest.iter().map(|trace| short_json(&Summary::of(trace)));
        Value::Array(entries.collect()).into()
    }

    pub(in super::super) fn show(&self, trace_id: &str) -> Result<Answer, Failure> {
        let trace = self.lock().store.get(trace_id).ok_or_else(Failure::no_such_trace)?;
        // Each document is valid JSON, because it was parsed before it was stored. So the texts can
        // be joined without parsing.
        let texts: Vec<&str> = trace.documents.iter().map(|it| it.text.as_str()).collect();
        let id = json!(trace_id);
        Ok(Answer::text(format!("{{\"id\":{id},\"documents\":[{}]}}", texts.join(","))))
    }

    pub(in super::super) fn page_traces(&self, query: Option<&str>) -> Result<Answer, Failure> {
        let query = Query::parse(query)?;
        let state = self.lock();
        let status = state.store.status();
        let unsampled_count = state.rules.reported_sum().unsampled_count();
        let refused_count = state.refused.count();
        let changed = state.store.since(query.since);
        drop(state);
        let is_gone = changed.is_none();
        let traces = changed.unwrap_or_default();
        let count_max = query.limit.unwrap_or(PAGE_TRACE_COUNT);
        let entries = traces.iter().take(count_max).map(|trace| page_json(&Summary::of(trace)));
        Ok(json!({
            "revision": status.revision,
            "store": store_json(&status),
            "unsampled_request_count": unsampled_count,
            "refused_count": refused_count,
            "traces": entries.collect::<Vec<_>>(),
            "gone": is_gone,
        })
        .into())
    }

    pub(in super::super) fn page_clear(&self) -> Answer {
        let mut state = self.lock();
        state.clear();
        json!({"revision": state.store.status().revision}).into()
    }

    pub(in super::super) fn page_trace(&self, trace_id: &str) -> Result<Answer, Failure> {
        let state = self.lock();
        let refused = state.refused.of_trace(trace_id);
        let trace = state.store.get(trace_id);
        drop(state);
        // All documents of a trace may have been refused.
        let Some(trace) = trace else {
            let answer = json!({"id": trace_id, "documents": null, "refused": refused});
            let is_known = !refused.is_empty();
            return is_known.then(|| answer.into()).ok_or_else(Failure::no_such_trace);
        };
        let texts: Vec<&str> = trace.documents.iter().map(|it| it.text.as_str()).collect();
        let otlp: Vec<Option<&str>> =
            trace.documents.iter().map(|document| document.otlp.as_deref()).collect();
        Ok(json!({
            "id": trace_id,
            "documents": texts,
            "otlp": otlp,
            "forest": rows_json(&trace.documents),
            "refused": refused,
            "evicted_document_count": trace.evicted_document_count,
            "replaced_document_count": trace.replaced_document_count,
        })
        .into())
    }

    pub(in super::super) fn page_service_graph(
        &self,
        query: Option<&str>,
    ) -> Result<Answer, Failure> {
        let query = Query::parse(query)?;
        self.service_graph(query.start, query.end)
    }

    pub(in super::super) fn page_rules(&self) -> Answer {
        let state = self.lock();
        json!({"rules": state.rules.all(), "reported": state.rules.reported()}).into()
    }

    pub(in super::super) fn page_set_rules(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: Rules = parse(body)?;
        let mut state = self.lock();
        state.rules.replace(request.rules, now_seconds).map_err(|error| error.failure())?;
        Ok(json!({"rules": state.rules.all()}).into())
    }

    pub(in super::super) fn page_info(&self) -> Answer {
        let about = &self.about;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "udp_address": about.udp_address,
            "tcp_address": about.tcp_address,
            "otlp_endpoint": about.otlp_endpoint(),
            "otlp_grpc_address": about.otlp_grpc_address,
            "region": about.region,
            "access_key_id": self.credentials.access_key_id(),
            // This key is public: every sandbox has the same one. The AWS CLI needs it for signing.
            "secret_access_key": self.credentials.secret_access_key(),
        })
        .into()
    }
}

/// Returns the summary of a trace for `GET /traces`.
fn short_json(summary: &Summary<'_>) -> Value {
    json!({
        "id": &*summary.trace.id,
        "start_time": summary.start_time,
        "duration_seconds": summary.duration_seconds(),
        "segment_count": summary.segment_count,
        "services": summary.services(SERVICE_NAME_COUNT_MAX),
        "in_progress": summary.in_progress,
        "fault": summary.flags.fault,
        "error": summary.flags.error,
        "throttle": summary.flags.throttle,
    })
}

/// Returns the summary of a trace for the page. It has more fields than [`short_json`].
fn page_json(summary: &Summary<'_>) -> Value {
    let mut value = short_json(summary);
    value["revision"] = json!(summary.trace.revision);
    value["response_time_seconds"] = json!(summary.response_time_seconds());
    value["name"] = json!(summary.root.map_or("", |root| &root.name));
    value["http"] = summary.http().map_or(Value::Null, http_json);
    value["users"] = json!(summary.users().into_keys().collect::<Vec<_>>());
    let mut annotations: Map<String, Value> = Map::new();
    for (key, annotation, _) in summary.annotations() {
        let value = match annotation {
            Annotation::Boolean(value) => json!(value),
            Annotation::Number(value) => json!(value),
            Annotation::Text(text) => json!(text),
        };
        let values = annotations.entry(key).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut().filter(|values| !values.contains(&value)) {
            values.push(value);
        }
    }
    value["annotations"] = annotations.into();
    value
}

fn http_json(http: &Http) -> Value {
    json!({
        "method": http.method,
        "url": http.url,
        "status": http.status,
        "client_ip": http.client_ip,
    })
}

fn store_json(status: &Status) -> Value {
    json!({
        "trace_count": status.trace_count,
        "document_count": status.document_count,
        "size_bytes": status.size_bytes,
        "trace_count_max": status.trace_count_max,
        "evicted_trace_count": status.evicted_trace_count,
        "evicted_document_count": status.evicted_document_count,
    })
}
