//! Writes a span in the JSON form of OTLP, for a viewer and for files.
//!
//! In: a span with its resource and scope. Out: the JSON of a request that contains only this span.
//! Missing and empty fields are left out. [`crate::Request`] reads the text again, and the span is
//! then the same.

use crate::message::{Any, AnyValue, Event, KeyValue, Link, Span};
use crate::request::Source;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// Returns the JSON of a request that contains only this span.
pub fn span_json(source: &Source, span: &Span) -> Value {
    let resource = &source.resource;
    let resource = Object::default()
        .with("attributes", attributes(&resource.attributes))
        .with("droppedAttributesCount", count(resource.dropped_attributes_count));
    let scope = &source.scope;
    let scope = Object::default()
        .with("name", text(&scope.name))
        .with("version", text(&scope.version))
        .with("attributes", attributes(&scope.attributes))
        .with("droppedAttributesCount", count(scope.dropped_attributes_count));
    json!({"resourceSpans": [{
        "resource": resource.0,
        "scopeSpans": [{"scope": scope.0, "spans": [of_span(span)]}],
    }]})
}

fn of_span(span: &Span) -> Value {
    let status = span.status.as_ref().map(|status| {
        let code = Some(json!(status.code)).filter(|_| status.code != 0);
        Object::default().with("message", text(&status.message)).with("code", code).0.into()
    });
    let object = Object::default()
        .with("traceId", id(&span.trace_id))
        .with("spanId", id(&span.span_id))
        .with("parentSpanId", id(&span.parent_span_id))
        .with("traceState", text(&span.trace_state))
        .with("flags", count(span.flags))
        .with("name", text(&span.name))
        .with("kind", Some(json!(span.kind)).filter(|_| span.kind != 0))
        .with("startTimeUnixNano", time(span.start_time_unix_nano))
        .with("endTimeUnixNano", time(span.end_time_unix_nano))
        .with("attributes", attributes(&span.attributes))
        .with("droppedAttributesCount", count(span.dropped_attributes_count))
        .with("events", list(&span.events, of_event))
        .with("droppedEventsCount", count(span.dropped_events_count))
        .with("links", list(&span.links, of_link))
        .with("droppedLinksCount", count(span.dropped_links_count))
        .with("status", status);
    object.0.into()
}

fn of_event(event: &Event) -> Value {
    let object = Object::default()
        .with("timeUnixNano", time(event.time_unix_nano))
        .with("name", text(&event.name))
        .with("attributes", attributes(&event.attributes))
        .with("droppedAttributesCount", count(event.dropped_attributes_count));
    object.0.into()
}

fn of_link(link: &Link) -> Value {
    let object = Object::default()
        .with("traceId", id(&link.trace_id))
        .with("spanId", id(&link.span_id))
        .with("traceState", text(&link.trace_state))
        .with("flags", count(link.flags))
        .with("attributes", attributes(&link.attributes))
        .with("droppedAttributesCount", count(link.dropped_attributes_count));
    object.0.into()
}

fn attributes(attributes: &[KeyValue]) -> Option<Value> {
    list(attributes, |attribute| {
        let value = attribute.value.as_ref().map(of_any);
        Object::default().with("key", Some(json!(attribute.key))).with("value", value).0.into()
    })
}

fn of_any(value: &AnyValue) -> Value {
    let Some(value) = &value.value else { return json!({}) };
    match value {
        Any::Text(text) => json!({"stringValue": text}),
        Any::Bool(value) => json!({"boolValue": value}),
        // A number of JavaScript has 53 bits, so an integer is text.
        Any::Int(value) => json!({"intValue": value.to_string()}),
        Any::Double(value) => json!({"doubleValue": double(*value)}),
        Any::List(items) => {
            json!({"arrayValue": {"values": items.values.iter().map(of_any).collect::<Vec<_>>()}})
        }
        Any::Object(object) => {
            json!({"kvlistValue": {"values": attributes(&object.values).unwrap_or_else(|| json!([]))}})
        }
        Any::Bytes(bytes) => json!({"bytesValue": BASE64_STANDARD.encode(bytes)}),
    }
}

/// Returns the value of an attribute as plain JSON, without its type: a list as an array and bytes
/// as base64. Returns null for an empty value.
pub fn any_json(value: &AnyValue) -> Value {
    match &value.value {
        None => Value::Null,
        Some(Any::Text(text)) => json!(text),
        Some(Any::Bool(value)) => json!(value),
        Some(Any::Int(value)) => json!(value),
        Some(Any::Double(value)) => double(*value),
        Some(Any::List(items)) => items.values.iter().map(any_json).collect(),
        Some(Any::Object(object)) => {
            let fields = object
                .values
                .iter()
                .map(|it| (it.key.clone(), it.value.as_ref().map_or(Value::Null, any_json)));
            fields.collect::<Map<_, _>>().into()
        }
        Some(Any::Bytes(bytes)) => json!(BASE64_STANDARD.encode(bytes)),
    }
}

/// Returns a number, or the text with which the JSON form of protobuf writes a number that JSON
/// does not have.
fn double(value: f64) -> Value {
    let words = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    if value.is_finite() { json!(value) } else { json!(words) }
}

/// A JSON object that leaves out missing fields.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, key: &str, value: Option<Value>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), value)));
        self
    }
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

fn id(id: &[u8]) -> Option<Value> {
    (!id.is_empty()).then(|| json!(hex::encode(id)))
}

fn count(count: u32) -> Option<Value> {
    (count != 0).then(|| json!(count))
}

fn time(nanoseconds: u64) -> Option<Value> {
    (nanoseconds != 0).then(|| json!(nanoseconds.to_string()))
}

fn list<T>(items: &[T], of_item: impl Fn(&T) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| items.iter().map(of_item).collect())
}
