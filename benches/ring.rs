//! Compares the ring with a queue and a channel that allocate a vector for each document.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_queue::ArrayQueue;
use std::hint::black_box;
use std::sync::mpsc;
use std::time::Instant;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::ring::Rings;
use xrayd::pipeline::segment::{Fields, Segment};

/// Number of datagrams that the receiver takes from the socket at once.
const DRAIN_COUNT: usize = 64;

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    for length in [1_000, 10_000] {
        let documents = common::documents(length);
        let documents = &documents[..DRAIN_COUNT];
        group.throughput(Throughput::Elements(DRAIN_COUNT as u64));
        let pool = ChunkPool::new(256, 16);
        let mut rings = Rings::new(pool, 256);
        let mut producer = rings.add();
        let fields = Fields::default();
        group.bench_function(format!("ours/{length}"), |bencher| {
            bencher.iter(|| {
                let mut drain = producer.begin(Instant::now());
                for document in documents {
                    assert_eq!(drain.push(&Segment { document, fields }).dropped_count, 0);
                }
                drain.commit();
                let mut turn = rings.begin_turn(usize::MAX, |count| count > 0).expect("it is due");
                while let Some(entry) = rings.take(&mut turn) {
                    for segment in entry.segments() {
                        black_box(segment.document_length_bytes());
                    }
                }
            });
        });
        let queue = ArrayQueue::new(256);
        group.bench_function(format!("queue of vectors/{length}"), |bencher| {
            bencher.iter(|| {
                for document in documents {
                    assert!(queue.push(document.clone()).is_ok());
                }
                while let Some(document) = queue.pop() {
                    black_box(document.len());
                }
            });
        });
        let (sender, receiver) = mpsc::channel();
        group.bench_function(format!("channel of vectors/{length}"), |bencher| {
            bencher.iter(|| {
                for document in documents {
                    assert!(sender.send(document.clone()).is_ok());
                }
                while let Ok(document) = receiver.try_recv() {
                    black_box(document.len());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
