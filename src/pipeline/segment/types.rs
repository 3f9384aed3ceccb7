//! The types of a segment and its fields, which `tests/model` compiles too.
//!
//! In: the fields that the parser finds in a document. Out: values for the ring and the batcher.
//! Bound: a document is part of one datagram, so 16 bits hold every offset in it. Any thread.

/// The place of a field within a document. It is empty if the field is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of the field's first byte from the start of the document.
    pub offset: u16,
    /// Number of bytes of the field in the document. Escape sequences are not decoded there.
    pub length: u16,
}

impl Span {
    /// Returns the bytes of the field in `document`, or `None` if the field is absent.
    pub fn of(self, document: &[u8]) -> Option<&[u8]> {
        let start = usize::from(self.offset);
        let bytes = document.get(start..start + usize::from(self.length))?;
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// The kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The document is one JSON value.
    #[default]
    Json,
    /// The document has the form of AWS's UDP exporters for OpenTelemetry: a prefix and base64.
    Spans,
    /// The document is valid UTF-8, but has none of these forms.
    Text,
    /// The document is not valid UTF-8.
    Bytes,
}

impl Form {
    /// All forms. The place of each is its number in a ring entry.
    pub const ALL: [Self; 4] = [Self::Json, Self::Spans, Self::Text, Self::Bytes];
}

/// The places of the fields that later stages use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// Place of `trace_id`. The batcher keeps the documents of one trace together.
    pub trace_id: Span,
    /// Place of `id`. The service's answers name documents by their `id`.
    pub id: Span,
    /// Whether the document is JSON, spans, other text or other bytes.
    pub form: Form,
}

/// A document of a checked datagram, with the places of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The document as received. It is never empty.
    pub document: &'a [u8],
    /// The places of the document's fields.
    pub fields: Fields,
}
