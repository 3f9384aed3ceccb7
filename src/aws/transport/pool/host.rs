//! The connections to one host, and the requests that wait for one.
//!
//! In: connections that were opened, used and closed. Out: the connection for the next request.
//! Bound: one request for each connection over HTTP/1.1, and as many as the server allows over
//! HTTP/2 (`SETTINGS_MAX_CONCURRENT_STREAMS`). No I/O; the caller passes the time.

use super::error::ConnectFailure;
use crate::aws::body::RequestBody;
use hyper::client::conn::{http1, http2};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The number of streams of a connection over HTTP/2 before the server has said how many it allows.
/// One stream is what any server takes.
pub(super) const STREAM_COUNT_FIRST: usize = 1;

/// The largest number of connections to a host over HTTP/2: enough for 256 calls with 8 streams
/// each.
const HTTP2_COUNT_MAX: usize = 32;

/// A connection over HTTP/1.1 that can take a request.
#[derive(Debug)]
pub(super) struct Http1 {
    pub sender: http1::SendRequest<RequestBody>,
    pub is_forward_proxy: bool,
    pub is_reused: bool,
}

/// A connection over HTTP/2.
#[derive(Debug)]
struct Http2 {
    number: u64,
    sender: http2::SendRequest<RequestBody>,
    /// How many streams the server allows.
    stream_count_max: Arc<AtomicUsize>,
    stream_count: usize,
    is_reused: bool,
    /// Whether the server has answered on this connection. The first frame of a server has its
    /// settings, so they are known from then on.
    has_answered: bool,
    idle_at: Instant,
}

impl Http2 {
    fn stream_count_max(&self) -> usize {
        self.stream_count_max.load(Ordering::Relaxed)
    }

    /// Returns whether the server has said how many streams it allows.
    fn is_known(&self) -> bool {
        self.has_answered
            || self.stream_count_max() != STREAM_COUNT_FIRST
            || self.sender.is_closed()
    }

