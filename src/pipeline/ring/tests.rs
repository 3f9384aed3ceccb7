//! Tests of the ring against a simple model, on one thread and on two. `tests/model` checks the
//! interleavings.

use super::*;
use crate::pipeline::segment::{Fields, Form, Span};
use proptest::prelude::*;
use std::pin::pin;
use std::task::{Context, Waker};

fn segment(document: &[u8]) -> Segment<'_> {
    let fields = Fields {
        id: Span { offset: 0, length: u16::try_from(document.len().min(16)).unwrap() },
        form: Form::Text,
        ..Fields::default()
    };
    Segment { document, fields }
}

fn ring(pool: Arc<ChunkPool>, entry_count_max: usize) -> (Producer, Rings) {
    let mut rings = Rings::new(pool, entry_count_max);
    let producer = rings.add();
    (producer, rings)
}

fn push(producer: &mut Producer, document: &[u8]) -> u64 {
    let mut drain = producer.begin(Instant::now());
    let pushed = drain.push(&segment(document));
    drain.commit();
    pushed.dropped_count
}

fn documents(entry: &RingEntry) -> Vec<Vec<u8>> {
    entry
        .segments()
        .map(|packed| {
            let document = packed.pieces().collect::<Vec<_>>().concat();
            assert_eq!(packed.document_length_bytes(), document.len());
            assert_eq!(packed.fields, segment(&document).fields);
            document
        })
        .collect()
}

fn waiting_count(rings: &Rings) -> usize {
    let mut waiting_count = 0;
    let _ = rings.begin_turn(1, |count| {
        waiting_count = count;
        false
    });
    waiting_count
}

fn pop_all(rings: &mut Rings) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| rings.pop()).flat_map(|entry| documents(&entry)).collect()
}

#[test]
fn small_segments_of_many_drains_share_a_chunk() {
    let pool = ChunkPool::new(10, 0);
    let (mut producer, mut rings) = ring(Arc::clone(&pool), 10);
    for index in 0..10 {
        assert_eq!(push(&mut producer, format!("document {index}").as_bytes()), 0);
    }
    assert_eq!(pool.used(), 1);
    assert_eq!(pop_all(&mut rings).len(), 10);
    assert_eq!(pool.used(), 0);
}

#[test]
fn a_large_document_spans_chunks_and_is_never_cut_within_a_character() {
    let pool = ChunkPool::new(10, 0);
    let (mut producer, mut rings) = ring(Arc::clone(&pool), 10);
    for text in
        ["é".repeat(32_753), "🦀".repeat(16_376), "x".repeat(65_507), "\u{800}".repeat(21_835)]
    {
        assert_eq!(push(&mut producer, text.as_bytes()), 0);
        let entry = rings.pop().unwrap();
        let packed = entry.segments().next().unwrap();
        assert!(packed.pieces().count() > 3);
        assert!(packed.pieces().all(|piece| std::str::from_utf8(piece).is_ok()));
        assert_eq!(documents(&entry), [text.as_bytes()]);
        assert_eq!(packed.field(packed.fields.id), Some(&text.as_bytes()[..16]));
    }
}

#[test]
fn a_field_is_found_in_any_piece_of_a_large_document_and_not_across_two() {
    let pool = ChunkPool::new(10, 0);
    let (mut producer, mut rings) = ring(Arc::clone(&pool), 10);
    let document = &(0..251u8).collect::<Vec<_>>().repeat(160)[..40_000];
    assert_eq!(push(&mut producer, document), 0);
    let entry = rings.pop().unwrap();
    let packed = entry.segments().next().unwrap();
    let first_piece = u16::try_from(packed.pieces().next().unwrap().len()).unwrap();
    for (offset, is_found) in
        [(0, true), (first_piece, true), (first_piece - 8, false), (39_984, true), (39_985, false)]
    {
        let found = packed.field(Span { offset, length: 16 });
        let at = usize::from(offset);
        let expected = is_found.then(|| &document[at..at + 16]);
        assert_eq!(found, expected, "at {offset}");
    }
    assert_eq!(packed.field(Span { offset: 60_000, length: 1 }), None);
}

