//! A batch as it lies in the spool: a table of its documents, then the body.
//!
//! ```text
//! document_count u16 │ document_count × (offset u32, length u32, id, trace_id) │ body
//! ```
//!
//! Numbers are little-endian; an id is its length in a byte and then as many bytes as it may have.
//! Whether a record is whole is the spool's to check. A record is read into chunks piece by piece,
//! and where memory has no room for all of it a batch is made of some of its documents.

use super::{BODY_END, BODY_START, Batch, DOCUMENT_COUNT_MAX, Document, Label, OutOfChunks};
use crate::base::memory::{CHUNK_BYTES, Chunk, Pool};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Bytes in front of the table, and of a document in it.
const COUNT_BYTES: usize = 2;
const ENTRY_BYTES: usize = 4 + 4 + (1 + 16) + (1 + 35);

/// The table of a record at most.
pub const TABLE_BYTES_MAX: usize = COUNT_BYTES + DOCUMENT_COUNT_MAX * ENTRY_BYTES;

/// Why a record is not read into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError<E> {
    /// There is no room for it now
    #[error(transparent)]
    Memory(#[from] OutOfChunks),
    /// It cannot be read
    #[error("the record cannot be read")]
    Read(E),
}

impl Batch {
    /// What stands in front of the body in a record.
    pub fn record_table(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(COUNT_BYTES + self.documents.len() * ENTRY_BYTES);
        // A batch has fifty documents, a body a few megabytes.
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

/// What a record has in it, known from its table: a batch can be made of some of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordTable {
    documents: Vec<Document>,
    /// Where in the record the body is.
    body: Range<usize>,
}

impl RecordTable {
    /// The table at the start of a record of `record_bytes`. `start` has [`TABLE_BYTES_MAX`] of it,
    /// or all. `None` when the record is no batch: a document lies outside of the body.
    pub fn decode(start: &[u8], record_bytes: usize) -> Option<Self> {
        let (count, rest) = start.split_first_chunk::<COUNT_BYTES>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if !(1..=DOCUMENT_COUNT_MAX).contains(&count) {
            return None;
        }
        let table = rest.get(..count * ENTRY_BYTES)?;
        let body = COUNT_BYTES + table.len()..record_bytes;
        let body_bytes = body.end.checked_sub(body.start)?;
        let mut documents = Vec::with_capacity(count);
        let mut end = 0;
        for entry in table.chunks_exact(ENTRY_BYTES) {
            let document = decode_document(entry)?;
            if document.offset < end {
                return None;
            }
            end = document.offset.checked_add(document.length)?;
            documents.push(document);
        }
        (end <= body_bytes).then_some(Self { documents, body })
    }

    /// Documents in it.
    pub fn document_count(&self) -> usize {
        self.documents.len()
    }

    /// How many of these documents, from the first on, make a batch of so many chunks at most. One
    /// that does not fit goes alone.
    pub fn fitting_count(&self, documents: Range<usize>, chunk_count_max: usize) -> usize {
        let fits = |&count: &usize| {
            self.chunk_count(&(documents.start..documents.start + count)) <= chunk_count_max
        };
        (1..=documents.len()).take_while(fits).last().unwrap_or(1)
    }

    /// The most chunks that a batch of one of these documents takes.
    pub fn chunk_count_most(&self, documents: Range<usize>) -> usize {
        documents.map(|place| self.chunk_count(&(place..place + 1))).max().unwrap_or_default()
    }

    /// How many chunks a batch of these documents takes.
    fn chunk_count(&self, documents: &Range<usize>) -> usize {
        let (start, span, end) = self.pieces(documents);
        (start.len() + span.len() + end.len()).div_ceil(CHUNK_BYTES)
    }

    /// The body of these documents: what stands before them, their place in the record, and what
    /// stands behind.
    fn pieces(&self, documents: &Range<usize>) -> (&'static [u8], Range<usize>, &'static [u8]) {
        if documents.len() == self.documents.len() {
            return (b"", self.body.clone(), b"");
        }
        let span = match self.documents.get(documents.clone()) {
            Some([first, .., last]) => first.offset..last.offset + last.length,
            Some([only]) => only.offset..only.offset + only.length,
            _ => 0..0,
        };
        (BODY_START, self.body.start + span.start..self.body.start + span.end, BODY_END)
    }

    /// The batch of these documents. `read` fills a buffer from a place in the record. The chunks
    /// of `pool` are not reserved ones: what comes back from the spool must not keep fresh segments
    /// from being packed.
    ///
    /// # Errors
    ///
    /// When the pool has no room for it now, or `read` fails.
    pub fn read<E>(
        &self,
        documents: Range<usize>,
        oldest_at: Instant,
        pool: &Arc<Pool>,
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
        // Where the documents are in the body that this batch has.
        let moved = |document: &Document| Document {
            offset: start.len() + self.body.start + document.offset - span.start,
            ..*document
        };
        let documents = self.documents.get(documents).unwrap_or_default().iter().map(moved);
        let body = chunks.into_iter().map(Bytes::from_owner).collect();
        Ok(Batch::new(body, documents.collect(), oldest_at))
    }
}

/// Fills in `bytes` behind what the chunks have; there is room for it.
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
