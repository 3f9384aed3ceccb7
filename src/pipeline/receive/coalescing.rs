//! When a receiver waits longer than for the next datagram.
//!
//! In: what each drain took, and when. Out: how long to sleep before the next look. Pure code.
//!
//! It is the wake-up that costs, not the system call, and one by a timer costs up to eight times
//! one by a datagram (85 us on one machine, 20 on another; perf/results has the measurements). So a
//! pause is worth it when it collects [`COLLECT_MIN`] datagrams or more, and never longer than what
//! collects [`COLLECT_MAX`], beyond which nothing is saved. Against it stands the burst: what
//! arrives during a pause has only the socket's queue. So no pause is longer than [`pause_max`]: a
//! burst that begins within it fills half of the queue at most. A large queue buys long pauses, an
//! unprivileged one almost none.
//!
//! A pause can be too long all the same, where the thread is not woken in time on a busy machine:
//! when more than half of a queue has gathered, or the kernel has dropped, there are none for
//! [`HOLD`]. Without this a receiver that loses would see a low rate and go on to pause.

use std::time::{Duration, Instant};

/// Fewer datagrams are not worth a timer's wake-up everywhere.
const COLLECT_MIN: f64 = 12.0;

/// Pauses end when they collect fewer than this: a rate near the bound would else go to and fro,
/// with a wake-up for each datagram of every other window.
const COLLECT_MIN_ONCE_PAUSED: f64 = 6.0;

/// To collect more saves nothing: a timer's wake-up costs a hundredth of so many datagrams.
const COLLECT_MAX: f64 = 256.0;

/// The rate of the burst that a pause must not lose, in datagrams a second: twice the 250,000 that
/// are promised, since one sender on the loopback interface reaches 600,000, and lost a few hundred
/// of 20,000 to a pause that 250,000 allows.
const BURST_RATE: f64 = 500_000.0;

/// What the kernel charges to a queue for a datagram of 1,000 bytes, its own structures included.
pub(super) const QUEUE_BYTES_PER_DATAGRAM: usize = 2304;

/// No pause is longer, however large the queue is.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The rate is counted over so many datagrams, or over this time, whichever comes first.
const WINDOW_DATAGRAMS: u64 = 32;
const WINDOW: Duration = Duration::from_millis(20);

/// A drain that goes on for longer has windows of its own.
const DRAIN_WINDOW: Duration = Duration::from_millis(5);

/// How long a receiver does without pauses after one that was too long.
const HOLD: Duration = Duration::from_secs(1);

/// Datagrams that fill half of a queue.
pub(super) fn half_full(queue_bytes: usize) -> usize {
    queue_bytes / QUEUE_BYTES_PER_DATAGRAM / 2
}

/// The longest pause that a queue of this many bytes allows.
pub(super) fn pause_max(queue_bytes: usize) -> Duration {
    Duration::from_secs_f64(half_full(queue_bytes) as f64 / BURST_RATE).min(PAUSE_MAX)
}

/// Follows the rate of one receiver.
#[derive(Debug)]
pub(super) struct Coalescing {
    pause_max: Duration,
    window_start: Instant,
    window_count: u64,
    /// Since when the drain under way, or its last window, goes on.
    draining_since: Option<Instant>,
    /// Datagrams a second in the last window.
    rate: f64,
    paused: bool,
    /// Datagrams since the queue was empty.
    gathered_count: usize,
    gathered_count_max: usize,
    held_until: Option<Instant>,
}

impl Coalescing {
    /// The pace of a receiver whose socket has a queue of so many bytes.
    pub(super) fn new(queue_bytes: usize, now: Instant) -> Self {
        Self {
            pause_max: pause_max(queue_bytes),
            window_start: now,
            window_count: 0,
            draining_since: None,
            rate: 0.0,
            paused: false,
            gathered_count: 0,
            gathered_count_max: half_full(queue_bytes),
            held_until: None,
        }
    }

    /// Does without pauses for a while: the kernel has dropped datagrams.
    pub(super) fn hold(&mut self, now: Instant) {
        self.held_until = Some(now + HOLD);
    }

