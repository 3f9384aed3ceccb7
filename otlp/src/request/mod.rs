//! Finds the spans of a request and decodes them one by one.
//!
//! In: the uncompressed body of an `ExportTraceServiceRequest`, as protobuf or JSON. Out: its
//! spans. A span that cannot be decoded is an error of its own, and the other spans are not lost.
//! Bound: [`SPAN_COUNT_MAX`] spans, [`SPAN_BYTES_MAX`] for one of them; only references to the body
//! are held.

use crate::json;
use crate::message::{Resource, Scope, Span, are_flat};
use crate::protobuf::fields;
use crate::{DEPTH_MAX, SPAN_BYTES_MAX, SPAN_COUNT_MAX};
use prost::Message;
use serde::de::{DeserializeOwned, Error};
use serde_json::value::RawValue;
use std::rc::Rc;

/// The encoding of a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Encoding {
    /// Returns the encoding that a content type names, or `None` for another one. Parameters such
    /// as `charset` are ignored.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let essence = content_type.split(|byte| *byte == b';').next()?.trim_ascii();
        let all = [Self::Protobuf, Self::Json];
        all.into_iter().find(|it| essence.eq_ignore_ascii_case(it.content_type().as_bytes()))
    }

    /// Returns the content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Why a request cannot be read
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A field is longer than the rest of the body
    #[error("the protobuf is cut off: a field of {length_bytes} bytes, and {left_bytes} are left")]
    Truncated {
        /// Length that the field announces, in bytes.
        length_bytes: u64,
        /// Rest of the message, in bytes.
        left_bytes: usize,
    },
    /// The body is not protobuf
    #[error("the body is not the protobuf of an ExportTraceServiceRequest: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The body is not JSON
    #[error("the body is not the JSON of an ExportTraceServiceRequest: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why one span was rejected
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpanError {
    /// The bytes of the span, its resource or its scope are broken
    #[error("a span cannot be read: {0}")]
    Broken(String),
    /// The span, its resource or its scope is too large
    #[error("{what} has {size_bytes} bytes, at most {SPAN_BYTES_MAX} are taken")]
    TooLarge {
        /// Name of the part that is too large.
        what: &'static str,
        /// Its size in bytes.
        size_bytes: usize,
    },
    /// An id is missing or has the wrong length
    #[error("the {0} of a span is missing, all zeros, or has the wrong length")]
    Id(&'static str),
    /// An attribute is nested too deep
    #[error("an attribute is nested more than {DEPTH_MAX} levels deep")]
    Depth,
}

/// Where a span comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Source {
    /// The process that made the span.
    pub resource: Resource,
    /// The library that made the span.
    pub scope: Scope,
}

/// A span that was received, with the place where it comes from.
#[derive(Debug, Clone)]
pub struct Received {
    /// Where the span comes from. Spans of one list share it.
    pub source: Rc<Source>,
    /// The span. Its ids are valid.
    pub span: Span,
}

/// The bytes of a part of a request that is not decoded yet.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Protobuf(&'a [u8]),
    Json(&'a RawValue),
}

/// The spans of one resource and one scope.
#[derive(Debug)]
struct Group<'a> {
    resource: Option<Part<'a>>,
    scope: Option<Part<'a>>,
    spans: Vec<Part<'a>>,
}

/// A request whose spans are known and not decoded yet.
#[derive(Debug)]
pub struct Request<'a> {
    groups: Vec<Group<'a>>,
    taken_count: usize,
    left_out_count: usize,
}

impl<'a> Request<'a> {
    /// Finds the spans of a request.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is cut off or is not what `encoding` says.
    pub fn parse(encoding: Encoding, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self { groups: Vec::new(), taken_count: 0, left_out_count: 0 };
        match encoding {
            Encoding::Protobuf => fields(body, |number, resource_spans| match number {
                1 => request.add_protobuf(resource_spans),
                _ => Ok(()),
            })?,
            Encoding::Json => {
                // serde also takes a list for a struct.
                if !body.trim_ascii_start().starts_with(b"{") {
                    return Err(serde_json::Error::custom("not an object").into());
                }
                let export: json::Export<'_> = serde_json::from_slice(body)?;
                for resource_spans in export.resource_spans.into_iter().flatten() {
                    request.add_json(resource_spans)?;
                }
            }
        }
        Ok(request)
    }

    /// Returns the number of spans beyond [`SPAN_COUNT_MAX`]. [`Self::spans`] leaves them out.
    pub fn left_out_count(&self) -> usize {
        self.left_out_count
    }

    fn add_protobuf(&mut self, resource_spans: &'a [u8]) -> Result<(), DecodeError> {
        let mut resource = None;
        let first = self.groups.len();
        fields(resource_spans, |number, field| {
            match number {
                1 => resource = Some(Part::Protobuf(field)),
                2 => self.add_scope_spans(field)?,
                _ => {}
            }
            Ok(())
        })?;
        // The resource may stand behind the spans.
        self.groups[first..].iter_mut().for_each(|group| group.resource = resource);
        Ok(())
    }

