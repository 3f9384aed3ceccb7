//! The hand-over from receiver to batcher under loom: over the interleavings of two threads and
//! the values that each load may see, up to a bound on preemptions (`LOOM_MAX_PREEMPTIONS`).
//!
//! The consumer here does what `src/outlet/mod.rs` does with a ring: `take`, `tell_receivers` and
//! `sleep`. Its clock is left out: where it would sleep with a timer it goes on at once, which is
//! one of the times at which the timer may fire. Where it sleeps without one it waits for the
//! wake-up alone, and loom reports the deadlock if none comes.
//!
//! A deadlock ends the whole run ("panic in a destructor"); the lines above that say which test.

use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use xrayd_model::memory::{CHUNK_BYTES, Pool};
use xrayd_model::ring::{Consumer, Producer, ring};
use xrayd_model::segment::{Fields, Segment};

/// A number of segments to be woken for, while the clock runs.
const WAKE_COUNT: usize = 3;

/// A document of which many fit into a chunk.
const SMALL: &[u8] = b"x";
/// A document that has a chunk, and so a parcel, to itself.
const LARGE: &[u8] = &[b'x'; CHUNK_BYTES / 2];

/// Goes through the interleavings of `model`, which may have one thread beside its own.
///
/// The bounds are what takes seconds; without one the larger models do not end in minutes.
fn check(preemption_bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_threads = 2;
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

/// `tokio::sync::Notify`, as far as one sleeper needs it: a permit that does not add up.
struct Notify {
    permit: Mutex<bool>,
    given: Condvar,
}

impl Notify {
    fn new() -> Arc<Self> {
        Arc::new(Self { permit: Mutex::new(false), given: Condvar::new() })
    }

    fn notify_one(&self) {
        *self.permit.lock().unwrap() = true;
        self.given.notify_one();
    }

    fn notified(&self) {
        let mut permit = self.permit.lock().unwrap();
        while !*permit {
            permit = self.given.wait(permit).unwrap();
        }
        *permit = false;
    }
}

/// The receiver's side, as in `src/intake.rs`.
struct Intake {
    producer: Producer,
    batcher: Arc<Notify>,
    pushed_count: u64,
    dropped_count: u64,
}

impl Intake {
    fn drain<'a>(&mut self, documents: impl IntoIterator<Item = &'a [u8]>) {
        let mut drain = self.producer.begin(Instant::now());
        for document in documents {
            let segment = Segment { document, fields: Fields::default() };
            self.dropped_count += drain.push(&segment).dropped_count;
            self.pushed_count += 1;
        }
        if drain.commit() {
            self.batcher.notify_one();
        }
    }

    /// Closes the ring; says how many segments it had been given, and how many were dropped.
    fn close(self) -> (u64, u64) {
        self.producer.close();
        self.batcher.notify_one();
        (self.pushed_count, self.dropped_count)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    More,
    Idle,
    Closed,
}

/// The batcher's side, as in `src/outlet.rs`.
struct Outlet {
    consumer: Consumer,
    woken: Arc<Notify>,
    parcels_per_turn: usize,
    taken_count: u64,
    told_wake_count: usize,
}

impl Outlet {
    fn take(&mut self) -> Progress {
        let closed = self.consumer.is_closed();
        if !closed && self.consumer.waiting_count() == 0 {
            return Progress::Idle;
        }
        // The clock runs now, until a look finds nothing.
        self.tell(WAKE_COUNT);
        let mut parcel_count = 0;
        while let Some(parcel) = self.consumer.pop() {
            self.taken_count += parcel.segment_count() as u64;
            parcel_count += 1;
            if parcel_count == self.parcels_per_turn {
                return Progress::More;
            }
        }
        if closed { Progress::Closed } else { Progress::Idle }
    }

    /// Tells the receiver when to wake this side; says whether there is reason to already.
    fn tell(&mut self, wake_count: usize) -> bool {
        if wake_count == self.told_wake_count {
            return false;
        }
        self.told_wake_count = wake_count;
        self.consumer.wake_at(wake_count)
    }

    /// Sleeps without a clock until the receiver wakes this side, unless there is reason already.
    fn sleep(&mut self) {
        if !self.tell(1) {
            self.woken.notified();
        }
    }

    /// Sleeps and takes until it has `segment_count` segments, the receiver staying where it is.
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

    /// Sleeps and takes until the ring is closed and empty; says how many segments that gave.
    fn take_to_the_end(mut self) -> u64 {
        loop {
            match self.take() {
                Progress::More => {}
                Progress::Idle => self.sleep(),
                Progress::Closed => return self.taken_count,
            }
        }
    }
}

fn connect(pool: &Arc<Pool>, parcel_count_max: usize) -> (Intake, Outlet) {
    let (producer, consumer) = ring(Arc::clone(pool), parcel_count_max);
    let woken = Notify::new();
    let batcher = Arc::clone(&woken);
    (
        Intake { producer, batcher, pushed_count: 0, dropped_count: 0 },
        Outlet {
            consumer,
            woken,
            parcels_per_turn: usize::MAX,
            taken_count: 0,
            told_wake_count: 1,
        },
    )
}

#[test]
fn a_segment_wakes_a_consumer_that_found_nothing() {
    check(4, || {
        let (mut intake, mut outlet) = connect(&Pool::new(4, 0), 4);
        let receiver = thread::spawn(move || {
            intake.drain([SMALL]);
            intake.drain([SMALL]);
            intake
        });
        outlet.take_all(2);
        receiver.join().unwrap();
    });
}

#[test]
fn a_drain_that_gave_nothing_hides_no_segment() {
    check(4, || {
        let (mut intake, mut outlet) = connect(&Pool::new(4, 0), 4);
        intake.drain([SMALL]);
        let receiver = thread::spawn(move || {
            intake.drain([]);
            intake
        });
        outlet.take_all(1);
        receiver.join().unwrap();
    });
}

#[test]
fn a_consumer_that_stops_between_two_parcels_knows_of_the_rest() {
    check(4, || {
        let (mut intake, mut outlet) = connect(&Pool::new(4, 0), 4);
        outlet.parcels_per_turn = 1;
        intake.drain([LARGE]);
        let receiver = thread::spawn(move || {
            intake.drain([LARGE]);
            intake
        });
        outlet.take_all(2);
        receiver.join().unwrap();
    });
}

#[test]
fn a_consumer_that_waits_for_more_is_woken_for_as_many_as_it_has_said() {
    for told_before in [true, false] {
        check(4, move || {
            let (mut intake, mut outlet) = connect(&Pool::new(4, 0), 4);
            if told_before {
                outlet.tell(WAKE_COUNT);
            }
            intake.drain([SMALL]);
            let receiver = thread::spawn(move || {
                intake.drain([SMALL]);
                intake.drain([SMALL]);
                intake
            });
            while outlet.consumer.waiting_count() < WAKE_COUNT {
                if !outlet.tell(WAKE_COUNT) {
                    outlet.woken.notified();
                }
            }
            receiver.join().unwrap();
        });
    }
}

#[test]
fn a_consumer_that_sees_the_close_sees_every_segment_counted() {
    check(4, || {
        let (mut intake, outlet) = connect(&Pool::new(4, 0), 4);
        let receiver = thread::spawn(move || {
            intake.drain([SMALL]);
            intake.drain([SMALL]);
            intake.close();
        });
        if outlet.consumer.is_closed() {
            assert_eq!(outlet.consumer.waiting_count(), 2);
        }
        receiver.join().unwrap();
    });
}

#[test]
fn what_was_pushed_before_the_close_is_taken() {
    check(4, || {
        let pool = Pool::new(4, 0);
        let (mut intake, outlet) = connect(&pool, 4);
        intake.drain([LARGE]);
        let receiver = thread::spawn(move || {
            intake.drain([LARGE]);
            intake.close()
        });
        let taken_count = outlet.take_to_the_end();
        assert_eq!(receiver.join().unwrap(), (taken_count, 0));
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn what_is_not_taken_is_counted_as_dropped_when_memory_is_short() {
    check(2, || {
        let pool = Pool::new(2, 0);
        let (mut intake, outlet) = connect(&pool, 4);
        intake.drain([LARGE, LARGE]);
        let receiver = thread::spawn(move || {
            intake.drain([LARGE]);
            intake.drain([SMALL]);
            intake.close()
        });
        let taken_count = outlet.take_to_the_end();
        let (pushed_count, dropped_count) = receiver.join().unwrap();
        assert_eq!(taken_count + dropped_count, pushed_count);
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn what_is_not_taken_is_counted_as_dropped_when_the_queue_is_full() {
    check(3, || {
        let pool = Pool::new(4, 0);
        let (mut intake, outlet) = connect(&pool, 1);
        intake.drain([LARGE, LARGE]);
        let receiver = thread::spawn(move || {
            intake.drain([LARGE, LARGE]);
            intake.close()
        });
        let taken_count = outlet.take_to_the_end();
        let (pushed_count, dropped_count) = receiver.join().unwrap();
        assert_eq!(taken_count + dropped_count, pushed_count);
        assert_eq!(pool.used(), 0);
    });
}

#[test]
fn no_more_chunks_are_out_than_there_are_and_all_come_back() {
    const CHUNK_COUNT: usize = 1;
    check(4, || {
        let pool = Pool::new(CHUNK_COUNT, 0);
        // Not loom's: it is the truth, and takes no part in the interleaving.
        let out_count = Arc::new(AtomicUsize::new(0));
        let work = |pool: Arc<Pool>, out_count: Arc<AtomicUsize>| {
            for _ in 0..2 {
                if let Some(chunk) = pool.take_for_receive() {
                    assert!(out_count.fetch_add(1, Ordering::Relaxed) < CHUNK_COUNT);
                    out_count.fetch_sub(1, Ordering::Relaxed);
                    drop(chunk);
                }
            }
        };
        let (other_pool, other_count) = (Arc::clone(&pool), Arc::clone(&out_count));
        let other = thread::spawn(move || work(other_pool, other_count));
        work(Arc::clone(&pool), out_count);
        other.join().unwrap();
        assert_eq!(pool.available(), CHUNK_COUNT);
        assert!(pool.take_for_batch().is_some());
    });
}
