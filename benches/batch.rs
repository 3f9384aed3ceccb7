//! Compares the batcher with serde_json and a hash over its output.

mod common;

use common::DOCUMENT_COUNT;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::batch::{Batcher, DOCUMENT_COUNT_MAX};
use xrayd::pipeline::ring::{RingEntry, Rings};
use xrayd::pipeline::segment::Parser;

fn entries(datagrams: &[Vec<u8>], pool: &Arc<ChunkPool>) -> Vec<RingEntry> {
    let mut rings = Rings::new(Arc::clone(pool), 1024);
    let mut producer = rings.add();
    let mut parser = Parser::default();
    let mut drain = producer.begin(Instant::now());
    for datagram in datagrams {
        let segment = parser.parse(datagram).expect("it is a segment");
        assert_eq!(drain.push(&segment).dropped_count, 0);
    }
    drain.commit();
    std::iter::from_fn(|| rings.pop()).collect()
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    trace_segment_documents: &'a [&'a str],
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(DOCUMENT_COUNT as u64));
    for length in [1_000, 10_000] {
        let datagrams = common::datagrams(length);
        let pool = ChunkPool::new(2048, 16);
        group.bench_function(format!("ours/{length}"), |bencher| {
            let mut batcher = Batcher::new(ChunkPool::new(256, 16), 1 << 20, 4);
            bencher.iter_batched(
                || entries(&datagrams, &pool),
                |entries| {
                    let now = Instant::now();
                    for entry in entries {
                        for segment in entry.segments() {
                            batcher.add(&segment, now, now).expect("there is memory");
                        }
                        while let Some(batch) = batcher.pop() {
                            black_box(batch.body_sha256);
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
        let documents = common::documents(length);
        group.bench_function(format!("serde_json and a hash/{length}"), |bencher| {
            bencher.iter(|| {
                for part in documents.chunks(DOCUMENT_COUNT_MAX) {
                    let texts: Vec<&str> = part
                        .iter()
                        .map(|document| std::str::from_utf8(document).expect("it is text"))
                        .collect();
                    let body = serde_json::to_vec(&Body { trace_segment_documents: &texts });
                    black_box(Sha256::digest(body.expect("strings can be encoded")));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
