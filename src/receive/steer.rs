//! Over how many receivers the datagrams are spread.
//!
//! In: the rate that the group's first receiver sees, which is its share of the whole. Out: a
//! program in the kernel that gives each datagram to one of the first sockets of the group, by a
//! random number and so evenly, whatever the number of senders: the kernel's own hash would give
//! all that one process sends to one socket.
//!
//! Few receivers while the rate is low, so that each wakes for many datagrams; more as it grows.
//! The least number is the one whose queues together take [`BURST_BYTES`]: with a large queue that
//! is one, without privileges it is three. Bound: the group. Runs on the first receiver's thread.

use super::{ReceiveSocket, sys};
use std::io;
use std::time::{Duration, Instant};

/// Queue that a burst from idle should find, all sockets in use together: 512 segments of 1 kB.
const BURST_BYTES: usize = 512 * super::pace::QUEUE_BYTES_PER_DATAGRAM;

/// Beyond this rate a receiver gets help; it is a tenth to a fifth of what a core can take.
const RATE_HIGH: f64 = 30_000.0;

/// Below this rate half of the receivers can do the work.
const RATE_LOW: f64 = 10_000.0;

/// The rate has to be low for this long before receivers are let go.
const CALM: Duration = Duration::from_secs(1);

/// The program is not changed more often than this.
const CHANGE_PAUSE: Duration = Duration::from_millis(2);

/// The decision how many receivers are in use.
#[derive(Debug, Clone)]
struct Decision {
    count_min: usize,
    count_max: usize,
    count: usize,
    changed_at: Instant,
    busy_at: Instant,
}

impl Decision {
    /// `rate` is what the first receiver sees; returns the new number where it changes.
    fn note(&mut self, rate: f64, now: Instant) -> Option<usize> {
        if rate > RATE_LOW {
            self.busy_at = now;
        }
        if now.saturating_duration_since(self.changed_at) < CHANGE_PAUSE {
            return None;
        }
        let is_calm = now.saturating_duration_since(self.busy_at) >= CALM;
        let count = if rate > RATE_HIGH {
            (self.count * 2).min(self.count_max)
        } else if is_calm {
            (self.count / 2).max(self.count_min)
        } else {
            self.count
        };
        if count == self.count {
            return None;
        }
        self.count = count;
        self.changed_at = now;
        self.busy_at = now;
        Some(count)
    }
}

/// Spreads the datagrams of a group; the receiver of its first socket keeps it.
#[derive(Debug)]
pub(super) struct Steering {
    decision: Decision,
}

impl Steering {
    /// Takes over the spread of a group of `socket_count` sockets like `first`.
    ///
    /// # Errors
    ///
    /// When the kernel does not take the program; it then spreads by its own hash.
    pub(super) fn start(first: &ReceiveSocket, socket_count: usize) -> io::Result<Self> {
        let count_min =
            BURST_BYTES.div_ceil(first.queue().granted_bytes.max(1)).clamp(1, socket_count);
        let now = Instant::now();
        let decision = Decision {
            count_min,
            count_max: socket_count,
            count: count_min,
            changed_at: now,
            busy_at: now,
        };
        sys::attach_spread(first, count_min)?;
        Ok(Self { decision })
    }

    /// Follows the rate of the first receiver, whose socket is `first`.
    pub(super) fn note(&mut self, rate: f64, now: Instant, first: &ReceiveSocket) {
        if let Some(count) = self.decision.note(rate, now) {
            // The kernel took the first program; where it has no memory for another one the
            // spread stays as it is.
            let _ = sys::attach_spread(first, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(count_min: usize, now: Instant) -> Decision {
        Decision { count_min, count_max: 16, count: count_min, changed_at: now, busy_at: now }
    }

    #[test]
    fn receivers_are_added_until_each_has_little_to_do() {
        let mut now = Instant::now();
        let mut decision = decision(1, now);
        for _ in 0..10 {
            now += Duration::from_millis(5);
            decision.note(200_000.0 / decision.count as f64, now);
        }
        assert_eq!(decision.count, 8);
        for _ in 0..10 {
            now += Duration::from_millis(5);
            decision.note(2_000_000.0 / decision.count as f64, now);
        }
        assert_eq!(decision.count, 16);
    }

    #[test]
    fn receivers_are_let_go_one_half_after_the_other_when_it_has_been_calm() {
        let mut now = Instant::now();
        let mut decision = decision(3, now);
        decision.count = 16;
        now += Duration::from_millis(500);
        assert_eq!(decision.note(100.0, now), None);
        now += Duration::from_millis(600);
        assert_eq!(decision.note(100.0, now), Some(8));
        now += Duration::from_millis(600);
        assert_eq!(decision.note(100.0, now), None);
        now += Duration::from_secs(2);
        assert_eq!(decision.note(100.0, now), Some(4));
        now += Duration::from_secs(2);
        assert_eq!(decision.note(100.0, now), Some(3));
        now += Duration::from_secs(2);
        assert_eq!(decision.note(100.0, now), None);
    }

    #[test]
    fn a_rate_between_the_bounds_changes_nothing() {
        let mut now = Instant::now();
        let mut decision = decision(1, now);
        decision.count = 4;
        for _ in 0..100 {
            now += Duration::from_millis(100);
            assert_eq!(decision.note(20_000.0, now), None);
        }
    }
}
