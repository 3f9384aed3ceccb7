//! Tests of batches. The tests read the documents back as the service does.

use super::OPEN_BATCH_COUNT_MAX;
use super::*;
use crate::base::account::Signal;
use crate::base::memory::{CHUNK_BYTES, ChunkPool};
use crate::pipeline::ring::{Producer, Rings};
use crate::pipeline::segment::Parser;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Instant;

struct Bench {
    parser: Parser,
    producer: Producer,
    rings: Rings,
    batcher: Batcher,
    pool: Arc<ChunkPool>,
    batches: Arc<ChunkPool>,
}

impl Bench {
    fn new(body_bytes_max: usize, chunk_count: usize) -> Self {
        let pool = ChunkPool::new(64, 0);
        let batches = ChunkPool::new(chunk_count, 0);
        let mut rings = Rings::new(Arc::clone(&pool), 64);
        let producer = rings.add();
        let batcher = Batcher::new(Arc::clone(&batches), body_bytes_max, OPEN_BATCH_COUNT_MAX);
        Self { parser: Parser::default(), producer, rings, batcher, pool, batches }
    }

    fn add(&mut self, document: &[u8], at: Instant) -> Result<(), OutOfChunks> {
        let datagram = [b"{\"format\":\"json\",\"version\":1}\n", document].concat();
        let segment = self.parser.parse(&datagram).unwrap();
        let mut drain = self.producer.begin(at);
        assert_eq!(drain.push(&segment).dropped_count, 0);
        drain.commit();
        let entry = self.rings.pop().unwrap();
        let packed = entry.segments().next().unwrap();
        self.batcher.add(&packed, entry.opened_at(), at)
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
fn a_piece_of_a_body_fits_into_a_tls_record_with_the_head_of_its_frame() {
    let (tls_record_bytes, frame_head_bytes) = (16 * 1024, 9);
    let mut bench = Bench::new(1 << 20, 4);
    let now = Instant::now();
    for length in 16_300..16_400 {
        bench.add(format!("{:length$}", "x").as_bytes(), now).unwrap();
        bench.batcher.finish_all(now);
        let batch = bench.batcher.pop().unwrap();
        let longest = batch.body.iter().map(bytes::Bytes::len).max().unwrap();
        assert!(longest + frame_head_bytes <= tls_record_bytes, "{longest}");
    }
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
    // Each trace has ten documents, far apart: with one open batch they would be in ten batches.
    // Some documents have a value that simd-json refuses.
    let values = ["1", "18446744073709551616", r#""\ud83d""#, "1e999"];
    let document = |trace: usize, step: usize| {
        let value = values[step % values.len()];
        format!(r#"{{"m":{value},"trace_id":"1-581cf771-{trace:024}","id":"{step:016}"}}"#)
    };
    let mut warm = |trace| bench.add(document(trace, 0).as_bytes(), now).unwrap();
    (10_000..12_000).for_each(&mut warm);
    bench.batcher.finish_all(now);
    assert_eq!(bench.batcher.open_batch_count, OPEN_BATCH_COUNT_MAX);
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
fn open_batches_are_removed_when_batches_leave_by_age() {
    let mut bench = Bench::new(1 << 20, 1_000);
    let now = Instant::now();
    (0..1_000).for_each(|_| bench.add(b"{}", now).unwrap());
    assert!(bench.batcher.open_batch_count > 4);
    for second in 1..10 {
        let then = now + Duration::from_secs(second);
        bench.add(b"{}", then).unwrap();
        bench.batcher.finish_due(then + AGE_MAX);
    }
    assert_eq!(bench.batcher.open_batch_count, 1);
}

#[test]
fn without_a_chunk_the_segment_is_not_added_and_the_batch_is_as_before() {
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
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 32 }))]
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

/// Returns a batch of these documents.
fn batch_of(texts: &[String]) -> Batch {
    let mut bench = Bench::new(1 << 24, 5_000);
    texts.iter().for_each(|text| bench.add(text.as_bytes(), Instant::now()).unwrap());
    bench.batcher.finish_all(Instant::now());
    bench.batcher.pop().unwrap()
}

#[test]
fn halves_share_the_memory_and_return_it_with_the_last_half() {
    let mut bench = Bench::new(1 << 20, 100);
    let now = Instant::now();
    let texts: Vec<_> = (0..50).map(|index| format!("[{index},{:0>1000}]", 1)).collect();
    texts.iter().for_each(|text| bench.add(text.as_bytes(), now).unwrap());
    let batch = bench.batcher.pop().unwrap();
    let used = bench.batches.used();
    let [first, second] = batch.halves().unwrap();
    drop(batch);
    assert_eq!([documents(&first), documents(&second)].concat(), texts);
    assert_eq!(bench.batches.used(), used);
    drop(second);
    assert_eq!(documents(&first), texts[..25]);
    drop(first);
    assert_eq!(bench.batches.used(), 0);
}

fn table_of(record: &[u8]) -> Option<RecordTable> {
    let start = &record[..record.len().min(TABLE_BYTES_MAX)];
    RecordTable::decode(Signal::Segments, start, record.len())
}

#[test]
fn a_record_whose_documents_overlap_or_lie_outside_of_it_is_no_batch() {
    let batch = batch_of(&["[1]".to_owned(), "[2]".to_owned()]);
    let record = [vec![batch.record_table()], vec![batch.body.concat()]].concat().concat();
    assert!(table_of(&record).is_some());
    assert!(table_of(&record[..record.len() - batch.body_length_bytes + 1]).is_none());
    // An entry begins with the offset of its document. The count of documents is before the first.
    let entry_bytes = (record.len() - batch.body_length_bytes - 2) / 2;
    for (at, what) in
        [(2 + entry_bytes, "the second begins in the first"), (2, "the first is last")]
    {
        let mut changed = record.clone();
        let offset = if at == 2 { 1_000_000u32 } else { 0 };
        changed[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        assert!(table_of(&changed).is_none(), "{what}");
    }
}

/// Reads these documents of a record into a batch, as the spool does from a file.
fn read_documents(
    table: &RecordTable,
    documents: std::ops::Range<usize>,
    record: &[u8],
    pool: &Arc<ChunkPool>,
) -> Result<Batch, RecordError<()>> {
    table.read(documents, Instant::now(), pool, |at, buffer| {
        buffer.copy_from_slice(&record[at..at + buffer.len()]);
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn a_part_has_its_documents_and_no_other(
        texts in proptest::collection::vec(
            prop_oneof![4 => ".{1,60}", 1 => (1usize..30_000).prop_map(|n| "\"x".repeat(n))], 1..50),
        kept in proptest::collection::vec(any::<bool>(), 50),
    ) {
        let batch = batch_of(&texts);
        let places: Vec<usize> = (0..texts.len()).filter(|&place| kept[place]).collect();
        prop_assume!(!places.is_empty());
        let expected: Vec<_> = places.iter().map(|&place| texts[place].clone()).collect();
        let part = batch.part(places);
        prop_assert_eq!(documents(&part), &expected[..]);
        // A part of a part can be taken, too.
        let last = part.documents.len() - 1;
        prop_assert_eq!(documents(&part.part([last])), &expected[last..]);
    }

    #[test]
    fn a_record_gives_the_batch_back(
        texts in proptest::collection::vec(
            prop_oneof![
                3 => ".{1,60}",
                2 => "[0-9a-f]{16}".prop_map(|id| format!(r#"{{"id":"{id}","trace_id":"1-2-3"}}"#)),
                1 => (1usize..60_000).prop_map(|n| "x".repeat(n)),
            ], 1..50),
    ) {
        let batch = batch_of(&texts);
        let record = [vec![batch.record_table()], vec![batch.body.concat()]].concat().concat();
        let pool = ChunkPool::new(1_000, 0);
        let table = table_of(&record).unwrap();
        let read = read_documents(&table, 0..texts.len(), &record, &pool).unwrap();
        prop_assert_eq!(documents(&read), &texts[..]);
        prop_assert_eq!(&read.documents, &batch.documents);
        prop_assert_eq!(read.body_sha256, batch.body_sha256);
        let tiny = ChunkPool::new(1, 0);
        if batch.body_length_bytes > CHUNK_BYTES {
            let read = read_documents(&table, 0..texts.len(), &record, &tiny);
            prop_assert_eq!(read.unwrap_err(), RecordError::Memory(OutOfChunks));
        }
        prop_assert_eq!(tiny.used(), 0);
    }

    #[test]
    fn a_record_that_is_larger_than_memory_is_read_in_parts_that_fit(
        texts in proptest::collection::vec(
            prop_oneof![1 => ".{1,60}", 1 => (1usize..60_000).prop_map(|n| "x".repeat(n))], 1..50),
        chunk_count_max in 1usize..20,
    ) {
        let batch = batch_of(&texts);
        let record = [vec![batch.record_table()], vec![batch.body.concat()]].concat().concat();
        let table = table_of(&record).unwrap();
        let (mut read, pool) = (Vec::new(), ChunkPool::new(1_000, 0));
        while read.len() < texts.len() {
            let rest = read.len()..texts.len();
            let count = table.fitting_count(rest.clone(), chunk_count_max);
            let part = read_documents(&table, rest.start..rest.start + count, &record, &pool);
            let part = part.unwrap();
            prop_assert!(count == 1 || pool.used() <= chunk_count_max);
            prop_assert!(pool.used() <= table.chunk_count_most(rest.clone()).max(chunk_count_max));
            // One more document would not have fitted.
            if count < rest.len() && count < texts.len() - 1 {
                let more = read_documents(
                    &table, rest.start..rest.start + count + 1, &record, &ChunkPool::new(1_000, 0));
                prop_assert!(more.unwrap().body.len() > chunk_count_max);
            }
            let body = part.body.concat();
            prop_assert_eq!(part.body_sha256.as_slice(), &Sha256::digest(&body)[..]);
            for (document, text) in part.documents.iter().zip(&texts[rest]) {
                let place = document.offset..document.offset + document.length;
                prop_assert_eq!(&serde_json::from_slice::<String>(&body[place]).unwrap(), text);
            }
            // A part of a part can be taken, too.
            let last = part.documents.len() - 1;
            prop_assert_eq!(documents(&part.part([last])).concat(), documents(&part)[last].clone());
            read.extend(documents(&part));
        }
        prop_assert_eq!(read, texts);
        prop_assert_eq!(pool.used(), 0);
    }

    #[test]
    fn any_record_makes_a_batch_or_none(record in proptest::collection::vec(any::<u8>(), 0..400)) {
        let pool = ChunkPool::new(10, 0);
        if let Some(table) = table_of(&record) {
            let count = table.items();
            for documents in [0..count, 0..1, count - 1..count] {
                let batch = read_documents(&table, documents, &record, &pool).unwrap();
                let length = batch.body_length_bytes;
                prop_assert!(batch.documents.iter().all(|one| one.offset + one.length <= length));
            }
        }
    }
}
