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
    line: Arc<Connections>,
    /// `None` before it has first waited.
    number: Mutex<Option<u64>>,
    is_to_go: Arc<watch::Sender<bool>>,
}

impl Connections {
    /// A connection begins to wait.
    pub fn join(self: &Arc<Self>) -> ConnectionSlot {
        let is_to_go = Arc::new(watch::Sender::new(false));
        let slot = ConnectionSlot { line: Arc::clone(self), number: Mutex::default(), is_to_go };
        slot.wait();
        slot
    }

    /// Tells the connection that has waited longest to go, if any waits.
    pub fn dismiss_first(&self) {
        if let Some((_, is_to_go)) = self.lock().pop_first() {
            is_to_go.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<watch::Sender<bool>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// The connection waits, from now on.
    pub fn wait(&self) {
        let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.line.lock();
        if let Some(before) = *number {
            waiting.remove(&before);
        }
        let next = self.line.next_number.fetch_add(1, Ordering::Relaxed);
        *number = Some(next);
        waiting.insert(next, Arc::clone(&self.is_to_go));
    }

    /// The connection waits no more: it is being answered, and stays until it has its answer.
    pub fn stay(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = *number {
            self.line.lock().remove(&number);
        }
    }

    /// Waits until the connection is told to go; that stays said.
    pub async fn dismissed(&self) {
        // The sender is there for as long as this is.
        let _ = self.is_to_go.subscribe().wait_for(|is_to_go| *is_to_go).await;
    }

    /// Whether the connection is told to go.
    pub fn is_dismissed(&self) -> bool {
        *self.is_to_go.borrow()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.stay();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn also_the_very_first_one_is_told_to_go() {
        let line = Arc::new(Connections::default());
        let [first, second] = [line.join(), line.join()];
        line.dismiss_first();
        assert!(first.is_dismissed() && !second.is_dismissed());
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_goes_and_who_is_answered_stays() {
        let line = Arc::new(Connections::default());
        let [first, second, third] = [line.join(), line.join(), line.join()];
        first.stay();
        line.dismiss_first();
        second.dismissed().await;
        first.wait();
        line.dismiss_first();
        third.dismissed().await;
        assert!(!first.is_dismissed());
        line.dismiss_first();
        first.dismissed().await;
        assert!(first.is_dismissed());
        line.dismiss_first();
        assert!(line.lock().is_empty());
        let fourth = line.join();
        drop(fourth);
        assert!(line.lock().is_empty());
    }
}
