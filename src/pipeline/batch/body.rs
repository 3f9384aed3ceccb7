//! A finished batch: a request body in pieces, with the places of its documents.
//!
//! In: the chunks of a full open batch. Out: the hashed body, and batches with some of its
//! documents, which share its chunks. Bound: the pool's memory. No I/O, no clock.

use super::{BODY_END, BODY_START, Document};
use crate::base::memory::CHUNK_BYTES;
use crate::pipeline::batch::hash::{sha256, sha256_of_two};
use bytes::Bytes;
use std::ops::Range;
use std::time::Instant;

/// A finished request body.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The body in pieces. Clones of a batch share the pieces.
    pub body: Vec<Bytes>,
    /// Length of the whole body in bytes.
    pub body_length_bytes: usize,
    /// SHA-256 of the whole body.
    pub body_sha256: [u8; 32],
    /// The documents, in the order of the body.
    pub documents: Vec<Document>,
    /// Time at which the oldest document was received.
    pub oldest_at: Instant,
}

/// A finished request body without its hash.
#[derive(Debug)]
pub(super) struct Unhashed {
    pub(super) body: Vec<Bytes>,
    pub(super) documents: Vec<Document>,
    pub(super) oldest_at: Instant,
}

impl Unhashed {
    pub(super) fn hash(self) -> Batch {
        let body_sha256 = sha256(&self.body);
        self.with_hash(body_sha256)
    }

    /// Hashes two bodies together. This takes two thirds of the time of hashing one after the other
    /// (`benches/hash.rs`; see `hash/x86.rs`).
    pub(super) fn hash_two([one, other]: [Self; 2]) -> [Batch; 2] {
        let [sha256, other_sha256] = sha256_of_two([&one.body, &other.body]);
        [one.with_hash(sha256), other.with_hash(other_sha256)]
    }

    /// Returns the memory of the body in bytes: one chunk for each piece.
    pub(super) fn memory_bytes(&self) -> usize {
        self.body.len() * CHUNK_BYTES
    }

    fn with_hash(self, body_sha256: [u8; 32]) -> Batch {
        let Self { body, documents, oldest_at } = self;
        let body_length_bytes = body.iter().map(Bytes::len).sum();
        Batch { body, body_length_bytes, body_sha256, documents, oldest_at }
    }
}

impl Batch {
    /// Returns a batch with this body, which contains these documents.
    pub(super) fn new(body: Vec<Bytes>, documents: Vec<Document>, oldest_at: Instant) -> Self {
        Unhashed { body, documents, oldest_at }.hash()
    }

    /// Returns a batch with only the documents at the indices `places`, which ascend. The new batch
    /// shares the chunks of this batch.
    ///
    /// # Panics
    ///
    /// When a place is beyond the last document.
    pub fn part(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let mut pieces = vec![Bytes::from_static(BODY_START)];
        let mut length = BODY_START.len();
        let mut documents: Vec<Document> = Vec::new();
        // Neighbours in this body are shared as one run of bytes, with the comma between them.
        let mut run: Range<usize> = 0..0;
        for document in places.into_iter().map(|place| self.documents[place]) {
            if !documents.is_empty() {
                length += 1;
            }
            if document.offset == run.end + 1 && !documents.is_empty() {
                run.end = document.offset + document.length;
            } else {
                if !documents.is_empty() {
                    self.share(&run, &mut pieces);
                    pieces.push(Bytes::from_static(b","));
                }
                run = document.offset..document.offset + document.length;
            }
            documents.push(Document { offset: length, ..document });
            length += document.length;
        }
        self.share(&run, &mut pieces);
        pieces.push(Bytes::from_static(BODY_END));
        Self::new(pieces, documents, self.oldest_at)
    }

    /// Returns the memory of the batch in bytes: one chunk for each piece. This is too much for a
    /// [part](Self::part), which shares its chunks with other parts.
    pub fn memory_bytes(&self) -> usize {
        self.body.len() * CHUNK_BYTES
    }

    /// Returns two batches with one half of the documents each.
    ///
    /// # Panics
    ///
    /// When the batch has fewer than two documents.
    pub fn halves(&self) -> [Self; 2] {
        let count = self.documents.len();
        assert!(count > 1, "a single document has no halves");
        [self.part(0..count / 2), self.part(count / 2..count)]
    }

    /// Appends the bytes of this body in `range` to `pieces`, without a copy.
    fn share(&self, range: &Range<usize>, pieces: &mut Vec<Bytes>) {
        let mut start = 0;
        for piece in &self.body {
            let from = range.start.clamp(start, start + piece.len()) - start;
            let to = range.end.clamp(start, start + piece.len()) - start;
            if from < to {
                pieces.push(piece.slice(from..to));
            }
            start += piece.len();
        }
    }
}
