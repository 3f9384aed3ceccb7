//! Decides when segments are taken out of the rings.
//!
//! In: how many segments were taken, and when. Out: the number of segments in a ring at which the
//! receiver wakes the sender, and the time when the sender looks into the rings without being
//! woken. Bound: the age of a batch ([`AGE_MAX`]). Thread: the sender's. No I/O.
//!
//! A wake-up costs more than the work on many segments. Sending several requests together costs
//! less than sending them one at a time: code and tables are in the caches, and one wake-up brings
//! several answers. If more than one batch comes within [`TOGETHER_TIME`], segments therefore wait
//! for this time, so that several batches go together. At lower rates, segments wait until their
//! batch is full or due.

use crate::pipeline::batch::{AGE_MAX, DOCUMENT_COUNT_MAX};
use std::time::{Duration, Instant};

/// Segments linger for this time if at least one batch comes within it.
const TOGETHER_TIME: Duration = Duration::from_millis(100);

/// A receiver wakes the sender when its ring has this many segments: enough for five batches.
const TOGETHER_COUNT: usize = 5 * DOCUMENT_COUNT_MAX;

/// After a pause without segments, a receiver wakes the sender for the first segment. The sender
/// then sets the time when it looks into the rings.
const FIRST_COUNT: usize = 1;

/// Decides from the rate of segments how long the sender lingers.
#[derive(Debug)]
pub(super) struct Linger {
    /// When the sender looks into the rings without being woken; `None` after a pause without
    /// segments.
    look_at: Option<Instant>,
    /// A receiver wakes the sender when its ring has this many segments.
    wake_count: usize,
    /// When segments were last taken, or when the first segment came after a pause.
    since: Instant,
}

impl Linger {
    /// Starts without any segments.
    pub(super) fn new(now: Instant) -> Self {
        Self { look_at: None, wake_count: FIRST_COUNT, since: now }
    }

    /// Returns how many segments a ring must have before its receiver wakes the sender.
    pub(super) fn wake_count(&self) -> usize {
        self.wake_count
    }

    /// Returns when to look into the rings without a wake-up.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.look_at
    }

    /// Returns whether to take segments now. The fullest ring has `waiting_count` segments.
    pub(super) fn is_due(&mut self, waiting_count: usize, now: Instant) -> bool {
        if self.look_at.is_none() && waiting_count > 0 {
            self.since = now;
            self.wait(AGE_MAX, DOCUMENT_COUNT_MAX, now);
        }
        let is_late = self.look_at.is_some_and(|look_at| look_at <= now);
        is_late || (waiting_count > 0 && waiting_count >= self.wake_count)
    }

    /// Notes that the rings are empty, after `segment_count` segments were taken.
    pub(super) fn taken(&mut self, segment_count: usize, now: Instant) {
        let time = now.saturating_duration_since(self.since);
        self.since = now;
        if segment_count == 0 {
            (self.look_at, self.wake_count) = (None, FIRST_COUNT);
        } else if time <= TOGETHER_TIME.mul_f64(segment_count as f64 / DOCUMENT_COUNT_MAX as f64) {
            self.wait(TOGETHER_TIME, TOGETHER_COUNT, now);
        } else {
            self.wait(AGE_MAX, DOCUMENT_COUNT_MAX, now);
        }
    }

    /// Notes that memory has no room for the segments. The end of a call frees memory and wakes the
    /// sender.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.wait(AGE_MAX, DOCUMENT_COUNT_MAX, now);
    }

    fn wait(&mut self, time: Duration, wake_count: usize, now: Instant) {
        (self.look_at, self.wake_count) = (Some(now + time), wake_count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates `rate` segments a second, until the sender has taken segments 20 times. Returns
    /// for each time how many segments were taken, and how long the first of these had waited.
    fn takes(rate: f64, linger: &mut Linger, now: &mut Instant) -> Vec<(usize, Duration)> {
        let (mut waiting_count, mut first_at, mut takes) = (0, *now, Vec::new());
        while takes.len() < 20 {
            let next_at = *now + Duration::from_secs_f64(1.0 / rate);
            let look_at = linger.next_due().filter(|look_at| *look_at < next_at);
            *now = look_at.unwrap_or(next_at);
            if look_at.is_none() {
                first_at = if waiting_count == 0 { *now } else { first_at };
                waiting_count += 1;
                // A receiver does not wake the sender for fewer segments.
                if waiting_count != linger.wake_count() {
                    continue;
                }
            }
            if linger.is_due(waiting_count, *now) {
                linger.taken(waiting_count, *now);
                takes.push((waiting_count, *now - first_at));
                waiting_count = 0;
            }
        }
        takes
    }

    #[test]
    fn what_waits_for_others_waits_for_few_and_not_for_long() {
        let (mut now, seconds) = (Instant::now(), Duration::from_secs_f64);
        for (rate, count, wait) in [
            (10.0, 10, 1.0),
            (100.0, 50, 0.5),
            (1_000.0, 100, 0.1),
            (2_000.0, 200, 0.1),
            (20_000.0, 250, 0.0125),
        ] {
            let takes = takes(rate, &mut Linger::new(now), &mut now);
            for (taken_count, waited) in &takes[2..] {
                assert!(taken_count.abs_diff(count) <= 1, "{rate}/s: {takes:?}");
                assert!(*waited <= seconds(wait + 0.001), "{rate}/s: {takes:?}");
            }
        }
    }

    #[test]
    fn the_first_of_a_burst_go_as_soon_as_there_is_a_batch() {
        let mut now = Instant::now();
        let takes = takes(100_000.0, &mut Linger::new(now), &mut now);
        assert_eq!((takes[0].0, takes[1].0), (DOCUMENT_COUNT_MAX, TOGETHER_COUNT));
    }

    #[test]
    fn after_a_look_at_nothing_there_is_no_clock_until_something_comes() {
        let mut now = Instant::now();
        let mut linger = Linger::new(now);
        takes(5_000.0, &mut linger, &mut now);
        now = linger.next_due().expect("a clock");
        assert!(linger.is_due(0, now));
        linger.taken(0, now);
        assert_eq!((linger.next_due(), linger.wake_count()), (None, 1));
        assert!(!linger.is_due(0, now));
        assert!(!linger.is_due(1, now));
        assert_eq!(linger.next_due(), Some(now + AGE_MAX));
    }

    #[test]
    fn without_room_the_clock_is_set_on_and_does_not_stand_still() {
        let now = Instant::now();
        let mut linger = Linger::new(now);
        assert!(linger.is_due(1_000, now));
        linger.put_off(now);
        assert_eq!(linger.next_due(), Some(now + AGE_MAX));
    }
}