    fn add_scope_spans(&mut self, scope_spans: &'a [u8]) -> Result<(), DecodeError> {
        let (mut scope, mut spans) = (None, Vec::new());
        fields(scope_spans, |number, field| {
            match number {
                1 => scope = Some(Part::Protobuf(field)),
                2 => self.add_span(&mut spans, Part::Protobuf(field)),
                _ => {}
            }
            Ok(())
        })?;
        self.add_group(Group { resource: None, scope, spans });
        Ok(())
    }

    fn add_json(&mut self, resource_spans: &'a RawValue) -> Result<(), DecodeError> {
        let resource_spans: json::ResourceSpans<'_> = serde_json::from_str(resource_spans.get())?;
        let resource = resource_spans.resource.map(Part::Json);
        for scope_spans in resource_spans.scope_spans.into_iter().flatten() {
            let scope_spans: json::ScopeSpans<'_> = serde_json::from_str(scope_spans.get())?;
            let mut spans = Vec::new();
            for span in scope_spans.spans.into_iter().flatten() {
                self.add_span(&mut spans, Part::Json(span));
            }
            self.add_group(Group { resource, scope: scope_spans.scope.map(Part::Json), spans });
        }
        Ok(())
    }

    fn add_span(&mut self, spans: &mut Vec<Part<'a>>, span: Part<'a>) {
        if self.taken_count == SPAN_COUNT_MAX {
            self.left_out_count += 1;
        } else {
            self.taken_count += 1;
            spans.push(span);
        }
    }

    fn add_group(&mut self, group: Group<'a>) {
        // Empty groups would take more memory than they have bytes.
        if !group.spans.is_empty() {
            self.groups.push(group);
        }
    }

    /// Decodes the spans one by one and passes them to `take`, in the order of the request.
    pub fn spans(&self, mut take: impl FnMut(Result<Received, SpanError>)) {
        for group in &self.groups {
            let source = group.source().map(Rc::new);
            for part in &group.spans {
                let received = source
                    .clone()
                    .and_then(|source| span(*part).map(|span| Received { source, span }));
                take(received);
            }
        }
    }
}

impl Group<'_> {
    fn source(&self) -> Result<Source, SpanError> {
        let resource: Resource = decode(self.resource, "the resource")?;
        let scope: Scope = decode(self.scope, "the scope")?;
        let is_flat =
            are_flat(&resource.attributes, DEPTH_MAX) && are_flat(&scope.attributes, DEPTH_MAX);
        is_flat.then_some(Source { resource, scope }).ok_or(SpanError::Depth)
    }
}

/// Decodes a part of a request. A missing part is an empty message.
fn decode<T>(part: Option<Part<'_>>, what: &'static str) -> Result<T, SpanError>
where
    T: Message + Default + DeserializeOwned,
{
    let size_bytes = match part {
        None => return Ok(T::default()),
        Some(Part::Protobuf(bytes)) => bytes.len(),
        Some(Part::Json(text)) => text.get().len(),
    };
    if size_bytes > SPAN_BYTES_MAX {
        return Err(SpanError::TooLarge { what, size_bytes });
    }
    match part {
        Some(Part::Protobuf(bytes)) => {
            T::decode(bytes).map_err(|error| SpanError::Broken(error.to_string()))
        }
        Some(Part::Json(text)) => {
            let decoded: Result<Option<T>, _> = serde_json::from_str(text.get());
            decoded
                .map(Option::unwrap_or_default)
                .map_err(|error| SpanError::Broken(error.to_string()))
        }
        None => Ok(T::default()),
    }
}

/// Decodes a span and checks its ids.
fn span(part: Part<'_>) -> Result<Span, SpanError> {
    let mut span: Span = decode(Some(part), "a span")?;
    let is_id = |id: &[u8], length: usize| id.len() == length && id.iter().any(|byte| *byte != 0);
    if !is_id(&span.trace_id, 16) {
        return Err(SpanError::Id("trace id"));
    }
    if !is_id(&span.span_id, 8) {
        return Err(SpanError::Id("span id"));
    }
    // Some senders write zeros instead of nothing.
    if span.parent_span_id.iter().all(|byte| *byte == 0) {
        span.parent_span_id.clear();
    }
    if !span.parent_span_id.is_empty() && span.parent_span_id.len() != 8 {
        return Err(SpanError::Id("parent id"));
    }
    let is_flat = are_flat(&span.attributes, DEPTH_MAX)
        && span.events.iter().all(|event| are_flat(&event.attributes, DEPTH_MAX))
        && span.links.iter().all(|link| are_flat(&link.attributes, DEPTH_MAX));
    is_flat.then_some(span).ok_or(SpanError::Depth)
}

#[cfg(test)]
mod tests;
