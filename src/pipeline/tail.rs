//! Keeps the last batches for `xray tail`.
//!
//! In: finished batches, from the sender. Out: the same batches as the body of an HTTP response.
//! Bound: [`SIZE_BYTES_MAX`], which `-m` does not include. When full: the oldest batches are
//! evicted, and a reader that has not read them gets the number of their segments. Thread: the
//! sender's for [`Tail::take`], the main thread for [`Tail::read`].
//!
//! While no client reads, a batch costs one relaxed load of an atomic. The first batch after the
//! last reader has gone frees the memory. The sender never waits long for a reader: the lock is
//! held only while one batch or one response is copied.

use crate::base::clock::Clock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The largest size of all batches that are held for readers, in bytes.
pub const SIZE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest size of the batches in one response, in bytes, unless a single batch is larger.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How long a request waits for new segments.
pub const WAIT_TIME: Duration = Duration::from_secs(15);

/// A reader counts as gone when it has sent no request for this time plus [`WAIT_TIME`] after its
/// last response.
const LISTEN_TIME: Duration = Duration::from_secs(10);

/// The largest number of requests that wait at the same time.
const READER_COUNT_MAX: usize = 8;

/// Holds the last batches for the readers of `xray tail`.
#[derive(Debug)]
pub struct Tail {
    started_at: Instant,
    /// The time at which the last reader counts as gone, in milliseconds after `started_at`; 0 if
    /// there is no reader.
    wanted_until_ms: AtomicU64,
    is_closed: AtomicBool,
    held: Mutex<Held>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Held {
    batches: VecDeque<Batch>,
    size_bytes: usize,
    /// The number of segments so far. It is also the number of the next segment.
    next: u64,
    reader_count: usize,
}

#[derive(Debug)]
struct Batch {
    /// The number of the first segment of the batch. Segments are numbered from 0 on.
    first: u64,
    /// The body of the request that the batch is sent in.
    body: Vec<u8>,
}

/// The error for a reader that comes while too many other readers wait.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{READER_COUNT_MAX} others follow the daemon already")]
pub struct TooMany;

impl Default for Tail {
    fn default() -> Self {
        Self {
            started_at: Clock::instant(),
            wanted_until_ms: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            held: Mutex::default(),
            arrived: Notify::new(),
        }
    }
}

impl Tail {
    /// Returns whether there is a reader. While there is none, this is a relaxed load: a batch that
    /// comes at the same time as the first reader may be missed.
    pub fn is_wanted(&self) -> bool {
        let until_ms = self.wanted_until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return false;
        }
        if self.now_ms() <= until_ms {
            return true;
        }
        let mut held = self.lock();
        // The exchange fails if a request has come since the load above.
        let swap = self.wanted_until_ms.compare_exchange(
            until_ms,
            0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if swap.is_err() {
            return true;
        }
        held.batches.clear();
        held.size_bytes = 0;
        false
    }

    /// Copies a batch: the body of its request, in pieces, and the number of its segments.
    pub fn take(&self, pieces: &[Bytes], segment_count: usize) {
        let body = pieces.concat();
        let mut held = self.lock();
        let first = held.next;
        held.next += segment_count as u64;
        held.size_bytes += body.len();
        held.batches.push_back(Batch { first, body });
        while held.size_bytes > SIZE_BYTES_MAX {
            let Some(oldest) = held.batches.pop_front() else { break };
            held.size_bytes -= oldest.body.len();
        }
        drop(held);
        self.arrived.notify_waiters();
    }

    /// Returns the batches from the segment with the number `after` on, as
    /// `{"next":N,"lost":N,"batches":[...]}`. Each batch is the body of a request. If there is no
    /// batch to return yet, waits for a batch, but not longer than `wait_time`. Without `after`,
    /// returns at once, with the number of the next segment and no batches.
    ///
    /// # Errors
    ///
    /// Fails if too many readers wait already.
    pub async fn read(&self, after: Option<u64>, wait_time: Duration) -> Result<Bytes, TooMany> {
        let _reader = Reader::enter(self)?;
        self.listen();
        let Some(after) = after else {
            let held = self.lock();
            return Ok(held.answer(held.next));
        };
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                self.listen();
                if self.has_news(after) || self.is_closed.load(Ordering::Relaxed) {
                    return;
                }
                arrived.await;
            }
        };
        let _ = tokio::time::timeout(wait_time, wait).await;
        self.listen();
        Ok(self.lock().answer(after))
    }

    /// Lets every request return at once from now on, because the daemon ends.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.arrived.notify_waiters();
    }

    /// Returns whether a reader that has read the segments before the number `after` gets a
    /// response at once. A number from an earlier daemon process gets a response too, which has the
    /// right number.
    fn has_news(&self, after: u64) -> bool {
        self.lock().next != after
    }

    /// Notes that a reader is here now.
    fn listen(&self) {
        let until = self.age() + LISTEN_TIME + WAIT_TIME;
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.wanted_until_ms.store(until_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self) -> Duration {
        Clock::instant().saturating_duration_since(self.started_at)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Returns the response for a reader that has read the segments before the number `after`.
    fn answer(&self, after: u64) -> Bytes {
        let oldest = self.batches.front().map_or(self.next, |batch| batch.first);
        let lost = if after > self.next { 0 } else { oldest.saturating_sub(after) };
        let mut next = after.clamp(oldest, self.next);
        let mut bodies: Vec<u8> = Vec::new();
        let mut fresh = self.batches.iter().filter(|batch| batch.first >= next).peekable();
        let mut ends_at = next;
        while let Some(batch) = fresh.next() {
            if !bodies.is_empty() {
                if bodies.len() + batch.body.len() > ANSWER_BYTES_MAX {
                    break;
                }
                bodies.push(b',');
            }
            bodies.extend(&batch.body);
            ends_at = fresh.peek().map_or(self.next, |following| following.first);
        }
        next = next.max(ends_at);
        let head = format!("{{\"next\":{next},\"lost\":{lost},\"batches\":[");
        [head.as_bytes(), &bodies, b"]}"].concat().into()
    }
}

/// A reader that waits. Dropping it lets another reader wait.
struct Reader<'a>(&'a Tail);

