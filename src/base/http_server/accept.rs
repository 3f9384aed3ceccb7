//! Accepts the connections to a port, and ends them in order at the shutdown.
//!
//! In: a listener. Out: a task for each connection. Bound: a number of connections and a budget of
//! memory. When full: the connection that has waited longest is closed (`connections.rs`). Thread:
//! that of the port.

use super::ServerLimits;
use super::connections::{ConnectionSlot, Connections, Port};
use crate::base::account::CloseReason;
use crate::base::log::LogLimit;
use crate::base::panics::{self, Panicked};
use rustix::io::Errno;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{error, warn};

/// Largest number of connections that are closed at once because file descriptors are missing. The
/// rest of the daemon needs some of these descriptors, for example to reach the service.
const CLOSED_FOR_DESCRIPTORS_COUNT: usize = 8;

/// Pause before the next attempt to accept a connection after a failure: short if other connections
/// were closed, so that descriptors become free.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE_AFTER_CLOSING: Duration = Duration::from_millis(20);

/// The connections to a port.
#[derive(Debug)]
pub struct Acceptor {
    permits: Arc<Semaphore>,
    connection_count_max: usize,
    pub connections: Arc<Connections>,
    is_shutting_down: watch::Sender<bool>,
    panicked: LogLimit,
    not_accepted: LogLimit,
}

impl Acceptor {
    /// Returns the connections to `port`, of which there are none yet.
    pub fn new(limits: ServerLimits, port: Port) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(limits.connection_count_max)),
            connection_count_max: limits.connection_count_max,
            connections: Connections::new(limits.memory_bytes, port),
            is_shutting_down: watch::Sender::new(false),
            panicked: LogLimit::once_a_minute(),
            not_accepted: LogLimit::once_a_minute(),
        })
    }

    /// Accepts connections until [`stop`](Self::stop) is called. Each one has a task, which runs
    /// what `serve` returns, and `connection_bytes` of the memory.
    pub async fn accept<F>(
        self: &Arc<Self>,
        listener: &TcpListener,
        connection_bytes: usize,
        serve: impl Fn(TcpStream, Arc<ConnectionSlot>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            // The end stands first: it takes the permits of all connections, and a connection that
            // is accepted after it would close one whose request is in progress.
            biased;
            () = self.shutting_down() => {}
            never = self.accept_all(listener, connection_bytes, serve) => match never {},
        }
    }

    async fn accept_all<F>(
        self: &Arc<Self>,
        listener: &TcpListener,
        connection_bytes: usize,
        serve: impl Fn(TcpStream, Arc<ConnectionSlot>) -> F,
    ) -> Infallible
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut may_close_single = false;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // The client closed the connection before it was accepted. This is normal.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    may_close_single = !self.accept_failed(&error, may_close_single).await;
                    continue;
                }
            };
            may_close_single = false;
            let has_room = self.permits.available_permits() > 0;
            let permit = Arc::clone(&self.permits).acquire_owned();
            let permit = self.connections.make_room(CloseReason::Count, has_room, permit).await;
            let permit = permit.expect("it is never closed");
            let memory = self.connections.reserve(connection_bytes).await;
            // The connection is known from now on, so that it can make room for the next one before
            // its task has begun.
            let slot = Arc::new(self.connections.register());
            let (served, acceptor) = (serve(stream, slot), Arc::clone(self));
            tokio::spawn(async move {
                if let Err(panicked) = panics::caught(served).await {
                    let name = acceptor.name();
                    acceptor.panicked.log(|more| {
                        error!("A connection to the {name} met {panicked} and is closed{more}")
                    });
                }
                drop((permit, memory));
            });
        }
    }

    /// Stops accepting connections and requests.
    pub fn stop(&self) {
        self.is_shutting_down.send_replace(true);
    }

    /// After [`stop`](Self::stop), waits until the requests in progress are answered, at most
    /// `time`.
    pub async fn finish(&self, time: Duration) {
        let all = u32::try_from(self.connection_count_max).expect("a small number");
        if tokio::time::timeout(time, self.permits.acquire_many(all)).await.is_err() {
            let count = self.connection_count_max - self.permits.available_permits();
            let name = self.name();
            warn!("{count} requests on the {name} are aborted: the time for the shutdown is over");
        }
    }

    /// Logs that a request of `path` met a panic.
    pub fn say_panicked(&self, path: &str, panicked: &Panicked) {
        let name = self.name();
        self.panicked.log(|more| error!("Answering {path} on the {name} met {panicked}{more}"));
    }

    /// Returns the name of the port in the log.
    pub fn name(&self) -> &'static str {
        self.connections.port.name
    }

    /// Returns whether the connection `slot` answers no further request.
    pub fn is_last(&self, slot: &ConnectionSlot) -> bool {
        slot.is_asked_to_close() || *self.is_shutting_down.borrow()
    }

    /// Waits until the connection `slot` must stop accepting requests. This is when it is asked to
    /// close, or when the server shuts down.
    pub async fn must_close(&self, slot: &ConnectionSlot) {
        tokio::select! {
            () = slot.asked_to_close() => {}
            () = self.shutting_down() => {}
        }
    }

    /// Waits until the shutdown of the server begins.
    async fn shutting_down(&self) {
        // No error is possible: `self` holds the sending end.
        let _ =
            self.is_shutting_down.subscribe().wait_for(|is_shutting_down| *is_shutting_down).await;
    }

    /// Waits before the next attempt to accept a connection. If file descriptors or memory of the
    /// kernel are missing, first closes connections that wait, the older half of them. Returns
    /// whether a connection was closed.
    ///
    /// The newer half stays open. accept(2) fails without a free descriptor even if no client
    /// waits, and the connection that was accepted last may not have sent its request yet.
    async fn accept_failed(&self, error: &io::Error, may_close_single: bool) -> bool {
        let number = error.raw_os_error().map(Errno::from_raw_os_error);
        let is_short_of =
            [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Some).contains(&number);
        let name = self.name();
        self.not_accepted.log(|more| warn!("The {name} cannot accept a connection: {error}{more}"));
        let has_closed = is_short_of
            && self.connections.close_older_half(
                CloseReason::Descriptors,
                CLOSED_FOR_DESCRIPTORS_COUNT,
                may_close_single,
            ) > 0;
        tokio::time::sleep(if has_closed { ACCEPT_PAUSE_AFTER_CLOSING } else { ACCEPT_PAUSE })
            .await;
        has_closed
    }
}
