//! A drain of the socket by each receive backend against one system call a datagram.
//!
//! The queue is filled before the clock starts, so this is the cost of taking, not of waiting.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use xrayd::limits::{Host, Limits};
use xrayd::receive::{Backend, ReceiveSocket, Sink, Stop};

/// Datagrams of one drain; they fit into the queue that a process without privileges gets.
const DATAGRAM_COUNT: usize = 60;

#[derive(Default)]
struct Count {
    datagram_count: usize,
}

impl Sink for Count {
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        for datagram in datagrams {
            self.datagram_count += 1;
            black_box(datagram.first());
        }
    }

    fn kernel_dropped(&mut self, count: u32, _queue_bytes: usize) {
        panic!("the kernel dropped {count}");
    }
}

fn fill(sender: &UdpSocket, target: SocketAddr, datagrams: &[Vec<u8>]) {
    for datagram in &datagrams[..DATAGRAM_COUNT] {
        sender.send_to(datagram, target).expect("the loopback interface takes it");
    }
}

fn benchmark(criterion: &mut Criterion) {
    let datagrams = common::datagrams(1_000);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Elements(DATAGRAM_COUNT as u64));

    let limits = Limits::derive(64, Host::read());
    let stop = Stop::new().expect("a descriptor");
    stop.request();
    let backend = Backend::choose();
    let socket = ReceiveSocket::bind("127.0.0.1:0", limits.socket_queue_bytes).expect("a port");
    group.bench_function(backend.name(), |bencher| {
        bencher.iter_custom(|iteration_count| {
            let mut sink = Count::default();
            let mut time = Duration::ZERO;
            for _ in 0..iteration_count {
                fill(&sender, socket.local_address(), &datagrams);
                let start = Instant::now();
                backend.run(&socket, &limits, &stop, &mut sink).expect("the socket works");
                time += start.elapsed();
            }
            assert_eq!(sink.datagram_count as u64, iteration_count * DATAGRAM_COUNT as u64);
            time
        });
    });

    let plain = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    plain.set_nonblocking(true).expect("it can be set");
    let target = plain.local_addr().expect("it is bound");
    let mut buffer = vec![0; 65_536];
    group.bench_function("recv, one by one", |bencher| {
        bencher.iter_custom(|iteration_count| {
            let mut datagram_count = 0;
            let mut time = Duration::ZERO;
            for _ in 0..iteration_count {
                fill(&sender, target, &datagrams);
                let start = Instant::now();
                while let Ok(length) = plain.recv(&mut buffer) {
                    black_box(buffer[..length].first());
                    datagram_count += 1;
                }
                time += start.elapsed();
            }
            assert_eq!(datagram_count, iteration_count * DATAGRAM_COUNT as u64);
            time
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