impl<'a> Reader<'a> {
    fn enter(tail: &'a Tail) -> Result<Self, TooMany> {
        let mut held = tail.lock();
        if held.reader_count == READER_COUNT_MAX {
            return Err(TooMany);
        }
        held.reader_count += 1;
        Ok(Self(tail))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.lock().reader_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(text: &str) -> Vec<Bytes> {
        let (one, other) = text.split_at(text.len() / 2);
        vec![Bytes::copy_from_slice(one.as_bytes()), Bytes::copy_from_slice(other.as_bytes())]
    }

    async fn read(tail: &Tail, after: Option<u64>) -> Value {
        let answer = tail.read(after, Duration::ZERO).await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_copied_before_a_reader_comes() {
        let tail = Tail::default();
        assert!(!tail.is_wanted());
        assert_eq!(read(&tail, None).await, json!({"next": 0, "lost": 0, "batches": []}));
        assert!(tail.is_wanted());
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_forgotten_with_what_was_held_for_it() {
        let tail = Tail::default();
        read(&tail, None).await;
        tail.take(&body("{}"), 1);
        tail.wanted_until_ms.store(1, Ordering::Relaxed);
        let start = Instant::now();
        while tail.is_wanted() {
            assert!(start.elapsed() < Duration::from_secs(120));
        }
        assert_eq!(tail.wanted_until_ms.load(Ordering::Relaxed), 0);
        assert!(tail.lock().batches.is_empty());
        // The reader had not read the segment. If it comes back, it gets the number of segments
        // that it has missed.
        assert_eq!(read(&tail, Some(0)).await, json!({"next": 1, "lost": 1, "batches": []}));
    }

    #[tokio::test]
    async fn each_reader_gets_what_came_since_its_last_answer() {
        let tail = Tail::default();
        for (text, count) in [("[1,2]", 2), ("[3]", 1)] {
            tail.take(&body(text), count);
        }
        let all = json!({"next": 3, "lost": 0, "batches": [[1, 2], [3]]});
        assert_eq!(read(&tail, Some(0)).await, all);
        assert_eq!(read(&tail, Some(2)).await, json!({"next": 3, "lost": 0, "batches": [[3]]}));
        assert_eq!(read(&tail, Some(3)).await, json!({"next": 3, "lost": 0, "batches": []}));
        assert_eq!(read(&tail, None).await, json!({"next": 3, "lost": 0, "batches": []}));
        // The number 99 is from an earlier daemon process.
        assert_eq!(read(&tail, Some(99)).await, json!({"next": 3, "lost": 0, "batches": []}));
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_number_of_lost_segments_and_delays_nothing() {
        let tail = Tail::default();
        let large = format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX / 2));
        for _ in 0..20 {
            tail.take(&body(&large), 10);
        }
        assert!(tail.lock().size_bytes <= SIZE_BYTES_MAX);
        let (mut next, mut lost, mut batch_count) = (0, 0, 0);
        while next < 200 {
            let answer = read(&tail, Some(next)).await;
            let batches = answer["batches"].as_array().unwrap().len() as u64;
            assert!((1..=2).contains(&batches));
            lost += answer["lost"].as_u64().unwrap();
            batch_count += batches;
            next = answer["next"].as_u64().unwrap();
        }
        assert_eq!(lost + 10 * batch_count, 200);
        assert!(lost > 0);
    }

    #[tokio::test]
    async fn a_request_waits_until_a_batch_comes_or_the_daemon_ends() {
        let tail = Tail::default();
        let ask = || tail.read(Some(0), Duration::from_secs(60));
        let come = async { tail.take(&body("[1]"), 1) };
        let (answer, ()) = tokio::join!(ask(), come);
        assert!(answer.unwrap().ends_with(b"[[1]]}"));
        let end = async { tail.close() };
        let (answer, ()) = tokio::join!(tail.read(Some(1), Duration::from_secs(60)), end);
        assert!(answer.unwrap().ends_with(b"[]}"));
    }

    #[tokio::test]
    async fn no_more_wait_than_there_are_places() {
        let tail = Tail::default();
        let places: Vec<_> = (0..READER_COUNT_MAX).map(|_| Reader::enter(&tail).unwrap()).collect();
        assert_eq!(tail.read(None, Duration::ZERO).await, Err(TooMany));
        drop(places);
        assert!(tail.read(None, Duration::ZERO).await.is_ok());
    }
}
