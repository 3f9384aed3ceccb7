//! The hand-over from a receiver thread to the batcher: lock-free, bounded, oldest out.
//!
//! In: segments, copied out of the receive buffers at once so that those go back to the kernel.
//! Out: parcels of segments in the order they came, but that one which fills up between the
//! batcher's look into the queue and its look at `open` may come after the next. Small segments
//! are packed into a chunk that stays open between two drains of the socket, so that at low rates
//! a chunk is filled and not spent on a single segment; one push to the queue carries many.
//!
//! ```text
//!  receiver ──► open (one parcel) ──full──► queue of full parcels ──► batcher
//!                 └──────────── taken when there is nothing else ───────┘
//! ```
//!
//! Both `open` and the queue are crossbeam `ArrayQueue`s: the receiver takes the open parcel out,
//! owns it while it fills it, and puts it back, so neither side ever waits for the other.
//!
//! `tests/model` goes through the interleavings of the two threads.
//!
//! Bound: the pool's chunks and the queue's places. When either is used up the ring's oldest
//! parcel gives way, and the caller is told how many segments that cost ([`Pushed`]).

use crate::memory::{CHUNK_BYTES, Chunk, Pool};
use crate::segment::{Fields, Form, Segment, Span};
use crate::sync::{self, ArrayQueue, AtomicUsize, Ordering, fence};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Bytes in front of each document in a chunk: its length and its fields.
const RECORD_HEADER_BYTES: usize = 16;

/// Chunks that the largest datagram (65,507 bytes) can take up.
const CHUNKS_PER_PARCEL: usize = (65_535 + RECORD_HEADER_BYTES).div_ceil(CHUNK_BYTES);

/// The batcher is woken when this many segments wait, and when the first one comes.
///
/// A batch takes 50; to wake it for each would cost more than all its other work. The first one
/// starts its clock, see [`Consumer::waiting_count`].
pub const WAKE_SEGMENT_COUNT: usize = 50;

/// Segments packed together: many small ones in one chunk, or a large one over several.
#[derive(Debug)]
pub struct Parcel {
    chunks: [Option<Chunk>; CHUNKS_PER_PARCEL],
    segment_count: usize,
    opened_at: Instant,
}

/// A segment in a parcel. Its document comes in pieces when it spans chunks; a piece never ends
/// within a UTF-8 character.
#[derive(Debug, Clone, Copy)]
pub struct PackedSegment<'a> {
    /// Where the document's fields are.
    pub fields: Fields,
    length: usize,
    pieces: Pieces<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Pieces<'a> {
    One(&'a [u8]),
    Many(&'a Parcel),
}

impl<'a> PackedSegment<'a> {
    /// The pieces of the document, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, many) = match self.pieces {
            Pieces::One(document) => (Some(document), None),
            Pieces::Many(parcel) => (None, Some(parcel)),
        };
        let many = many.into_iter().flat_map(|parcel| parcel.chunks.iter().flatten());
        let many = many.enumerate().map(|(index, chunk)| {
            &chunk.filled()[if index == 0 { RECORD_HEADER_BYTES } else { 0 }..]
        });
        one.into_iter().chain(many)
    }

    /// Length of the document in bytes.
    pub fn document_length_bytes(&self) -> usize {
        self.length
    }

    /// A field of the document; `None` where it is absent or lies across two pieces.
    pub fn field(&self, span: Span) -> Option<&'a [u8]> {
        let mut offset = usize::from(span.offset);
        let length = usize::from(span.length);
        for piece in self.pieces() {
            if offset < piece.len() {
                return piece.get(offset..offset + length).filter(|field| !field.is_empty());
            }
            offset -= piece.len();
        }
        None
    }
}

impl Parcel {
    fn new(opened_at: Instant) -> Self {
        Self { chunks: [const { None }; CHUNKS_PER_PARCEL], segment_count: 0, opened_at }
    }

    /// Number of segments packed.
    pub fn segment_count(&self) -> usize {
        self.segment_count
    }

