//! The receiver allocates no memory per datagram, and the path of a segment from the datagram
//! through the ring to the encoded request body allocates none per segment.

#![allow(unsafe_code, reason = "a global allocator can only be written with unsafe code")]

#[allow(dead_code, reason = "this test only skips io_uring")]
#[path = "shared/skip.rs"]
mod skip;

use skip::{Need, skip};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::batch::{Batcher, DOCUMENT_COUNT_MAX};
use xrayd::pipeline::receive::{Backend, Binding, DropCause, Queue, Sink, SocketGroup, Stop};
use xrayd::pipeline::ring::{Producer, Rings};
use xrayd::pipeline::segment::Parser;

struct Counting;

thread_local! {
    static ALLOCATION_COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator with the same arguments. The counter is a plain
// thread-local cell; access to it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.set(ALLOCATION_COUNT.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATION_COUNT.set(ALLOCATION_COUNT.get() + 1);
        // SAFETY: the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Flow {
    parser: Parser,
    producer: Producer,
    rings: Rings,
    batcher: Batcher,
    /// The time of all segments. It stands still, because the number of open batches depends on the
    /// time in which a batch fills up, and the buffers of a new open batch grow.
    now: Instant,
}

impl Flow {
    fn take(&mut self, datagram: &[u8]) {
        let now = self.now;
        let segment = self.parser.parse(datagram).expect("the datagram is a segment");
        let mut drain = self.producer.begin(now);
        assert_eq!(drain.push(&segment).dropped_count, 0);
        drain.commit();
        assert!(self.is_woken());
        let turn = self.rings.begin_turn(usize::MAX, |waiting_count| waiting_count > 0);
        let mut turn = turn.expect("a segment was just pushed");
        while let Some(entry) = self.rings.take(&mut turn) {
            for segment in entry.segments() {
                self.batcher.add(&segment, entry.opened_at(), now).expect("the pool has memory");
            }
        }
        assert!(!self.is_woken(), "the sender sleeps until more segments arrive");
    }

    /// Polls the sender's wait once, as the thread `upload` does before it sleeps. Returns whether
    /// the sender is woken at once.
    fn is_woken(&mut self) -> bool {
        let woken = pin!(self.rings.woken(1));
        woken.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

/// Returns a datagram of one of three kinds: small JSON, text that is not JSON, and JSON that fills
/// several chunks.
fn datagram(index: usize, kind: usize) -> Vec<u8> {
    let document = match kind {
        0 => format!(
            r#"{{"trace_id":"1-67a1b2c3-{index:024x}","id":"{index:016x}","n":[1.5,{{}}]}}"#
        ),
        1 => "T1SeyJhIjoxfQ==".repeat(50),
        _ => format!(r#"{{"id":"{index:016x}","name":"{}"}}"#, "\\n\u{e9}".repeat(5_000)),
    };
    format!("{{\"format\":\"json\",\"version\":1}}\n{document}").into_bytes()
}

#[test]
fn no_segment_costs_an_allocation_on_its_way_into_a_body() {
    let pool = ChunkPool::new(512, 128);
    let mut rings = Rings::new(Arc::clone(&pool), 64);
    let producer = rings.add();
    let batcher = Batcher::new(pool, 1 << 20, 4);
    let (parser, now) = (Parser::default(), Instant::now());
    let mut flow = Flow { parser, producer, rings, batcher, now };
    let mut batch_count = 0;
    for round in 0..60 {
        for index in 0..DOCUMENT_COUNT_MAX {
            let datagram = datagram(index, (round + index) % 3);
            let before = ALLOCATION_COUNT.get();
            flow.take(&datagram);
            let allocation_count = ALLOCATION_COUNT.get() - before;
            let finished_count = std::iter::from_fn(|| flow.batcher.pop()).count() as u64;
            batch_count += finished_count;
            // In the first rounds the buffers grow to their sizes. After that a batch allocates its
            // list of documents, its list of pieces and a handle for each piece; a segment
            // allocates nothing.
            if round >= 30 {
                assert!(
                    allocation_count <= 60 * finished_count,
                    "segment {index} of round {round}: {allocation_count} allocations, \
                     {finished_count} batches finished"
                );
            }
        }
    }
    assert!(batch_count > 50, "{batch_count} batches");
}

/// A sink that reports, at each drain, how many allocations its thread has made so far.
struct Watched {
    seen: mpsc::SyncSender<(usize, u64)>,
}

impl Sink for Watched {
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        let count = datagrams.count();
        // The channel already has memory for each message, so this does not allocate.
        self.seen.send((count, ALLOCATION_COUNT.get())).expect("the test receives");
    }

    fn kernel_dropped(&mut self, count: u32, _queue: Queue, _cause: DropCause) {
        panic!("the kernel dropped {count}");
    }

    fn buffers_exhausted(&mut self, _count: u32) {}

    fn shed(&mut self, _time: Duration) {}
}

/// Returns the number of allocations of a receiver's thread between its tenth datagram and its last
/// (about the thousandth).
fn allocations_of_receiver(backend: Backend) -> u64 {
    let binding =
        Binding { receiver_count: 1, socket_count: 1, queue_bytes: 1 << 20, share_port: false };
    let group = SocketGroup::bind("127.0.0.1:0", binding).expect("a free port");
    let address = group.local_address();
    let mut receiver = group.into_receivers(16).remove(0);
    let stop = Stop::new().expect("a descriptor");
    let (seen, drains) = mpsc::sync_channel(2_000);
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| backend.run(&mut receiver, &stop, &mut Watched { seen }));
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let mut received_count = 0;
        let (mut first, mut last) = (None, 0);
        // Single datagrams make the receiver wait between them; bursts of nine make it drain
        // several at once.
        for burst in (0..200).map(|index| if index % 2 == 0 { 1 } else { 9 }) {
            for _ in 0..burst {
                sender.send_to(&[b'x'; 1_000], address).expect("loopback takes it");
            }
            let target = received_count + burst;
            while received_count < target {
                let (count, allocation_count) = drains.recv().expect("the receiver runs");
                received_count += count;
                last = allocation_count;
                if received_count >= 10 {
                    first.get_or_insert(allocation_count);
                }
            }
        }
        stop.request();
        ended.join().expect("no panic").expect("the socket works");
        last - first.expect("more than ten datagrams arrived")
    })
}

#[test]
fn no_datagram_costs_its_receiver_an_allocation() {
    for backend in Backend::ALL {
        if let Err(error) = backend.probe() {
            skip(Need::Uring, error);
            continue;
        }
        let count = allocations_of_receiver(backend);
        // The crate tokio-uring itself allocates; together with its runtime it makes at most a few
        // allocations for each wake-up.
        let count_max = if backend == Backend::TokioUring { 4 * 1_000 } else { 0 };
        assert!(count <= count_max, "{backend}: {count} for a thousand datagrams");
    }
}
