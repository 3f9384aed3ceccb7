//! Collects segments into batches: request bodies of up to 50 documents.
//!
//! In: segments from the rings. Out: [`Batch`]es whose body is
//! `{"TraceSegmentDocuments":["...","..."]}`, with the SHA-256 of the body for the signature, and
//! the place of every document in the body. Each document is escaped straight into the chunks of
//! the body: there is no second copy, and no allocation for a segment.
//!
//! An *open batch* takes segments. Documents of one trace go to the same open batch, because the
//! service accepts larger traces when their documents travel together. One open batch is enough
//! while batches fill slowly. When a batch fills within 100 ms the batcher adds an open batch, so
//! that each open batch stays open for longer. When a batch is finished because it is one second
//! old, the batcher halves the number of open batches.
//!
//! Bound: a batch has at most 50 documents and a limited number of bytes, and its oldest document
//! waits for at most one second. There are at most [`OPEN_BATCH_COUNT_MAX`] open batches, and the
//! pool limits the memory. When full: the pool has no chunk left, and the segment is not added
//! ([`OutOfChunks`]). Thread: `upload`.

mod batcher;
mod body;
pub mod escape;
pub mod hash;
mod open_batch;
mod record;
mod span_batch;
mod span_documents;
mod span_table;
#[cfg(test)]
mod tests;

pub use batcher::Batcher;
pub use body::Batch;
pub use open_batch::OutOfChunks;
pub use record::{RecordError, RecordTable, TABLE_BYTES_MAX};
pub use span_batch::OpenSpanBatch;
pub use span_documents::OpenSpanDocuments;
pub use span_table::{REQUEST_COUNT_MAX, SpanTable};

pub use crate::aws::DOCUMENT_COUNT_MAX;
use std::time::Duration;

/// The largest number of open batches.
pub const OPEN_BATCH_COUNT_MAX: usize = 16;

/// The longest time that a document waits in an open batch. The batch is then finished, full or
/// not.
pub const AGE_MAX: Duration = Duration::from_secs(1);

/// The start of a body, up to the opening quote of the first document.
const BODY_START: &[u8] = FIRST_START.split_last().expect("it is not empty").1;
/// The start of a body with the opening quote of the first document.
const FIRST_START: &[u8] = br#"{"TraceSegmentDocuments":[""#;
const BODY_END: &[u8; 2] = b"]}";

/// The place of a document in a body, and the ids that name the document in answers and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Offset of the opening quote of the JSON string, in bytes from the start of the body.
    pub offset: usize,
    /// Length of the JSON string in bytes, with both quotes.
    pub length: usize,
    /// The segment's `id`; empty if the segment has none.
    pub id: Label<16>,
    /// The segment's `trace_id`; empty if the segment has none.
    pub trace_id: Label<35>,
}

/// The text of a field, stored inline. `N` is the length in bytes that the service prescribes.
/// Longer text is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Label<N> {
    fn new(text: Option<&[u8]>) -> Self {
        let text = text.unwrap_or_default();
        // Most texts have this length. A copy of a fixed length needs no call.
        if let Some(bytes) = text.first_chunk() {
            return Self { bytes: *bytes, length: u8::try_from(N).unwrap_or(u8::MAX) };
        }
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes, length: u8::try_from(text.len()).unwrap_or(u8::MAX) }
    }

    /// Returns the text; empty if the field is absent or not UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl<const N: usize> std::fmt::Debug for Label<N> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(out)
    }
}

/// Returns a batch of documents. Each document consists of its id only.
#[cfg(test)]
pub fn test_batch(ids: impl IntoIterator<Item = String>) -> Batch {
    let (mut body, mut documents) = (BODY_START.to_vec(), Vec::new());
    for id in ids {
        if !documents.is_empty() {
            body.push(b',');
        }
        let (offset, id, text) = (body.len(), Label::new(Some(id.as_bytes())), format!("\"{id}\""));
        body.extend(text.as_bytes());
        documents.push(Document { offset, length: text.len(), id, trace_id: Label::new(None) });
    }
    body.extend(BODY_END);
    Batch::new(vec![body.into()], documents, std::time::Instant::now())
}
