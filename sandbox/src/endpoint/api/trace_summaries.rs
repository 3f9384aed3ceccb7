//! Answers `GetTraceSummaries`.
//!
//! Bound: an answer has at most [`PAGE_SIZE`] summaries, and a token for the next answer. The token
//! is the time and the id of the last summary in the answer. So a trace that arrives between two
//! requests does not shift the next answer.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::graph::{Service, hops};
use super::super::summary::Summary;
use super::{check_range, parse, parse_filter};
use crate::model::document::{Annotation, Document, is_trace_id};
use crate::model::store::Snapshot;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Largest number of summaries in one answer.
const PAGE_SIZE: usize = 100;

/// Selects which time of a trace must be in the requested range. The names are from the API.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum TimeRangeType {
    /// The start of the trace must be in the range.
    #[default]
    TraceId,
    /// The arrival of the last document must be in the range.
    Event,
    /// The end of the trace must be in the range. A trace without an end counts with its start.
    Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetTraceSummaries {
    start_time: f64,
    end_time: f64,
    #[serde(default)]
    time_range_type: Option<TimeRangeType>,
    #[serde(default)]
    filter_expression: Option<String>,
    #[serde(default)]
    next_token: Option<String>,
}

/// Position of a trace in the sorted list of summaries. The newest trace is first. Traces with the
/// same time are sorted by id.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    time: f64,
    id: String,
}

impl Place {
    fn order(&self, other: &Self) -> Ordering {
        other.time.total_cmp(&self.time).then_with(|| self.id.cmp(&other.id))
    }

    fn token(&self) -> String {
        format!("{:016x}-{}", self.time.to_bits(), self.id)
    }

    fn of_token(token: &str) -> Option<Self> {
        let (time, id) = token.split_once('-')?;
        let time = f64::from_bits(u64::from_str_radix(time, 16).ok()?);
        (is_trace_id(id) && time.is_finite()).then(|| Self { time, id: id.to_owned() })
    }
}

