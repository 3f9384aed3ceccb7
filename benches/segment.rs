//! Compares `segment::Parser` (simd-json) with serde_json into a struct and into a tree.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use std::hint::black_box;
use xrayd::pipeline::segment::{Parser, split};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    trace_id: Option<&'a str>,
    id: Option<&'a str>,
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    for length in [1_000, 10_000] {
        let datagram = common::datagrams(length).remove(0);
        group.throughput(Throughput::Bytes(length as u64));
        let mut parser = Parser::default();
        group.bench_function(format!("ours/{length}"), |bencher| {
            bencher.iter(|| parser.parse(black_box(&datagram)).map(|segment| segment.fields));
        });
        group.bench_function(format!("serde_json, fields/{length}"), |bencher| {
            bencher.iter(|| {
                let document = split(black_box(&datagram)).expect("the header is good");
                let fields: Fields<'_> = serde_json::from_slice(document).expect("it is JSON");
                black_box(fields.id);
                fields.trace_id.map(str::len)
            });
        });
        group.bench_function(format!("serde_json, tree/{length}"), |bencher| {
            bencher.iter(|| {
                let document = split(black_box(&datagram)).expect("the header is good");
                serde_json::from_slice::<serde_json::Value>(document).expect("it is JSON")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
