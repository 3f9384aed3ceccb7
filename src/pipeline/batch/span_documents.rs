//! An open batch of documents with spans, for `PutTraceSegments`.
//!
//! In: documents as the UDP exporters of AWS write them. Out: the batch. Bound: 50 documents, and
//! the bytes that the caller allows. When full: the document begins the next batch. Thread:
//! `upload-spans`.

use super::span_table::{SpanTable, document};
use super::{BODY_END, BODY_START, Batch, DOCUMENT_COUNT_MAX, Document};
use crate::aws::Media;
use crate::base::memory::{CHUNK_BYTES, Chunk, ChunkPool};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// Documents with spans that become one batch.
#[derive(Debug)]
pub struct OpenSpanDocuments {
    pieces: Vec<Bytes>,
    tail: Option<Chunk>,
    length_bytes: usize,
    documents: Vec<Document>,
    counts: Vec<u32>,
    oldest_at: Instant,
}

impl OpenSpanDocuments {
    /// Returns a batch without documents. The first one was received at `oldest_at`.
    pub fn new(oldest_at: Instant) -> Self {
        Self {
            pieces: Vec::new(),
            tail: None,
            length_bytes: 0,
            documents: Vec::new(),
            counts: Vec::new(),
            oldest_at,
        }
    }

    /// Returns whether a document of `length_bytes` fits, if the body may have `body_bytes_max`. An
    /// empty batch takes any document.
    pub fn takes(&self, length_bytes: usize, body_bytes_max: usize) -> bool {
        let has_room = self.length_bytes + length_bytes + 8 <= body_bytes_max;
        self.documents.is_empty() || (self.documents.len() < DOCUMENT_COUNT_MAX && has_room)
    }

    /// Adds a document with `span_count` spans. Its characters are those of base64, which JSON does
    /// not escape.
    pub fn add(&mut self, text: &str, span_count: u32, pool: &Arc<ChunkPool>) {
        self.write(if self.documents.is_empty() { BODY_START } else { b"," }, pool);
        self.documents.push(document(self.length_bytes, text.len() + 2));
        self.counts.push(span_count);
        for bytes in [b"\"", text.as_bytes(), b"\""] {
            self.write(bytes, pool);
        }
    }

    /// Appends bytes to the body. If the pool has no chunk, they are held outside of it: the
    /// request that they come from gives its chunks back right after.
    fn write(&mut self, mut bytes: &[u8], pool: &Arc<ChunkPool>) {
        self.length_bytes += bytes.len();
        while !bytes.is_empty() {
            if self.tail.as_mut().is_none_or(|tail| tail.spare().is_empty()) {
                self.close_tail();
                self.tail = pool.take_for_batch();
            }
            let Some(tail) = &mut self.tail else {
                return self.pieces.push(Bytes::copy_from_slice(bytes));
            };
            let (now, later) = bytes.split_at(bytes.len().min(tail.spare().len()));
            tail.fill(now);
            bytes = later;
        }
    }

    fn close_tail(&mut self) {
        self.pieces.extend(self.tail.take().map(Bytes::from_owner));
    }

    /// Returns the time at which the first document was received.
    pub fn oldest_at(&self) -> Instant {
        self.oldest_at
    }

    /// Returns the number of spans.
    pub fn span_count(&self) -> usize {
        self.counts.iter().map(|count| *count as usize).sum()
    }

    /// Returns the memory of the body in bytes.
    pub fn memory_bytes(&self) -> usize {
        (self.pieces.len() + usize::from(self.tail.is_some())) * CHUNK_BYTES
    }

    /// Returns the batch.
    pub fn finish(mut self, pool: &Arc<ChunkPool>) -> Batch {
        self.write(BODY_END, pool);
        self.close_tail();
        let spans = SpanTable { media: Media::Json, counts: self.counts };
        Batch::of_spans(self.pieces, self.documents, spans, self.oldest_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::pipeline::batch::hash::sha256;

    #[test]
    fn the_body_is_that_of_put_trace_segments() {
        let pool = ChunkPool::new(8, 0);
        let mut open = OpenSpanDocuments::new(Clock::instant());
        let long = format!("T1S{}", "A".repeat(20_000));
        for (text, count) in [("T1SAAAA", 2), (&long, 30), ("T1SBBBB", 1)] {
            assert!(open.takes(text.len(), 25_000));
            open.add(text, count, &pool);
        }
        assert!(!open.takes(5_000, 25_000));
        assert_eq!(open.memory_bytes(), 2 * CHUNK_BYTES);
        let batch = open.finish(&pool);
        let expected =
            format!("{{\"TraceSegmentDocuments\":[\"T1SAAAA\",\"{long}\",\"T1SBBBB\"]}}");
        assert_eq!(batch.body.concat(), expected.as_bytes());
        assert_eq!((batch.item_count(), batch.body_sha256), (33, sha256(&batch.body)));
        let [first, second] = batch.halves().unwrap();
        assert_eq!(first.body.concat(), b"{\"TraceSegmentDocuments\":[\"T1SAAAA\"]}");
        assert_eq!((first.item_count(), second.item_count()), (2, 31));
        assert_eq!(second.body_sha256, sha256(&second.body));
    }
}