    /// Returns whether one more request can be sent. The first request is sent even if the server
    /// has closed the connection. It fails, so the pool does not open one connection after another
    /// to a server that closes them all.
    fn has_room(&self) -> bool {
        self.stream_count < self.stream_count_max() && !(self.is_reused && self.sender.is_closed())
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Taken {
    Http1(Http1),
    Http2 { number: u64, sender: http2::SendRequest<RequestBody>, is_reused: bool },
}

/// A request that waits for a connection. `L` is the connection together with its place in the
/// pool.
pub(super) type Waiter<L> = oneshot::Sender<Result<L, ConnectFailure>>;

/// The connections to a host.
#[derive(Debug)]
pub(super) struct Host<L> {
    http2: Vec<Http2>,
    /// The connections over HTTP/1.1 without a request, with the time since when. The last one was
    /// used last.
    idle: Vec<(Http1, Instant)>,
    /// All connections over HTTP/1.1, with a request or without.
    http1_count: usize,
    pub waiting: VecDeque<Waiter<L>>,
    connecting_count: usize,
    /// No connection is opened before this time, because the last attempt failed.
    connect_after: Option<Instant>,
}

impl<L> Default for Host<L> {
    fn default() -> Self {
        Self {
            http2: Vec::new(),
            idle: Vec::new(),
            http1_count: 0,
            waiting: VecDeque::new(),
            connecting_count: 0,
            connect_after: None,
        }
    }
}

impl<L> Host<L> {
    /// Takes a connection for a request: one over HTTP/2 with a free stream, or one over HTTP/1.1
    /// without a request. A spare connection, which has had no request since it was opened, counts
    /// as used: the server may have closed it.
    pub fn take(&mut self, idle_timeout: Duration, now: Instant) -> Option<Taken> {
        for it in self.http2.iter_mut().filter(|it| it.stream_count == 0) {
            it.is_reused |= it.idle_at < now;
        }
        self.http2.retain(|it| !it.is_reused || it.stream_count > 0 || !it.sender.is_closed());
        // The first one with room: the connections behind it become idle and are closed.
        if let Some(it) = self.http2.iter_mut().find(|it| it.has_room()) {
            it.stream_count += 1;
            let is_reused = std::mem::replace(&mut it.is_reused, true);
            return Some(Taken::Http2 { number: it.number, sender: it.sender.clone(), is_reused });
        }
        while let Some((mut http1, idle_at)) = self.idle.pop() {
            http1.is_reused |= idle_at < now;
            let is_fresh = now.saturating_duration_since(idle_at) < idle_timeout;
            // As over HTTP/2, the first request is sent even if the connection was closed.
            if !http1.is_reused || (is_fresh && http1.sender.is_ready()) {
                return Some(Taken::Http1(http1));
            }
            self.http1_count -= 1;
        }
        None
    }

    /// Returns whether one more connection has to be opened, of at most `connecting_count_max` at a
    /// time.
    pub fn needs_connection(&self, connecting_count_max: usize, now: Instant) -> bool {
        let is_http2 = !self.http2.is_empty();
        let count_max = if is_http2 { 1 } else { connecting_count_max };
        self.waiting.len() > self.connecting_count
            && self.connecting_count < count_max
            && self.http2.len() < HTTP2_COUNT_MAX
            && self.http2.iter().all(Http2::is_known)
            && self.connect_after.is_none_or(|at| at <= now)
    }

    /// Notes that opening a connection begins.
    pub fn begin_connecting(&mut self) {
        self.connecting_count += 1;
    }

    /// Notes that opening a connection has ended.
    pub fn end_connecting(&mut self) {
        self.connecting_count -= 1;
        self.connect_after = None;
    }

    /// Notes that no connection could be opened. Returns the requests that wait, if no other
    /// connection will become free for them. Otherwise the next attempt is made after `pause`.
    pub fn fail_connecting(&mut self, pause: Duration, now: Instant) -> Vec<Waiter<L>> {
        self.end_connecting();
        if self.http1_count > 0 || self.http2.iter().any(|it| !it.sender.is_closed()) {
            self.connect_after = Some(now + pause);
            return Vec::new();
        }
        self.waiting.drain(..).collect()
    }

    /// Adds a connection over HTTP/2.
    pub fn add_http2(
        &mut self,
        number: u64,
        sender: http2::SendRequest<RequestBody>,
        stream_count_max: Arc<AtomicUsize>,
        idle_at: Instant,
    ) {
        let (stream_count, is_reused, has_answered) = (0, false, false);
        self.http2.push(Http2 {
            number,
            sender,
            stream_count_max,
            stream_count,
            is_reused,
            has_answered,
            idle_at,
        });
    }

    /// Notes that a request over the connection `number` has ended.
    pub fn end_stream(&mut self, number: u64, now: Instant) {
        if let Some(http2) = self.http2.iter_mut().find(|it| it.number == number) {
            http2.stream_count -= 1;
            http2.has_answered = true;
            http2.idle_at = now;
        }
    }

    /// Notes that the connection `number` is closed.
    pub fn remove_http2(&mut self, number: u64) {
        self.http2.retain(|it| it.number != number);
    }

    /// Adds a connection over HTTP/1.1 that was just opened.
    pub fn add_http1(&mut self, http1: Http1, now: Instant) {
        self.http1_count += 1;
        self.idle.push((http1, now));
    }

    /// Takes back a connection over HTTP/1.1 whose request has ended. Closes it if `idle_count_max`
    /// others are idle.
    pub fn put_back(&mut self, http1: Http1, idle_count_max: usize, now: Instant) {
        if self.idle.len() < idle_count_max || !self.waiting.is_empty() {
            self.idle.push((http1, now));
        } else {
            self.http1_count -= 1;
        }
    }

    /// Returns the number of connections over HTTP/1.1.
    #[cfg(test)]
    pub fn http1_count(&self) -> usize {
        self.http1_count
    }

    /// Notes that a connection over HTTP/1.1 is closed.
    pub fn remove_http1(&mut self) {
        self.http1_count -= 1;
    }

    /// Closes the connections that have had no request for `idle_timeout`. Returns the time of the
    /// next look; `None` if the host has neither a connection nor a request that waits.
    pub fn close_idle(&mut self, idle_timeout: Duration, now: Instant) -> Option<Instant> {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < idle_timeout;
        let before = self.idle.len();
        self.idle.retain(|(http1, at)| is_fresh(*at) && !http1.sender.is_closed());
        self.http1_count -= before - self.idle.len();
        self.http2
            .retain(|it| !it.sender.is_closed() && (it.stream_count > 0 || is_fresh(it.idle_at)));
        let idle_at = self.idle.iter().map(|(_, at)| *at);
        let unused = self.http2.iter().filter(|it| it.stream_count == 0).map(|it| it.idle_at);
        let next = idle_at.chain(unused).min().map(|at| at + idle_timeout);
        let is_busy = self.http1_count > 0
            || !self.http2.is_empty()
            || self.connecting_count > 0
            || !self.waiting.is_empty();
        next.or_else(|| is_busy.then_some(now + idle_timeout))
    }
}