impl Sandbox {
    pub(in super::super) fn get_trace_summaries(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: GetTraceSummaries = parse(body)?;
        check_range(request.start_time, request.end_time)?;
        let after = request.next_token.filter(|token| !token.is_empty()).map(|token| {
            Place::of_token(&token).ok_or_else(|| Failure::invalid("The NextToken is not valid"))
        });
        let after = after.transpose()?;
        let filter = parse_filter(request.filter_expression.as_deref())?;
        let range = request.start_time..=request.end_time;
        let time_range_type = request.time_range_type.unwrap_or_default();

        let traces = self.lock().store.all();
        let mut found: Vec<(Place, Summary<'_>)> = Vec::new();
        for trace in &traces {
            let summary = Summary::of(trace);
            let time = time_of(&summary, time_range_type);
            if range.contains(&time) {
                found.push((Place { time, id: trace.id.to_string() }, summary));
            }
        }
        let processed_count = found.len();
        found.retain(|(place, _)| after.as_ref().is_none_or(|after| after.order(place).is_lt()));
        found.retain(|(_, it)| filter.as_ref().is_none_or(|filter| filter.is_true_of(it)));
        found.sort_by(|(one, _), (other, _)| one.order(other));
        let has_more = found.len() > PAGE_SIZE;
        found.truncate(PAGE_SIZE);
        let token = found.last().filter(|_| has_more).map(|(place, _)| place.token());
        let summaries = found.iter().map(|(_, summary)| summary_json(summary));
        Ok(json!({
            "TraceSummaries": summaries.collect::<Vec<_>>(),
            "ApproximateTime": now_seconds,
            "TracesProcessedCount": processed_count,
            "NextToken": token,
        })
        .into())
    }
}

fn time_of(summary: &Summary<'_>, time_range_type: TimeRangeType) -> f64 {
    match time_range_type {
        TimeRangeType::TraceId => summary.start_time,
        TimeRangeType::Event => summary.trace.updated_at,
        TimeRangeType::Service => summary.end_time.unwrap_or(summary.start_time),
    }
}

/// Returns a `TraceSummary` of the API.
fn summary_json(summary: &Summary<'_>) -> Value {
    let root_flags = summary.root_part().map(|root| root.flags).unwrap_or_default();
    let http = summary.http().map_or_else(
        || json!({}),
        |http| {
            json!({
                "HttpURL": http.url, "HttpStatus": http.status, "HttpMethod": http.method,
                "UserAgent": http.user_agent, "ClientIp": http.client_ip,
            })
        },
    );
    let users = summary.users();
    let users = users
        .iter()
        .map(|(user, document)| json!({"UserName": user, "ServiceIds": services_of(document)}));
    json!({
        "Id": &*summary.trace.id,
        "StartTime": summary.start_time,
        "Duration": summary.duration_seconds(),
        "ResponseTime": summary.response_time_seconds(),
        // The reference of TraceSummary says about HasFault and HasError: "The root segment
        // document has a 500 (400) series error", and about HasThrottle: "One or more of the
        // segment documents has a 429 throttling error".
        "HasFault": root_flags.fault,
        "HasError": root_flags.error,
        "HasThrottle": summary.flags.throttle,
        "IsPartial": summary.in_progress,
        "Http": http,
        "Annotations": annotations_json(summary),
        "Users": users.collect::<Vec<_>>(),
        "ServiceIds": all_services(summary.trace),
        "ResourceARNs": distinct(summary, "ARN", |it| it.facts.resource_arn.as_deref()),
        "InstanceIds": distinct(summary, "Id", |it| it.facts.instance_id.as_deref()),
        "AvailabilityZones": distinct(summary, "Name", |it| it.facts.availability_zone.as_deref()),
        "EntryPoint": summary.root_part().map(|root| service_json(Service::of(root))),
        "Revision": summary.trace.documents.len(),
    })
}

fn annotations_json(summary: &Summary<'_>) -> Value {
    let mut annotations = Map::new();
    for (key, annotation, document) in summary.annotations() {
        let value = match annotation {
            Annotation::Boolean(value) => json!({"BooleanValue": value}),
            Annotation::Number(value) => json!({"NumberValue": value}),
            Annotation::Text(text) => json!({"StringValue": text}),
        };
        let entry = json!({"AnnotationValue": value, "ServiceIds": services_of(document)});
        let values = annotations.entry(key).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(entry);
        }
    }
    annotations.into()
}

/// Returns the service that sent a document. The list is empty for a subsegment in a separate
/// document, because this document does not name its service.
fn services_of(document: &Document) -> Vec<Value> {
    let own = document.facts.parts.first().filter(|_| !document.is_subsegment);
    own.map(|part| service_json(Service::of(part))).into_iter().collect()
}

/// Returns the distinct services that are called in a trace, including the service of the root.
fn all_services(trace: &Snapshot) -> Vec<Value> {
    let services: BTreeSet<_> = hops(&trace.documents).iter().map(|hop| hop.target).collect();
    services.into_iter().map(service_json).collect()
}

fn service_json(service: Service<'_>) -> Value {
    json!({"Name": service.name, "Names": [service.name], "Type": service.type_name})
}

fn distinct(
    summary: &Summary<'_>,
    key: &str,
    value: impl Fn(&Document) -> Option<&str>,
) -> Vec<Value> {
    let documents = summary.trace.documents.iter();
    let values: BTreeSet<&str> = documents.filter_map(|document| value(document)).collect();
    values.into_iter().map(|value| json!({key: value})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_is_read_as_it_was_written(time in 0.0..4e9_f64, unique in any::<u128>()) {
            let id = format!("1-{:08x}-{:024x}", unique >> 96, unique & ((1 << 96) - 1));
            let place = Place { time, id };
            prop_assert_eq!(Place::of_token(&place.token()), Some(place));
        }

        #[test]
        fn a_text_that_is_not_a_token_is_refused(text in ".{0,60}") {
            prop_assert_eq!(Place::of_token(&text), None);
        }
    }
}
