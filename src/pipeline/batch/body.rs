//! A finished batch: a request body in pieces, with the places of its documents.
//!
//! A batch of spans has the requests of clients in the place of documents (`span_table.rs`).
//!
//! In: the chunks of a full open batch. Out: the hashed body, and batches with some of its
//! documents, which share its chunks. Bound: the pool's memory. No I/O, no clock.

use super::span_table::{self, SpanTable};
use super::{BODY_END, BODY_START, Document};
use crate::aws::Media;
use crate::base::account::Signal;
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
    /// SHA-256 of the whole body. All zeros for requests of OpenTelemetry: their body is hashed
    /// after it is compressed.
    pub body_sha256: [u8; 32],
    /// The documents, in the order of the body.
    pub documents: Vec<Document>,
    /// Time at which the oldest document was received.
    pub oldest_at: Instant,
    /// The spans of each document, if this is a batch of spans; `None` for a batch of segments.
    pub spans: Option<Box<SpanTable>>,
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
        Batch { body, body_length_bytes, body_sha256, documents, oldest_at, spans: None }
    }
}

impl Batch {
    /// Returns a batch with this body, which contains these documents.
    pub(super) fn new(body: Vec<Bytes>, documents: Vec<Document>, oldest_at: Instant) -> Self {
        Unhashed { body, documents, oldest_at }.hash()
    }

    /// Returns a batch of spans with this body, which contains these requests of clients.
    pub(super) fn of_spans(
        body: Vec<Bytes>,
        documents: Vec<Document>,
        spans: SpanTable,
        oldest_at: Instant,
    ) -> Self {
        let body_length_bytes = body.iter().map(Bytes::len).sum();
        let body_sha256 = if spans.media == Media::Json { sha256(&body) } else { [0; 32] };
        let spans = Some(Box::new(spans));
        Self { body, body_length_bytes, body_sha256, documents, oldest_at, spans }
    }

    /// Returns what the batch carries.
    pub fn signal(&self) -> Signal {
        if self.spans.is_some() { Signal::Spans } else { Signal::Segments }
    }

    /// Returns the form of the body.
    pub fn media(&self) -> Media {
        self.spans.as_ref().map_or(Media::Json, |spans| spans.media)
    }

    /// Returns the number of segments or spans in the batch.
    pub fn item_count(&self) -> usize {
        self.spans.as_ref().map_or(self.documents.len(), |spans| spans.span_count())
    }

    /// Returns a batch with only the documents at the indices `places`, which ascend. The new batch
    /// shares the chunks of this batch.
    ///
    /// # Panics
    ///
    /// When a place is beyond the last document.
    pub fn part(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let (start, separator, end) = frame(self.media());
        let mut pieces = Vec::new();
        push_static(start, &mut pieces);
        let mut length = start.len();
        let (mut documents, mut counts): (Vec<Document>, Vec<u32>) = (Vec::new(), Vec::new());
        // Neighbours in this body are shared as one run of bytes, with what separates them.
        let mut run: Range<usize> = 0..0;
        for place in places {
            let document = self.documents[place];
            counts.extend(self.spans.as_ref().map(|spans| spans.counts[place]));
            if !documents.is_empty() {
                length += separator.len();
            }
            if document.offset == run.end + separator.len() && !documents.is_empty() {
                run.end = document.offset + document.length;
            } else {
                if !documents.is_empty() {
                    self.share(&run, &mut pieces);
                    push_static(separator, &mut pieces);
                }
                run = document.offset..document.offset + document.length;
            }
            documents.push(Document { offset: length, ..document });
            length += document.length;
        }
        self.share(&run, &mut pieces);
        push_static(end, &mut pieces);
        match &self.spans {
            None => Self::new(pieces, documents, self.oldest_at),
            Some(spans) => {
                let spans = SpanTable { media: spans.media, counts };
                Self::of_spans(pieces, documents, spans, self.oldest_at)
            }
        }
    }

    /// Returns the memory of the batch in bytes: one chunk for each piece. This is too much for a
    /// [part](Self::part), which shares its chunks with other parts.
    pub fn memory_bytes(&self) -> usize {
        self.body.len() * CHUNK_BYTES
    }

    /// Returns two batches with one half of the documents each. A single request of a client is
    /// halved by its spans. Returns `None` if there is nothing to halve.
    pub fn halves(&self) -> Option<[Self; 2]> {
        match (self.documents.len(), &self.spans) {
            (0, _) | (1, None) => None,
            (1, Some(spans)) => self.halves_by_span(spans),
            (count, _) => Some([self.part(0..count / 2), self.part(count / 2..count)]),
        }
    }

    /// Returns two batches with one half of the spans each of the only request of a client.
    fn halves_by_span(&self, spans: &SpanTable) -> Option<[Self; 2]> {
        let (media, span_count) = (spans.media, spans.span_count());
        let first_count = span_count / 2;
        if first_count == 0 {
            return None;
        }
        let document = self.documents.first()?;
        let (start, _, end) = frame(media);
        let text = self.body.concat();
        let text = text.get(document.offset..document.offset + document.length)?;
        let half = |text: Vec<u8>, count: usize| {
            let documents = vec![span_table::document(start.len(), text.len())];
            let spans = SpanTable { media, counts: vec![u32::try_from(count).ok()?] };
            let body = vec![[start, &text, end].concat().into()];
            Some(Self::of_spans(body, documents, spans, self.oldest_at))
        };
        let [first, second] = span_table::split(media, text, first_count)?;
        Some([half(first, first_count)?, half(second, span_count - first_count)?])
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

/// Returns the bytes before the first document of a body, between two documents, and after the last
/// one. Requests of OpenTelemetry are concatenated: repeated fields of protobuf add up.
pub(super) fn frame(media: Media) -> (&'static [u8], &'static [u8], &'static [u8]) {
    match media {
        Media::Json => (BODY_START, b",", BODY_END),
        Media::SpansProtobuf | Media::SpansJson => (b"", b"", b""),
    }
}

fn push_static(bytes: &'static [u8], pieces: &mut Vec<Bytes>) {
    if !bytes.is_empty() {
        pieces.push(Bytes::from_static(bytes));
    }
}
