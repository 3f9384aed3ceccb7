//! The messages of OTLP that traces are made of.
//!
//! The protobuf definitions are in `opentelemetry/proto/trace/v1/trace.proto`, `common.proto` and
//! `resource.proto` of <https://github.com/open-telemetry/opentelemetry-proto>. Unknown fields are
//! ignored. The same types are read from JSON (`json.rs`).

use crate::json;
use serde::Deserialize;

/// A unit of work, with its start and its end.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Span {
    /// Id of the trace: 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "json::id")]
    pub trace_id: Vec<u8>,
    /// Id of the span: 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "json::id")]
    pub span_id: Vec<u8>,
    /// `tracestate` of W3C Trace Context.
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "json::nullable")]
    pub trace_state: String,
    /// Id of the parent: 8 bytes, or empty if the span is the root of its trace.
    #[prost(bytes = "vec", tag = "4")]
    #[serde(deserialize_with = "json::id")]
    pub parent_span_id: Vec<u8>,
    /// Name of the operation.
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "json::nullable")]
    pub name: String,
    /// Number of a [`Kind`].
    #[prost(int32, tag = "6")]
    #[serde(deserialize_with = "json::small")]
    pub kind: i32,
    /// Start, in nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    #[serde(deserialize_with = "json::unsigned")]
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since 1970. 0 if the span has no end.
    #[prost(fixed64, tag = "8")]
    #[serde(deserialize_with = "json::unsigned")]
    pub end_time_unix_nano: u64,
    /// Attributes of the span.
    #[prost(message, repeated, tag = "9")]
    #[serde(deserialize_with = "json::nullable")]
    pub attributes: Vec<KeyValue>,
    /// Number of attributes that the SDK left out.
    #[prost(uint32, tag = "10")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_attributes_count: u32,
    /// Events during the span, such as exceptions.
    #[prost(message, repeated, tag = "11")]
    #[serde(deserialize_with = "json::nullable")]
    pub events: Vec<Event>,
    /// Number of events that the SDK left out.
    #[prost(uint32, tag = "12")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_events_count: u32,
    /// Links to other spans.
    #[prost(message, repeated, tag = "13")]
    #[serde(deserialize_with = "json::nullable")]
    pub links: Vec<Link>,
    /// Number of links that the SDK left out.
    #[prost(uint32, tag = "14")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_links_count: u32,
    /// Result of the span.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// Flags of W3C Trace Context in the lowest 8 bits; then whether the parent is remote.
    #[prost(fixed32, tag = "16")]
    #[serde(deserialize_with = "json::count")]
    pub flags: u32,
}

/// Both bits are set in [`Span::flags`] if the SDK says that the parent is in another process.
const PARENT_IS_REMOTE: u32 = 0x300;

impl Span {
    /// Returns the role of the span.
    pub fn kind(&self) -> Kind {
        match self.kind {
            1 => Kind::Internal,
            2 => Kind::Server,
            3 => Kind::Client,
            4 => Kind::Producer,
            5 => Kind::Consumer,
            _ => Kind::Unspecified,
        }
    }

    /// Returns whether the SDK says that the parent of the span is in another process.
    pub fn has_remote_parent(&self) -> bool {
        !self.parent_span_id.is_empty() && self.flags & PARENT_IS_REMOTE == PARENT_IS_REMOTE
    }
}

/// The role of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The SDK does not say.
    Unspecified,
    /// Work inside a service.
    Internal,
    /// The answer to a request.
    Server,
    /// A request to another service.
    Client,
    /// The sending of a message.
    Producer,
    /// The work on a message.
    Consumer,
}

impl Kind {
    /// Returns the name of the kind, as the specification writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Internal => "INTERNAL",
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Producer => "PRODUCER",
            Self::Consumer => "CONSUMER",
        }
    }
}

/// Something that happened during a span.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Event {
    /// Time of the event, in nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    #[serde(deserialize_with = "json::unsigned")]
    pub time_unix_nano: u64,
    /// Name of the event, such as `exception`.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::nullable")]
    pub name: String,
    /// Attributes of the event.
    #[prost(message, repeated, tag = "3")]
    #[serde(deserialize_with = "json::nullable")]
    pub attributes: Vec<KeyValue>,
    /// Number of attributes that the SDK left out.
    #[prost(uint32, tag = "4")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_attributes_count: u32,
}

