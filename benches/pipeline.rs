//! Measures all stages of a segment without a network, on one core: parse, ring, batch, body with
//! its hash.
//!
//! The README states the rate for documents of 1,000 bytes. Its inverse is the cost of a segment
//! without system calls, TLS and HTTP.

mod common;

use common::DOCUMENT_COUNT;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::batch::{Batcher, DOCUMENT_COUNT_MAX};
use xrayd::pipeline::ring::Rings;
use xrayd::pipeline::segment::{Parser, split};

/// Number of datagrams that the receiver takes from the socket at once.
const DRAIN_COUNT: usize = 64;

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(DOCUMENT_COUNT as u64));
    for length in [1_000, 10_000] {
        let datagrams = common::datagrams(length);
        let pool = ChunkPool::new(512, 64);
        let mut rings = Rings::new(Arc::clone(&pool), 256);
        let mut producer = rings.add();
        let mut parser = Parser::default();
        let mut batcher = Batcher::new(pool, 1 << 20, 16);
        group.bench_function(format!("ours/{length}"), |bencher| {
            bencher.iter(|| {
                for part in datagrams.chunks(DRAIN_COUNT) {
                    let now = Instant::now();
                    let mut drain = producer.begin(now);
                    for datagram in part {
                        let segment = parser.parse(datagram).expect("it is a segment");
                        assert_eq!(drain.push(&segment).dropped_count, 0);
                    }
                    drain.commit();
                    let turn = rings.begin_turn(usize::MAX, |count| count > 0);
                    let mut turn = turn.expect("it is due");
                    while let Some(entry) = rings.take(&mut turn) {
                        for segment in entry.segments() {
                            batcher.add(&segment, now, now).expect("there is memory");
                        }
                    }
                    while let Some(batch) = batcher.pop() {
                        black_box(batch.body_sha256);
                    }
                }
            });
        });
        group.bench_function(format!("vectors and serde_json/{length}"), |bencher| {
            bencher.iter(|| {
                for part in datagrams.chunks(DOCUMENT_COUNT_MAX) {
                    let texts: Vec<String> = part.iter().map(|datagram| plain(datagram)).collect();
                    let body = serde_json::json!({ "TraceSegmentDocuments": texts }).to_string();
                    black_box(Sha256::digest(body));
                }
            });
        });
    }
    group.finish();
}

fn plain(datagram: &[u8]) -> String {
    let document = split(datagram).expect("the header is good");
    let value: serde_json::Value = serde_json::from_slice(document).expect("it is JSON");
    black_box(value["trace_id"].as_str());
    String::from_utf8(document.to_vec()).expect("it is text")
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
