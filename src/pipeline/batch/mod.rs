//! From segments to batches: up to fifty documents, escaped and put together as a request body.
//!
//! In: segments out of the rings. Out: [`Batch`]es whose body is
//! `{"TraceSegmentDocuments":["...","..."]}`, with its SHA-256 for the signature and the place of
//! every document in it. A document is escaped straight into the body's chunks: there is no
//! second copy, and nothing is allocated for a segment.
//!
//! Documents of one trace go to the same *lane* (an open batch), because the service takes larger
//! traces when their documents come together. One lane is enough while batches fill slowly; when
//! they fill in less than [`LANE_FILL_TIME_MIN`] a lane more keeps each of them open for longer,
//! and when one is flushed by age there are too many.
//!
//! Bounds: 50 documents and a number of bytes for a batch, one second for its oldest document,
//! [`LANE_COUNT_MAX`] lanes. The memory is the pool's; when it has no chunk left the segment is
//! handed back ([`OutOfChunks`]). Runs on the sender thread.

mod batcher;
mod body;
pub mod escape;
pub mod hash;
mod lane;
mod record;
#[cfg(test)]
mod tests;

pub use batcher::Batcher;
pub use body::Batch;
pub use lane::OutOfChunks;
pub use record::{RecordError, RecordTable, TABLE_BYTES_MAX};

pub use crate::aws::DOCUMENT_COUNT_MAX;
use std::time::Duration;

/// Open batches at most.
pub const LANE_COUNT_MAX: usize = 16;

/// A batch leaves when its oldest document has waited this long, full or not.
pub const AGE_MAX: Duration = Duration::from_secs(1);

/// A body up to the first document's quote, and with it.
const BODY_START: &[u8] = FIRST_START.split_last().expect("it is not empty").1;
const FIRST_START: &[u8] = br#"{"TraceSegmentDocuments":[""#;
const BODY_END: &[u8; 2] = b"]}";

/// Where a document lies in a body, and what the answers and the log call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// First byte of the JSON string, its quote, counted from the start of the body.
    pub offset: usize,
    /// Length of the JSON string with its quotes.
    pub length: usize,
    /// The segment's `id`; empty where it has none.
    pub id: Label<16>,
    /// The segment's `trace_id`; empty where it has none.
    pub trace_id: Label<35>,
}

/// The text of a field, kept in place; cut at `N` bytes, the length that the service prescribes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Label<N> {
    fn new(text: Option<&[u8]>) -> Self {
        let text = text.unwrap_or_default();
        let text = &text[..text.len().min(N)];
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes, length: u8::try_from(text.len()).unwrap_or(u8::MAX) }
    }

    /// The text; empty where the field is absent or no UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl<const N: usize> std::fmt::Debug for Label<N> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(out)
    }
}

/// A batch of documents that are nothing but their ids.
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
