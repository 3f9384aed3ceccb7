//! Batches that wait for their first or next attempt.
//!
//! In: finished batches, and those whose attempt failed in a way that passes. Out: the one that is
//! due next, or the oldest one when memory runs short. Waiting batches never block each other:
//! whatever is due goes, in the order in which it became due. Bound: the pool's memory; there is
//! no limit on attempts.

use crate::batch::Batch;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pauses grow from the first to the second, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The longest pause when there is a deadline.
const BACKOFF_MAX_HURRIED: Duration = Duration::from_millis(500);

/// A batch and how often it has failed.
#[derive(Debug)]
pub struct Attempt {
    /// What is to be sent.
    pub batch: Batch,
    /// Failures so far.
    pub failure_count: u32,
    /// Place in the order in which batches were finished.
    age: u64,
}

/// The batches that wait.
#[derive(Debug)]
pub struct Waiting {
    by_due: BTreeMap<(Instant, u64), Attempt>,
    /// The same batches from the oldest on, with when they are due.
    by_age: BTreeMap<u64, Instant>,
    next_age: u64,
    segment_count: usize,
    backoff_max: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            by_due: BTreeMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            segment_count: 0,
            backoff_max: BACKOFF_MAX,
        }
    }
}

impl Waiting {
    /// Adds a finished batch; it is due at once.
    pub fn push(&mut self, batch: Batch, now: Instant) {
        let age = self.next_age;
        self.next_age += 1;
        self.insert(Attempt { batch, failure_count: 0, age }, now);
    }

    /// Puts back a batch that failed; it is due after a pause, or after `pause_min` if that is
    /// longer. Returns the pause.
    pub fn push_failed(
        &mut self,
        mut attempt: Attempt,
        now: Instant,
        pause_min: Duration,
    ) -> Duration {
        let pause = self.backoff(attempt.failure_count).max(pause_min);
        attempt.failure_count += 1;
        self.insert(attempt, now + pause);
        pause
    }

    /// Takes the batch that has been due for longest.
    pub fn pop_due(&mut self, now: Instant) -> Option<Attempt> {
        let entry = self.by_due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let attempt = entry.remove();
        self.by_age.remove(&attempt.age);
        self.segment_count -= attempt.batch.documents.len();
        Some(attempt)
    }

    /// Takes the oldest batch, due or not.
    pub fn pop_oldest(&mut self) -> Option<Batch> {
        let (age, due) = self.by_age.pop_first()?;
        let attempt = self.by_due.remove(&(due, age))?;
        self.segment_count -= attempt.batch.documents.len();
        Some(attempt.batch)
    }

    /// When the next batch is due; `None` while none waits.
    pub fn next_due(&self) -> Option<Instant> {
        self.by_due.first_key_value().map(|(key, _)| key.0)
    }

    /// A jittered pause after so many failures.
    pub fn backoff(&self, failure_count: u32) -> Duration {
        backoff(failure_count, fastrand::f64()).min(self.backoff_max)
    }

    /// Makes every batch due at once, and keeps pauses short from now on.
    pub fn hurry(&mut self, now: Instant) {
        self.backoff_max = BACKOFF_MAX_HURRIED;
        self.make_due(now);
    }

    /// Makes every batch due at once, since whatever held them back is over.
    pub fn make_due(&mut self, now: Instant) {
        for ((_, age), attempt) in std::mem::take(&mut self.by_due) {
            self.by_age.insert(age, now);
            self.by_due.insert((now, age), attempt);
        }
    }

    /// Segments in the batches that wait.
    pub fn segment_count(&self) -> usize {
        self.segment_count
    }

    fn insert(&mut self, attempt: Attempt, due: Instant) {
        self.segment_count += attempt.batch.documents.len();
        self.by_age.insert(attempt.age, due);
        self.by_due.insert((due, attempt.age), attempt);
    }
}

/// Full jitter: anywhere between nothing and the exponential bound, so that daemons which failed
/// together do not come back together. `random` is from 0 to 1.
fn backoff(failure_count: u32, random: f64) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << failure_count.min(16)).min(BACKOFF_MAX);
    bound.mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(name: u8) -> Batch {
        Batch {
            body: vec![],
            body_length_bytes: usize::from(name),
            body_sha256: [name; 32],
            documents: vec![],
            oldest_at: Instant::now(),
        }
    }

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let bounds: Vec<_> = (0..9).map(|count| backoff(count, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn with_a_deadline_pauses_are_short() {
        let mut waiting = Waiting::default();
        waiting.hurry(Instant::now());
        assert!((0..100).all(|_| waiting.backoff(20) <= BACKOFF_MAX_HURRIED));
    }

    #[test]
    fn a_failed_batch_waits_and_does_not_hold_up_fresh_ones() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.push(batch(1), now);
        let failed = waiting.pop_due(now).unwrap();
        let pause = waiting.push_failed(failed, now, Duration::from_secs(2));
        assert_eq!(pause, Duration::from_secs(2));
        waiting.push(batch(2), now);
        assert_eq!(waiting.pop_due(now).unwrap().batch.body_sha256[0], 2);
        assert!(waiting.pop_due(now).is_none());
        assert_eq!(waiting.next_due(), Some(now + pause));
        let again = waiting.pop_due(now + pause).unwrap();
        assert_eq!((again.batch.body_sha256[0], again.failure_count), (1, 1));
    }

    #[test]
    fn the_oldest_gives_way_first_even_when_it_is_not_due() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.push(batch(1), now);
        let failed = waiting.pop_due(now).unwrap();
        waiting.push_failed(failed, now, Duration::from_secs(9));
        waiting.push(batch(2), now);
        assert_eq!(waiting.pop_oldest().unwrap().body_sha256[0], 1);
        assert_eq!(waiting.pop_oldest().unwrap().body_sha256[0], 2);
        assert!(waiting.pop_oldest().is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        PopDue,
        Fail(u64),
        PopOldest,
        Hurry,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push),
            Just(Step::PopDue),
            (0u64..5_000).prop_map(Step::Fail),
            Just(Step::PopOldest),
            Just(Step::Hurry),
            (0u64..5_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn no_batch_is_lost_or_doubled(steps in proptest::collection::vec(step(), 0..100)) {
            let mut waiting = Waiting::default();
            let mut now = Instant::now();
            let mut taken: Vec<Attempt> = Vec::new();
            let mut gone = 0;
            let mut pushed = 0u8;
            for step in steps {
                match step {
                    Step::Push => {
                        waiting.push(batch(pushed), now);
                        pushed += 1;
                    }
                    Step::PopDue => taken.extend(waiting.pop_due(now)),
                    Step::Fail(pause) => if let Some(attempt) = taken.pop() {
                        waiting.push_failed(attempt, now, Duration::from_millis(pause));
                    },
                    Step::PopOldest => gone += usize::from(waiting.pop_oldest().is_some()),
                    Step::Hurry => waiting.hurry(now),
                    Step::Wait(pause) => now += Duration::from_millis(pause),
                }
                prop_assert_eq!(waiting.by_due.len(), waiting.by_age.len());
            }
            waiting.hurry(now);
            let mut names: Vec<_> = std::iter::from_fn(|| waiting.pop_due(now)).chain(taken)
                .map(|attempt| attempt.batch.body_sha256[0]).collect();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len() + gone, usize::from(pushed));
        }
    }
}
