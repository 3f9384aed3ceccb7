//! Decides over how many receivers a group spreads its datagrams, and sets this in the kernel.
//!
//! In: the rate of the group's first receiver, which is its share of the whole. Out: a program in
//! the kernel that gives each datagram to one of the first sockets of the group, chosen by a random
//! number. The kernel's own hash would give all datagrams of one sending socket to one receiver.
//! Bound: the sockets of the group. Thread: the first receiver's.
//!
//! ```text
//!  ┌───────────┐  burst  ┌───────────────┐  burst  ┌───────────────┐  burst       ┌──────────┐
//!  │ count_min ├────────►│ 2 × count_min ├────────►│ 4 × count_min ├─────► ... ──►│ all      │
//!  │ receivers │◄────────┤ receivers     │◄────────┤ receivers     │◄───── ... ◄──┤ receivers│
//!  └───────────┘  calm   └───────────────┘  calm   └───────────────┘  calm        └──────────┘
//!
//!  burst: 128 datagrams in a row at more than 30,000/s, counted at the first receiver
//!  calm:  12,500/s or less at the first receiver, as a mean over 1 s
//!  2 ms at least between two changes
//!  count_min: the fewest receivers with room for 1,024 datagrams of 1,000 bytes in their queues
//! ```
//!
//! Few receivers are used while the rate is low, so that each wake-up takes many datagrams. Within
//! a millisecond of the start of a burst there are more. `count_min` is 1 if 2.3 MB of queue per
//! receiver are granted, and 2 for half of it. With several sockets for each receiver (`many.rs`)
//! the room is that of all its queues, less four standard deviations of the random spread
//! (`room.rs`).
//!
//! The sockets of the first receiver are the first ones of the group, then those of the second one
//! follow. So n receivers with K sockets each are the first n x K sockets.

use super::program::Program;
use super::room::Room;
use crate::base::clock::Clock;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The receivers in use have room in their queues for this many datagrams of 1,000 bytes, less four
/// standard deviations of the random spread if they have several sockets. A burst after a silence
/// then arrives without a loss even if no receiver runs meanwhile.
///
/// With one queue of 1 MB, one of ten bursts lost 90 of its 1,000 datagrams: the receiver did not
/// run in the 4 ms before the client had sent the last datagram (commit 77eaf08; `perf/README.md`,
/// "What did not help", AMD EPYC).
const BURST_COUNT_MAX: usize = 1_024;

/// Above this rate, in datagrams/s at the first receiver, more receivers are used.
///
/// It is a tenth of the 290,000/s to 340,000/s that one receiver takes flat out
/// (`perf/results/2026-11-25-receive-epyc.md`, AMD EPYC, receiving alone).
const RATE_HIGH: f64 = 30_000.0;

/// Number of datagrams in a row, at more than [`RATE_HIGH`], that make a burst. At 250,000/s they
/// take 0.5 ms.
///
/// Fewer datagrams can come from a client that was held up for some milliseconds and catches up.
/// Without this bound such a client caused the use of a second receiver (commit 3e453b2;
/// `perf/results/2026-11-25-compare/together-summary.md`, AMD EPYC).
const BURST_COUNT: f64 = 128.0;

/// At or below this rate, in datagrams/s at the first receiver, half of the receivers are used.
///
/// Each of the remaining receivers then gets 25,000/s at most, which is below [`RATE_HIGH`]. Shares
/// are random: with 20,000/s in all, each of two receivers gets a little more or less than
/// 10,000/s. This bound has to be higher than either share (commit 3e453b2).
const RATE_LOW: f64 = 12_500.0;

/// Time over which the rate has to be low on average before fewer receivers are used.
///
/// It is a mean because a client that catches up is fast for a short time now and then. When every
/// single rate had to be low, a client of this kind at 4,000/s kept a second receiver in use, and
/// 1,298 wake-ups/s (commit dc79a9a; `perf/results/2026-11-25-compare/pauses-summary.md`, AMD
/// EPYC).
const CALM: Duration = Duration::from_secs(1);

/// Time between two changes of the program at least, so that the rate after a change is known
/// before the next one. Chosen, not measured.
const CHANGE_PAUSE: Duration = Duration::from_millis(2);

