//! Returns free memory to the system after a burst of segments.
//!
//! In: how many chunks are free, in each round of the sender. Out: chunks that were free during a
//! whole [`PERIOD`] are returned to the system. [`KEPT_COUNT`] chunks are kept, so that small
//! bursts allocate nothing. Bound: an idle sender is woken twice at most for this. Thread: the
//! sender's.

use crate::base::memory::ChunkPool;
use std::time::{Duration, Instant};

/// How many free chunks are kept: 1 MiB.
const KEPT_COUNT: usize = 64;

/// Chunks that were free during all of this time are returned to the system.
const PERIOD: Duration = Duration::from_secs(10);

/// The chunks that were free during the whole current period.
#[derive(Debug)]
pub struct Trim {
    /// The end of the current period.
    ends_at: Instant,
    /// How many chunks were free at all times of the current period.
    unused_count: usize,
    /// How many chunks were free at the last call of [`look`](Self::look).
    free_count: usize,
}

impl Trim {
    /// Begins the first period. It counts no chunk as free, so its end returns none.
    pub fn new(now: Instant) -> Self {
        Self { ends_at: now + PERIOD, unused_count: 0, free_count: 0 }
    }

    /// Notes how many chunks of the pool are free. At the end of a period, returns the chunks to
    /// the system that were free during the whole period.
    pub fn look(&mut self, pool: &ChunkPool, now: Instant) {
        self.free_count = pool.free_count();
        self.unused_count = self.unused_count.min(self.free_count);
        if now < self.ends_at {
            return;
        }
        pool.release(self.unused_count.saturating_sub(KEPT_COUNT));
        let free_count = pool.free_count();
        *self = Self { ends_at: now + PERIOD, unused_count: free_count, free_count };
    }

    /// Returns when to call [`look`](Self::look) again; `None` while no chunks have to be returned.
    pub fn next_due(&self) -> Option<Instant> {
        (self.free_count > KEPT_COUNT).then_some(self.ends_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_were_free_for_a_period_are_returned_and_then_no_wake_up_follows() {
        let (pool, start) = (ChunkPool::new(1_000, 10), Instant::now());
        let mut trim = Trim::new(start);
        trim.look(&pool, start);
        assert_eq!(trim.next_due(), None);
        let mut taken: Vec<_> = (0..500).map(|_| pool.take_for_batch()).collect();
        trim.look(&pool, start);
        taken.truncate(200);
        trim.look(&pool, start + PERIOD / 2);
        assert_eq!((pool.free_count(), trim.next_due()), (300, Some(start + PERIOD)));
        // All chunks were in use at some time of the first period.
        trim.look(&pool, start + PERIOD);
        assert_eq!(pool.free_count(), 300);
        taken.extend((0..100).map(|_| pool.take_for_batch()));
        trim.look(&pool, start + PERIOD);
        taken.clear();
        trim.look(&pool, start + 2 * PERIOD);
        assert_eq!(pool.free_count(), 500 - (200 - KEPT_COUNT));
        trim.look(&pool, start + 3 * PERIOD);
        assert_eq!((pool.free_count(), trim.next_due()), (KEPT_COUNT, None));
        assert_eq!((pool.available(), pool.used()), (1_000, 0));
    }
}
