//! Decides how long a receiver sleeps, so that one wake-up takes many datagrams.
//!
//! In: how many datagrams each read of the socket took, and when. Out: how long to sleep once the
//! queue is empty; the receiver's rate. Bound: no pause is longer than [`pause_max`]. Thread: the
//! receiver's. No I/O.
//!
//! ```text
//!                 expected >= 12 and rate <= 500,000/s
//!        ┌──────────────────────────────────────────────────────┐
//!        │                                                      ▼
//!  ┌─────┴──────────┐                                   ┌────────────────┐
//!  │ awake          │ expected < 6, or rate > 500,000/s │ pausing        │
//!  │ sleeps until a │◄──────────────────────────────────┤ sleeps 256/rate│
//!  │ datagram comes │ or a pause collected nothing      │ or pause_max   │
//!  └──┬─────────────┘                                   └───────┬────────┘
//!     │      ▲                                                  │
//!     │      │ 1 s after the last of these events               │
//!     │  ┌───┴──────────┐                                       │
//!     └─►│ suspended    │◄──────────────────────────────────────┘
//!        │ like awake   │ the kernel dropped a datagram, or
//!        └──────────────┘ more than half a queue was waiting
//!
//!  rate: datagrams/s in the last window
//!  expected: rate × pause_max, in datagrams
//!  a pause lasts 256/rate or pause_max, whichever is shorter
//! ```
//!
//! A wake-up costs more than a system call, and a wake-up by a timer up to eight times as much as a
//! wake-up by a datagram (see [`COLLECT_MIN`]). So a receiver pauses only if a pause collects many
//! datagrams. If a burst begins during a pause, its datagrams must fit into the socket's queue.
//! [`pause_max`] is therefore the time in which a burst fills half of the queue, or of all queues
//! of a receiver with several sockets (`room.rs`). A queue of 32 MB allows a pause of 14.6 ms. The
//! queue of 416 KiB that an unprivileged process gets allows 0.18 ms. A pause of 0.18 ms collects
//! enough datagrams only at 65,000/s or more.
//!
//! A pause can still be too long, if a busy machine wakes the thread late. The receiver would then
//! lose datagrams, see a low rate, and pause again. The suspended state prevents this.

use super::room::Room;
use std::time::{Duration, Instant};

/// A receiver begins to pause only if a pause is expected to collect this many datagrams or more.
///
/// A wake-up by a timer cost 20 us on the AMD EPYC of perf/results, where a wake-up by a datagram
/// cost 10 to 14 us. On the slowest machine tried it was 85 us against 11 us (commit dc79a9a), so
/// that a pause pays from 8 datagrams on. With 12 instead of 32 the daemon takes 8.3 us of CPU time
/// a segment at 1,000/s instead of 11.1 us (commit dc79a9a;
/// `perf/results/2026-11-25-compare/pauses-summary.md`, AMD EPYC, uring).
const COLLECT_MIN: f64 = 12.0;

/// A receiver that pauses goes on pausing only if a pause is expected to collect this many
/// datagrams or more.
///
/// Half of [`COLLECT_MIN`], so that a rate near the bound does not switch back and forth. With a
/// single bound a receiver at 1,000/s woke 219 times a second instead of 73 times (strace, commit
/// 3e453b2; `perf/results/2026-11-25-compare/together-summary.md`, AMD EPYC).
const COLLECT_MIN_ONCE_PAUSED: f64 = 6.0;

/// The largest number of datagrams that a pause collects.
///
/// More datagrams would save nothing: with 256 datagrams a wake-up of 20 us is 0.08 us a datagram,
/// of the 2.6 us that a segment costs in all at 20,000/s. Three quarters fewer wake-ups at 20,000/s
/// saved no CPU time (`perf/README.md`, "Results" and "What did not help", AMD EPYC).
const COLLECT_MAX: f64 = 256.0;

/// Rate of the fastest burst that a pause must not lose, in datagrams/s.
///
/// One client sends up to 600,000/s over the loopback interface. With pauses bounded for 250,000/s,
/// 9, 7, 6 and 9 of ten bursts of 20,000 datagrams arrived without a loss (uring, four settings);
/// with pauses bounded for 500,000/s all ten did (`perf/results/2026-11-25-receive.md`, Intel Xeon,
/// queue of 4 MB).
const BURST_RATE: f64 = 500_000.0;

/// Longest pause with a queue of any size. Chosen, not measured: a pause delays a segment by this
/// time at most, and a receiver with such pauses wakes 50 times a second.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The rate is counted in windows of this many datagrams, or of [`WINDOW`], whichever ends first.
/// Chosen, not measured: at 250,000/s a window takes 0.13 ms, so that a burst is seen at once.
const WINDOW_DATAGRAMS: u64 = 32;

