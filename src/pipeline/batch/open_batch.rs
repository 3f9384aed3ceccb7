//! An open batch. Its documents are escaped straight into the chunks of a request body.
//!
//! In: segments. Out: the finished body. Bound: 50 documents, and the pool's chunks. When full: the
//! pool has no chunk left, and the body stays as it was. Thread: `upload`.

use super::body::Unhashed;
use super::{BODY_END, DOCUMENT_COUNT_MAX, Document, FIRST_START, Label};
use crate::base::memory::{CHUNK_BYTES, Chunk, ChunkPool};
use crate::pipeline::batch::escape;
use crate::pipeline::ring::PackedSegment;
use crate::pipeline::segment::Form;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// The bytes at the end of a chunk that the text of a body leaves free: two for `]}`, and 9 because
/// so many stand before the data of a frame of HTTP/2. A frame with the whole chunk then fits into
/// one TLS record of 16 KiB, and its last bytes need no second record.
const CHUNK_END_BYTES: usize = BODY_END.len() + 9;

/// The pool has no chunk left. The segment was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory is left to put the segment into a batch")]
pub struct OutOfChunks;

/// An open batch.
#[derive(Debug)]
pub(super) struct OpenBatch {
    chunks: Vec<Chunk>,
    pub(super) length: usize,
    pub(super) documents: Vec<Document>,
    pub(super) oldest_at: Option<Instant>,
}

impl Default for OpenBatch {
    fn default() -> Self {
        let documents = Vec::with_capacity(DOCUMENT_COUNT_MAX);
        Self { chunks: Vec::with_capacity(8), length: 0, documents, oldest_at: None }
    }
}

impl OpenBatch {
    /// Appends a document.
    ///
    /// # Errors
    ///
    /// When the pool has no chunk left. The body is then as it was before.
    pub(super) fn add(
        &mut self,
        segment: &PackedSegment<'_>,
        pool: &Arc<ChunkPool>,
    ) -> Result<(), OutOfChunks> {
        let before = self.length;
        let written = self.write_document(segment, pool);
        if written.is_err() {
            self.truncate(before);
        }
        let offset = written?;
        let fields = &segment.fields;
        self.documents.push(Document {
            offset,
            length: self.length - offset,
            id: Label::new(segment.field(fields.id)),
            trace_id: Label::new(segment.field(fields.trace_id)),
        });
        Ok(())
    }

    /// Writes the document as a JSON string. Returns the offset of its opening quote in the body.
    fn write_document(
        &mut self,
        segment: &PackedSegment<'_>,
        pool: &Arc<ChunkPool>,
    ) -> Result<usize, OutOfChunks> {
        self.write(if self.documents.is_empty() { FIRST_START } else { b",\"" }, pool)?;
        let offset = self.length - 1;
        let escape = match segment.fields.form {
            Form::Json | Form::Spans | Form::Text => escape::escape,
            Form::Bytes => escape::escape_lossy,
        };
        for mut piece in segment.pieces() {
            while !piece.is_empty() {
                let chunk = self.chunk(escape::EXPANSION_MAX, pool)?;
                let room = chunk.spare().len() - CHUNK_END_BYTES;
                let progress = escape(piece, &mut chunk.spare()[..room]);
                chunk.advance(progress.written);
                self.length += progress.written;
                piece = &piece[progress.consumed..];
            }
        }
        self.write(b"\"", pool)?;
        Ok(offset)
    }

    fn write(&mut self, bytes: &[u8], pool: &Arc<ChunkPool>) -> Result<(), OutOfChunks> {
        self.chunk(bytes.len(), pool)?.fill(bytes);
        self.length += bytes.len();
        Ok(())
    }

    /// Returns the chunk to write into. It has room for `room` bytes and for the end of the body
    /// (`]}`) after them. So a body can always be ended and sent, even when no memory is left.
    fn chunk(&mut self, room: usize, pool: &Arc<ChunkPool>) -> Result<&mut Chunk, OutOfChunks> {
        let has_room = self
            .chunks
            .last_mut()
            .is_some_and(|chunk| chunk.spare().len() >= room + CHUNK_END_BYTES);
        if !has_room {
            self.chunks.push(pool.take_for_batch().ok_or(OutOfChunks)?);
        }
        self.chunks.last_mut().ok_or(OutOfChunks)
    }

    fn truncate(&mut self, length: usize) {
        let mut rest = length;
        self.chunks.retain_mut(|chunk| {
            let kept = rest.min(chunk.filled().len());
            rest -= kept;
            chunk.truncate(kept);
            kept > 0
        });
        self.length = length;
    }

    /// Returns the memory of the body in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES
    }

    /// Ends the body; returns `None` if the open batch has no document.
    pub(super) fn finish(&mut self) -> Option<Unhashed> {
        let oldest_at = self.oldest_at.take()?;
        self.chunks.last_mut()?.fill(BODY_END);
        let body = self.chunks.drain(..).map(Bytes::from_owner).collect();
        let batch = Unhashed { body, documents: self.documents.clone(), oldest_at };
        self.documents.clear();
        self.length = 0;
        Some(batch)
    }
}
