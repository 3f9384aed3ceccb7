//! The form of a batch in the spool: a table of its documents, then the body.
//!
//! ```text
//! document_count u16 │ document_count × (offset u32, length u32, id, trace_id) │ body
//! ```
//!
//! The table of a batch of spans has another form (`span_table.rs`). Numbers are little-endian. An
//! id is one byte with its length, and then a field of fixed size: 16 bytes for `id`, 35 bytes for
//! `trace_id`. The spool has a checksum for each record.
//!
//! In: a batch, or a record of the spool. Out: the table of the record, or a batch in chunks of the
//! pool. Bound: 50 documents. When full: if memory has no room for the whole record, the caller
//! reads some of its documents as a batch. Thread: the spool's.

use super::body::frame;
use super::span_table::{SPAN_TABLE_BYTES_MAX, SpanTable};
use super::{Batch, DOCUMENT_COUNT_MAX, Document, Label, OutOfChunks};
use crate::aws::Media;
use crate::base::account::Signal;
use crate::base::memory::{CHUNK_BYTES, Chunk, ChunkPool};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Size of the number of documents, in bytes.
const COUNT_BYTES: usize = 2;
/// Size of a document's entry in the table, in bytes.
const ENTRY_BYTES: usize = 4 + 4 + (1 + 16) + (1 + 35);

/// The largest size of a table with its number of documents, in bytes.
pub const TABLE_BYTES_MAX: usize = COUNT_BYTES + DOCUMENT_COUNT_MAX * ENTRY_BYTES;
const _: () = assert!(SPAN_TABLE_BYTES_MAX <= TABLE_BYTES_MAX, "a buffer fits both tables");

/// The reason why a record was not read into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError<E> {
    /// The pool has no room for the batch now
    #[error(transparent)]
    Memory(#[from] OutOfChunks),
    /// The record cannot be read
    #[error("the record cannot be read")]
    Read(E),
}

impl Batch {
    /// Returns the table that stands before the body in a record.
    pub fn record_table(&self) -> Vec<u8> {
        if let Some(spans) = &self.spans {
            return spans.encode(&self.documents);
        }
        let mut table = Vec::with_capacity(COUNT_BYTES + self.documents.len() * ENTRY_BYTES);
        // These conversions cannot fail: a batch has at most 50 documents, and a body a few MB.
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        table.extend(short(self.documents.len()));
        for document in &self.documents {
            table.extend(long(document.offset));
            table.extend(long(document.length));
            document.id.encode(&mut table);
            document.trace_id.encode(&mut table);
        }
        table
    }
}

/// The table of a record. It says where each document lies, so that some or all documents can be
/// read into a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordTable {
    documents: Vec<Document>,
    spans: Option<SpanTable>,
    /// Place of the body in the record, in bytes.
    body: Range<usize>,
}

impl RecordTable {
    /// Decodes the table of a record of `signal` that is `record_bytes` long. `start` holds the
    /// first [`TABLE_BYTES_MAX`] bytes of the record, or the whole record if that is shorter.
    /// Returns `None` if the record is not a batch, for example if a document lies outside of the
    /// body.
    pub fn decode(signal: Signal, start: &[u8], record_bytes: usize) -> Option<Self> {
        let (spans, documents, table_bytes) = match signal {
            Signal::Segments => {
                let (documents, table_bytes) = decode_documents(start)?;
                (None, documents, table_bytes)
            }
            Signal::Spans => {
                let (spans, documents, table_bytes) = SpanTable::decode(start)?;
                (Some(spans), documents, table_bytes)
            }
        };
        let body = table_bytes..record_bytes;
        let body_bytes = body.end.checked_sub(body.start)?;
        let mut end = 0;
        for document in &documents {
            if document.offset < end {
                return None;
            }
            end = document.offset.checked_add(document.length)?;
        }
        (end <= body_bytes).then_some(Self { documents, spans, body })
    }

    /// Returns the number of segments or spans in `documents`.
    pub fn item_count(&self, documents: Range<usize>) -> usize {
        match &self.spans {
            None => documents.len(),
            Some(spans) => {
                let counts = spans.counts.get(documents).unwrap_or_default();
                counts.iter().map(|count| *count as usize).sum()
            }
        }
    }

    /// Returns the number of segments or spans in the record.
    pub fn items(&self) -> usize {
        self.item_count(0..self.documents.len())
    }

    /// Returns the documents with exactly the segments or spans `items`. Returns `None` if a
    /// document has only some of them.
    pub fn documents_with(&self, items: Range<usize>) -> Option<Range<usize>> {
        let place_of = |item: usize| {
            (0..=self.documents.len()).find(|&place| self.item_count(0..place) == item)
        };
        Some(place_of(items.start)?..place_of(items.end)?)
    }

