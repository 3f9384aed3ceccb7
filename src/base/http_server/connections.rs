//! Chooses the connection that is closed when a new connection arrives and there are too many.
//!
//! In: connections that wait. A connection waits for the rest of a header, for its next request, or
//! for the permit to begin its request. Out: the connection that has waited longest is asked to
//! close. So a new connection is always served, even if there are many slow clients. Bound: one
//! entry for each connection. Thread: main.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The waiting connections, ordered by when they began to wait.
#[derive(Debug, Default)]
pub struct Connections {
    waiting: Mutex<BTreeMap<u64, Arc<watch::Sender<bool>>>>,
    next_number: AtomicU64,
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

    /// Asks the connection that has waited longest to close. Does nothing if no connection waits.
    pub fn close_longest_waiting(&self) {
        if let Some((_, close_request)) = self.lock().pop_first() {
            close_request.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<watch::Sender<bool>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
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

    #[tokio::test]
    async fn the_first_connection_can_be_asked_to_close() {
        let connections = Arc::new(Connections::default());
        let [first, second] = [connections.register(), connections.register()];
        connections.close_longest_waiting();
        assert!(first.is_asked_to_close() && !second.is_asked_to_close());
    }

    #[tokio::test]
    async fn the_longest_waiting_connection_is_closed_and_one_being_answered_stays() {
        let connections = Arc::new(Connections::default());
        let [first, second, third] =
            [connections.register(), connections.register(), connections.register()];
        first.stop_waiting();
        connections.close_longest_waiting();
        second.asked_to_close().await;
        first.start_waiting();
        connections.close_longest_waiting();
        third.asked_to_close().await;
        assert!(!first.is_asked_to_close());
        connections.close_longest_waiting();
        first.asked_to_close().await;
        assert!(first.is_asked_to_close());
        connections.close_longest_waiting();
        assert!(connections.lock().is_empty());
        let fourth = connections.register();
        drop(fourth);
        assert!(connections.lock().is_empty());
    }
}
