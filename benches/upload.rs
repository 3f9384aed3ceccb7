//! Compares a signed request from a batch with the simple way: join the body, let the signer hash
//! it.

mod common;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, Request};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use xrayd::aws::endpoint::{Endpoint, Variant};
use xrayd::aws::{RequestBody, Signer};
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::batch::{Batch, Batcher, DOCUMENT_COUNT_MAX};
use xrayd::pipeline::ring::Rings;
use xrayd::pipeline::segment::Parser;

fn batch() -> Batch {
    let pool = ChunkPool::new(64, 16);
    let mut rings = Rings::new(Arc::clone(&pool), 16);
    let mut producer = rings.add();
    let mut parser = Parser::default();
    let mut drain = producer.begin(Instant::now());
    for datagram in &common::datagrams(1_000)[..DOCUMENT_COUNT_MAX] {
        let segment = parser.parse(datagram).expect("it is a segment");
        assert_eq!(drain.push(&segment).dropped_count, 0);
    }
    drain.commit();
    let now = Instant::now();
    let mut batcher = Batcher::new(pool, 1 << 20, 1);
    while let Some(entry) = rings.pop() {
        for segment in entry.segments() {
            batcher.add(&segment, now, now).expect("there is memory");
        }
    }
    batcher.pop().expect("fifty documents are a batch")
}

fn plain(batch: &Batch, uri: &str, credentials: &Credentials) -> Request<Vec<u8>> {
    let body = batch.body.concat();
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("xray")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .expect("nothing is missing")
        .into();
    let headers = [("content-type", "application/json")];
    let request =
        SignableRequest::new("POST", uri, headers.into_iter(), SignableBody::Bytes(&body));
    let signed = sign(request.expect("it can be signed"), &parameters).expect("it can be signed");
    let (instructions, _) = signed.into_parts();
    let mut request = Request::builder().method(Method::POST).uri(uri).body(body).expect("valid");
    instructions.apply_to_request_http1x(&mut request);
    request
}

fn benchmark(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upload");
    let batch = batch();
    let endpoint =
        Endpoint::resolve(None, "us-east-1", Variant::default()).expect("it is a region");
    let signer = Signer::new(&endpoint, "us-east-1", None);
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "benchmark");
    group.bench_function("ours, request of 50 documents", |bencher| {
        bencher.iter(|| {
            let batch = black_box(&batch);
            let body = RequestBody::new(batch.body.clone(), batch.body_length_bytes);
            signer.sign(body, &batch.body_sha256, &credentials, SystemTime::now())
        });
    });
    let uri = endpoint.uri("/TraceSegments").to_string();
    group.bench_function("join, hash, sign; 50 documents", |bencher| {
        bencher.iter(|| plain(black_box(&batch), &uri, &credentials));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
