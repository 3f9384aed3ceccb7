//! Over how many receivers the datagrams are spread.
//!
//! In: the rate that the group's first receiver sees, which is its share of the whole. Out: a
//! program in the kernel that gives each datagram to one of the first sockets of the group, by a
//! random number and so evenly, whatever the number of senders: the kernel's own hash would give
//! all that one process sends to one socket.
//!
//! Few receivers while the rate is low, so that each wakes for many datagrams; more as it grows,
//! within a millisecond where it grows to a burst. A sender that was held up and catches up is
//! none. The least number is the one whose queues together take [`BURST_BYTES`]: with a large queue
//! that is one, with 1 MB for each it is two, without privileges six. Bound: the group. Runs on the
//! first receiver's thread.

use super::{ReceiveSocket, sys};
use crate::base::clock::Clock;
use std::io;
use std::time::{Duration, Instant};

/// Queue that a burst from idle should find, all sockets in use together: 1,024 segments of 1 kB,
/// so that it is whole also where its sender keeps the receivers from running.
const BURST_BYTES: usize = 1_024 * super::coalescing::QUEUE_BYTES_PER_DATAGRAM;

/// Beyond this rate a receiver gets help; it is a tenth to a fifth of what a core can take.
const RATE_HIGH: f64 = 30_000.0;

/// So many datagrams at such a rate are a burst: half a millisecond at 250,000 a second.
const BURST_COUNT: f64 = 128.0;

/// Below this rate half of the receivers can do the work: what they get is then well below
/// [`RATE_HIGH`], and twice 10,000 are below it in spite of the chance in every share.
const RATE_LOW: f64 = 12_500.0;

/// The rate is taken as low over this time before receivers are let go. Over all of it: a sender
/// that catches up is fast for a moment every now and then.
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
    /// Datagrams that the first receiver has got since the rate has been high.
    burst_count: f64,
    /// What the first receiver has got since when, to see whether it is calm.
    since: Instant,
    datagram_count: f64,
    noted_at: Instant,
}

impl Decision {
    fn new(count_min: usize, count_max: usize, now: Instant) -> Self {
        Self {
            count_min,
            count_max,
            count: count_min,
            changed_at: now,
            burst_count: 0.0,
            since: now,
            datagram_count: 0.0,
            noted_at: now,
        }
    }

    /// `rate` is what the first receiver sees; returns the new number where it changes.
    fn note(&mut self, rate: f64, now: Instant) -> Option<usize> {
        let count = rate * now.saturating_duration_since(self.noted_at).as_secs_f64();
        self.noted_at = now;
        self.datagram_count += count;
        self.burst_count = if rate > RATE_HIGH { self.burst_count + count } else { 0.0 };
        let is_calm = self.is_calm(now);
        if now.saturating_duration_since(self.changed_at) < CHANGE_PAUSE {
            return None;
        }
        let count = if self.burst_count >= BURST_COUNT {
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
        self.burst_count = 0.0;
        self.begin_to_count(now);
        Some(count)
    }

    /// Whether [`CALM`] is over and the rate was low in it.
    fn is_calm(&mut self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.since);
        if time < CALM {
            return false;
        }
        let rate = self.datagram_count / time.as_secs_f64();
        self.begin_to_count(now);
        rate <= RATE_LOW
    }

    fn begin_to_count(&mut self, now: Instant) {
        self.since = now;
        self.datagram_count = 0.0;
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
        let decision = Decision::new(count_min, socket_count, Clock::instant());
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
        Decision::new(count_min, 16, now)
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
    fn a_sender_that_catches_up_every_now_and_then_is_calm_all_the_same() {
        let mut now = Instant::now();
        let mut decision = decision(1, now);
        decision.count = 2;
        for _ in 0..10 {
            for rate in [2_000.0, 2_000.0, 25_000.0] {
                now += Duration::from_millis(if rate > RATE_LOW { 2 } else { 60 });
                decision.note(rate, now);
            }
        }
        assert_eq!(decision.count, 1);
    }

    #[test]
    fn a_sender_that_was_held_up_is_no_burst() {
        let mut now = Instant::now();
        let mut decision = decision(1, now);
        for rate in [4_000.0, 60_000.0, 4_000.0, 60_000.0, 60_000.0] {
            now += Duration::from_millis(if rate > RATE_HIGH { 1 } else { 10 });
            assert_eq!(decision.note(rate, now), None, "{rate}");
        }
        now += Duration::from_millis(1);
        assert_eq!(decision.note(60_000.0, now), Some(2));
    }

    #[test]
    fn two_receivers_are_one_again_at_twenty_thousand_a_second() {
        let mut now = Instant::now();
        let mut decision = decision(1, now);
        decision.count = 2;
        for share in [9_900.0, 10_100.0].into_iter().cycle().take(60) {
            now += Duration::from_millis(20);
            decision.note(share, now);
        }
        assert_eq!(decision.count, 1);
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
