//! The connections to all hosts, and the tasks that open and close them.
//!
//! In: requests for a connection. Out: a [`Lease`]. Bound: as in `host.rs`; connections are opened
//! one after the other, or a few at a time, and closed after some time without a request. Thread:
//! that of the HTTP client, whose runtime runs the tasks.

use super::error::{ConnectFailure, EndedEarly};
use super::gather::Gathered;
use super::host::{Host, Http1, STREAM_COUNT_FIRST, Taken};
use super::settings::{Key, PoolSettings};
use crate::aws::body::RequestBody;
use crate::aws::transport::connect::Connector;
use crate::aws::transport::task::Executor;
use crate::base::clock::Clock;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor as _;
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioTimer;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tower_service::Service;

/// The pause after a failed attempt to open one more connection, while others are open.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// The pause between two looks at the server's settings, until they have come, and the largest
/// number of looks. A server that allows a single stream looks like one whose settings have not
/// come.
const SETTINGS_INTERVAL: Duration = Duration::from_millis(2);
const SETTINGS_LOOK_COUNT: u32 = 500;

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Lease {
    Http1(Http1, Place),
    Http2(http2::SendRequest<RequestBody>, Place, bool),
}

/// The place of a request on a connection. When it is dropped, the place is free again, or the
/// connection over HTTP/1.1 counts as closed.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    key: Key,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http1,
    Http2(u64),
    PutBack,
}

impl Place {
    /// Gives the connection over HTTP/1.1 back, which can take a request again.
    pub fn put_back(mut self, http1: Http1) {
        self.kind = Kind::PutBack;
        let idle_count_max = self.connections.settings.idle_count_max;
        self.connections.with(&self.key, |host, now| host.put_back(http1, idle_count_max, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let kind = self.kind;
        self.connections.with(&self.key, |host, now| match kind {
            Kind::PutBack => {}
            Kind::Http1 => host.remove_http1(),
            Kind::Http2(number) => host.end_stream(number, now),
        });
    }
}

/// The connections to all hosts.
#[derive(Debug)]
pub(super) struct Connections {
    connector: Connector,
    settings: PoolSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<Key, Host<Lease>>,
    /// Whether a task closes idle connections.
    has_closer: bool,
    next_number: u64,
}

/// A connection that was just opened.
enum Opened {
    Http1(Http1),
    Http2(u64, http2::SendRequest<RequestBody>, Arc<AtomicUsize>),
}

impl Connections {
    pub fn new(connector: Connector, settings: PoolSettings) -> Arc<Self> {
        Arc::new(Self { connector, settings, state: Mutex::default() })
    }

    /// Waits for a connection to the host of `key`.
    ///
    /// # Errors
    ///
    /// Returns the error of the attempt to open a connection.
    pub async fn lease(self: &Arc<Self>, key: &Key) -> Result<Lease, ConnectFailure> {
        let (waiter, lease) = oneshot::channel();
        self.with(key, |host, _| host.waiting.push_back(waiter));
        // The sending end is dropped only with the pool.
        lease.await.unwrap_or_else(|_| Err(Arc::new(EndedEarly)))
    }

    /// Changes the connections to a host, and then gives connections to the requests that wait.
    fn with<T>(
        self: &Arc<Self>,
        key: &Key,
        change: impl FnOnce(&mut Host<Lease>, Instant) -> T,
    ) -> T {
        let now = Clock::instant();
        // Dropped after the lock is free: dropping one takes the lock again.
        let mut unwanted = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let host = state.hosts.entry(key.clone()).or_default();
        let changed = change(host, now);
        while let Some(waiter) = host.waiting.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some(taken) = host.take(self.settings.idle_timeout, now) else {
                host.waiting.push_front(waiter);
                break;
            };
            unwanted.extend(waiter.send(Ok(self.lease_of(key, taken))).err());
        }
        host.waiting.retain(|waiter| !waiter.is_closed());
        while host.needs_connection(self.settings.connecting_count_max, now)
            && Handle::try_current().is_ok()
        {
            host.begin_connecting();
            Executor.execute(Arc::clone(self).connect(key.clone()));
        }
        if !state.has_closer && Handle::try_current().is_ok() {
            state.has_closer = true;
            Executor.execute(close_idle(Arc::downgrade(self), self.settings.idle_timeout));
        }
        drop(state);
        drop(unwanted);
        changed
    }

    fn lease_of(self: &Arc<Self>, key: &Key, taken: Taken) -> Lease {
        let place = |kind| Place { connections: Arc::clone(self), key: key.clone(), kind };
        match taken {
            Taken::Http1(http1) => Lease::Http1(http1, place(Kind::Http1)),
            Taken::Http2 { number, sender, is_reused } => {
                Lease::Http2(sender, place(Kind::Http2(number)), is_reused)
            }
        }
    }

    /// Opens a connection and adds it.
    async fn connect(self: Arc<Self>, key: Key) {
        let mut connecting = Connecting { connections: self, key, opened: None };
        // Boxed, because the future is large. A caller of `with` makes the task, and would have
        // room for several copies of the future on its stack: 86 kB for each call.
        let opened = Box::pin(connecting.connections.open(&connecting.key)).await;
        connecting.opened = Some(opened);
    }

    async fn open(self: &Arc<Self>, key: &Key) -> Result<Opened, ConnectFailure> {
        let mut connector = self.connector.clone();
        poll_fn(|context| connector.poll_ready(context)).await?;
        let stream = connector.call(key.uri()).await?;
        let connected = stream.connected();
        if connected.is_negotiated_h2() {
            return self.open_http2(key, stream).await.map_err(|error| Arc::new(error) as _);
        }
        let is_forward_proxy = connected.is_proxied();
        let mut builder = http1::Builder::new();
        if let Some(size_bytes) = self.settings.http1_buffer_bytes {
            builder.max_buf_size(size_bytes);
        }
        let opening = async {
            let (mut sender, connection) = builder.handshake(stream).await?;
            Executor.execute(async { drop(connection.await) });
            sender.ready().await?;
            Ok(Opened::Http1(Http1 { sender, is_forward_proxy, is_reused: false }))
        };
        opening.await.map_err(|error: hyper::Error| Arc::new(error) as _)
    }

    async fn open_http2(
        self: &Arc<Self>,
        key: &Key,
        stream: <Connector as Service<http::Uri>>::Response,
    ) -> hyper::Result<Opened> {
        let PoolSettings { ping_interval, ping_timeout, http2_windows_bytes, .. } = self.settings;
        let mut builder = http2::Builder::new(Executor);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(STREAM_COUNT_FIRST)
            .keep_alive_interval(ping_interval)
            .keep_alive_timeout(ping_timeout);
        if let Some((of_stream, of_connection)) = http2_windows_bytes {
            builder
                .initial_stream_window_size(of_stream)
                .initial_connection_window_size(of_connection);
        }
        let (mut sender, connection) = builder.handshake(Gathered::new(stream)).await?;
        let number = self.next_number();
        let stream_count_max = Arc::new(AtomicUsize::new(STREAM_COUNT_FIRST));
        let (connections, key) = (Arc::downgrade(self), key.clone());
        let count_max = Arc::clone(&stream_count_max);
        Executor.execute(async move {
            // In an async block of its own: when it panics or ends, the connection is removed.
            let _closing = Closing { connections: connections.clone(), key: key.clone(), number };
            let mut connection = pin!(connection);
            let (mut look, mut look_count) = (tokio::time::interval(SETTINGS_INTERVAL), 0);
            poll_fn(|context| {
                let end = connection.as_mut().poll(context);
                if end.is_pending() {
                    let count = connection.current_max_send_streams();
                    let is_new = count_max.swap(count, Ordering::Relaxed) != count;
                    if is_new && let Some(connections) = connections.upgrade() {
                        connections.with(&key, |_, _| {});
                    }
                    // hyper reads frames in a task of its own, so the server's settings do not wake
                    // this one.
                    while count == STREAM_COUNT_FIRST
                        && look_count < SETTINGS_LOOK_COUNT
                        && look.poll_tick(context).is_ready()
                    {
                        look_count += 1;
                    }
                }
                end.map(drop)
            })
            .await;
        });
        sender.ready().await?;
        Ok(Opened::Http2(number, sender, stream_count_max))
    }

    /// Returns the size of the task that opens a connection, in bytes.
    #[cfg(test)]
    pub fn task_bytes(self: &Arc<Self>, key: Key) -> usize {
        size_of_val(&Arc::clone(self).connect(key))
    }

    /// Returns the number of connections over HTTP/1.1, and of requests that wait.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = state.hosts.values().map(|host| (host.http1_count(), host.waiting.len()));
        counts.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next_number += 1;
        state.next_number
    }

