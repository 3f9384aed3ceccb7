//! Chooses the connection that is closed when there is no room: too many connections, no memory, or
//! no file descriptor.
//!
//! In: connections that wait. A connection waits for the rest of a header or of a body, for its
//! next request, or for the turn of its request. Out: the connection that has waited longest is
//! asked to close. So a new connection is always served, even if there are many slow clients.
//! Bound: one entry for each connection. Thread: main.

use super::memory::{Memory, Reservation};
use crate::base::account::{CloseReason, PortCounts};
use crate::base::log::LogLimit;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// Time in which a connection that was asked to close usually gives its memory back. If there is
/// still no room after this time, one more connection is closed.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);

/// A port of the daemon, for the log and the counters.
#[derive(Debug, Clone)]
pub struct Port {
    /// The name in the log, such as `TCP port`.
    pub name: &'static str,
    /// The share of the memory for segments that the port may use, as the log says it.
    pub share: &'static str,
    /// The counters.
    pub counts: Arc<PortCounts>,
}

/// The waiting connections, ordered by when they began to wait.
#[derive(Debug)]
pub struct Connections {
    /// The memory of all connections.
    pub memory: Memory,
    waiting: Mutex<BTreeMap<u64, Arc<watch::Sender<bool>>>>,
    next_number: AtomicU64,
    pub port: Port,
    closed: LogLimit,
    busy: LogLimit,
}

/// The entry of one open connection. The connection is removed when its entry is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Arc<Connections>,
    /// Key of this connection in [`Connections::waiting`], from the last time when it began to
    /// wait. `None` if it has never waited.
    number: Mutex<Option<u64>>,
    close_request: Arc<watch::Sender<bool>>,
}

