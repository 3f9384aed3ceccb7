//! Makes the annotations and the metadata of a document, and its user and links.

use super::attributes::Attributes;
use super::cause::EXCEPTION;
use serde_json::{Map, Value, json};
use xrayd_otlp::Source;
use xrayd_otlp::any_json;
use xrayd_otlp::message::{Any, AnyValue, Event, Link, Span};

/// Name of the attribute that lists the attributes that become annotations.
const ANNOTATIONS: &str = "aws.xray.annotations";
/// Beginning of the names of attributes whose text is the JSON of a namespace of the metadata.
const METADATA: &str = "aws.xray.metadata.";
/// The namespace of the metadata for the parts of a span for which X-Ray has no field.
const NAMESPACE: &str = "otel";

/// The annotations and the metadata of a document.
#[derive(Debug, Default)]
pub struct Notes {
    pub annotations: Map<String, Value>,
    pub metadata: Map<String, Value>,
}

/// Returns the user that a span names.
pub fn user<'a>(attributes: &Attributes<'a>) -> Option<&'a str> {
    attributes.take(&["enduser.id", "user.id"])
}

/// Returns the annotations and the metadata. The attributes that other parts of the document have
/// taken are left out. `resource` is given for a segment only.
pub fn make(attributes: &Attributes<'_>, resource: Option<&Attributes<'_>>) -> Notes {
    let indexed = attributes.texts(ANNOTATIONS);
    attributes.mark(&[ANNOTATIONS]);
    let (mut notes, mut default) = (Notes::default(), Map::new());
    let of_resource = resource.map(Attributes::rest).unwrap_or_default();
    let of_resource =
        of_resource.into_iter().map(|(key, value)| (format!("otel.resource.{key}"), value));
    let own = attributes.rest().into_iter().map(|(key, value)| (key.to_owned(), value));
    for (key, value) in of_resource.chain(own) {
        match annotation(value).filter(|_| indexed.contains(&key.as_str())) {
            Some(value) => {
                notes.annotations.insert(fixed(&key), value);
            }
            None => match namespace(&key, value) {
                Some(("default", object)) => default.extend(object),
                Some((name, object)) => {
                    notes.metadata.insert(name.to_owned(), object.into());
                }
                None => {
                    default.insert(key, any_json(value));
                }
            },
        }
    }
    if !default.is_empty() {
        notes.metadata.insert("default".to_owned(), default.into());
    }
    notes
}

fn annotation(value: &AnyValue) -> Option<Value> {
    let is_plain =
        matches!(value.value, Some(Any::Text(_) | Any::Int(_) | Any::Double(_) | Any::Bool(_)));
    is_plain.then(|| any_json(value))
}

/// Returns a namespace of the metadata with its content, if an attribute has one.
fn namespace<'a>(key: &'a str, value: &AnyValue) -> Option<(&'a str, Map<String, Value>)> {
    let name = key.strip_prefix(METADATA).filter(|name| !name.is_empty())?;
    let Some(Any::Text(text)) = &value.value else { return None };
    Some((name, serde_json::from_str(text).ok()?))
}

/// Returns the key of an annotation without the characters that X-Ray does not allow.
fn fixed(key: &str) -> String {
    let allowed = |it: char| if it.is_ascii_alphanumeric() || it == '.' { it } else { '_' };
    key.chars().map(allowed).collect()
}

/// Returns the parts of the span for which X-Ray has no field, as a namespace of the metadata.
pub fn of_span(source: &Source, span: &Span) -> (String, Value) {
    let mut own = json!({"name": span.name, "kind": span.kind().name()});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            own[key] = value;
        }
    };
    let text = |text: &str| (!text.is_empty()).then(|| json!(text));
    let count = |count: u32| (count > 0).then(|| json!(count));
    set("status", span.status.as_ref().filter(|it| it.code != 0).map(|it| json!(it.name())));
    set("status_message", span.status.as_ref().and_then(|status| text(&status.message)));
    set("scope", text(&source.scope.name));
    set("scope_version", text(&source.scope.version));
    set("scope_attributes", object(&Attributes::new(&source.scope.attributes)));
    set("trace_state", text(&span.trace_state));
    let events = span.events.iter().filter(|event| event.name != EXCEPTION);
    let events: Vec<Value> = events.map(event).collect();
    set("events", (!events.is_empty()).then(|| events.into()));
    set("dropped_attributes", count(span.dropped_attributes_count));
    set("dropped_events", count(span.dropped_events_count));
    set("dropped_links", count(span.dropped_links_count));
    (NAMESPACE.to_owned(), own)
}

fn object(attributes: &Attributes<'_>) -> Option<Value> {
    let rest = attributes.rest();
    let fields = || rest.iter().map(|(key, value)| ((*key).to_owned(), any_json(value)));
    (!rest.is_empty()).then(|| fields().collect::<Map<_, _>>().into())
}

fn event(event: &Event) -> Value {
    let mut json =
        json!({"name": event.name, "time": super::segment::seconds(event.time_unix_nano)});
    if let Some(attributes) = object(&Attributes::new(&event.attributes)) {
        json["attributes"] = attributes;
    }
    json
}

/// Returns the links of a span to other spans.
pub fn links(span: &Span) -> Option<Value> {
    let of = |link: &Link| {
        let trace_id = super::segment::trace_id(&link.trace_id)?;
        let mut json =
            json!({"trace_id": trace_id, "id": super::segment::hexadecimal(&link.span_id)});
        if let Some(attributes) = object(&Attributes::new(&link.attributes)) {
            json["attributes"] = attributes;
        }
        Some(json)
    };
    let links: Vec<Value> = span.links.iter().filter_map(of).collect();
    (!links.is_empty()).then(|| links.into())
}
