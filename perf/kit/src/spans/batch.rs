//! A batch of spans that is made once. Each request has other ids.

use super::ids;
use super::message::{self, Request, TRACE_COUNT, TRACE_SPAN_COUNT};
use fastrand::Rng;
use libdeflater::{CompressionLvl, Compressor};
use memchr::memmem;
use prost::Message;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Number of spans of a batch: what SDKs send at once by default.
pub const SPAN_COUNT: usize = TRACE_COUNT * TRACE_SPAN_COUNT;

/// The level of gzip: what SDKs use, which leave the level to their library.
const GZIP_LEVEL: i32 = 6;

/// The places of the ids of a span, as offsets into the bytes of the batch.
#[derive(Debug, Clone, Copy)]
struct Places {
    trace: usize,
    trace_id: usize,
    span_id: usize,
    /// The place of the parent's id, if the span has one. The parent is the first span of its
    /// trace.
    parent_id: Option<usize>,
}

/// The protobuf of an `ExportTraceServiceRequest` with [`SPAN_COUNT`] spans.
pub struct Batch {
    bytes: Vec<u8>,
    places: Vec<Places>,
    compressor: Compressor,
}

impl fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The compressor has no form for debugging.
        formatter.debug_struct("Batch").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Batch {
    /// Makes a batch whose spans have times around `now`.
    pub fn new(now: SystemTime, seed: u64) -> Self {
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let now_ns = u64::try_from(now_ns).unwrap_or(u64::MAX);
        let request = message::request(now_ns, &mut Rng::with_seed(seed));
        let bytes = request.encode_to_vec();
        let places = places(&request, &bytes);
        let level = CompressionLvl::new(GZIP_LEVEL).expect("libdeflate has this level");
        Self { bytes, places, compressor: Compressor::new(level) }
    }

    /// Gives the spans the numbers from `first_sequence` on, and the time of sending.
    pub fn fill(&mut self, first_sequence: u64, time_ns: u64) {
        let mut first_ids = [[0; 8]; TRACE_COUNT];
        for (places, sequence) in self.places.iter().zip(first_sequence..) {
            let mut put = |place: usize, id: &[u8]| {
                self.bytes[place..place + id.len()].copy_from_slice(id);
            };
            let span_id = ids::span_id(sequence);
            put(places.trace_id, &ids::trace_id(time_ns, places.trace));
            put(places.span_id, &span_id);
            match places.parent_id {
                Some(place) => put(place, &first_ids[places.trace]),
                None => first_ids[places.trace] = span_id,
            }
        }
    }

    /// Returns the request.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the request, compressed with gzip.
    pub fn gzip(&mut self) -> Vec<u8> {
        let mut body = vec![0; self.compressor.gzip_compress_bound(self.bytes.len())];
        let written = self.compressor.gzip_compress(&self.bytes, &mut body);
        body.truncate(written.expect("the buffer has the size that the library names"));
        body
    }
}

/// Finds the ids of all spans in the bytes of a request. The first spans of all traces come before
/// all others.
fn places(request: &Request, bytes: &[u8]) -> Vec<Places> {
    let mut from = 0;
    let mut place = |(index, span): (usize, &xrayd_otlp::message::Span)| {
        let encoded = span.encode_to_vec();
        let start = memmem::find(&bytes[from..], &encoded).expect("the span is in the request");
        let start = from + start;
        from = start + encoded.len();
        // Each id has a byte with its number in the message, and a byte with its length.
        let trace_id = start + 2;
        let span_id = trace_id + 16 + 2;
        let has_parent = !span.parent_span_id.is_empty();
        let trace = match has_parent {
            true => (index - TRACE_COUNT) / (TRACE_SPAN_COUNT - 1),
            false => index,
        };
        Places { trace, trace_id, span_id, parent_id: has_parent.then_some(span_id + 8 + 2) }
    };
    let scopes = request.resources.iter().flat_map(|resource| &resource.scopes);
    scopes.flat_map(|scope| &scope.spans).enumerate().map(&mut place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::BTreeSet;
    use xrayd_otlp::{Encoding, Received};

    fn spans(body: &[u8]) -> Vec<Received> {
        let request = xrayd_otlp::Request::parse(Encoding::Protobuf, body).unwrap();
        let mut spans = Vec::new();
        request.spans(|span| spans.push(span.expect("the span can be read")));
        spans
    }

    #[test]
    fn each_request_has_other_spans_of_whole_traces() {
        let mut batch = Batch::new(SystemTime::now(), 1);
        let mut ids = BTreeSet::new();
        for request in 0..3 {
            batch.fill(request * SPAN_COUNT as u64, request);
            let spans = spans(batch.bytes());
            assert_eq!(spans.len(), SPAN_COUNT);
            let roots: BTreeSet<_> = spans
                .iter()
                .filter(|it| it.span.parent_span_id.is_empty())
                .map(|it| (it.span.trace_id.clone(), it.span.span_id.clone()))
                .collect();
            assert_eq!(roots.len(), TRACE_COUNT);
            for Received { span, .. } in &spans {
                let parent = (span.trace_id.clone(), span.parent_span_id.clone());
                assert!(span.parent_span_id.is_empty() || roots.contains(&parent));
                assert!(span.start_time_unix_nano < span.end_time_unix_nano);
                assert!(span.attributes.len() >= 10, "{}", span.name);
                assert!(ids.insert(span.span_id.clone()), "the id was there before");
            }
        }
    }

    #[test]
    fn the_endpoint_reads_the_numbers_and_the_time_of_one_or_more_batches() {
        let mut batch = Batch::new(SystemTime::now(), 1);
        batch.fill(1_000, 77);
        let (one, compressed) = (batch.bytes().to_vec(), batch.gzip());
        assert!(compressed.len() < one.len() / 3, "{} of {}", compressed.len(), one.len());
        batch.fill(5_000, 78);
        let both = Bytes::from([&one, batch.bytes()].concat());
        for (body, is_gzip, count) in [
            (Bytes::from(one), false, SPAN_COUNT),
            (Bytes::from(compressed), true, SPAN_COUNT),
            (both, false, 2 * SPAN_COUNT),
        ] {
            let (marks, foreign_count) = super::super::marks(&body, is_gzip).unwrap();
            assert_eq!((marks.len(), foreign_count), (count, 0));
            for (mark, sequence) in marks[..SPAN_COUNT].iter().zip(1_000..) {
                assert_eq!((mark.sequence, mark.time_ns), (sequence, 77));
            }
        }
    }
}