/// Decides how many receivers are in use. No I/O; the caller passes the time.
#[derive(Debug, Clone)]
struct Decision {
    count_min: usize,
    count_max: usize,
    /// Number of receivers in use now.
    count: usize,
    /// Time of the last change of `count`.
    changed_at: Instant,
    /// Datagrams that the first receiver has got since its rate rose above [`RATE_HIGH`].
    burst_count: f64,
    /// Start of the period for which the mean rate is computed.
    since: Instant,
    /// Number of datagrams that the first receiver has got in this period (`since`).
    datagram_count: f64,
    /// Time of the last call of [`note`](Self::note).
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

    /// Notes the rate of the first receiver, in datagrams/s. Returns the number of receivers to use
    /// if it changes.
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

    fn resume(&mut self, now: Instant) {
        self.noted_at = now;
        self.begin_to_count(now);
    }

    /// Returns whether a period of [`CALM`] has ended with a mean rate of [`RATE_LOW`] or less.
    /// After each period the next one begins.
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

/// Spreads the datagrams of a group over its sockets. It belongs to the first receiver.
#[derive(Debug)]
pub(super) struct Steering {
    decision: Decision,
    program: Arc<Program>,
    /// Number of sockets of each receiver.
    socket_count: usize,
}

impl Steering {
    /// Attaches the program of a group with `receiver_count` receivers and `socket_count` sockets
    /// for each. All sockets have a queue of `queue_bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel does not take the program. The kernel then spreads the
    /// datagrams by a hash of the client's address.
    pub(super) fn start(
        program: Arc<Program>,
        (receiver_count, socket_count): (usize, usize),
        queue_bytes: usize,
    ) -> io::Result<Self> {
        let count_min = count_min(receiver_count, Room::of(socket_count, queue_bytes));
        let decision = Decision::new(count_min, receiver_count, Clock::instant());
        program.attach(count_min * socket_count)?;
        Ok(Self { decision, program, socket_count })
    }

    /// Notes that the first receiver has left its sockets alone up to `now`. This time has no rate.
    pub(super) fn resume(&mut self, now: Instant) {
        self.decision.resume(now);
    }

    /// Changes the program if the rate of the first receiver asks for it.
    pub(super) fn note(&mut self, rate: f64, now: Instant) {
        if let Some(count) = self.decision.note(rate, now) {
            // The kernel took the first program. If it has no memory for the new program, the old
            // program stays in use.
            let _ = self.program.attach(count * self.socket_count);
        }
    }
}

/// Returns the fewest receivers whose queues have room for a burst after a silence.
fn count_min(receiver_count: usize, room: Room) -> usize {
    BURST_COUNT_MAX.div_ceil(room.datagram_count.max(1)).clamp(1, receiver_count)
}

/// Returns how many datagrams of 1,000 bytes the queues hold that are in use after a silence. A
/// burst of so many fits even if no receiver runs in time.
pub fn burst_count(receiver_count: usize, socket_count: usize, queue_bytes: usize) -> usize {
    let used_count = count_min(receiver_count, Room::of(socket_count, queue_bytes));
    Room::of(used_count * socket_count, queue_bytes).datagram_count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(count_min: usize, now: Instant) -> Decision {
        Decision::new(count_min, 16, now)
    }

    #[test]
    fn as_few_receivers_as_have_room_for_a_burst_are_used() {
        let queue = |count| count * super::super::room::QUEUE_BYTES_PER_DATAGRAM;
        for (receiver_count, socket_count, queue_bytes, expected) in [
            (4, 1, queue(1_024), 1),
            (4, 1, queue(1_023), 2),
            (4, 1, queue(184), 4),
            (16, 1, queue(184), 6),
            // One queue of 184 less four standard deviations is 137.
            (4, 7, queue(184), 2),
            (4, 8, queue(184), 1),
            (4, 1, 0, 4),
        ] {
            let room = Room::of(socket_count, queue_bytes);
            assert_eq!(count_min(receiver_count, room), expected, "{socket_count} {queue_bytes}");
        }
    }

    #[test]
    fn time_in_which_the_receiver_left_its_socket_alone_adds_no_receiver() {
        for (resumes, count) in [(true, 1), (false, 2)] {
            let mut now = Instant::now();
            let mut decision = decision(1, now);
            now += Duration::from_millis(500);
            if resumes {
                decision.resume(now);
            }
            now += Duration::from_millis(1);
            decision.note(40_000.0, now);
            assert_eq!(decision.count, count);
        }
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