impl Connections {
    /// Returns a list without connections to `port`. They may use `memory_bytes`.
    pub fn new(memory_bytes: usize, port: Port) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(memory_bytes),
            waiting: Mutex::default(),
            next_number: AtomicU64::default(),
            port,
            closed: LogLimit::once_a_minute(),
            busy: LogLimit::once_a_minute(),
        })
    }

    /// Waits until `bytes` of the memory are free, and reserves them. While there is no room,
    /// closes the connections that have waited longest, one after the other.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let has_room = self.memory.has(bytes);
        self.make_room(CloseReason::Memory, has_room, self.memory.reserve(bytes)).await
    }

    /// Waits for `room`. Until it comes, closes the connections that have waited longest, one after
    /// the other; the first one now, unless `has_room`.
    pub async fn make_room<T>(
        &self,
        reason: CloseReason,
        has_room: bool,
        room: impl Future<Output = T>,
    ) -> T {
        if !has_room {
            self.close_longest_waiting(reason);
        }
        let mut room = std::pin::pin!(room);
        loop {
            tokio::select! {
                biased;
                room = room.as_mut() => return room,
                () = tokio::time::sleep(CLOSE_PAUSE) => {
                    self.close_longest_waiting(reason);
                }
            }
        }
    }

    /// Adds a new connection, and marks it as waiting.
    pub fn register(self: &Arc<Self>) -> ConnectionSlot {
        let close_request = Arc::new(watch::Sender::new(false));
        let slot = ConnectionSlot {
            connections: Arc::clone(self),
            number: Mutex::default(),
            close_request,
        };
        slot.start_waiting();
        slot
    }

    /// Asks the connection that has waited longest to close. Returns `false` if none waits.
    pub fn close_longest_waiting(&self, reason: CloseReason) -> bool {
        let Some((_, close_request)) = self.lock().pop_first() else { return false };
        close_request.send_replace(true);
        let Port { name, share, counts } = &self.port;
        counts.closed(reason).add(1);
        let why = match reason {
            CloseReason::Count => "too many are open",
            CloseReason::Memory => &format!("their memory is used up ({share})"),
            CloseReason::Descriptors => "there are too few file descriptors (RLIMIT_NOFILE)",
        };
        self.closed.log(|more| {
            warn!(
                "The {name} closes the connections that have waited longest, because {why}{more}"
            );
        });
        true
    }

    /// Asks the older half of the waiting connections to close, at most `count_max`. A single
    /// waiting connection is only asked to close if `may_close_single`: its request may be on the
    /// way. Returns how many were asked.
    pub fn close_older_half(
        &self,
        reason: CloseReason,
        count_max: usize,
        may_close_single: bool,
    ) -> usize {
        let waiting_count = self.lock().len();
        let count = match waiting_count {
            1 => usize::from(may_close_single),
            _ => (waiting_count / 2).min(count_max),
        };
        (0..count).take_while(|_| self.close_longest_waiting(reason)).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<watch::Sender<bool>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Waits until `bytes` of the memory of all connections are free, and reserves them.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        self.connections.reserve(bytes).await
    }

    /// Counts and logs that a request of this connection got no turn in time.
    pub fn note_busy(&self) {
        let Port { name, counts, .. } = &self.connections.port;
        counts.busy.add(1);
        self.connections.busy.log(|more| {
            warn!(
                "A request to the {name} was refused with 503: too many others are in \
                 progress{more}"
            );
        });
    }

    /// Counts that this connection's client was too slow: with a request, or in taking an answer.
    pub fn note_slow(&self) {
        self.connections.port.counts.slow.add(1);
    }

    /// Counts that a request of this connection was too large.
    pub fn note_too_large(&self) {
        self.connections.port.counts.too_large.add(1);
    }

    /// Returns how many bytes all connections have reserved together.
    pub fn memory_used_bytes(&self) -> usize {
        self.connections.memory.used_bytes()
    }

    /// Marks the connection as waiting, from now on.
    pub fn start_waiting(&self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.connections.lock();
        if let Some(before) = *number {
            waiting.remove(&before);
        }
        let next = self.connections.next_number.fetch_add(1, Ordering::Relaxed);
        *number = Some(next);
        waiting.insert(next, Arc::clone(&self.close_request));
    }

    /// Marks the connection as not waiting. It is not asked to close while its request is answered.
    pub fn stop_waiting(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = *number {
            self.connections.lock().remove(&number);
        }
    }

    /// Returns whether the connection waits.
    pub fn is_waiting(&self) -> bool {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        number.is_some_and(|number| self.connections.lock().contains_key(&number))
    }

    /// Waits until the connection is asked to close. Returns immediately if it has been asked
    /// already.
    pub async fn asked_to_close(&self) {
        // No error is possible: `self` holds the sending end.
        let _ = self.close_request.subscribe().wait_for(|close_request| *close_request).await;
    }

    /// Returns whether the connection has been asked to close.
    pub fn is_asked_to_close(&self) -> bool {
        *self.close_request.borrow()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Arc<Connections> {
        let port = Port { name: "TCP port", share: "", counts: Arc::default() };
        Connections::new(10 * 1024, port)
    }

    #[tokio::test(start_paused = true)]
    async fn without_memory_the_longest_waiting_are_closed_until_there_is_room() {
        let connections = connections();
        let slots = [connections.register(), connections.register(), connections.register()];
        let held = [slots[0].reserve(4_000).await, slots[1].reserve(4_000).await];
        assert_eq!(slots[0].memory_used_bytes(), 8 * 1024);
        assert!(!slots[0].is_asked_to_close());
        let closing = async {
            slots[0].asked_to_close().await;
            assert!(!slots[1].is_asked_to_close());
            slots[1].asked_to_close().await;
            drop(held);
        };
        let (reservation, ()) = tokio::join!(slots[2].reserve(3_000), closing);
        assert!(!slots[2].is_asked_to_close());
        assert_eq!(slots[0].memory_used_bytes(), 3 * 1024);
        drop(reservation);
        assert_eq!(slots[0].memory_used_bytes(), 0);
        assert_eq!(connections.port.counts.closed(CloseReason::Memory).get(), 2);
    }

    #[tokio::test]
    async fn the_first_connection_can_be_asked_to_close() {
        let connections = connections();
        let [first, second] = [connections.register(), connections.register()];
        connections.close_longest_waiting(CloseReason::Count);
        assert!(first.is_asked_to_close() && !second.is_asked_to_close());
    }

    #[tokio::test]
    async fn the_longest_waiting_connection_is_closed_and_one_being_answered_stays() {
        let connections = connections();
        let [first, second, third] =
            [connections.register(), connections.register(), connections.register()];
        first.stop_waiting();
        connections.close_longest_waiting(CloseReason::Count);
        second.asked_to_close().await;
        first.start_waiting();
        connections.close_longest_waiting(CloseReason::Count);
        third.asked_to_close().await;
        assert!(!first.is_asked_to_close());
        connections.close_longest_waiting(CloseReason::Count);
        first.asked_to_close().await;
        assert!(first.is_asked_to_close());
        connections.close_longest_waiting(CloseReason::Count);
        assert!(connections.lock().is_empty());
        let fourth = connections.register();
        drop(fourth);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn the_newer_half_of_the_connections_is_spared() {
        let connections = connections();
        let slots: Vec<_> = (0..7).map(|_| connections.register()).collect();
        let close = |may_close_single| {
            connections.close_older_half(CloseReason::Descriptors, 2, may_close_single)
        };
        // Seven wait, then five, three, two and one.
        let closed_counts = [false, true, true, true, false, true, true].map(close);
        assert_eq!(closed_counts, [2, 2, 1, 1, 0, 1, 0]);
        assert!(slots.iter().all(ConnectionSlot::is_asked_to_close));
    }
}
