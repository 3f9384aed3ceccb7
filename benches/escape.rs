//! Compares `escape` with serde_json, json-escape-simd, and a loop over bytes.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use xrayd::pipeline::batch::escape::{EXPANSION_MAX, escape_lossy, ways};

fn bytewise(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("escape");
    for length in [1_000, 10_000] {
        let document = common::documents(length).remove(0);
        let text = std::str::from_utf8(&document).expect("it is text");
        let mut out = vec![0; length * EXPANSION_MAX];
        group.throughput(Throughput::Bytes(length as u64));
        for (name, escape) in ways() {
            group.bench_function(format!("ours, {name}/{length}"), |bencher| {
                bencher.iter(|| escape(black_box(&document), &mut out).written);
            });
        }
        group.bench_function(format!("ours, invalid UTF-8 looked for/{length}"), |bencher| {
            bencher.iter(|| escape_lossy(black_box(&document), &mut out).written);
        });
        let mut plain = Vec::with_capacity(length * EXPANSION_MAX);
        group.bench_function(format!("serde_json/{length}"), |bencher| {
            bencher.iter(|| {
                plain.clear();
                serde_json::to_writer(&mut plain, black_box(text)).expect("it is a string");
                plain.len()
            });
        });
        group.bench_function(format!("json-escape-simd/{length}"), |bencher| {
            bencher.iter(|| {
                plain.clear();
                json_escape_simd::escape_into(black_box(text), &mut plain);
                plain.len()
            });
        });
        group.bench_function(format!("byte by byte/{length}"), |bencher| {
            bencher.iter(|| {
                plain.clear();
                bytewise(black_box(&document), &mut plain);
                plain.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
