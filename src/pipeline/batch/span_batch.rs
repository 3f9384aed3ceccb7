//! An open batch of spans. Requests of clients are merged in it.
//!
//! In: requests of clients. Out: the batch. Bound: [`REQUEST_COUNT_MAX`] requests of clients, the
//! limits of X-Ray's endpoint for one request, and the bytes that the caller allows. When full: the
//! request is not merged, and begins the next batch. Thread: `upload-spans`.
//!
//! The bodies of protobuf requests are merged by putting one behind the other, because the fields
//! of the message are repeated fields:
//! <https://protobuf.dev/programming-guides/encoding/#last-one-wins>. No byte of them changes. A
//! JSON request is never merged.

use super::span_table::{REQUEST_COUNT_MAX, SpanTable, document};
use super::{Batch, Document};
use crate::aws::Media;
use crate::base::memory::{CHUNK_BYTES, Chunk, ChunkPool};
use crate::pipeline::spans::{SpanRequest, Times};
use bytes::Bytes;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xrayd_otlp::{Encoding, SPAN_COUNT_MAX};

/// The largest time between two spans of a merged request: half of the 24 hours that X-Ray's
/// endpoint allows, see
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>.
const TIME_GAP_MAX: Duration = Duration::from_secs(12 * 3600);

/// A body of up to this length is copied, so that small bodies share chunks.
const COPY_BYTES_MAX: usize = CHUNK_BYTES / 2;

/// Requests of clients that become one batch.
#[derive(Debug)]
pub struct OpenSpanBatch {
    media: Media,
    pieces: Vec<Bytes>,
    /// The last chunk of the body, which takes small bodies. It stands behind `pieces`.
    tail: Option<Chunk>,
    length_bytes: usize,
    documents: Vec<Document>,
    counts: Vec<u32>,
    span_count: usize,
    times: Times,
    oldest_at: Instant,
}

impl OpenSpanBatch {
    /// Returns a batch with one request of a client.
    pub fn new(request: SpanRequest, pool: &Arc<ChunkPool>) -> Self {
        let mut batch = Self {
            media: media(request.encoding),
            pieces: Vec::new(),
            tail: None,
            length_bytes: 0,
            documents: Vec::new(),
            counts: Vec::new(),
            span_count: 0,
            times: request.times,
            oldest_at: request.received_at,
        };
        batch.add(request, pool);
        batch
    }

    /// Returns whether `request` may be merged into this batch, which may then have up to
    /// `body_bytes_max`.
    pub fn takes(&self, request: &SpanRequest, body_bytes_max: usize) -> bool {
        let times = merged(self.times, request.times);
        let gap = Duration::from_nanos(times.latest_ns.saturating_sub(times.earliest_ns));
        self.media == Media::SpansProtobuf
            && media(request.encoding) == Media::SpansProtobuf
            && self.documents.len() < REQUEST_COUNT_MAX
            && self.span_count + request.span_count as usize <= SPAN_COUNT_MAX
            && self.length_bytes + request.length_bytes <= body_bytes_max
            && gap <= TIME_GAP_MAX
    }

    /// Merges a request of a client, without a look at the limits.
    pub fn add(&mut self, request: SpanRequest, pool: &Arc<ChunkPool>) {
        self.documents.push(document(self.length_bytes, request.length_bytes));
        self.counts.push(request.span_count);
        self.span_count += request.span_count as usize;
        self.length_bytes += request.length_bytes;
        self.times = merged(self.times, request.times);
        self.oldest_at = self.oldest_at.min(request.received_at);
        match self.tail_for(request.length_bytes, pool) {
            Some(tail) => request.body.iter().for_each(|piece| tail.fill(piece)),
            None => {
                self.close_tail();
                self.pieces.extend(request.body);
            }
        }
    }

    /// Returns the chunk that a body of this length is to be copied into; `None` if the body is not
    /// to be copied, or if there is no memory for that.
    fn tail_for(&mut self, length_bytes: usize, pool: &Arc<ChunkPool>) -> Option<&mut Chunk> {
        if length_bytes > COPY_BYTES_MAX {
            return None;
        }
        if self.tail.as_mut().is_none_or(|tail| tail.spare().len() < length_bytes) {
            let chunk = pool.take_for_batch()?;
            self.close_tail();
            self.tail = Some(chunk);
        }
        self.tail.as_mut()
    }

    fn close_tail(&mut self) {
        self.pieces.extend(self.tail.take().map(Bytes::from_owner));
    }

    /// Returns the time at which the oldest request of a client was received.
    pub fn oldest_at(&self) -> Instant {
        self.oldest_at
    }

    /// Returns the number of spans.
    pub fn span_count(&self) -> usize {
        self.span_count
    }

