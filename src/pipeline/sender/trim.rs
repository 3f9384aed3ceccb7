//! Memory that a flood has taken goes back to the system when nobody needs it any more.
//!
//! In: how many chunks are free, looked at once a turn. Out: those that were free all through a
//! period are given back, but for [`KEPT_COUNT`], so that a load that comes and goes finds its
//! memory warm. Idle, the sender thread is woken for it at most twice. Pure code but for the pool.

use crate::base::memory::Pool;
use std::time::{Duration, Instant};

/// Chunks that are never given back: 1 MB.
const KEPT_COUNT: usize = 64;

/// What was not needed for this long is given back.
const PERIOD: Duration = Duration::from_secs(10);

/// What was free at all times of the current period.
#[derive(Debug)]
pub struct Trim {
    ends_at: Instant,
    unused_count: usize,
    free_count: usize,
}

impl Trim {
    /// A first period, in which nothing was free.
    pub fn new(now: Instant) -> Self {
        Self { ends_at: now + PERIOD, unused_count: 0, free_count: 0 }
    }

    /// Looks at the pool, and gives back at the end of a period what was unused in it.
    pub fn look(&mut self, pool: &Pool, now: Instant) {
        self.free_count = pool.free_count();
        self.unused_count = self.unused_count.min(self.free_count);
        if now < self.ends_at {
            return;
        }
        pool.release(self.unused_count.saturating_sub(KEPT_COUNT));
        let free_count = pool.free_count();
        *self = Self { ends_at: now + PERIOD, unused_count: free_count, free_count };
    }

    /// When to look again; `None` while there is nothing to give back.
    pub fn next_due(&self) -> Option<Instant> {
        (self.free_count > KEPT_COUNT).then_some(self.ends_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_period_has_not_needed_is_given_back_and_then_nobody_is_woken() {
        let (pool, start) = (Pool::new(1_000, 10), Instant::now());
        let mut trim = Trim::new(start);
        trim.look(&pool, start);
        assert_eq!(trim.next_due(), None);
        let mut taken: Vec<_> = (0..500).map(|_| pool.take_for_batch()).collect();
        trim.look(&pool, start);
        taken.truncate(200);
        trim.look(&pool, start + PERIOD / 2);
        assert_eq!((pool.free_count(), trim.next_due()), (300, Some(start + PERIOD)));
        // All were in use within the first period.
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
