//! Makes the documents of one span.
//!
//! Spans of the kinds server and consumer become segments, and so does a span without a parent in
//! its own process. All others become subsegments, in documents of their own: the parent may come
//! later or in another request, and the reader joins them by id. A call without a parent in its own
//! process becomes two documents, a segment of the service and a subsegment of the call; otherwise
//! the service would be missing in the service map.

use super::attributes::Attributes;
use super::{TEXT_BYTES_MAX, aws, cause, http, names, notes, sql};
use crate::model::document::Document;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;
use xrayd_otlp::message::{Kind, Span};
use xrayd_otlp::{Received, Source, span_json};

/// The role of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The work of a service for a request.
    Segment,
    /// A call, or work inside a service.
    Subsegment,
    /// The service that makes the first call of a trace.
    Caller,
}

/// Makes the documents of a span. The error says why the span is rejected.
pub fn documents(received: &Received) -> Result<Vec<Document>, String> {
    let (source, span) = (&*received.source, &received.span);
    let text = span_json(source, span).to_string();
    if text.len() > TEXT_BYTES_MAX {
        return Err(too_large(text.len()));
    }
    let text: Arc<str> = text.into();
    let resource = Attributes::new(&source.resource.attributes);
    let span_kind = Attributes::new(&span.attributes).text("aws.span.kind");
    let is_local_root = span.parent_span_id.is_empty()
        || span.has_remote_parent()
        || span_kind == Some("LOCAL_ROOT");
    let roles: &[Role] = match span.kind() {
        Kind::Server | Kind::Consumer => &[Role::Segment],
        _ if !is_local_root => &[Role::Subsegment],
        Kind::Client | Kind::Producer => &[Role::Subsegment, Role::Caller],
        Kind::Internal | Kind::Unspecified => &[Role::Segment],
    };
    let mut documents = Vec::new();
    for role in roles {
        // Each role takes attributes for itself.
        let attributes = Attributes::new(&span.attributes);
        let mut object = object(*role, source, span, &attributes, &resource);
        match (role, roles.len()) {
            (Role::Caller, _) => {
                object.insert("id".to_owned(), caller_id(span).into());
            }
            (_, 2) => {
                object.insert("parent_id".to_owned(), caller_id(span).into());
            }
            _ => {}
        }
        let document = Document::of_span(&object, &text);
        if document.text.len() > TEXT_BYTES_MAX {
            return Err(too_large(document.text.len()));
        }
        documents.push(document);
    }
    Ok(documents)
}

fn too_large(size_bytes: usize) -> String {
    format!("a span has {size_bytes} bytes as JSON, at most {TEXT_BYTES_MAX} are taken")
}

/// Returns the id of the segment that is made for the service of a first call. The id is the same
/// if the span is sent again.
fn caller_id(span: &Span) -> String {
    let flipped: Vec<u8> = span.span_id.iter().map(|byte| !byte).collect();
    hexadecimal(&flipped)
}

fn object(
    role: Role,
    source: &Source,
    span: &Span,
    attributes: &Attributes<'_>,
    resource: &Attributes<'_>,
) -> Map<String, Value> {
    let is_segment = role != Role::Subsegment;
    let name = match is_segment {
        true => names::of_service(span, attributes, resource),
        false => names::of_call(span, attributes),
    };
    let mut object = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        object.extend(value.map(|value| (key.to_owned(), value)));
    };
    set("trace_id", trace_id(&span.trace_id).map(Value::from));
    set("id", Some(hexadecimal(&span.span_id).into()));
    let parent = (!span.parent_span_id.is_empty()).then(|| hexadecimal(&span.parent_span_id));
    set("parent_id", parent.map(Value::from));
    set("type", (!is_segment).then(|| "subsegment".into()));
    set("name", Some(name.into()));
    set("start_time", Some(json!(seconds(span.start_time_unix_nano))));
    match span.end_time_unix_nano {
        0 => set("in_progress", Some(true.into())),
        end => set("end_time", Some(json!(seconds(end)))),
    }
    let flags = cause::flags(span, attributes);
    let all = [("fault", flags.fault), ("error", flags.error), ("throttle", flags.throttle)];
    for (key, _) in all.into_iter().filter(|(_, is_set)| *is_set) {
        set(key, Some(true.into()));
    }
    if is_segment {
        set("origin", names::origin(resource).map(Value::from));
        set("service", aws::service(resource));
    } else {
        set("namespace", names::namespace(span, attributes).map(Value::from));
    }
    if role == Role::Caller {
        set("aws", aws::make(&Attributes::new(&[]), resource, true));
        let notes = notes::make(&Attributes::new(&[]), Some(resource));
        set("metadata", (!notes.metadata.is_empty()).then(|| notes.metadata.into()));
        return object;
    }
    set("http", http::make(span.kind(), attributes));
    set("cause", cause::make(span, attributes, resource));
    set("aws", aws::make(attributes, resource, is_segment));
    set("sql", sql::make(&span.name, attributes));
    set("user", notes::user(attributes).map(Value::from));
    set("links", notes::links(span));
    let mut notes = notes::make(attributes, Some(resource).filter(|_| is_segment));
    notes.metadata.extend([notes::of_span(source, span)]);
    set("annotations", (!notes.annotations.is_empty()).then(|| notes.annotations.into()));
    set("metadata", Some(notes.metadata.into()));
    object
}

/// Returns a time in seconds since 1970.
pub fn seconds(nanoseconds: u64) -> f64 {
    // A double is exact to a quarter of 1 us here. The whole number of nanoseconds would be less
    // exact, and then be rounded twice.
    #[expect(clippy::cast_precision_loss, reason = "both numbers are below 2^35")]
    let (seconds, rest) =
        ((nanoseconds / 1_000_000_000) as f64, (nanoseconds % 1_000_000_000) as f64);
    seconds + rest / 1e9
}

/// Returns the hexadecimal digits of an id.
pub fn hexadecimal(id: &[u8]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the id of a trace in X-Ray's form: `1-`, 8 digits, `-` and 24 digits. Returns `None` if
/// the id does not have 16 bytes.
///
/// The first 8 digits are a time for X-Ray. In OpenTelemetry they may be random, and the service
/// does not check them.
pub fn trace_id(id: &[u8]) -> Option<String> {
    let digits = hexadecimal(id);
    (id.len() == 16).then(|| format!("1-{}-{}", &digits[..8], &digits[8..]))
}
