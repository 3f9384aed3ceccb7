//! Model check of the ring: loom runs it over the interleavings of its threads.
//!
//! In: the daemon's own code, `src/pipeline/ring/`, whose protocol is in
//! `src/pipeline/ring/handover.rs`. Out: a failure for an interleaving that loses a segment or a
//! wake-up. Bound: the number of preemptions in an interleaving (`LOOM_MAX_PREEMPTIONS`, or the
//! bound of each test).
//!
//! loom also goes through the values that each relaxed load may return. The two loops here use the
//! ring as `src/pipeline/ingest.rs` and `src/pipeline/sender/mod.rs` do, but without a clock. Where
//! the sender would sleep with a timer, it continues at once: that is one of the times at which the
//! timer may fire. Where it sleeps without a timer, only a wake-up ends its sleep, and loom reports
//! a deadlock if there is none.
//!
//! `tests/model/mutations/run` changes the code in a copy and checks that the model fails each
//! time:
//!
//! | mutation | how the check fails |
//! |---|---|
//! | `count-before-publish` | deadlock |
//! | `wake-before-publish` | deadlock |
//! | `wake-before-close` | deadlock |
//! | `open-taken-at-begin` | deadlock |
//! | `look-before-clear` | deadlock |
//! | `sleep-without-second-look` | deadlock |
//! | `armed-after-look` | deadlock |
//! | `left-segments-forgotten` | segments that a consumer leaves in a ring are not counted |
//! | `closed-asked-after-counts` | a closed ring is counted with too few segments |
//! | `close-without-fence` | a closed ring is counted with too few segments |
//! | `closed-asked-after-rings` | segments are neither taken nor dropped |
//!
//! A deadlock ends the whole run with "panic in a destructor". The lines above it name the test.

use loom::thread;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Instant;
use xrayd_model::base::memory::{CHUNK_BYTES, ChunkPool};
use xrayd_model::pipeline::ring::{Producer, Progress, Rings};
use xrayd_model::pipeline::segment::{Fields, Segment};

/// While the sender's timer runs, a receiver wakes the sender when a ring holds this many segments.
const WAKE_COUNT: usize = 3;

/// Enough chunks that memory is never low. A receiver that finds memory low always wakes the
/// sender, which would hide a missing wake-up.
const CHUNK_COUNT: usize = 12;

/// A small document, of which many fit into a chunk.
const SMALL: &[u8] = b"x";
/// A large document. Only one fits into a chunk, so each one needs its own ring entry.
const LARGE: &[u8] = &[b'x'; CHUNK_BYTES / 2];

/// Runs `model`, which may start two threads, over its interleavings.
///
/// With the bounds that the tests give, a run takes seconds. Without a bound the larger models do
/// not end within minutes.
fn check(preemption_bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_threads = 3;
    builder.max_branches = 10_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemption_bound));
    let run_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&run_count);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} interleavings", run_count.load(Ordering::Relaxed));
}

/// A waker that unparks a thread of the model.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Parks the thread until `event` is ready.
fn block_on(event: impl Future<Output = ()>) {
    let mut event = pin!(event);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while event.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        thread::park();
    }
}

/// The part of a receiver that uses the ring, like `src/pipeline/ingest.rs` without the parser.
struct Ingest {
    producer: Producer,
    pushed_count: u64,
    dropped_count: u64,
}

impl Ingest {
    fn drain<'a>(&mut self, documents: impl IntoIterator<Item = &'a [u8]>) {
        let mut drain = self.producer.begin(Instant::now());
        for document in documents {
            let segment = Segment { document, fields: Fields::default() };
            self.dropped_count += drain.push(&segment).dropped_count;
            self.pushed_count += 1;
        }
        drain.commit();
    }

    /// Closes the ring. Returns how many segments were pushed and how many were dropped.
    fn close(self) -> (u64, u64) {
        drop(self.producer);
        (self.pushed_count, self.dropped_count)
    }
}

/// The part of the sender that uses the rings, with a timer that may fire at any time.
struct Sender {
    rings: Rings,
    entries_per_turn: usize,
    taken_count: u64,
    /// Whether the sender's timer runs. If so, the sender checks the rings without a wake-up too.
    is_clock_running: bool,
}