    /// When its first segment came.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// The segments, in the order they came.
    pub fn segments(&self) -> impl Iterator<Item = PackedSegment<'_>> {
        let spans_chunks = self.chunks[1].is_some();
        let mut rest = self.chunks[0].as_ref().map_or(&[][..], Chunk::filled);
        std::iter::from_fn(move || {
            let (header, after) = rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
            let (length, fields) = decode_header(header);
            if spans_chunks {
                rest = &[];
                return Some(PackedSegment { fields, length, pieces: Pieces::Many(self) });
            }
            let (document, next) = after.split_at_checked(length)?;
            rest = next;
            Some(PackedSegment { fields, length, pieces: Pieces::One(document) })
        })
    }

    fn has_room(&mut self, document: &[u8]) -> bool {
        let room = self.chunks[0].as_mut().map_or(0, |chunk| chunk.spare().len());
        self.chunks[1].is_none() && RECORD_HEADER_BYTES + document.len() <= room
    }

    /// Packs a segment into the chunks taken, `chunks[0]` having room for the header at least.
    fn pack(&mut self, segment: &Segment<'_>) {
        let mut rest = segment.document;
        for (index, chunk) in self.chunks.iter_mut().flatten().enumerate() {
            if index == 0 {
                chunk.fill(&encode_header(segment));
            }
            let (piece, next) = cut(rest, chunk.spare().len());
            chunk.fill(piece);
            rest = next;
        }
        debug_assert!(rest.is_empty(), "the parcel has chunks for the whole document");
        self.segment_count += 1;
    }
}

/// Cuts off at most `room` bytes, between two characters if the text is UTF-8.
///
/// A byte that is no continuation byte starts a character, so to cut before one is always right;
/// behind three continuation bytes no character goes on.
fn cut(text: &[u8], room: usize) -> (&[u8], &[u8]) {
    if text.len() <= room {
        return (text, &[]);
    }
    let starts_character = |&at: &usize| text[at] & 0xc0 != 0x80;
    let at = (room.saturating_sub(3)..=room).rev().find(starts_character).unwrap_or(room);
    text.split_at(at)
}

fn encode_header(segment: &Segment<'_>) -> [u8; RECORD_HEADER_BYTES] {
    let Fields { trace_id, id, name, in_progress, form } = segment.fields;
    let length = u16::try_from(segment.document.len()).expect("a datagram is below 64 KiB");
    let flags = u16::from(in_progress) | (form as u16) << 1;
    let mut header = [0; RECORD_HEADER_BYTES];
    let numbers = [
        length,
        flags,
        trace_id.offset,
        trace_id.length,
        id.offset,
        id.length,
        name.offset,
        name.length,
    ];
    for (place, number) in header.chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    header
}

fn decode_header(header: &[u8; RECORD_HEADER_BYTES]) -> (usize, Fields) {
    let number = |index: usize| u16::from_le_bytes([header[2 * index], header[2 * index + 1]]);
    let span = |index| Span { offset: number(index), length: number(index + 1) };
    let form = match number(1) >> 1 {
        0 => Form::Json,
        1 => Form::Text,
        _ => Form::Bytes,
    };
    let fields = Fields {
        trace_id: span(2),
        id: span(4),
        name: span(6),
        in_progress: number(1) & 1 == 1,
        form,
    };
    (usize::from(number(0)), fields)
}

/// What a push did to the segments in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "segments that gave way have to be counted"]
pub struct Pushed {
    /// Segments that gave way for want of memory: older ones, or this one when nothing else was.
    pub dropped_count: u64,
}

#[derive(Debug)]
struct Shared {
    open: ArrayQueue<Parcel>,
    full: ArrayQueue<Parcel>,
    /// Segments pushed since the consumer last found the queue empty.
    fresh_count: AtomicUsize,
}

/// Makes a ring of at most `parcel_count_max` full parcels with chunks from `pool`.
pub fn ring(pool: Arc<Pool>, parcel_count_max: usize) -> (Producer, Consumer) {
    let shared = sync::Arc::new(Shared {
        open: ArrayQueue::new(1),
        full: ArrayQueue::new(parcel_count_max),
        fresh_count: AtomicUsize::new(0),
    });
    let producer = Producer { shared: sync::Arc::clone(&shared), pool };
    (producer, Consumer { shared, counted: VecDeque::new() })
}

/// The receiver's end; there is one.
#[derive(Debug)]
pub struct Producer {
    shared: sync::Arc<Shared>,
    pool: Arc<Pool>,
}

impl Producer {
    /// Starts the hand-over of one drain of the socket, at `now`.
    pub fn begin(&mut self, now: Instant) -> Drain<'_> {
        Drain { producer: self, open: None, now, pushed_count: 0 }
    }

    /// Closes the ring: the consumer ends when it has taken the rest.
    pub fn close(self) {}

    /// Gives up the oldest parcel to have its chunks back; says how many segments it held.
    fn displace(&self) -> Option<u64> {
        self.shared.full.pop().map(|parcel| parcel.segment_count as u64)
    }
}