/// Longest window while each drain comes to its end. Chosen, not measured: equal to [`PAUSE_MAX`].
const WINDOW: Duration = Duration::from_millis(20);

/// Window during a drain that does not end, because datagrams arrive as fast as they are taken.
/// Chosen, not measured.
const DRAIN_WINDOW: Duration = Duration::from_millis(5);

/// Time without pauses after a pause that was too long, or after the kernel dropped datagrams.
///
/// In two runs at full rate, while a compiler ran on the same processors, receivers lost 200,000
/// datagrams without this state, and 7,000 to 15,000 with it (`perf/results/2026-11-25-receive.md`,
/// "What lost", Intel Xeon).
const SUSPENDED_TIME: Duration = Duration::from_secs(1);

/// Returns the longest pause that the queues of a receiver allow.
pub(super) fn pause_max(room: Room) -> Duration {
    Duration::from_secs_f64(room.half() as f64 / BURST_RATE).min(PAUSE_MAX)
}

/// Measures the rate of one receiver and decides about its pauses.
#[derive(Debug)]
pub(super) struct Coalescing {
    pause_max: Duration,
    /// Start of the window in which the rate is counted.
    window_start: Instant,
    /// Number of datagrams since the start of the window.
    window_count: u64,
    /// Start of the drain under way, or of its current window; `None` between drains.
    draining_since: Option<Instant>,
    /// Datagrams/s in the last window.
    rate: f64,
    /// Whether the receiver is in the state "pausing".
    paused: bool,
    /// Datagrams taken since the queue was last empty.
    gathered_count: usize,
    /// Number of datagrams that fill half of the queues. If more were taken, the last pause was too
    /// long.
    gathered_count_max: usize,
    /// Number of datagrams that fill all queues.
    queue_count: usize,
    /// End of the state "suspended"; `None` before its first start.
    suspended_until: Option<Instant>,
    /// Number of datagrams that are still left out, because they may have gathered while the
    /// receiver left its sockets alone.
    skip_count: usize,
}

impl Coalescing {
    /// Creates the state for a receiver. `room` is that of the queues of its sockets.
    pub(super) fn new(room: Room, now: Instant) -> Self {
        Self {
            pause_max: pause_max(room),
            window_start: now,
            window_count: 0,
            draining_since: None,
            rate: 0.0,
            paused: false,
            gathered_count: 0,
            gathered_count_max: room.half(),
            queue_count: room.sum_count,
            suspended_until: None,
            skip_count: 0,
        }
    }

    /// Forbids pauses during the next [`SUSPENDED_TIME`], because the kernel has dropped datagrams.
    pub(super) fn suspend(&mut self, now: Instant) {
        self.suspended_until = Some(now + SUSPENDED_TIME);
    }

    /// Notes that the receiver has left its sockets alone up to `now`. This time and the datagrams
    /// that gathered in it say nothing about the rate, nor about the pauses: they are left out
    /// until the queues are empty, or until as many were taken as they hold.
    pub(super) fn resume(&mut self, now: Instant) {
        self.skip_count = self.queue_count + 1;
        self.begin_window(now);
        self.gathered_count = 0;
    }

    /// Returns whether datagrams are still left out.
    pub(super) fn is_resuming(&self) -> bool {
        self.skip_count > 0
    }

    fn begin_window(&mut self, now: Instant) {
        self.draining_since = None;
        self.window_count = 0;
        self.window_start = now;
    }

    /// Notes how many datagrams a read of the socket took, and whether more may wait. Returns the
    /// new rate in datagrams/s if a window has ended.
    ///
    /// A window ends only when a drain ends. The first read after a pause alone would show too low
    /// a rate. The reads after it alone would show the speed of the drain, which looks like a
    /// burst. A drain that lasts longer than [`DRAIN_WINDOW`] has windows too.
    pub(super) fn note(&mut self, datagram_count: usize, more: bool, now: Instant) -> Option<f64> {
        if self.is_resuming() {
            self.skip_count = if more { self.skip_count.saturating_sub(datagram_count) } else { 0 };
            self.begin_window(now);
            return None;
        }
        self.window_count += datagram_count as u64;
        self.gathered_count += datagram_count;
        let elapsed = now.saturating_duration_since(self.window_start);
        // A pause that collected nothing means that the burst is over.
        let ended = self.paused && self.gathered_count == 0 && !more;
        let is_over = match more {
            true => {
                let since = *self.draining_since.get_or_insert(now);
                now.saturating_duration_since(since) >= DRAIN_WINDOW
            }
            false => self.window_count >= WINDOW_DATAGRAMS || elapsed >= WINDOW || ended,
        };
        if is_over || !more {
            self.draining_since = None;
        }
        if !is_over {
            return None;
        }
        self.rate = if ended { 0.0 } else { self.window_count as f64 / elapsed.as_secs_f64() };
        self.window_count = 0;
        self.window_start = now;
        Some(self.rate)
    }

