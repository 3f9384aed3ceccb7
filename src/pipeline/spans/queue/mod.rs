//! The queue of requests with spans, from the port that takes them to the sender that uploads them.
//!
//! In: requests of clients. Each one is checked, is not compressed, and lies in chunks of the pool.
//! Out: the same requests, in the order of their arrival. Bound: the pool's chunks, which a writer
//! reserves before it has a request. When full: the writer gets [`NoRoom::Full`] with the time
//! after which the client may try again, and nothing is evicted. Threads: `otlp` writes,
//! `upload-spans` reads; a request costs each of them a lock, which nobody holds for long.
//!
//! ```text
//!  otlp: reserve ──► write the body ──► push: count as received, make visible, wake
//!           └─ no room: the client tries again                │
//!                                     upload-spans: woken ──► take ... ──► closed and empty: end
//! ```
//!
//! A client gets its answer after [`SpanWriter::push`]. From then on the spans are the daemon's:
//! `push` is the only place that counts spans as received.

use crate::base::account::Account;
use crate::base::clock::Clock;
use crate::base::memory::{CHUNK_BYTES, Chunk, ChunkPool};
use crate::base::sync::Notify;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xrayd_otlp::Encoding;

/// The shortest and the longest time after which a client that found no room may try again.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// The earliest and the latest of the start and end times of some spans, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The earliest time.
    pub earliest_ns: u64,
    /// The latest time.
    pub latest_ns: u64,
}

/// The spans of one request of a client, or a part of them if the request was split.
#[derive(Debug)]
pub struct SpanRequest {
    /// The encoding of the body.
    pub encoding: Encoding,
    /// An `ExportTraceServiceRequest` in pieces, not compressed. Each piece is a chunk of the pool.
    pub body: Vec<Bytes>,
    /// Length of the whole body in bytes.
    pub length_bytes: usize,
    /// The number of spans in the body, at least 1.
    pub span_count: u32,
    /// The times of the spans.
    pub times: Times,
    /// When the request was complete.
    pub received_at: Instant,
}

impl SpanRequest {
    /// Returns the memory of the body in bytes: one chunk for each piece.
    pub fn memory_bytes(&self) -> usize {
        self.body.len() * CHUNK_BYTES
    }
}

/// Why there is no room for a request
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Other spans use the memory
    #[error("the memory for spans is full; try again in {} s", retry_after.as_secs())]
    Full {
        /// The client may try again after this time, which is in whole seconds.
        retry_after: Duration,
    },
    /// The request is larger than all of the memory
    #[error(
        "the request has {length_bytes} bytes, and the memory for spans (half of -m) takes {limit_bytes}"
    )]
    TooLarge {
        /// Length of the body in bytes.
        length_bytes: usize,
        /// Length of the largest body that fits, in bytes.
        limit_bytes: usize,
    },
}

/// The queue takes no further request: the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon ends")]
pub struct Closed;

/// The sizes of all requests that wait in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Number of requests.
    pub request_count: usize,
    /// Number of spans in them.
    pub span_count: usize,
    /// Length of all bodies in bytes.
    pub length_bytes: usize,
    /// Memory of all bodies in bytes.
    pub memory_bytes: usize,
}

/// The state that both ends share.
#[derive(Debug)]
struct State {
    requests: VecDeque<SpanRequest>,
    waiting: Waiting,
    /// The reader is woken as soon as this number of spans waits.
    armed_span_count: usize,
    is_closed: bool,
    /// When a writer first found no room, since one last had room.
    full_since: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Notify,
    pool: Arc<ChunkPool>,
    account: Arc<Account>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.woken.notify_one();
    }
}

/// The writing end. Its clones write into the same queue. The queue is closed by
/// [`close`](Self::close), or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct SpanWriter(Arc<CloseAtEnd>);

#[derive(Debug)]
struct CloseAtEnd(Arc<Shared>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl SpanWriter {
    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Returns the length of the largest body that can be reserved, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.shared().pool.unreserved_count() * CHUNK_BYTES
    }

    /// Reserves memory for a body of `length_bytes`. The memory is given back when the reservation,
    /// or the request made of it, is dropped.
    ///
    /// # Errors
    ///
    /// Fails if there is no room. The reader is woken then, so that it makes room.
    pub fn reserve(&self, length_bytes: usize) -> Result<Reservation, NoRoom> {
        let (shared, limit_bytes) = (self.shared(), self.body_bytes_max());
        if length_bytes > limit_bytes {
            return Err(NoRoom::TooLarge { length_bytes, limit_bytes });
        }
        let count = length_bytes.div_ceil(CHUNK_BYTES);
        let chunks: Option<Vec<Chunk>> =
            (0..count).map(|_| shared.pool.take_for_receive()).collect();
        let Some(chunks) = chunks else { return Err(self.full()) };
        shared.lock().full_since = None;
        Ok(Reservation { chunks, index: 0, length_bytes: 0 })
    }

    /// Returns an error if there is no room for even the smallest body, for a look before a body is
    /// read.
    ///
    /// # Errors
    ///
    /// Fails as [`reserve`](Self::reserve) does.
    pub fn look(&self) -> Result<(), NoRoom> {
        self.reserve(1).map(drop)
    }

    /// Notes that a request found no room. The longer this lasts, the later clients may try again.
    fn full(&self) -> NoRoom {
        let (shared, now) = (self.shared(), Clock::instant());
        let since = *shared.lock().full_since.get_or_insert(now);
        shared.woken.notify_one();
        let lasted = now.saturating_duration_since(since).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        NoRoom::Full { retry_after: Duration::from_secs(lasted.as_secs()) }
    }

    /// Counts the spans of `requests` as received, hands the requests to the reader, and wakes it
    /// if that is due. It gets all of them or none.
    ///
    /// # Errors
    ///
    /// Fails if the queue is closed. No span is counted then, and the requests are dropped.
    pub fn push(&self, requests: Vec<SpanRequest>) -> Result<(), Closed> {
        let shared = self.shared();
        let mut state = shared.lock();
        if state.is_closed {
            return Err(Closed);
        }
        for request in requests {
            shared.account.received.add(u64::from(request.span_count));
            state.waiting.request_count += 1;
            state.waiting.span_count += request.span_count as usize;
            state.waiting.length_bytes += request.length_bytes;
            state.waiting.memory_bytes += request.memory_bytes();
            state.requests.push_back(request);
        }
        let is_due = state.waiting.span_count >= state.armed_span_count;
        drop(state);
        // When memory is low the reader is always woken, to make room for the next request.
        if is_due || shared.pool.is_low() {
            shared.woken.notify_one();
        }
        Ok(())
    }

    /// Closes the queue: each later [`push`](Self::push) fails. The reader still gets what waits.
    pub fn close(&self) {
        self.shared().close();
    }
}

