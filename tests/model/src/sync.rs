//! The types of `src/base/sync.rs`, on loom's atomics.
//!
//! In: loom's atomics and locks. Out: the names that ring and pool use. Bound: a model has at most
//! two threads beside the one that starts it.
//!
//! [`ArrayQueue`] repeats the algorithm of crossbeam-queue 0.3 with the same memory orderings. A
//! queue with a lock would order more memory accesses than the real one; the model could then not
//! detect a missing fence in `Consumer::is_closed`. [`Arc`] reads its count with relaxed order,
//! like the `Arc` of std. loom's own `Arc` is not used because it reads the count with sequentially
//! consistent order. [`Notify`] does what tokio's documentation promises.

pub use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use loom::thread::yield_now;
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Mutex;
use std::task::{Poll, Waker};

/// A shared value like std's `Arc`. The strong count is read with relaxed order.
#[derive(Debug)]
pub struct Arc<T>(std::sync::Arc<Counted<T>>);

#[derive(Debug)]
struct Counted<T> {
    strong_count: AtomicUsize,
    value: T,
}

impl<T> Arc<T> {
    pub fn new(value: T) -> Self {
        Self(std::sync::Arc::new(Counted { strong_count: AtomicUsize::new(1), value }))
    }

    pub fn strong_count(this: &Self) -> usize {
        this.0.strong_count.load(Ordering::Relaxed)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.0.strong_count.fetch_add(1, Ordering::Relaxed);
        Self(std::sync::Arc::clone(&self.0))
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.0.strong_count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// `tokio::sync::Notify` for one waiting thread. It stores one permit at most.
#[derive(Debug)]
pub struct Notify(loom::sync::Mutex<Sleeper>);

#[derive(Debug)]
struct Sleeper {
    has_permit: bool,
    waker: Option<Waker>,
}

impl Default for Notify {
    fn default() -> Self {
        Self(loom::sync::Mutex::new(Sleeper { has_permit: false, waker: None }))
    }
}

impl Notify {
    pub fn notify_one(&self) {
        let waker = {
            let mut sleeper = self.0.lock().expect("no thread panics here");
            sleeper.has_permit = true;
            sleeper.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub async fn notified(&self) {
        poll_fn(|context| {
            let mut sleeper = self.0.lock().expect("no thread panics here");
            if std::mem::take(&mut sleeper.has_permit) {
                return Poll::Ready(());
            }
            sleeper.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A bounded queue. Head, tail and stamps hold a lap and an index in one number.
pub struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Box<[Slot<T>]>,
    one_lap: usize,
}

struct Slot<T> {
    stamp: AtomicUsize,
    /// The value. Its lock is not loom's and is always free: the stamp decides which thread may use
    /// it.
    value: Mutex<Option<T>>,
}

impl<T> Slot<T> {
    fn replace(&self, value: Option<T>) -> Option<T> {
        let mut place = self.value.try_lock().expect("the stamp lets one thread in at a time");
        std::mem::replace(&mut place, value)
    }
}

impl<T> ArrayQueue<T> {
    pub fn new(capacity: usize) -> Self {
        let slot = |index| Slot { stamp: AtomicUsize::new(index), value: Mutex::new(None) };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: (0..capacity).map(slot).collect(),
            one_lap: (capacity + 1).next_power_of_two(),
        }
    }

    fn slot(&self, at: usize) -> &Slot<T> {
        &self.slots[at & (self.one_lap - 1)]
    }

    fn next(&self, at: usize) -> usize {
        let (index, lap) = (at & (self.one_lap - 1), at & !(self.one_lap - 1));
        if index + 1 < self.slots.len() { at + 1 } else { lap.wrapping_add(self.one_lap) }
    }

    /// Pushes `value`. If the queue looks full, `when_full` decides: with `Ok(value)` the push is
    /// tried again, with `Err(value)` it fails.
    fn push_or_else(
        &self,
        mut value: T,
        when_full: impl Fn(T, usize, &Slot<T>) -> Result<T, T>,
    ) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(tail);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if tail == stamp {
                let next = self.next(tail);
                match self.tail.compare_exchange_weak(
                    tail,
                    next,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        assert!(slot.replace(Some(value)).is_none(), "the place was free");
                        slot.stamp.store(tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(newer) => tail = newer,
                }
            } else {
                if stamp.wrapping_add(self.one_lap) == tail + 1 {
                    fence(Ordering::SeqCst);
                    value = when_full(value, tail, slot)?;
                }
                yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    pub fn push(&self, value: T) -> Result<(), T> {
        self.push_or_else(value, |value, tail, _| {
            let head = self.head.load(Ordering::Relaxed);
            if head.wrapping_add(self.one_lap) == tail { Err(value) } else { Ok(value) }
        })
    }

    pub fn force_push(&self, value: T) -> Option<T> {
        let displace = |value, tail: usize, slot: &Slot<T>| {
            let next = self.next(tail);
            let (head, next_head) =
                (tail.wrapping_sub(self.one_lap), next.wrapping_sub(self.one_lap));
            let moved = self.head.compare_exchange_weak(
                head,
                next_head,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            if moved.is_err() {
                return Ok(value);
            }
            self.tail.store(next, Ordering::SeqCst);
            let oldest = slot.replace(Some(value)).expect("the queue was full");
            slot.stamp.store(tail + 1, Ordering::Release);
            Err(oldest)
        };
        self.push_or_else(value, displace).err()
    }

    pub fn pop(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if head + 1 == stamp {
                let next = self.next(head);
                match self.head.compare_exchange_weak(
                    head,
                    next,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let value = slot.replace(None).expect("the stamp says so");
                        slot.stamp.store(head.wrapping_add(self.one_lap), Ordering::Release);
                        return Some(value);
                    }
                    Err(newer) => head = newer,
                }
            } else {
                if stamp == head {
                    fence(Ordering::SeqCst);
                    if self.tail.load(Ordering::Relaxed) == head {
                        return None;
                    }
                }
                yield_now();
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        self.tail.load(Ordering::SeqCst) == head
    }

    pub fn len(&self) -> usize {
        loop {
            let tail = self.tail.load(Ordering::SeqCst);
            let head = self.head.load(Ordering::SeqCst);
            if self.tail.load(Ordering::SeqCst) == tail {
                let (head_index, tail_index) =
                    (head & (self.one_lap - 1), tail & (self.one_lap - 1));
                return match head_index.cmp(&tail_index) {
                    std::cmp::Ordering::Less => tail_index - head_index,
                    std::cmp::Ordering::Greater => self.slots.len() - head_index + tail_index,
                    std::cmp::Ordering::Equal if tail == head => 0,
                    std::cmp::Ordering::Equal => self.slots.len(),
                };
            }
            yield_now();
        }
    }
}

impl<T> fmt::Debug for ArrayQueue<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad("ArrayQueue { .. }")
    }
}