    /// Notes what a look took, and whether more may wait; returns the new rate, in datagrams a
    /// second, when one is known.
    ///
    /// A window ends with a whole drain: the first look after a pause alone would show too low a
    /// rate, and those behind it the speed of the drain, which looks like a burst. A drain that
    /// does not end has windows too.
    pub(super) fn note(&mut self, datagram_count: usize, more: bool, now: Instant) -> Option<f64> {
        self.window_count += datagram_count as u64;
        self.gathered_count += datagram_count;
        let elapsed = now.saturating_duration_since(self.window_start);
        // A pause that collected nothing is the end of a burst.
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

    /// How long to sleep now that the queue is empty; `None`: until the next datagram.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        if std::mem::take(&mut self.gathered_count) > self.gathered_count_max {
            self.hold(now);
        }
        let collect_min = if self.paused { COLLECT_MIN_ONCE_PAUSED } else { COLLECT_MIN };
        let is_worth_it = self.rate * self.pause_max.as_secs_f64() >= collect_min;
        // Beyond the rate that the queue is made for there is no time to lose.
        let is_held = self.held_until.is_some_and(|until| now < until);
        self.paused = is_worth_it && self.rate <= BURST_RATE && !is_held;
        self.paused.then(|| Duration::from_secs_f64(COLLECT_MAX / self.rate).min(self.pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Queues as the kernel says them: twice what was asked for.
    const UNPRIVILEGED: usize = 2 * 212_992;
    const LARGE: usize = 64 << 20;

    /// The pause that a receiver takes at a steady rate.
    fn pause_at(rate: f64, queue_bytes: usize) -> Option<Duration> {
        let mut now = Instant::now();
        let mut pace = Coalescing::new(queue_bytes, now);
        let mut pause = None;
        for _ in 0..200 {
            now += Duration::from_secs_f64(1.0 / rate);
            pace.note(1, false, now);
            pause = pace.pause(now);
        }
        pause
    }

    #[test]
    fn a_pause_never_lets_a_burst_fill_more_than_half_of_the_queue() {
        for queue_bytes in [0, 4_096, UNPRIVILEGED, 1 << 20, 8 << 20, LARGE, 1 << 30] {
            let arriving = pause_max(queue_bytes).as_secs_f64() * BURST_RATE;
            let bytes = arriving * QUEUE_BYTES_PER_DATAGRAM as f64;
            assert!(bytes <= queue_bytes as f64 / 2.0 + 1.0, "{queue_bytes}: {bytes}");
        }
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
        let mut pace = Coalescing::new(LARGE, now);
        let mut paused_count = 0;
        for count_in_pause in [20, 20, 11, 8, 11, 20, 7, 9, 5, 5, 5] {
            now += PAUSE_MAX;
            pace.note(count_in_pause, false, now);
            paused_count += usize::from(pace.pause(now).is_some());
        }
        assert_eq!(paused_count, 8);
    }

    #[test]
    fn a_drain_counts_as_a_whole_however_many_looks_it_takes() {
        let mut now = Instant::now();
        let mut pace = Coalescing::new(LARGE, now);
        // 256 gather in 2.56 ms at 100,000 a second; each look at them takes no time to speak of.
        for _ in 0..20 {
            now += Duration::from_micros(2_550);
            for look in 0..8 {
                now += Duration::from_micros(1);
                pace.note(32, look < 7, now);
            }
            let pause = pace.pause(now).expect("it is worth it");
            assert!((2_400..2_700).contains(&pause.as_micros()), "{pause:?}");
        }
    }

    #[test]
    fn a_late_look_at_a_part_of_what_has_gathered_is_no_burst() {
        let mut now = Instant::now();
        let mut pace = Coalescing::new(LARGE, now);
        let mut rates = Vec::new();
        for _ in 0..20 {
            // Woken late: 500 have gathered at 20,000 a second.
            now += Duration::from_millis(25);
            for look in 0..16 {
                now += Duration::from_micros(30);
                rates.extend(pace.note(if look < 15 { 32 } else { 20 }, look < 15, now));
            }
            let _ = pace.pause(now);
        }
        assert!(rates.len() == 20, "{rates:?}");
        assert!(rates.iter().all(|rate| (18_000.0..21_000.0).contains(rate)), "{rates:?}");
    }

    #[test]
    fn a_drain_that_does_not_end_shows_its_rate_all_the_same() {
        let mut now = Instant::now();
        let mut pace = Coalescing::new(LARGE, now);
        let mut rate = None;
        for _ in 0..1_000 {
            now += Duration::from_micros(32);
            rate = pace.note(32, true, now).or(rate);
        }
        let rate = rate.expect("there was time for a window");
        assert!((900_000.0..1_100_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn the_pauses_end_with_the_burst() {
        let mut now = Instant::now();
        let mut pace = Coalescing::new(LARGE, now);
        now += Duration::from_millis(1);
        pace.note(200, false, now);
        assert!(pace.pause(now).is_some());
        now += Duration::from_millis(1);
        assert_eq!(pace.note(0, false, now), Some(0.0));
        assert_eq!(pace.pause(now), None);
    }

    #[test]
    fn after_a_pause_that_was_too_long_or_a_drop_there_is_none_for_a_second() {
        let half = half_full(LARGE);
        for (gathered_count, dropped, paused) in
            [(half, false, true), (half + 1, false, false), (100, true, false)]
        {
            let mut now = Instant::now();
            let mut pace = Coalescing::new(LARGE, now);
            now += Duration::from_millis(100);
            pace.note(gathered_count, false, now);
            if dropped {
                pace.hold(now);
            }
            assert_eq!(pace.pause(now).is_some(), paused, "{gathered_count} {dropped}");
            now += Duration::from_millis(999);
            pace.note(50_000, false, now);
            let _ = pace.pause(now);
            now += Duration::from_millis(1_100);
            pace.note(50_000, false, now);
            pace.gathered_count = 0;
            assert!(pace.pause(now).is_some());
        }
    }

    #[test]
    fn the_silence_before_a_burst_is_no_part_of_its_rate_for_long() {
        let mut now = Instant::now() + Duration::from_secs(10);
        let mut pace = Coalescing::new(LARGE, now - Duration::from_secs(10));
        pace.note(32, false, now);
        assert_eq!(pace.pause(now), None);
        now += Duration::from_micros(160);
        pace.note(32, false, now);
        assert!(pace.pause(now).is_some());
    }

    proptest! {
        #[test]
        fn no_history_makes_a_pause_longer_than_allowed(
            drains in proptest::collection::vec((0usize..500, 0u64..30_000), 1..100),
            queue_bytes in 0usize..(64 << 20),
        ) {
            let mut now = Instant::now();
            let mut pace = Coalescing::new(queue_bytes, now);
            for (count, microseconds) in drains {
                now += Duration::from_micros(microseconds);
                pace.note(count, false, now);
                if let Some(pause) = pace.pause(now) {
                    prop_assert!(pause <= pause_max(queue_bytes));
                }
            }
        }
    }
}