/// One drain of the socket on its way into the ring.
#[derive(Debug)]
pub struct Drain<'a> {
    producer: &'a Producer,
    open: Option<Parcel>,
    now: Instant,
    pushed_count: usize,
}

impl Drain<'_> {
    /// Copies a segment into the ring.
    pub fn push(&mut self, segment: &Segment<'_>) -> Pushed {
        if self.open.is_none() {
            // Not before: a drain that pushes nothing wakes nobody, so it must not hide the
            // parcel from a consumer that looks meanwhile and then sleeps.
            self.open = self.producer.shared.open.pop();
        }
        let mut pushed = Pushed::default();
        let has_room = self.open.as_mut().is_some_and(|parcel| parcel.has_room(segment.document));
        if !has_room {
            pushed.dropped_count += self.finish_open();
            match self.open_parcel(segment.document.len(), &mut pushed) {
                Some(parcel) => self.open = Some(parcel),
                None => {
                    pushed.dropped_count += 1;
                    return pushed;
                }
            }
        }
        if let Some(parcel) = &mut self.open {
            parcel.pack(segment);
            self.pushed_count += 1;
        }
        pushed
    }

    /// Puts the open parcel into the queue; says how many segments gave way for it.
    fn finish_open(&mut self) -> u64 {
        let displaced =
            self.open.take().and_then(|parcel| self.producer.shared.full.force_push(parcel));
        displaced.map_or(0, |parcel| parcel.segment_count as u64)
    }

    /// A new parcel with chunks for a document of this length, at the cost of older ones if need be.
    fn open_parcel(&self, document_bytes: usize, pushed: &mut Pushed) -> Option<Parcel> {
        // A cut between characters may leave up to three bytes of a chunk unused.
        let per_chunk = CHUNK_BYTES - 3;
        let chunk_count = if RECORD_HEADER_BYTES + document_bytes <= CHUNK_BYTES {
            1
        } else {
            (RECORD_HEADER_BYTES + document_bytes).div_ceil(per_chunk)
        };
        let mut parcel = Parcel::new(self.now);
        for place in &mut parcel.chunks[..chunk_count] {
            *place = loop {
                match self.producer.pool.take_for_receive() {
                    Some(chunk) => break Some(chunk),
                    None => pushed.dropped_count += self.producer.displace()?,
                }
            };
        }
        Some(parcel)
    }

    /// Ends the drain; says whether the consumer should be woken.
    #[must_use = "a consumer that is not woken may sleep on"]
    pub fn commit(mut self) -> bool {
        if let Some(parcel) = self.open.take() {
            // The consumer only ever takes from `open`, so there is room.
            let _ = self.producer.shared.open.force_push(parcel);
        }
        if self.pushed_count == 0 {
            return false;
        }
        let before =
            self.producer.shared.fresh_count.fetch_add(self.pushed_count, Ordering::AcqRel);
        let after = before + self.pushed_count;
        before == 0 || before / WAKE_SEGMENT_COUNT != after / WAKE_SEGMENT_COUNT
    }
}

/// The batcher's end; there is one.
#[derive(Debug)]
pub struct Consumer {
    shared: sync::Arc<Shared>,
    /// Taken to be counted; they go before all others.
    counted: VecDeque<Parcel>,
}

impl Consumer {
    /// Takes the oldest parcel; `None` when there is none.
    ///
    /// What is still open is taken when no full parcel waits.
    pub fn pop(&mut self) -> Option<Parcel> {
        self.counted.pop_front().or_else(|| self.pop_shared())
    }

    fn pop_shared(&mut self) -> Option<Parcel> {
        self.shared.full.pop().or_else(|| {
            // Counted down before the look: a push after it wakes this side again, and what was
            // counted before it is seen by the look. (A store would not order the two.)
            self.shared.fresh_count.swap(0, Ordering::AcqRel);
            let open = self.shared.open.pop().filter(|parcel| parcel.segment_count > 0);
            if open.is_some() && !self.shared.full.is_empty() {
                // Filled up between the two looks and counted down with the rest; a consumer that
                // stops here has to know of it.
                self.shared.fresh_count.fetch_add(1, Ordering::Relaxed);
            }
            open
        })
    }

    /// Segments pushed since [`pop`](Self::pop) last found no full parcel.
    ///
    /// From one to [`WAKE_SEGMENT_COUNT`] they may stay where they are until their batch is due:
    /// the receiver wakes the consumer again only when there are that many.
    pub fn waiting_count(&self) -> usize {
        self.shared.fresh_count.load(Ordering::Acquire) + self.counted_segment_count()
    }

