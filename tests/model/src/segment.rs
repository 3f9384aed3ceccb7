//! The types of `src/segment.rs` that the ring carries, without the parser and its dependencies.

/// A place within a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub offset: u16,
    pub length: u16,
}

/// What a document turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    #[default]
    Json,
    Text,
    Bytes,
}

/// The fields of a document that later stages ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    pub trace_id: Span,
    pub id: Span,
    pub form: Form,
}

/// A document on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pub document: &'a [u8],
    pub fields: Fields,
}
