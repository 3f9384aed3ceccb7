//! The counters of the calls in flight and of their limit.
//!
//! In: changes, from the sender. Out: numbers for the metrics. They count no segments, so they have
//! no part in the balance. Thread: `upload` writes, main reads.

use super::Counter;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why the concurrency limit changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitChange {
    /// Batches waited for a place, and the answers were good: the limit rose.
    Queue,
    /// The answers took much longer than usual: the limit fell.
    Slow,
    /// The service throttled: the limit fell.
    Throttled,
    /// A call had no answer in time: the limit fell.
    Timeout,
    /// The circuit breaker opened: the limit fell.
    Failed,
}

impl LimitChange {
    /// All reasons, in the order of the enum.
    pub const ALL: [Self; 5] =
        [Self::Queue, Self::Slow, Self::Throttled, Self::Timeout, Self::Failed];

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Slow => "slow",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// The counters and gauges of the calls.
#[derive(Debug, Default)]
pub struct CallCounts {
    in_flight: AtomicUsize,
    limit: AtomicUsize,
    /// One more than the index of the last reason in [`LimitChange::ALL`]; 0 for none.
    last: AtomicUsize,
    changes: [Counter; LimitChange::ALL.len()],
}

impl CallCounts {
    /// Sets the number of calls in flight.
    pub fn set_in_flight(&self, count: usize) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    /// Returns the number of calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Sets the concurrency limit at the start.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Sets the concurrency limit, which has changed for `reason`.
    pub fn changed(&self, limit: usize, reason: LimitChange) {
        self.set_limit(limit);
        self.last.store(reason as usize + 1, Ordering::Relaxed);
        self.changes[reason as usize].add(1);
    }

    /// Returns the concurrency limit.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the counter of changes for `reason`.
    pub fn changes(&self, reason: LimitChange) -> &Counter {
        &self.changes[reason as usize]
    }

    /// Returns why the limit last changed; `None` if it has not changed yet.
    pub fn last_change(&self) -> Option<LimitChange> {
        let index = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        LimitChange::ALL.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_and_the_count_of_each_reason_are_kept() {
        let counts = CallCounts::default();
        assert_eq!(counts.last_change(), None);
        for (index, reason) in LimitChange::ALL.into_iter().enumerate() {
            counts.changed(index + 1, reason);
            assert_eq!((counts.limit(), counts.last_change()), (index + 1, Some(reason)));
            assert_eq!(counts.changes(reason).get(), 1);
        }
    }
}