    /// Segments in the ring, counted parcel by parcel.
    ///
    /// The receiver may displace none of these any more: they are kept on this side.
    pub fn segment_count(&mut self) -> usize {
        while let Some(parcel) = self.pop_shared() {
            self.counted.push_back(parcel);
        }
        self.counted_segment_count()
    }

    fn counted_segment_count(&self) -> usize {
        self.counted.iter().map(Parcel::segment_count).sum()
    }

    /// Whether the receiver is gone: nothing comes after what [`pop`](Self::pop) still gives.
    pub fn is_closed(&self) -> bool {
        let is_alone = sync::Arc::strong_count(&self.shared) == 1;
        // The count is read without order; what the receiver pushed before it let go is seen then.
        fence(Ordering::Acquire);
        is_alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(document: &[u8]) -> Segment<'_> {
        let fields = Fields {
            id: Span { offset: 0, length: u16::try_from(document.len().min(16)).unwrap() },
            in_progress: document.len().is_multiple_of(2),
            form: Form::Text,
            ..Fields::default()
        };
        Segment { document, fields }
    }

    fn push(producer: &mut Producer, document: &[u8]) -> u64 {
        let mut drain = producer.begin(Instant::now());
        let pushed = drain.push(&segment(document));
        let _ = drain.commit();
        pushed.dropped_count
    }

    fn documents(parcel: &Parcel) -> Vec<Vec<u8>> {
        parcel
            .segments()
            .map(|packed| {
                let document: Vec<u8> = packed.pieces().flatten().copied().collect();
                assert_eq!(packed.document_length_bytes(), document.len());
                assert_eq!(packed.fields, segment(&document).fields);
                document
            })
            .collect()
    }