    /// Returns how long to sleep when the queue is empty; `None` to sleep until the next datagram.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        if std::mem::take(&mut self.gathered_count) > self.gathered_count_max {
            self.suspend(now);
        }
        let collect_min = if self.paused { COLLECT_MIN_ONCE_PAUSED } else { COLLECT_MIN };
        let is_worth_it = self.rate * self.pause_max.as_secs_f64() >= collect_min;
        let is_suspended = self.suspended_until.is_some_and(|until| now < until);
        // Above BURST_RATE a pause could overflow the queue.
        self.paused = is_worth_it && self.rate <= BURST_RATE && !is_suspended;
        self.paused.then(|| Duration::from_secs_f64(COLLECT_MAX / self.rate).min(self.pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::QUEUE_BYTES_PER_DATAGRAM;
    use super::*;
    use proptest::prelude::*;

    /// Returns the room of one queue.
    fn one(queue_bytes: usize) -> Room {
        Room::of(1, queue_bytes)
    }

    /// Sizes of queues in bytes as the kernel grants them: twice the number that was asked for.
    const UNPRIVILEGED: usize = 2 * 212_992;
    const LARGE: usize = 64 << 20;

    /// Returns the pause that a receiver takes at a steady rate.
    fn pause_at(rate: f64, queue_bytes: usize) -> Option<Duration> {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(queue_bytes), now);
        let mut pause = None;
        for _ in 0..200 {
            now += Duration::from_secs_f64(1.0 / rate);
            coalescing.note(1, false, now);
            pause = coalescing.pause(now);
        }
        pause
    }

    #[test]
    fn a_pause_never_lets_a_burst_fill_more_than_half_of_the_queue() {
        for queue_bytes in [0, 4_096, UNPRIVILEGED, 1 << 20, 8 << 20, LARGE, 1 << 30] {
            let arriving = pause_max(one(queue_bytes)).as_secs_f64() * BURST_RATE;
            let bytes = arriving * QUEUE_BYTES_PER_DATAGRAM as f64;
            assert!(bytes <= queue_bytes as f64 / 2.0 + 1.0, "{queue_bytes}: {bytes}");
        }
    }

    #[test]
    fn many_small_queues_allow_the_pauses_of_a_large_one() {
        let many = |socket_count| pause_max(Room::of(socket_count, UNPRIVILEGED));
        assert_eq!(many(1).as_micros(), 184);
        assert_eq!(many(79).as_micros(), 14_536);
        assert_eq!(many(200), PAUSE_MAX);
    }

    #[test]
    fn only_a_rate_that_makes_a_pause_worth_it_is_paused_for() {
        assert_eq!(pause_at(500.0, LARGE), None);
        assert_eq!(pause_at(1_000.0, LARGE), Some(PAUSE_MAX));
        assert_eq!(pause_at(20_000.0, UNPRIVILEGED), None);
        let pause = pause_at(20_000.0, LARGE).expect("400 come in 20 ms");
        assert!((11..=14).contains(&pause.as_millis()), "{pause:?}");
        let pause = pause_at(240_000.0, LARGE).expect("256 come in a millisecond");
        assert!(pause < Duration::from_micros(1_100), "{pause:?}");
        assert_eq!(pause_at(600_000.0, LARGE), None);
    }

    #[test]
    fn a_rate_that_pauses_were_worth_goes_on_to_be_paused_for_at_half_of_it() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        let mut paused_count = 0;
        for count_in_pause in [20, 20, 11, 8, 11, 20, 7, 9, 5, 5, 5] {
            now += PAUSE_MAX;
            coalescing.note(count_in_pause, false, now);
            paused_count += usize::from(coalescing.pause(now).is_some());
        }
        assert_eq!(paused_count, 8);
    }

    #[test]
    fn a_drain_counts_as_a_whole_however_many_looks_it_takes() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        // At 100,000/s 256 datagrams arrive in 2.56 ms. The receiver takes them in eight reads of 1
        // us.
        for _ in 0..20 {
            now += Duration::from_micros(2_550);
            for look in 0..8 {
                now += Duration::from_micros(1);
                coalescing.note(32, look < 7, now);
            }
            let pause = coalescing.pause(now).expect("it is worth it");
            assert!((2_400..2_700).contains(&pause.as_micros()), "{pause:?}");
        }
    }

    #[test]
    fn a_late_look_at_a_part_of_what_has_gathered_is_no_burst() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        let mut rates = Vec::new();
        for _ in 0..20 {
            // The receiver is woken late: at 20,000/s 500 datagrams have arrived.
            now += Duration::from_millis(25);
            for look in 0..16 {
                now += Duration::from_micros(30);
                rates.extend(coalescing.note(if look < 15 { 32 } else { 20 }, look < 15, now));
            }
            let _ = coalescing.pause(now);
        }
        assert!(rates.len() == 20, "{rates:?}");
        assert!(rates.iter().all(|rate| (18_000.0..21_000.0).contains(rate)), "{rates:?}");
    }

    #[test]
    fn a_drain_that_does_not_end_shows_its_rate_all_the_same() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        let mut rate = None;
        for _ in 0..1_000 {
            now += Duration::from_micros(32);
            rate = coalescing.note(32, true, now).or(rate);
        }
        let rate = rate.expect("there was time for a window");
        assert!((900_000.0..1_100_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn the_pauses_end_with_the_burst() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        now += Duration::from_millis(1);
        coalescing.note(200, false, now);
        assert!(coalescing.pause(now).is_some());
        now += Duration::from_millis(1);
        assert_eq!(coalescing.note(0, false, now), Some(0.0));
        assert_eq!(coalescing.pause(now), None);
    }

    #[test]
    fn after_a_pause_that_was_too_long_or_a_drop_there_is_none_for_a_second() {
        let half = one(LARGE).half();
        for (gathered_count, dropped, paused) in
            [(half, false, true), (half + 1, false, false), (100, true, false)]
        {
            let mut now = Instant::now();
            let mut coalescing = Coalescing::new(one(LARGE), now);
            now += Duration::from_millis(100);
            coalescing.note(gathered_count, false, now);
            if dropped {
                coalescing.suspend(now);
            }
            assert_eq!(coalescing.pause(now).is_some(), paused, "{gathered_count} {dropped}");
            now += Duration::from_millis(999);
            coalescing.note(50_000, false, now);
            let _ = coalescing.pause(now);
            now += Duration::from_millis(1_100);
            coalescing.note(50_000, false, now);
            coalescing.gathered_count = 0;
            assert!(coalescing.pause(now).is_some());
        }
    }

    #[test]
    fn what_gathers_while_the_receiver_leaves_its_socket_alone_changes_no_pause_and_no_rate() {
        let queue_count = one(LARGE).sum_count;
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(one(LARGE), now);
        for _ in 0..10 {
            now += Duration::from_millis(10);
            coalescing.note(200, false, now);
            let _ = coalescing.pause(now);
        }
        let (rate, pause) = (coalescing.rate, coalescing.pause(now));
        assert!(pause.is_some());
        now += Duration::from_secs(3);
        coalescing.resume(now);
        // A whole queue is taken as fast as it can be.
        for _ in 0..queue_count / 64 {
            now += Duration::from_micros(60);
            assert_eq!(coalescing.note(64, true, now), None);
            assert!(coalescing.is_resuming());
        }
        assert_eq!(coalescing.note(20, false, now), None);
        assert!(!coalescing.is_resuming());
        assert_eq!((coalescing.rate, coalescing.pause(now)), (rate, pause));
        // In an overload that goes on the queue is never empty. After a whole queue the rate
        // counts.
        coalescing.resume(now);
        let mut count = 0;
        while coalescing.note(64, true, now).is_none() {
            now += Duration::from_micros(60);
            count += 64;
            assert!(count < 2 * queue_count, "{count}");
        }
        assert!(count > queue_count, "{count} of {queue_count}");
    }

    #[test]
    fn the_silence_before_a_burst_is_no_part_of_its_rate_for_long() {
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut coalescing = Coalescing::new(one(LARGE), now - Duration::from_secs(10));
        coalescing.note(32, false, now);
        assert_eq!(coalescing.pause(now), None);
        now += Duration::from_micros(160);
        coalescing.note(32, false, now);
        assert!(coalescing.pause(now).is_some());
    }

    proptest! {
        #[test]
        fn no_history_makes_a_pause_longer_than_allowed(
            drains in proptest::collection::vec((0usize..500, 0u64..30_000), 1..100),
            queue_bytes in 0usize..(64 << 20),
        ) {
            let mut now = Instant::now();
            let mut coalescing = Coalescing::new(one(queue_bytes), now);
            for (count, microseconds) in drains {
                now += Duration::from_micros(microseconds);
                coalescing.note(count, false, now);
                if let Some(pause) = coalescing.pause(now) {
                    prop_assert!(pause <= pause_max(one(queue_bytes)));
                }
            }
        }
    }
}