impl Sender {
    fn take(&mut self) -> Progress {
        let is_clock_running = &mut self.is_clock_running;
        let turn = self.rings.begin_turn(self.entries_per_turn, |waiting_count| {
            *is_clock_running |= waiting_count > 0;
            *is_clock_running
        });
        let Some(mut turn) = turn else { return Progress::Idle };
        let mut is_empty = true;
        while let Some(entry) = self.rings.take(&mut turn) {
            self.taken_count += entry.segment_count() as u64;
            is_empty = false;
        }
        if turn.progress() != Progress::More {
            self.is_clock_running = !is_empty;
        }
        turn.progress()
    }

    fn sleep(&mut self) {
        if self.is_clock_running {
            // The timer fires at once, unless a receiver was faster.
            let woken = pin!(self.rings.woken(WAKE_COUNT));
            let _ = woken.poll(&mut Context::from_waker(Waker::noop()));
        } else {
            block_on(self.rings.woken(1));
        }
    }

    /// Sleeps and takes until it has `segment_count` segments. The receivers keep their rings open.
    fn take_all(&mut self, segment_count: u64) {
        loop {
            let progress = self.take();
            if self.taken_count == segment_count {
                return;
            }
            if progress == Progress::Idle {
                self.sleep();
            }
        }
    }

    /// Sleeps and takes until the rings are closed and empty. Returns the number of segments taken.
    fn take_to_the_end(mut self) -> u64 {
        loop {
            match self.take() {
                Progress::More => {}
                Progress::Idle => self.sleep(),
                Progress::Closed => return self.taken_count,
            }
        }
    }

    /// Returns the number of segments in the fullest ring.
    fn waiting_count(&self) -> usize {
        let mut waiting_count = 0;
        let _ = self.rings.begin_turn(1, |count| {
            waiting_count = count;
            false
        });
        waiting_count
    }
}

fn connect(pool: &Arc<ChunkPool>, entry_count_max: usize) -> (Ingest, Sender) {
    let ([ingest], sender) = connect_all(pool, entry_count_max);
    (ingest, sender)
}

fn connect_all<const COUNT: usize>(
    pool: &Arc<ChunkPool>,
    entry_count_max: usize,
) -> ([Ingest; COUNT], Sender) {
    let mut rings = Rings::new(Arc::clone(pool), entry_count_max);
    let ingests = std::array::from_fn(|_| Ingest {
        producer: rings.add(),
        pushed_count: 0,
        dropped_count: 0,
    });
    let entries_per_turn = usize::MAX;
    (ingests, Sender { rings, entries_per_turn, taken_count: 0, is_clock_running: false })
}

