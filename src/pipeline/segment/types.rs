//! A segment and the places of its fields: plain types, which `tests/model` compiles as well.
//!
//! In: nothing. Out: what the parser finds in a document and the ring carries. Bound: a document
//! is part of one datagram, so its places fit into 16 bits. Plain values: any thread.

/// A place within a document; empty where the field is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte, counted from the start of the document.
    pub offset: u16,
    /// Number of bytes, as written in the document: escape sequences are not decoded.
    pub length: u16,
}

impl Span {
    /// The bytes of the field in `document`; `None` where the field is absent.
    pub fn of(self, document: &[u8]) -> Option<&[u8]> {
        let start = usize::from(self.offset);
        let bytes = document.get(start..start + usize::from(self.length))?;
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// What a document turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// One JSON value.
    #[default]
    Json,
    /// Valid UTF-8 that is not JSON, such as the OpenTelemetry form for Lambda.
    Text,
    /// Bytes that are not UTF-8.
    Bytes,
}

/// The fields of a document that later stages ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// `trace_id`: the batcher keeps the documents of one trace together.
    pub trace_id: Span,
    /// `id`: the service's answers name it.
    pub id: Span,
    /// JSON, other text or other bytes.
    pub form: Form,
}

/// A document on its way, with the places of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The document as it came, never empty.
    pub document: &'a [u8],
    /// Where its fields are.
    pub fields: Fields,
}
