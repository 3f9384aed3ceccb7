//! Compares `sha256_of_two` with two hashes one after the other, for two bodies of 50 documents.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use std::hint::black_box;
use xrayd::base::memory::CHUNK_BYTES;
use xrayd::pipeline::batch::hash::{sha256, sha256_of_two};

fn plain(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finalize().into()
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    let bodies = [0, 50].map(|start| common::documents(1_100)[start..start + 50].concat());
    let [one, other] = bodies.each_ref().map(|body| body.chunks(CHUNK_BYTES).collect::<Vec<_>>());
    group.throughput(Throughput::Bytes(bodies.iter().map(|body| body.len() as u64).sum()));
    group.bench_function("ours, two bodies together", |bencher| {
        bencher.iter(|| sha256_of_two(black_box([&one[..], &other[..]])));
    });
    group.bench_function("ours, one after the other", |bencher| {
        bencher.iter(|| black_box([&one[..], &other[..]]).map(sha256));
    });
    group.bench_function("sha2, one after the other", |bencher| {
        bencher.iter(|| black_box([&one[..], &other[..]]).map(plain));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