#[test]
fn a_segment_wakes_a_consumer_that_found_nothing() {
    check(4, || {
        let (mut ingest, mut sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        let receiver = thread::spawn(move || {
            ingest.drain([SMALL]);
            ingest.drain([SMALL]);
            ingest
        });
        sender.take_all(2);
        receiver.join().unwrap();
    });
}

#[test]
fn a_segment_that_comes_between_the_last_look_and_the_arming_is_not_slept_over() {
    check(4, || {
        let (mut ingest, mut sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        // The sender has armed a wake-up for more than one segment, as it does while its timer
        // runs.
        sender.is_clock_running = true;
        sender.sleep();
        let receiver = thread::spawn(move || {
            ingest.drain([SMALL]);
            ingest
        });
        sender.take_all(1);
        receiver.join().unwrap();
    });
}

#[test]
fn each_of_two_receivers_wakes_the_consumer_for_its_segment_and_for_its_end() {
    check(2, || {
        let (ingests, sender) = connect_all::<2>(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        let receivers = ingests.map(|mut ingest| {
            thread::spawn(move || {
                ingest.drain([SMALL]);
                ingest.close()
            })
        });
        assert_eq!(sender.take_to_the_end(), 2);
        for receiver in receivers {
            receiver.join().unwrap();
        }
    });
}

#[test]
fn a_drain_that_gave_nothing_hides_no_segment() {
    check(4, || {
        let (mut ingest, mut sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        ingest.drain([SMALL]);
        let receiver = thread::spawn(move || {
            ingest.drain([]);
            ingest
        });
        sender.take_all(1);
        receiver.join().unwrap();
    });
}

#[test]
fn a_consumer_that_stops_between_two_entries_knows_of_the_rest() {
    check(4, || {
        let (mut ingest, mut sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        sender.entries_per_turn = 1;
        ingest.drain([LARGE]);
        let receiver = thread::spawn(move || {
            ingest.drain([LARGE]);
            ingest
        });
        let progress = sender.take();
        receiver.join().unwrap();
        // If the progress is different, the sender found no ring entry: the receiver held the open
        // one.
        if progress == Progress::More {
            assert_eq!((sender.taken_count, sender.rings.is_empty()), (1, false));
        }
    });
}

#[test]
fn a_consumer_that_waits_for_more_is_woken_for_as_many_as_it_has_said() {
    check(4, || {
        let (mut ingest, mut sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        ingest.drain([SMALL]);
        let receiver = thread::spawn(move || {
            ingest.drain([SMALL]);
            ingest.drain([SMALL]);
            ingest
        });
        while sender.waiting_count() < WAKE_COUNT {
            block_on(sender.rings.woken(WAKE_COUNT));
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_consumer_that_sees_the_close_sees_every_segment_counted() {
    check(4, || {
        let (mut ingest, sender) = connect(&ChunkPool::new(CHUNK_COUNT, 0), 4);
        let receiver = thread::spawn(move || {
            ingest.drain([SMALL]);
            ingest.drain([SMALL]);
            ingest.close();
        });
        let mut waiting_count = 0;
        let turn = sender.rings.begin_turn(1, |count| {
            waiting_count = count;
            false
        });
        if turn.is_some() {
            assert_eq!(waiting_count, 2, "the ring was closed before it was looked into");
        }
        receiver.join().unwrap();
    });
}

#[test]
fn what_was_pushed_before_the_close_is_taken() {
    check(4, || {
        let pool = ChunkPool::new(CHUNK_COUNT, 0);
        let (mut ingest, sender) = connect(&pool, 4);
        ingest.drain([LARGE]);
        let receiver = thread::spawn(move || {
            ingest.drain([LARGE]);
            ingest.close()
        });
        let taken_count = sender.take_to_the_end();
        assert_eq!(receiver.join().unwrap(), (taken_count, 0));
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn what_is_not_taken_is_counted_as_dropped_when_memory_is_short() {
    check(2, || {
        let pool = ChunkPool::new(2, 0);
        let (mut ingest, sender) = connect(&pool, 4);
        ingest.drain([LARGE, LARGE]);
        let receiver = thread::spawn(move || {
            ingest.drain([LARGE]);
            ingest.drain([SMALL]);
            ingest.close()
        });
        let taken_count = sender.take_to_the_end();
        let (pushed_count, dropped_count) = receiver.join().unwrap();
        assert_eq!(taken_count + dropped_count, pushed_count);
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn what_is_not_taken_is_counted_as_dropped_when_the_queue_is_full() {
    check(2, || {
        let pool = ChunkPool::new(CHUNK_COUNT, 0);
        let (mut ingest, sender) = connect(&pool, 1);
        ingest.drain([LARGE, LARGE]);
        let receiver = thread::spawn(move || {
            ingest.drain([LARGE, LARGE]);
            ingest.close()
        });
        let taken_count = sender.take_to_the_end();
        let (pushed_count, dropped_count) = receiver.join().unwrap();
        assert_eq!(taken_count + dropped_count, pushed_count);
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn no_more_chunks_are_out_than_there_are_and_all_come_back() {
    check(4, || {
        let pool = ChunkPool::new(1, 0);
        // This is the atomic type of std. Unlike loom's type it adds no interleavings to the model.
        let out_count = Arc::new(AtomicUsize::new(0));
        let work = |pool: Arc<ChunkPool>, out_count: Arc<AtomicUsize>| {
            for _ in 0..2 {
                if let Some(chunk) = pool.take_for_receive() {
                    assert!(out_count.fetch_add(1, Ordering::Relaxed) < 1);
                    out_count.fetch_sub(1, Ordering::Relaxed);
                    drop(chunk);
                }
            }
        };
        let (other_pool, other_count) = (Arc::clone(&pool), Arc::clone(&out_count));
        let other = thread::spawn(move || work(other_pool, other_count));
        work(Arc::clone(&pool), out_count);
        other.join().unwrap();
        assert_eq!(pool.available(), 1);
        assert!(pool.take_for_batch().is_some());
    });
}