    /// Returns how many of `documents`, from the first on, fit into a batch of `chunk_count_max`
    /// chunks. The result is at least 1: a document that does not fit makes a batch alone.
    pub fn fitting_count(&self, documents: Range<usize>, chunk_count_max: usize) -> usize {
        let fits = |&count: &usize| {
            self.chunk_count(&(documents.start..documents.start + count)) <= chunk_count_max
        };
        (1..=documents.len()).take_while(fits).last().unwrap_or(1)
    }

    /// Returns the number of chunks that a batch of only the largest of these documents needs.
    pub fn chunk_count_most(&self, documents: Range<usize>) -> usize {
        documents.map(|place| self.chunk_count(&(place..place + 1))).max().unwrap_or_default()
    }

    /// Returns the number of chunks that a batch of these documents needs.
    fn chunk_count(&self, documents: &Range<usize>) -> usize {
        let (start, span, end) = self.pieces(documents);
        (start.len() + span.len() + end.len()).div_ceil(CHUNK_BYTES)
    }

    /// Returns the body of a batch of these documents in three pieces: the bytes before the
    /// documents, the place of the documents in the record, and the bytes after the documents.
    fn pieces(&self, documents: &Range<usize>) -> (&'static [u8], Range<usize>, &'static [u8]) {
        let media = self.spans.as_ref().map_or(Media::Json, |spans| spans.media);
        let (start, _, end) = frame(media);
        if documents.len() == self.documents.len() {
            return (b"", self.body.clone(), b"");
        }
        let span = match self.documents.get(documents.clone()) {
            Some([first, .., last]) => first.offset..last.offset + last.length,
            Some([only]) => only.offset..only.offset + only.length,
            _ => 0..0,
        };
        (start, self.body.start + span.start..self.body.start + span.end, end)
    }

    /// Reads these documents into a batch. `read` fills a buffer from a place in the record. The
    /// batch takes no chunk of the pool's reserve, so that replayed batches cannot keep fresh
    /// segments from being packed.
    ///
    /// # Errors
    ///
    /// When the pool has no room for the batch now, or when `read` fails.
    pub fn read<E>(
        &self,
        documents: Range<usize>,
        oldest_at: Instant,
        pool: &Arc<ChunkPool>,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Batch, RecordError<E>> {
        let (start, span, end) = self.pieces(&documents);
        let chunk_count = self.chunk_count(&documents);
        let taken: Option<Vec<_>> = (0..chunk_count).map(|_| pool.take_for_receive()).collect();
        let mut chunks = taken.ok_or(OutOfChunks)?;
        fill(&mut chunks, start);
        let mut at = span.start;
        for chunk in &mut chunks {
            let length = chunk.spare().len().min(span.end - at);
            read(at, &mut chunk.spare()[..length]).map_err(RecordError::Read)?;
            chunk.advance(length);
            at += length;
        }
        fill(&mut chunks, end);
        // The places of the documents in the body of the new batch.
        let moved = |document: &Document| Document {
            offset: start.len() + self.body.start + document.offset - span.start,
            ..*document
        };
        let taken = self.documents.get(documents.clone()).unwrap_or_default();
        let taken = taken.iter().map(moved).collect();
        let body = chunks.into_iter().map(Bytes::from_owner).collect();
        Ok(match &self.spans {
            None => Batch::new(body, taken, oldest_at),
            Some(SpanTable { media, counts }) => {
                let counts = counts.get(documents).unwrap_or_default().to_vec();
                Batch::of_spans(body, taken, SpanTable { media: *media, counts }, oldest_at)
            }
        })
    }
}

/// Appends `bytes` to the chunks, which have room for them.
fn fill(chunks: &mut [Chunk], mut bytes: &[u8]) {
    for chunk in chunks {
        let length = bytes.len().min(chunk.spare().len());
        chunk.fill(&bytes[..length]);
        bytes = &bytes[length..];
    }
}

impl<const N: usize> Label<N> {
    fn encode(&self, table: &mut Vec<u8>) {
        table.push(self.length);
        table.extend(self.bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&length, text) = bytes.split_first()?;
        Some(Self::new(Some(text.get(..usize::from(length))?)))
    }
}

/// Decodes the places of segments at the start of a record. Also returns the length of the table.
fn decode_documents(start: &[u8]) -> Option<(Vec<Document>, usize)> {
    let (count, rest) = start.split_first_chunk::<COUNT_BYTES>()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if !(1..=DOCUMENT_COUNT_MAX).contains(&count) {
        return None;
    }
    let table = rest.get(..count * ENTRY_BYTES)?;
    let documents: Option<Vec<Document>> =
        table.chunks_exact(ENTRY_BYTES).map(decode_document).collect();
    Some((documents?, COUNT_BYTES + table.len()))
}

fn decode_document(entry: &[u8]) -> Option<Document> {
    let (offset, rest) = entry.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (id, trace_id) = rest.split_at_checked(1 + 16)?;
    Some(Document {
        offset: usize::try_from(u32::from_le_bytes(*offset)).ok()?,
        length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
        id: Label::decode(id)?,
        trace_id: Label::decode(trace_id)?,
    })
}