/// Memory for the body of one request.
#[derive(Debug)]
pub struct Reservation {
    chunks: Vec<Chunk>,
    /// The chunk that is filled next.
    index: usize,
    length_bytes: usize,
}

impl Reservation {
    /// Appends `bytes` to the body.
    ///
    /// # Panics
    ///
    /// Panics if the body gets longer than the reserved length, rounded up to whole chunks.
    pub fn write(&mut self, mut bytes: &[u8]) {
        self.length_bytes += bytes.len();
        while !bytes.is_empty() {
            let chunk = self.chunks.get_mut(self.index).expect("no more than was reserved");
            let (now, later) = bytes.split_at(bytes.len().min(chunk.spare().len()));
            chunk.fill(now);
            bytes = later;
            self.index += usize::from(chunk.spare().is_empty());
        }
    }

    /// Returns the request with this body. `span_count` spans with these times are in it. Chunks
    /// that the body does not need are given back.
    pub fn into_request(self, encoding: Encoding, span_count: u32, times: Times) -> SpanRequest {
        let filled = self.chunks.into_iter().filter(|chunk| !chunk.filled().is_empty());
        SpanRequest {
            encoding,
            body: filled.map(Bytes::from_owner).collect(),
            length_bytes: self.length_bytes,
            span_count,
            times,
            received_at: Clock::instant(),
        }
    }
}

/// The reading end. Take all requests out before it is dropped: what it still has is lost.
#[derive(Debug)]
pub struct SpanQueue(Arc<Shared>);

impl SpanQueue {
    /// Returns both ends of a queue whose bodies use chunks of `pool`. `account` counts the spans
    /// that are received.
    pub fn new(pool: Arc<ChunkPool>, account: Arc<Account>) -> (SpanWriter, Self) {
        let state = Mutex::new(State {
            requests: VecDeque::new(),
            waiting: Waiting::default(),
            armed_span_count: 1,
            is_closed: false,
            full_since: None,
        });
        let shared = Arc::new(Shared { state, woken: Notify::new(), pool, account });
        (SpanWriter(Arc::new(CloseAtEnd(Arc::clone(&shared)))), Self(shared))
    }

    /// Takes the oldest request; `None` if none waits.
    pub fn take(&mut self) -> Option<SpanRequest> {
        let mut state = self.0.lock();
        let request = state.requests.pop_front()?;
        state.waiting.request_count -= 1;
        state.waiting.span_count -= request.span_count as usize;
        state.waiting.length_bytes -= request.length_bytes;
        state.waiting.memory_bytes -= request.memory_bytes();
        Some(request)
    }

    /// Returns the sizes of all requests that wait.
    pub fn waiting(&self) -> Waiting {
        self.0.lock().waiting
    }

    /// Returns when the oldest request that waits was received; `None` if none waits.
    pub fn next_received_at(&self) -> Option<Instant> {
        self.0.lock().requests.front().map(|request| request.received_at)
    }

    /// Returns whether no request follows those that wait. Read this before the last
    /// [`take`](Self::take): then no request can come in between.
    pub fn is_closed(&self) -> bool {
        self.0.lock().is_closed
    }

    /// Sleeps until `span_count` spans wait, the queue is closed, or memory is low.
    ///
    /// The future may be dropped at any time. A wake-up that it missed then ends the next sleep.
    pub async fn woken(&mut self, span_count: usize) {
        if !self.arm(span_count) {
            self.0.woken.notified().await;
        }
    }

    /// Makes a writer wake the reader once `span_count` spans wait. Returns whether they do
    /// already, unless the reader was last armed with the same count: then it has been woken for
    /// them.
    fn arm(&mut self, span_count: usize) -> bool {
        let mut state = self.0.lock();
        let is_new = state.armed_span_count != span_count;
        state.armed_span_count = span_count;
        is_new && state.waiting.span_count >= span_count
    }
}

impl Drop for SpanQueue {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