    /// Returns the memory of the body in bytes.
    pub fn memory_bytes(&self) -> usize {
        (self.pieces.len() + usize::from(self.tail.is_some())) * CHUNK_BYTES
    }

    /// Returns the batch.
    pub fn finish(mut self) -> Batch {
        self.close_tail();
        let (documents, counts) = (mem::take(&mut self.documents), mem::take(&mut self.counts));
        let spans = SpanTable { media: self.media, counts };
        Batch::of_spans(self.pieces, documents, spans, self.oldest_at)
    }
}

fn media(encoding: Encoding) -> Media {
    match encoding {
        Encoding::Protobuf => Media::SpansProtobuf,
        Encoding::Json => Media::SpansJson,
    }
}

fn merged(one: Times, other: Times) -> Times {
    Times {
        earliest_ns: one.earliest_ns.min(other.earliest_ns),
        latest_ns: one.latest_ns.max(other.latest_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn request(body: &[u8], span_count: u32, hours: u64, pool: &Arc<ChunkPool>) -> SpanRequest {
        let chunk = |part: &[u8]| {
            let mut chunk = pool.take_for_receive().unwrap();
            chunk.fill(part);
            Bytes::from_owner(chunk)
        };
        let time_ns = hours * HOUR_NS;
        SpanRequest {
            encoding: Encoding::Protobuf,
            body: body.chunks(CHUNK_BYTES).map(chunk).collect(),
            length_bytes: body.len(),
            span_count,
            times: Times { earliest_ns: time_ns, latest_ns: time_ns },
            received_at: Clock::instant(),
        }
    }

    #[test]
    fn the_merged_body_is_one_body_behind_the_other_and_small_bodies_share_chunks() {
        let pool = ChunkPool::new(64, 0);
        let bodies: Vec<Vec<u8>> = [100, 200, 40_000, 7, 8_000, 8_000, 8_000]
            .iter()
            .zip(1..)
            .map(|(&length, byte)| vec![byte; length])
            .collect();
        let mut batch = OpenSpanBatch::new(request(&bodies[0], 1, 1, &pool), &pool);
        for (body, count) in bodies.iter().zip(1..).skip(1) {
            let request = request(body, count, 1, &pool);
            assert!(batch.takes(&request, 1 << 20));
            batch.add(request, &pool);
        }
        // One chunk for the first two, three for the third, and two for the rest.
        assert_eq!((pool.used(), batch.memory_bytes()), (6, 6 * CHUNK_BYTES));
        assert_eq!(batch.span_count(), 28);
        let batch = batch.finish();
        assert_eq!(batch.body.concat(), bodies.concat());
        assert_eq!((batch.item_count(), batch.media()), (28, Media::SpansProtobuf));
        for (places, expected) in [(0..2, 0..2), (2..7, 2..7), (3..4, 3..4)] {
            let part = batch.part(places);
            assert_eq!(part.body.concat(), bodies[expected.clone()].concat());
            assert_eq!(part.item_count(), expected.map(|place| place + 1).sum::<usize>());
        }
        let [first, second] = batch.halves().unwrap();
        assert_eq!([first.body.concat(), second.body.concat()].concat(), bodies.concat());
        assert_eq!((first.item_count(), second.item_count()), (6, 22));
    }

    #[test]
    fn no_limit_of_the_service_is_crossed_by_a_merge() {
        let pool = ChunkPool::new(64, 0);
        let batch = OpenSpanBatch::new(request(&[1; 100], 6_000, 20, &pool), &pool);
        for (length, span_count, hours, is_taken) in [
            (100, 4_000, 20, true),
            (100, 4_001, 20, false),
            (900, 1, 20, true),
            (901, 1, 20, false),
            (1, 1, 32, true),
            (1, 1, 8, true),
            (1, 1, 33, false),
            (1, 1, 7, false),
        ] {
            let request = request(&vec![2; length], span_count, hours, &pool);
            assert_eq!(batch.takes(&request, 1_000), is_taken, "{length} {span_count} {hours}");
        }
        let json = SpanRequest { encoding: Encoding::Json, ..request(b"{}", 1, 20, &pool) };
        assert!(!batch.takes(&json, 1_000));
        let json = OpenSpanBatch::new(json, &pool);
        assert!(!json.takes(&request(b"", 1, 20, &pool), 1_000));
    }

    #[test]
    fn a_batch_has_no_more_requests_of_clients_than_the_table_of_its_record() {
        let pool = ChunkPool::new(64, 0);
        let mut batch = OpenSpanBatch::new(request(b"a", 1, 1, &pool), &pool);
        for _ in 1..REQUEST_COUNT_MAX {
            batch.add(request(b"a", 1, 1, &pool), &pool);
        }
        assert!(!batch.takes(&request(b"a", 1, 1, &pool), 1 << 20));
    }
}