/// A link to a span of the same trace or of another trace.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Link {
    /// Id of the linked trace.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(deserialize_with = "json::id")]
    pub trace_id: Vec<u8>,
    /// Id of the linked span.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(deserialize_with = "json::id")]
    pub span_id: Vec<u8>,
    /// `tracestate` of the linked span.
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "json::nullable")]
    pub trace_state: String,
    /// Attributes of the link.
    #[prost(message, repeated, tag = "4")]
    #[serde(deserialize_with = "json::nullable")]
    pub attributes: Vec<KeyValue>,
    /// Number of attributes that the SDK left out.
    #[prost(uint32, tag = "5")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_attributes_count: u32,
    /// Flags of the linked span, see [`Span::flags`].
    #[prost(fixed32, tag = "6")]
    #[serde(deserialize_with = "json::count")]
    pub flags: u32,
}

/// The result of a span.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// The reason of an error.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::nullable")]
    pub message: String,
    /// 0 for unset, 1 for ok, 2 for an error.
    #[prost(int32, tag = "3")]
    #[serde(deserialize_with = "json::small")]
    pub code: i32,
}

impl Status {
    /// Returns the name of the code, as the specification writes it.
    pub fn name(&self) -> &'static str {
        match self.code {
            1 => "OK",
            2 => "ERROR",
            _ => "UNSET",
        }
    }
}

/// The process that made spans, such as a service and its host.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resource {
    /// Attributes of the resource, such as `service.name`.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::nullable")]
    pub attributes: Vec<KeyValue>,
    /// Number of attributes that the SDK left out.
    #[prost(uint32, tag = "2")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_attributes_count: u32,
}

/// The library that made spans.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Scope {
    /// Name of the library.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::nullable")]
    pub name: String,
    /// Version of the library.
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::nullable")]
    pub version: String,
    /// Attributes of the library.
    #[prost(message, repeated, tag = "3")]
    #[serde(deserialize_with = "json::nullable")]
    pub attributes: Vec<KeyValue>,
    /// Number of attributes that the SDK left out.
    #[prost(uint32, tag = "4")]
    #[serde(deserialize_with = "json::count")]
    pub dropped_attributes_count: u32,
}

/// An attribute.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyValue {
    /// Name of the attribute.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::nullable")]
    pub key: String,
    /// Value of the attribute.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(from = "json::AnyValue")]
pub struct AnyValue {
    /// The value. `None` for an empty value.
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub value: Option<Any>,
}

/// A value of one of seven types.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Any {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A boolean.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// An integer.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// A list.
    #[prost(message, tag = "5")]
    List(ArrayValue),
    /// An object.
    #[prost(message, tag = "6")]
    Object(KeyValueList),
    /// Bytes.
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

/// A list of values.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ArrayValue {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::nullable")]
    pub values: Vec<AnyValue>,
}

/// A list of attributes, as a value.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyValueList {
    /// The attributes.
    #[prost(message, repeated, tag = "1")]
    #[serde(deserialize_with = "json::nullable")]
    pub values: Vec<KeyValue>,
}

/// Returns whether the values of `attributes` are nested at most `depth_max` levels deep.
pub(crate) fn are_flat(attributes: &[KeyValue], depth_max: usize) -> bool {
    attributes.iter().all(|it| it.value.as_ref().is_none_or(|value| is_flat(value, depth_max)))
}

fn is_flat(value: &AnyValue, depth_max: usize) -> bool {
    let Some(deeper) = depth_max.checked_sub(1) else {
        return !matches!(value.value, Some(Any::List(_) | Any::Object(_)));
    };
    match &value.value {
        Some(Any::List(list)) => list.values.iter().all(|value| is_flat(value, deeper)),
        Some(Any::Object(object)) => are_flat(&object.values, deeper),
        _ => true,
    }
}
