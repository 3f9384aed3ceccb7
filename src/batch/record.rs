//! A batch as it lies in the spool: a table of its documents, then the body.
//!
//! ```text
//! document_count u16 │ document_count × (offset u32, length u32, id, trace_id) │ body
//! ```
//!
//! Numbers are little-endian; an id is its length in a byte and then as many bytes as it may have.
//! Whether a record is whole is the spool's to check.

use super::{Batch, DOCUMENT_COUNT_MAX, Document, Label, OutOfChunks};
use crate::memory::Pool;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// Bytes in front of the table, and of a document in it.
const COUNT_BYTES: usize = 2;
const ENTRY_BYTES: usize = 4 + 4 + (1 + 16) + (1 + 35);

/// Why a record makes no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It says what cannot be
    #[error("a record of the spool is no batch of this version of xrayd")]
    Content,
    /// There is no room for it now
    #[error(transparent)]
    Memory(#[from] OutOfChunks),
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

    /// The batch in `record`, its body in chunks of `pool` that are not reserved: what comes back
    /// from the spool must not keep fresh segments from being packed.
    ///
    /// # Errors
    ///
    /// When the record holds something else, or the pool has no room for it.
    pub fn from_record(
        record: &[u8],
        oldest_at: Instant,
        pool: &Arc<Pool>,
    ) -> Result<Self, RecordError> {
        let (documents, body) = decode(record).ok_or(RecordError::Content)?;
        let mut pieces = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let mut chunk = pool.take_for_receive().ok_or(OutOfChunks)?;
            let length = rest.len().min(chunk.spare().len());
            chunk.fill(&rest[..length]);
            pieces.push(Bytes::from_owner(chunk));
            rest = &rest[length..];
        }
        Ok(Self::new(pieces, documents, oldest_at))
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

/// The documents and the body of a record; `None` when a document lies outside of the body.
fn decode(record: &[u8]) -> Option<(Vec<Document>, &[u8])> {
    let (count, rest) = record.split_first_chunk::<COUNT_BYTES>()?;
    let count = usize::from(u16::from_le_bytes(*count));
    if !(1..=DOCUMENT_COUNT_MAX).contains(&count) {
        return None;
    }
    let (table, body) = rest.split_at_checked(count * ENTRY_BYTES)?;
    let mut documents = Vec::with_capacity(count);
    let mut end = 0;
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let document = decode_document(entry)?;
        if document.offset < end || document.offset + document.length > body.len() {
            return None;
        }
        end = document.offset + document.length;
        documents.push(document);
    }
    Some((documents, body))
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