    /// Closes idle connections. Returns when to look again; `None` if there are no connections.
    fn close_idle(&self) -> Option<Instant> {
        let now = Clock::instant();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = None;
        state.hosts.retain(|_, host| {
            let at = host.close_idle(self.settings.idle_timeout, now);
            next = [next, at].into_iter().flatten().min();
            at.is_some()
        });
        state.has_closer = next.is_some();
        next
    }
}

/// Closes idle connections, until there are none or the pool is gone.
async fn close_idle(connections: Weak<Connections>, idle_timeout: Duration) {
    let mut pause = idle_timeout;
    loop {
        tokio::time::sleep(pause).await;
        let Some(connections) = connections.upgrade() else { return };
        let Some(next) = connections.close_idle() else { return };
        pause = next.saturating_duration_since(Clock::instant());
    }
}

/// Removes a connection over HTTP/2 when its task ends.
struct Closing {
    connections: Weak<Connections>,
    key: Key,
    number: u64,
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.upgrade() {
            connections.with(&self.key, |host, _| host.remove_http2(self.number));
        }
    }
}

/// The opening of a connection. The result is taken over when it is dropped, so that the requests
/// that wait get an error even if the task panics.
struct Connecting {
    connections: Arc<Connections>,
    key: Key,
    opened: Option<Result<Opened, ConnectFailure>>,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let opened = self.opened.take().unwrap_or_else(|| Err(Arc::new(EndedEarly)));
        match opened {
            Ok(opened) => self.connections.with(&self.key, |host, now| {
                host.end_connecting();
                match opened {
                    Opened::Http1(http1) => host.add_http1(http1, now),
                    Opened::Http2(number, sender, count_max) => {
                        host.add_http2(number, sender, count_max, now);
                    }
                }
            }),
            Err(failure) => {
                let failed = self
                    .connections
                    .with(&self.key, |host, now| host.fail_connecting(CONNECT_PAUSE, now));
                for waiter in failed {
                    // An error means that the request no longer waits.
                    let _ = waiter.send(Err(Arc::clone(&failure)));
                }
            }
        }
    }
}
