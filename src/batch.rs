//! From segments to batches: up to fifty documents, escaped and put together as a request body.
//!
//! In: segments out of the rings. Out: [`Batch`]es whose body is
//! `{"TraceSegmentDocuments":["...","..."]}`, with its SHA-256 for the signature and the place of
//! every document in it. A document is escaped straight into the body's chunks: there is no
//! second copy, and nothing is allocated for a segment.
//!
//! Documents of one trace go to the same *lane* (an open batch), because the service takes larger
//! traces when their documents come together. One lane is enough while batches fill slowly; when
//! they fill in less than [`LANE_FILL_TIME_MIN`] a lane more keeps each of them open for longer,
//! and when one is flushed by age there are too many.
//!
//! Bounds: 50 documents and a number of bytes for a batch, one second for its oldest document,
//! [`LANE_COUNT_MAX`] lanes. The memory is the pool's; when it has no chunk left the segment is
//! handed back ([`OutOfChunks`]). Runs on the upload thread.

use crate::escape;
use crate::limits::LANE_COUNT_MAX;
use crate::memory::{Chunk, Pool};
use crate::ring::PackedSegment;
use crate::segment::Form;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Documents in a request at most: the limit of the service's `PutTraceSegments`.
pub const DOCUMENT_COUNT_MAX: usize = 50;

/// A batch leaves when its oldest document has waited this long, full or not.
pub const AGE_MAX: Duration = Duration::from_secs(1);

/// Batches that fill faster than this call for another lane.
const LANE_FILL_TIME_MIN: Duration = Duration::from_millis(100);

const BODY_START: &[u8] = br#"{"TraceSegmentDocuments":["#;
const BODY_END: &[u8; 2] = b"]}";

/// Where a document lies in a body, and what the answers and the log call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// First byte of the JSON string, its quote, counted from the start of the body.
    pub offset: usize,
    /// Length of the JSON string with its quotes.
    pub length: usize,
    /// The segment's `id`; empty where it has none.
    pub id: Label<16>,
    /// The segment's `trace_id`; empty where it has none.
    pub trace_id: Label<35>,
}

/// The text of a field, kept in place; cut at `N` bytes, the length that the service prescribes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Label<N> {
    fn new(text: Option<&[u8]>) -> Self {
        let text = text.unwrap_or_default();
        let text = &text[..text.len().min(N)];
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text);
        Self { bytes, length: u8::try_from(text.len()).unwrap_or(u8::MAX) }
    }

    /// The text; empty where the field is absent or no UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl<const N: usize> std::fmt::Debug for Label<N> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(out)
    }
}

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

/// The pool has no chunk left: nothing of the segment was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory is left to put the segment into a batch")]
pub struct OutOfChunks;

/// A body being written.
#[derive(Debug)]
struct Lane {
    chunks: Vec<Chunk>,
    length: usize,
    documents: Vec<Document>,
    oldest_at: Option<Instant>,
}

impl Default for Lane {
    fn default() -> Self {
        let documents = Vec::with_capacity(DOCUMENT_COUNT_MAX);
        Self { chunks: Vec::with_capacity(8), length: 0, documents, oldest_at: None }
    }
}