/// Returns whether a sender that sleeps until `wake_count` segments wait is woken at once.
fn is_woken(rings: &mut Rings, wake_count: usize) -> bool {
    let woken = pin!(rings.woken(wake_count));
    woken.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn the_consumer_is_woken_when_as_many_wait_as_it_wants_to_be_woken_for() {
    // The time that Miri takes for a segment grows with the segments in the chunk.
    let more = if cfg!(miri) { 2 } else { 120 };
    let (mut producer, mut rings) = ring(ChunkPool::new(50, 0), 50);
    let mut push = |count: usize| {
        let mut drain = producer.begin(Instant::now());
        for _ in 0..count {
            assert_eq!(drain.push(&segment(b"x")).dropped_count, 0);
        }
        drain.commit();
    };
    push(0);
    assert!(!is_woken(&mut rings, 1));
    push(1);
    assert!(is_woken(&mut rings, 1));
    push(1);
    assert!(!is_woken(&mut rings, 1));
    assert!(!is_woken(&mut rings, 50));
    push(47);
    assert!(!is_woken(&mut rings, 50));
    push(1);
    assert!(is_woken(&mut rings, 50));
    push(more);
    assert!(!is_woken(&mut rings, 50));
    assert!(is_woken(&mut rings, 50 + more), "so many wait already");
    assert!(!is_woken(&mut rings, 51 + more));
    push(1);
    assert!(is_woken(&mut rings, 51 + more));
    pop_all(&mut rings);
    push(50 + more);
    assert!(!is_woken(&mut rings, 51 + more));
    push(20);
    assert!(is_woken(&mut rings, 51 + more));
}

#[test]
fn the_consumer_is_woken_when_a_ring_is_closed_or_memory_is_low() {
    let pool = ChunkPool::new(1, 0);
    let (mut producer, mut rings) = ring(Arc::clone(&pool), 50);
    let elsewhere = pool.take_for_batch();
    assert_eq!(push(&mut producer, b"x"), 1);
    assert!(is_woken(&mut rings, 1), "there was no memory for what it should be woken for");
    drop(elsewhere);
    assert!(!is_woken(&mut rings, 1));
    drop(producer);
    assert!(is_woken(&mut rings, 1));
}

#[test]
fn a_turn_ends_after_its_entries_and_the_next_one_begins_with_another_ring() {
    let mut rings = Rings::new(ChunkPool::new(50, 0), 50);
    let mut producers = [rings.add(), rings.add()];
    for byte in 0..3u8 {
        for (index, producer) in (0u8..).zip(&mut producers) {
            assert_eq!(push(producer, &[10 * index + byte; 16_000]), 0);
        }
    }
    assert!(rings.begin_turn(2, |_| false).is_none(), "it is not due");
    let mut turns = Vec::new();
    loop {
        let mut turn = rings.begin_turn(2, |_| true).expect("it is due");
        let taken = std::iter::from_fn(|| rings.take(&mut turn));
        turns.push(taken.map(|entry| documents(&entry)[0][0]).collect::<Vec<_>>());
        if turn.progress() == Progress::Idle {
            break;
        }
        assert_eq!(turn.progress(), Progress::More);
    }
    assert_eq!(turns, [vec![0, 1], vec![10, 11], vec![2, 12], vec![]]);
    drop(producers);
    let turn = rings.begin_turn(2, |_| false).expect("what is closed is always due");
    assert_eq!(turn.progress(), Progress::Closed);
}

#[test]
fn when_memory_is_used_up_the_oldest_entry_is_dropped_and_counted() {
    let (mut producer, mut rings) = ring(ChunkPool::new(3, 0), 10);
    let document = [b'x'; 10_000];
    assert_eq!((0..3).map(|_| push(&mut producer, &document)).sum::<u64>(), 0);
    assert_eq!(push(&mut producer, b"last one that fits"), 0);
    assert_eq!(push(&mut producer, &document), 1);
    assert_eq!(pop_all(&mut rings).len(), 4);
}

#[test]
fn when_there_is_no_older_entry_the_new_segment_is_dropped_and_counted() {
    let pool = ChunkPool::new(2, 1);
    let (mut producer, _rings) = ring(Arc::clone(&pool), 10);
    let elsewhere = pool.take_for_batch();
    assert_eq!(push(&mut producer, b"x"), 1);
    drop(elsewhere);
    assert_eq!(push(&mut producer, b"x"), 0);
}

#[test]
fn a_full_queue_drops_its_oldest_entry() {
    let (mut producer, mut rings) = ring(ChunkPool::new(100, 0), 2);
    let documents: Vec<_> = (0..5u8).map(|byte| vec![byte; 16_000]).collect();
    let dropped: u64 = documents.iter().map(|document| push(&mut producer, document)).sum();
    assert_eq!(dropped, 2);
    assert_eq!(pop_all(&mut rings), documents[2..]);
}

#[test]
fn counting_takes_nothing_out_and_changes_no_order() {
    let (mut producer, mut rings) = ring(ChunkPool::new(20, 0), 10);
    let documents: Vec<_> = (0..8u8).map(|byte| vec![byte; 10_000]).collect();
    documents[..5].iter().for_each(|document| assert_eq!(push(&mut producer, document), 0));
    assert_eq!((rings.segment_count(), rings.segment_count()), (5, 5));
    documents[5..].iter().for_each(|document| assert_eq!(push(&mut producer, document), 0));
    assert_eq!(waiting_count(&rings), 8);
    assert_eq!(rings.segment_count(), 8);
    assert_eq!(pop_all(&mut rings), documents);
    assert_eq!((rings.segment_count(), waiting_count(&rings)), (0, 0));
}

#[test]
fn a_drain_hides_nothing_from_the_consumer_before_it_pushes() {
    let (mut producer, mut rings) = ring(ChunkPool::new(3, 0), 10);
    assert_eq!(push(&mut producer, b"waits"), 0);
    let drain = producer.begin(Instant::now());
    assert_eq!(pop_all(&mut rings), [b"waits"]);
    drain.commit();
    assert!(rings.is_empty());
}

#[test]
fn the_consumer_sees_the_end_after_the_rest() {
    let (mut producer, mut rings) = ring(ChunkPool::new(3, 0), 10);
    assert_eq!(push(&mut producer, b"rest"), 0);
    assert!(!rings.is_closed());
    drop(producer);
    assert!(rings.is_closed());
    assert_eq!(pop_all(&mut rings), [b"rest"]);
}

#[test]
fn two_threads_lose_nothing_that_is_not_counted() {
    // Miri takes a thousand times as long.
    const COUNT: u64 = if cfg!(miri) { 50 } else { 200_000 };
    let pool = ChunkPool::new(20, 2);
    let (mut producer, mut rings) = ring(Arc::clone(&pool), 10);
    let (dropped, taken) = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut dropped = 0;
            for index in 0..COUNT / 10 {
                let mut drain = producer.begin(Instant::now());
                for step in 0..10 {
                    let document = format!("{:0>20}", index * 10 + step).repeat(25);
                    dropped += drain.push(&segment(document.as_bytes())).dropped_count;
                }
                drain.commit();
            }
            dropped
        });
        let mut taken = 0;
        loop {
            let closed = rings.is_closed();
            while let Some(entry) = rings.pop() {
                taken += documents(&entry).len() as u64;
            }
            if closed {
                break;
            }
            std::thread::yield_now();
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
    /// The model is a queue of documents, of which whole ring entries may be missing at the front.
    #[test]
    fn the_ring_is_a_queue_that_drops_its_oldest_and_counts_them(
        steps in proptest::collection::vec(
            prop_oneof![3 => (1usize..40_000).prop_map(Step::Push), 1 => Just(Step::Pop)],
            1..if cfg!(miri) { 20 } else { 80 }),
        chunk_count in 5usize..12,
        entry_count in 1usize..6,
    ) {
        let pool = ChunkPool::new(chunk_count, 0);
        let (mut producer, mut rings) = ring(Arc::clone(&pool), entry_count);
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
                    for document in rings.pop().iter().flat_map(documents) {
                        prop_assert_eq!(Some(document), model.pop_front());
                    }
                }
            }
            prop_assert!(pool.used() <= chunk_count);
        }
        drop(producer);
        prop_assert_eq!(pop_all(&mut rings), Vec::from(model));
        prop_assert!(rings.is_closed());
        prop_assert_eq!(pool.used(), 0);
    }
}

#[test]
fn a_document_keeps_its_form() {
    let (mut producer, mut rings) = ring(ChunkPool::new(10, 0), 10);
    for form in Form::ALL {
        let Segment { document, fields } = segment(b"x");
        let mut drain = producer.begin(Instant::now());
        assert_eq!(
            drain.push(&Segment { document, fields: Fields { form, ..fields } }).dropped_count,
            0
        );
        drain.commit();
        let entry = rings.pop().unwrap();
        let forms: Vec<Form> = entry.segments().map(|packed| packed.fields.form).collect();
        assert_eq!(forms, [form]);
    }
}
