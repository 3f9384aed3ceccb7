//! A finished batch: a request body in pieces, and the way to a batch of some of its documents.

use super::{BODY_END, BODY_START, Document};
use crate::base::memory::CHUNK_BYTES;
use crate::pipeline::batch::hash::{sha256, sha256_of_two};
use bytes::Bytes;
use std::ops::Range;
use std::time::Instant;

/// A finished request body.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The body in pieces; cloning a batch shares them.
    pub body: Vec<Bytes>,
    /// Length of the whole body.
    pub body_length_bytes: usize,
    /// SHA-256 of the whole body.
    pub body_sha256: [u8; 32],
    /// The documents, in the order of the body.
    pub documents: Vec<Document>,
    /// When its oldest document came.
    pub oldest_at: Instant,
}

/// A finished request body that is still to be hashed.
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

    /// Of two at a time it takes two thirds of the time.
    pub(super) fn hash_two([one, other]: [Self; 2]) -> [Batch; 2] {
        let [sha256, other_sha256] = sha256_of_two([&one.body, &other.body]);
        [one.with_hash(sha256), other.with_hash(other_sha256)]
    }

    /// Memory that it takes up: a chunk a piece.
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
    /// A batch of `body` with these documents in it.
    pub(super) fn new(body: Vec<Bytes>, documents: Vec<Document>, oldest_at: Instant) -> Self {
        Unhashed { body, documents, oldest_at }.hash()
    }

    /// The batch of the documents at these places alone; its pieces are shared with this one, so
    /// it takes no memory to speak of. The places are in ascending order.
    ///
    /// # Panics
    ///
    /// When a place is beyond the last document.
    pub fn part(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let mut pieces = vec![Bytes::from_static(BODY_START)];
        let mut length = BODY_START.len();
        let mut documents: Vec<Document> = Vec::new();
        // Documents that are neighbours in this body stay so, with the comma between them.
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

    /// Memory that it takes up, if it is no [part](Self::part) of another one: a chunk a piece.
    pub fn memory_bytes(&self) -> usize {
        self.body.len() * CHUNK_BYTES
    }

    /// Two batches of one half of the documents each.
    ///
    /// # Panics
    ///
    /// When there are fewer than two.
    pub fn halves(&self) -> [Self; 2] {
        let count = self.documents.len();
        assert!(count > 1, "a single document has no halves");
        [self.part(0..count / 2), self.part(count / 2..count)]
    }

    /// Adds the pieces of this body in `range` to `pieces`.
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
