//! Which connection gives way when a new one comes and there is no place for it.
//!
//! In: connections that wait: for a request's header to be complete, for the next request, for a
//! place among those being answered. Out: the one that has waited longest, which is told to go.
//! So whoever comes is always heard, however many slow clients there are. Bound: one entry a
//! connection. Runs on the main thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The connections that wait, in the order in which they began to.
#[derive(Debug, Default)]
pub struct Connections {
    waiting: Mutex<BTreeMap<u64, Arc<watch::Sender<bool>>>>,
    next_number: AtomicU64,
}

/// A connection's place in the line; it leaves the line when this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    connections: Arc<Connections>,
    /// `None` before it has first waited.
    number: Mutex<Option<u64>>,
    close_request: Arc<watch::Sender<bool>>,
}

impl Connections {
    /// A connection begins to wait.
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

    /// Tells the connection that has waited longest to go, if any waits.
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
    /// The connection waits, from now on.
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

    /// The connection waits no more: it is being answered, and stays until it has its answer.
    pub fn stop_waiting(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = *number {
            self.connections.lock().remove(&number);
        }
    }

    /// Waits until the connection is told to go; that stays said.
    pub async fn asked_to_close(&self) {
        // The sender is there for as long as this is.
        let _ = self.close_request.subscribe().wait_for(|close_request| *close_request).await;
    }

    /// Whether the connection is told to go.
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
    async fn also_the_very_first_one_is_told_to_go() {
        let connections = Arc::new(Connections::default());
        let [first, second] = [connections.register(), connections.register()];
        connections.close_longest_waiting();
        assert!(first.is_asked_to_close() && !second.is_asked_to_close());
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_goes_and_who_is_answered_stays() {
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
