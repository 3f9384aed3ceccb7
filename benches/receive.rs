//! Compares how fast each receive backend empties a full socket queue. A loop with one system call
//! per datagram is measured too.
//!
//! The receiver waits in its sink while the queue is filled. So the measured time includes neither
//! the set-up nor the waiting for datagrams. `perf/receive` measures the waiting too.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};
use xrayd::pipeline::receive::{
    Backend, Binding, DropCause, Queue, Receiver, Sink, SocketGroup, Stop,
};

/// Number of datagrams in the queue. A queue for so many needs CAP_NET_ADMIN or a large
/// net.core.rmem_max. With fewer datagrams the benchmark would measure how long a thread takes to
/// wake.
const DATAGRAM_COUNT: usize = 1_500;

/// Requested size of the socket queue, in bytes.
const QUEUE_BYTES: usize = 4 << 20;

/// Stops a receiver while its queue is filled, and signals when the queue is empty.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    is_held: bool,
    datagram_count: usize,
}

impl Gate {
    fn wait(&self, until: impl Fn(&State) -> bool) {
        let state = self.state.lock().expect("no thread panics");
        drop(self.changed.wait_while(state, |state| !until(state)).expect("no thread panics"));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no thread panics"));
        self.changed.notify_all();
    }
}

struct GatedSink<'a>(&'a Gate);

impl Sink for GatedSink<'_> {
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        let mut count = 0;
        for datagram in datagrams {
            black_box(datagram.first());
            count += 1;
        }
        let mut state = self.0.state.lock().expect("no thread panics");
        state.datagram_count += count;
        if state.is_closed {
            state.is_held = true;
            self.0.changed.notify_all();
            state = self.0.changed.wait_while(state, |state| state.is_closed).expect("no panic");
            state.is_held = false;
        }
        let is_empty = state.datagram_count > DATAGRAM_COUNT;
        drop(state);
        if is_empty {
            self.0.changed.notify_all();
        }
    }

    fn kernel_dropped(&mut self, count: u32, _queue: Queue, _cause: DropCause) {
        panic!("the kernel dropped {count}");
    }

    fn buffers_exhausted(&mut self, _count: u32) {}

    fn shed(&mut self, _time: Duration) {}
}

fn receiver() -> (Receiver, SocketAddr) {
    let binding =
        Binding { receiver_count: 1, socket_count: 1, queue_bytes: QUEUE_BYTES, share_port: false };
    let group = SocketGroup::bind("127.0.0.1:0", binding).expect("a free port");
    let address = group.local_address();
    (group.into_receivers(64).remove(0).without_pauses(), address)
}

fn fill(sender: &UdpSocket, target: SocketAddr, datagrams: &[Vec<u8>]) {
    for datagram in datagrams.iter().cycle().take(DATAGRAM_COUNT) {
        sender.send_to(datagram, target).expect("the loopback interface takes it");
    }
}

/// Fills the queue while the gate is closed, then opens the gate. Returns the time from then until
/// the queue is empty.
fn time_of_drain(gate: &Gate, sender: &UdpSocket, target: SocketAddr, all: &[Vec<u8>]) -> Duration {
    gate.change(|state| *state = State { is_closed: true, ..State::default() });
    sender.send_to(&all[0], target).expect("the loopback interface takes it");
    gate.wait(|state| state.is_held);
    fill(sender, target, all);
    let start = Instant::now();
    gate.change(|state| state.is_closed = false);
    gate.wait(|state| state.datagram_count > DATAGRAM_COUNT);
    start.elapsed()
}

/// Receives with one system call per datagram, until an empty datagram arrives.
fn receive_one_by_one(socket: &UdpSocket, sink: &mut impl Sink) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = socket.recv(&mut buffer) {
        sink.drain(std::iter::once(&buffer[..length]));
    }
}

fn benchmark(criterion: &mut Criterion) {
    let datagrams = common::datagrams(1_000);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Elements(DATAGRAM_COUNT as u64));

    for backend in Backend::ALL {
        backend.probe().expect("the backend works here");
        let (mut receiver, target) = receiver();
        let (gate, stop) = (Gate::default(), Stop::new().expect("a descriptor"));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| backend.run(&mut receiver, &stop, &mut GatedSink(&gate)));
            group.bench_function(backend.name(), |bencher| {
                bencher.iter_custom(|iteration_count| {
                    let drain = |_| time_of_drain(&gate, &sender, target, &datagrams);
                    (0..iteration_count).map(drain).sum()
                });
            });
            stop.request();
            thread.join().expect("no panic").expect("the socket works");
        });
    }

    let plain = socket2::Socket::from(UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    plain.set_recv_buffer_size(QUEUE_BYTES).expect("it can be set");
    let plain = UdpSocket::from(plain);
    let target = plain.local_addr().expect("it is bound");
    let gate = Gate::default();
    std::thread::scope(|scope| {
        scope.spawn(|| receive_one_by_one(&plain, &mut GatedSink(&gate)));
        group.bench_function("recv, one by one", |bencher| {
            bencher.iter_custom(|iteration_count| {
                let drain = |_| time_of_drain(&gate, &sender, target, &datagrams);
                (0..iteration_count).map(drain).sum()
            });
        });
        sender.send_to(b"", target).expect("the loopback interface takes it");
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