    fn pop_all(consumer: &mut Consumer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| consumer.pop()).flat_map(|parcel| documents(&parcel)).collect()
    }

    #[test]
    fn small_segments_of_many_drains_share_a_chunk() {
        let pool = Pool::new(10, 0);
        let (mut producer, mut consumer) = ring(Arc::clone(&pool), 10);
        for index in 0..10 {
            assert_eq!(push(&mut producer, format!("document {index}").as_bytes()), 0);
        }
        assert_eq!(pool.used(), 1);
        assert_eq!(pop_all(&mut consumer).len(), 10);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_large_document_spans_chunks_and_is_never_cut_within_a_character() {
        let pool = Pool::new(10, 0);
        let (mut producer, mut consumer) = ring(Arc::clone(&pool), 10);
        for text in
            ["é".repeat(32_753), "🦀".repeat(16_376), "x".repeat(65_507), "\u{800}".repeat(21_835)]
        {
            assert_eq!(push(&mut producer, text.as_bytes()), 0);
            let parcel = consumer.pop().unwrap();
            let packed = parcel.segments().next().unwrap();
            assert!(packed.pieces().count() > 3);
            assert!(packed.pieces().all(|piece| std::str::from_utf8(piece).is_ok()));
            assert_eq!(documents(&parcel), [text.as_bytes()]);
            assert_eq!(packed.field(packed.fields.id), Some(&text.as_bytes()[..16]));
        }
    }

    #[test]
    fn the_consumer_is_woken_by_the_first_and_by_every_fiftieth_segment() {
        let (mut producer, mut consumer) = ring(Pool::new(50, 0), 50);
        let mut wakes = |count: usize| {
            let mut drain = producer.begin(Instant::now());
            for _ in 0..count {
                let _ = drain.push(&segment(b"x"));
            }
            drain.commit()
        };
        assert!(!wakes(0));
        assert!(wakes(1));
        assert!(!wakes(48));
        assert!(wakes(1));
        assert!(!wakes(10));
        assert!(wakes(120));
        pop_all(&mut consumer);
        assert!(wakes(1));
    }

    #[test]
    fn when_memory_is_used_up_the_oldest_parcel_gives_way_and_is_counted() {
        let (mut producer, mut consumer) = ring(Pool::new(3, 0), 10);
        let document = [b'x'; 10_000];
        assert_eq!((0..3).map(|_| push(&mut producer, &document)).sum::<u64>(), 0);
        assert_eq!(push(&mut producer, b"last one that fits"), 0);
        assert_eq!(push(&mut producer, &document), 1);
        assert_eq!(pop_all(&mut consumer).len(), 4);
    }

    #[test]
    fn when_there_is_nothing_to_displace_the_new_segment_is_counted() {
        let pool = Pool::new(2, 1);
        let (mut producer, _consumer) = ring(Arc::clone(&pool), 10);
        let elsewhere = pool.take_for_batch();
        assert_eq!(push(&mut producer, b"x"), 1);
        drop(elsewhere);
        assert_eq!(push(&mut producer, b"x"), 0);
    }

    #[test]
    fn a_full_queue_displaces_its_oldest_parcel() {
        let (mut producer, mut consumer) = ring(Pool::new(100, 0), 2);
        let documents: Vec<_> = (0..5u8).map(|byte| vec![byte; 16_000]).collect();
        let dropped: u64 = documents.iter().map(|document| push(&mut producer, document)).sum();
        assert_eq!(dropped, 2);
        assert_eq!(pop_all(&mut consumer), documents[2..]);
    }

    #[test]
    fn counting_takes_nothing_out_and_changes_no_order() {
        let (mut producer, mut consumer) = ring(Pool::new(20, 0), 10);
        let documents: Vec<_> = (0..8u8).map(|byte| vec![byte; 10_000]).collect();
        documents[..5].iter().for_each(|document| assert_eq!(push(&mut producer, document), 0));
        assert_eq!((consumer.segment_count(), consumer.segment_count()), (5, 5));
        documents[5..].iter().for_each(|document| assert_eq!(push(&mut producer, document), 0));
        assert_eq!(consumer.waiting_count(), 8);
        assert_eq!(consumer.segment_count(), 8);
        assert_eq!(pop_all(&mut consumer), documents);
        assert_eq!((consumer.segment_count(), consumer.waiting_count()), (0, 0));
    }

    #[test]
    fn a_drain_hides_nothing_from_the_consumer_before_it_pushes() {
        let (mut producer, mut consumer) = ring(Pool::new(3, 0), 10);
        assert_eq!(push(&mut producer, b"waits"), 0);
        let drain = producer.begin(Instant::now());
        assert_eq!(pop_all(&mut consumer), [b"waits"]);
        assert!(!drain.commit());
    }

    #[test]
    fn the_consumer_sees_the_end_after_the_rest() {
        let (mut producer, mut consumer) = ring(Pool::new(3, 0), 10);
        assert_eq!(push(&mut producer, b"rest"), 0);
        assert!(!consumer.is_closed());
        producer.close();
        assert!(consumer.is_closed());
        assert_eq!(pop_all(&mut consumer), [b"rest"]);
    }

    #[test]
    fn two_threads_lose_nothing_that_is_not_counted() {
        const COUNT: u64 = 200_000;
        let pool = Pool::new(20, 2);
        let (mut producer, mut consumer) = ring(Arc::clone(&pool), 10);
        let (dropped, taken) = std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let mut dropped = 0;
                for index in 0..COUNT / 10 {
                    let mut drain = producer.begin(Instant::now());
                    for step in 0..10 {
                        let document = format!("{:0>500}", index * 10 + step);
                        dropped += drain.push(&segment(document.as_bytes())).dropped_count;
                    }
                    let _ = drain.commit();
                }
                dropped
            });
            let mut taken = 0;
            loop {
                let closed = consumer.is_closed();
                while let Some(parcel) = consumer.pop() {
                    taken += documents(&parcel).len() as u64;
                }
                if closed {
                    break;
                }
            }
            (sender.join().unwrap(), taken)
        });
        assert_eq!(taken + dropped, COUNT);
        assert_eq!(pool.used(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Pop,
    }

    proptest! {
        /// The model: a queue of documents, from whose front whole parcels may be missing.
        #[test]
        fn the_ring_is_a_queue_that_forgets_its_oldest_and_says_how_many(
            steps in proptest::collection::vec(
                prop_oneof![3 => (1usize..40_000).prop_map(Step::Push), 1 => Just(Step::Pop)], 1..80),
            chunk_count in 5usize..12,
            parcel_count in 1usize..6,
        ) {
            let pool = Pool::new(chunk_count, 0);
            let (mut producer, mut consumer) = ring(Arc::clone(&pool), parcel_count);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for (index, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(length) => {
                        let document = vec![u8::try_from(index).unwrap(); length];
                        model.push_back(document.clone());
                        for _ in 0..push(&mut producer, &document) {
                            model.pop_front();
                        }
                    }
                    Step::Pop => {
                        for document in consumer.pop().iter().flat_map(documents) {
                            prop_assert_eq!(Some(document), model.pop_front());
                        }
                    }
                }
                prop_assert!(pool.used() <= chunk_count);
            }
            producer.close();
            prop_assert_eq!(pop_all(&mut consumer), Vec::from(model));
            prop_assert!(consumer.is_closed());
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