impl Lane {
    /// Appends a document; on failure the body is as it was before.
    fn add(&mut self, segment: &PackedSegment<'_>, pool: &Arc<Pool>) -> Result<(), OutOfChunks> {
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

    /// Writes the document as a JSON string; says where in the body it starts.
    fn write_document(
        &mut self,
        segment: &PackedSegment<'_>,
        pool: &Arc<Pool>,
    ) -> Result<usize, OutOfChunks> {
        let first = self.documents.is_empty();
        self.write(if first { BODY_START } else { b"," }, pool)?;
        let offset = self.length;
        self.write(b"\"", pool)?;
        let escape = match segment.fields.form {
            Form::Json | Form::Text => escape::escape,
            Form::Bytes => escape::escape_lossy,
        };
        for mut piece in segment.pieces() {
            while !piece.is_empty() {
                let chunk = self.chunk(escape::EXPANSION_MAX, pool)?;
                let room = chunk.spare().len() - BODY_END.len();
                let progress = escape(piece, &mut chunk.spare()[..room]);
                chunk.advance(progress.written);
                self.length += progress.written;
                piece = &piece[progress.consumed..];
            }
        }
        self.write(b"\"", pool)?;
        Ok(offset)
    }

    fn write(&mut self, bytes: &[u8], pool: &Arc<Pool>) -> Result<(), OutOfChunks> {
        self.chunk(bytes.len(), pool)?.fill(bytes);
        self.length += bytes.len();
        Ok(())
    }

    /// The chunk to write into, with at least `room` bytes to spare and the body's end beside them.
    ///
    /// So a body can always be ended, and sent, when there is no memory for anything else.
    fn chunk(&mut self, room: usize, pool: &Arc<Pool>) -> Result<&mut Chunk, OutOfChunks> {
        let has_room = self
            .chunks
            .last_mut()
            .is_some_and(|chunk| chunk.spare().len() >= room + BODY_END.len());
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

    /// Ends the body; `None` when it has no document.
    fn finish(&mut self) -> Option<Batch> {
        let oldest_at = self.oldest_at.take()?;
        self.chunks.last_mut()?.fill(BODY_END);
        let mut hash = Sha256::new();
        self.chunks.iter().for_each(|chunk| hash.update(chunk.filled()));
        let batch = Batch {
            body: self.chunks.drain(..).map(Bytes::from_owner).collect(),
            body_length_bytes: self.length + BODY_END.len(),
            body_sha256: hash.finalize().into(),
            documents: self.documents.clone(),
            oldest_at,
        };
        self.documents.clear();
        self.length = 0;
        Some(batch)
    }
}

/// Puts segments together into batches.
#[derive(Debug)]
pub struct Batcher {
    pool: Arc<Pool>,
    lanes: Vec<Lane>,
    lane_count: usize,
    body_bytes_max: usize,
    hash: RandomState,
    finished: VecDeque<Batch>,
}

impl Batcher {
    /// A batcher with at most `lane_count_max` lanes that writes into chunks of `pool` and ends a
    /// body before it passes `body_bytes_max`, unless a single document does.
    pub fn new(pool: Arc<Pool>, body_bytes_max: usize, lane_count_max: usize) -> Self {
        let lanes = (0..lane_count_max.clamp(1, LANE_COUNT_MAX)).map(|_| Lane::default()).collect();
        let hash = RandomState::new();
        Self { pool, lanes, lane_count: 1, body_bytes_max, hash, finished: VecDeque::new() }
    }

    /// Adds a segment that came at `received_at`; [`pop`](Self::pop) then has the batches it
    /// filled.
    ///
    /// # Errors
    ///
    /// When the pool has no chunk left; the segment is then not in any batch.
    pub fn add(
        &mut self,
        segment: &PackedSegment<'_>,
        received_at: Instant,
        now: Instant,
    ) -> Result<(), OutOfChunks> {
        let index = self.lane_of(segment);
        let lane = &mut self.lanes[index];
        // Most documents grow by a tenth when escaped; one that grows more only ends the body late.
        let expected_bytes = lane.length + segment.document_length_bytes() * 9 / 8;
        if !lane.documents.is_empty() && expected_bytes > self.body_bytes_max {
            self.finish(index, now);
        }
        let lane = &mut self.lanes[index];
        lane.add(segment, &self.pool)?;
        lane.oldest_at = Some(lane.oldest_at.map_or(received_at, |oldest| oldest.min(received_at)));
        if lane.documents.len() == DOCUMENT_COUNT_MAX {
            self.finish(index, now);
        }
        Ok(())
    }

    fn lane_of(&self, segment: &PackedSegment<'_>) -> usize {
        match segment.field(segment.fields.trace_id) {
            Some(trace_id) if self.lane_count > 1 => {
                let hash = self.hash.hash_one(trace_id);
                usize::try_from(hash % self.lane_count as u64).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn finish(&mut self, index: usize, now: Instant) {
        let Some(batch) = self.lanes[index].finish() else { return };
        let fill_time = now.saturating_duration_since(batch.oldest_at);
        if batch.documents.len() == DOCUMENT_COUNT_MAX && fill_time < LANE_FILL_TIME_MIN {
            self.lane_count = (self.lane_count + 1).min(self.lanes.len());
        } else if fill_time >= AGE_MAX {
            self.lane_count = (self.lane_count / 2).max(1);
        }
        self.finished.push_back(batch);
    }

    /// Ends the batches whose oldest document is [`AGE_MAX`] old at `now`.
    pub fn finish_due(&mut self, now: Instant) {
        for index in 0..self.lanes.len() {
            let oldest_at = self.lanes[index].oldest_at;
            if oldest_at.is_some_and(|oldest| now.saturating_duration_since(oldest) >= AGE_MAX) {
                self.finish(index, now);
            }
        }
    }

    /// Ends all batches, full or not.
    pub fn finish_all(&mut self, now: Instant) {
        for index in 0..self.lanes.len() {
            self.finish(index, now);
        }
    }

    /// When the next batch is due by age; `None` while nothing waits.
    pub fn next_due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| lane.oldest_at).min().map(|oldest| oldest + AGE_MAX)
    }

    /// Takes the oldest finished batch.
    pub fn pop(&mut self) -> Option<Batch> {
        self.finished.pop_front()
    }

    /// Segments in open and finished batches that have not been taken, counted one by one.
    pub fn segment_count(&self) -> usize {
        let open: usize = self.lanes.iter().map(|lane| lane.documents.len()).sum();
        open + self.finished.iter().map(|batch| batch.documents.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::CHUNK_BYTES;
    use crate::ring::{Consumer, Producer, ring};
    use crate::segment::Parser;
    use proptest::prelude::*;

    struct Bench {
        parser: Parser,
        producer: Producer,
        consumer: Consumer,
        batcher: Batcher,
        pool: Arc<Pool>,
        batches: Arc<Pool>,
    }

    impl Bench {
        fn new(body_bytes_max: usize, chunk_count: usize) -> Self {
            let pool = Pool::new(64, 0);
            let batches = Pool::new(chunk_count, 0);
            let (producer, consumer) = ring(Arc::clone(&pool), 64);
            let batcher = Batcher::new(Arc::clone(&batches), body_bytes_max, LANE_COUNT_MAX);
            Self { parser: Parser::default(), producer, consumer, batcher, pool, batches }
        }

        fn add(&mut self, document: &[u8], at: Instant) -> Result<(), OutOfChunks> {
            let datagram = [b"{\"format\":\"json\",\"version\":1}\n", document].concat();
            let segment = self.parser.parse(&datagram).unwrap();
            let mut drain = self.producer.begin(at);
            assert_eq!(drain.push(&segment).dropped_count, 0);
            let _ = drain.commit();
            let parcel = self.consumer.pop().unwrap();
            let packed = parcel.segments().next().unwrap();
            self.batcher.add(&packed, parcel.opened_at(), at)
        }

        fn bodies(&mut self) -> Vec<Vec<String>> {
            std::iter::from_fn(|| self.batcher.pop()).map(|batch| documents(&batch)).collect()
        }
    }

    fn documents(batch: &Batch) -> Vec<String> {
        let body = batch.body.concat();
        assert_eq!(body.len(), batch.body_length_bytes);
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&body)), batch.body_sha256);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let documents: Vec<String> =
            serde_json::from_value(value["TraceSegmentDocuments"].clone()).unwrap();
        assert_eq!(documents.len(), batch.documents.len());
        for (text, place) in documents.iter().zip(&batch.documents) {
            let string = &body[place.offset..place.offset + place.length];
            assert_eq!(&serde_json::from_slice::<String>(string).unwrap(), text);
        }
        documents
    }

    #[test]
    fn a_batch_is_full_with_fifty_documents() {
        let mut bench = Bench::new(1 << 20, 100);
        let now = Instant::now();
        let texts: Vec<_> = (0..120).map(|index| format!(r#"{{"id":"{index}"}}"#)).collect();
        texts.iter().for_each(|text| bench.add(text.as_bytes(), now).unwrap());
        bench.batcher.finish_all(now);
        let bodies = bench.bodies();
        assert_eq!(bodies.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
        assert_eq!(bodies.concat(), texts);
    }

    #[test]
    fn a_batch_leaves_when_its_oldest_document_is_a_second_old() {
        let mut bench = Bench::new(1 << 20, 100);
        let start = Instant::now();
        assert_eq!(bench.batcher.next_due(), None);
        bench.add(b"{}", start).unwrap();
        bench.add(b"{}", start + Duration::from_millis(900)).unwrap();
        assert_eq!(bench.batcher.next_due(), Some(start + AGE_MAX));
        bench.batcher.finish_due(start + Duration::from_millis(999));
        assert!(bench.batcher.pop().is_none());
        bench.batcher.finish_due(start + AGE_MAX);
        assert_eq!(bench.bodies(), [["{}", "{}"]]);
        assert_eq!(bench.batcher.next_due(), None);
    }

    #[test]
    fn a_body_ends_before_it_passes_its_bound_in_bytes() {
        let mut bench = Bench::new(100_000, 100);
        let now = Instant::now();
        let document = format!(r#"{{"a":"{}"}}"#, "x".repeat(30_000));
        for _ in 0..7 {
            bench.add(document.as_bytes(), now).unwrap();
        }
        bench.batcher.finish_all(now);
        let batches: Vec<_> = std::iter::from_fn(|| bench.batcher.pop()).collect();
        assert_eq!(batches.iter().map(|b| b.documents.len()).collect::<Vec<_>>(), [3, 3, 1]);
        assert!(batches.iter().all(|batch| batch.body_length_bytes <= 100_000));
    }

    #[test]
    fn a_document_larger_than_the_bound_goes_alone() {
        let mut bench = Bench::new(10_000, 100);
        let now = Instant::now();
        let large = format!(r#""{}""#, "x".repeat(60_000));
        for document in ["{}", large.as_str(), "{}"] {
            bench.add(document.as_bytes(), now).unwrap();
        }
        bench.batcher.finish_all(now);
        assert_eq!(bench.bodies(), [["{}"], [large.as_str()], ["{}"]]);
    }

    #[test]
    fn documents_of_a_trace_travel_together_when_batches_fill_fast() {
        let mut bench = Bench::new(1 << 20, 1_000);
        let now = Instant::now();
        // Ten documents of each trace, far apart: without lanes they would be in ten batches.
        let document = |trace: usize, step: usize| {
            format!(r#"{{"trace_id":"1-581cf771-{trace:024}","id":"{step:016}"}}"#)
        };
        let mut warm = |trace| bench.add(document(trace, 0).as_bytes(), now).unwrap();
        (10_000..12_000).for_each(&mut warm);
        bench.batcher.finish_all(now);
        assert_eq!(bench.batcher.lane_count, LANE_COUNT_MAX);
        while bench.batcher.pop().is_some() {}
        for step in 0..10 {
            for trace in 0..50 {
                bench.add(document(trace, step).as_bytes(), now).unwrap();
            }
        }
        bench.batcher.finish_all(now);
        let bodies = bench.bodies();
        let batches_per_trace = |trace: usize| {
            let key = format!("{trace:024}");
            bodies.iter().filter(|body| body.iter().any(|text| text.contains(&key))).count()
        };
        let together = (0..50).filter(|&trace| batches_per_trace(trace) <= 2).count();
        assert!(together >= 45, "{together} of 50 traces are in one or two batches");
    }

    #[test]
    fn lanes_are_given_up_when_batches_are_flushed_by_age() {
        let mut bench = Bench::new(1 << 20, 1_000);
        let now = Instant::now();
        (0..1_000).for_each(|_| bench.add(b"{}", now).unwrap());
        assert!(bench.batcher.lane_count > 4);
        for second in 1..10 {
            let then = now + Duration::from_secs(second);
            bench.add(b"{}", then).unwrap();
            bench.batcher.finish_due(then + AGE_MAX);
        }
        assert_eq!(bench.batcher.lane_count, 1);
    }

    #[test]
    fn without_a_chunk_the_segment_is_handed_back_and_the_batch_is_as_before() {
        let mut bench = Bench::new(1 << 20, 3);
        let now = Instant::now();
        let large = format!(r#""{}""#, "x".repeat(CHUNK_BYTES));
        bench.add(large.as_bytes(), now).unwrap();
        assert_eq!(bench.add(format!("{large}{large}").as_bytes(), now), Err(OutOfChunks));
        bench.add(b"{}", now).unwrap();
        bench.batcher.finish_all(now);
        assert_eq!(bench.bodies(), [[large.as_str(), "{}"]]);
        assert_eq!((bench.pool.used(), bench.batches.used()), (0, 0));
    }

    #[test]
    fn labels_are_cut_at_the_prescribed_length() {
        let mut bench = Bench::new(1 << 20, 3);
        let now = Instant::now();
        let trace_id = "1-581cf771-a006649127e371903a2de979";
        let document = format!(r#"{{"trace_id":"{trace_id}-more","id":"70de5b6f19ff9a0a"}}"#);
        bench.add(document.as_bytes(), now).unwrap();
        bench.add(b"[]", now).unwrap();
        bench.batcher.finish_all(now);
        let batch = bench.batcher.pop().unwrap();
        assert_eq!(batch.documents[0].trace_id.as_str(), trace_id);
        assert_eq!(batch.documents[0].id.as_str(), "70de5b6f19ff9a0a");
        assert_eq!(batch.documents[1].trace_id.as_str(), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_document_comes_out_once_whatever_its_size_and_bytes(
            texts in proptest::collection::vec(
                prop_oneof![
                    5 => ".{1,100}".prop_map(String::into_bytes),
                    1 => (1usize..60_000).prop_map(|length| vec![0x1f; length]),
                    1 => (1usize..20_000).prop_map(|length| "é\"".repeat(length).into_bytes()),
                    1 => proptest::collection::vec(any::<u8>(), 1..300),
                ], 1..130),
            body_bytes_max in 1_000usize..500_000,
        ) {
            let mut bench = Bench::new(body_bytes_max, 5_000);
            let now = Instant::now();
            let mut expected = Vec::new();
            for text in &texts {
                bench.add(text, now).unwrap();
                expected.push(String::from_utf8_lossy(text).into_owned());
            }
            prop_assert_eq!(bench.batcher.segment_count(), texts.len());
            bench.batcher.finish_all(now);
            prop_assert_eq!(bench.bodies().concat(), expected);
            prop_assert_eq!((bench.pool.used(), bench.batches.used()), (0, 0));
        }
    }
}
