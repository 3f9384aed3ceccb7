//! A finished batch: a request body in pieces, and the way to a batch of some of its documents.

use super::{BODY_END, BODY_START, Document};
use crate::memory::CHUNK_BYTES;
use bytes::Bytes;
use sha2::{Digest, Sha256};
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

impl Batch {
    /// A batch of `body` with these documents in it.
    pub(super) fn new(body: Vec<Bytes>, documents: Vec<Document>, oldest_at: Instant) -> Self {
        let mut hash = Sha256::new();
        body.iter().for_each(|piece| hash.update(piece));
        let body_length_bytes = body.iter().map(Bytes::len).sum();
        Self { body, body_length_bytes, body_sha256: hash.finalize().into(), documents, oldest_at }
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
