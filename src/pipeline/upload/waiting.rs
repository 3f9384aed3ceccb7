//! Batches that wait for their first or next attempt.
//!
//! In: finished batches, and those whose attempt failed. Out: one that is due, or the oldest one
//! when memory runs short. Of those that are due the newest and the oldest go in turn: what an
//! outage has left does not hold up what comes fresh, nor the other way round. Bound: the pool's
//! memory. Attempts are limited only where another server answers (`settle`).

use super::bisect::Suspicion;
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::RecordId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pauses grow from the first to the second, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The longest pause when there is a deadline.
const BACKOFF_MAX_HURRIED: Duration = Duration::from_millis(500);

/// Numbers below are for batches out of the spool, which are older than any other.
const FIRST_NUMBER: u64 = 1 << 63;

/// Place in the order in which batches were finished; the second is for parts of one batch.
pub type Age = (u64, usize);

/// A batch and what became of it so far.
#[derive(Debug)]
pub struct Attempt {
    /// What is to be sent.
    pub batch: Batch,
    /// Failures so far.
    pub failure_count: u32,
    /// Answers so far that were not the service's, those to a batch that it is a part of too.
    pub not_x_ray_count: u32,
    /// The doubt about its documents, if there is one.
    pub suspicion: Option<Suspicion>,
    /// Where it lies in the spool; all parts of a batch share it.
    pub record: Option<Arc<RecordId>>,
    /// Whether it has only some of the documents that were in the batch at first.
    pub is_part: bool,
    age: Age,
}

impl Attempt {
    /// Whether all of it lies in the spool, and nothing else needs what lies there.
    pub fn is_in_spool(&self) -> bool {
        !self.is_part && self.record.as_ref().is_some_and(|record| Arc::strong_count(record) == 1)
    }

    /// Memory that it takes up: of a part its own bytes, since it shares chunks with other parts.
    pub fn memory_bytes(&self) -> usize {
        if self.is_part { self.batch.body_length_bytes } else { self.batch.memory_bytes() }
    }

    /// The same for some of its documents; `first` is the place of the first one in it.
    pub fn part(&self, batch: Batch, first: usize) -> Self {
        let age = (self.age.0, self.age.1 + first);
        Self {
            batch,
            failure_count: 0,
            not_x_ray_count: self.not_x_ray_count,
            suspicion: None,
            record: self.record.clone(),
            is_part: true,
            age,
        }
    }
}

/// The batches that wait.
#[derive(Debug)]
pub struct Waiting {
    due: BTreeMap<Age, Attempt>,
    later: BTreeMap<(Instant, Age), Attempt>,
    /// The ones in `later` from the oldest on, with when they are due.
    later_by_age: BTreeMap<Age, Instant>,
    next_number: u64,
    next_spooled_number: u64,
    oldest_is_next: bool,
    backoff_max: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            later: BTreeMap::new(),
            later_by_age: BTreeMap::new(),
            next_number: FIRST_NUMBER,
            next_spooled_number: 0,
            oldest_is_next: true,
            backoff_max: BACKOFF_MAX,
        }
    }
}

impl Waiting {
    /// Adds a finished batch, or one out of the spool; it is due at once.
    pub fn push(&mut self, batch: Batch, record: Option<RecordId>) {
        let next_number = match record {
            None => &mut self.next_number,
            Some(_) => &mut self.next_spooled_number,
        };
        let age = (*next_number, 0);
        *next_number += 1;
        let attempt = Attempt {
            batch,
            failure_count: 0,
            not_x_ray_count: 0,
            suspicion: None,
            record: record.map(Arc::new),
            is_part: false,
            age,
        };
        self.due.insert(age, attempt);
    }

    /// Adds an attempt that is due at once.
    pub fn push_due(&mut self, attempt: Attempt) {
        self.due.insert(attempt.age, attempt);
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
        attempt.failure_count = attempt.failure_count.saturating_add(1);
        let age = attempt.age;
        self.later_by_age.insert(age, now + pause);
        self.later.insert((now + pause, age), attempt);
        pause
    }

    /// Takes a batch that is due: the oldest and the newest in turn.
    pub fn pop_due(&mut self, now: Instant) -> Option<Attempt> {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let attempt = entry.remove();
            self.later_by_age.remove(&attempt.age);
            self.due.insert(attempt.age, attempt);
        }
        let taken = if self.oldest_is_next { self.due.pop_first() } else { self.due.pop_last() };
        self.oldest_is_next = !self.oldest_is_next;
        taken.map(|(_, attempt)| attempt)
    }

    /// Takes the oldest batch, due or not.
    pub fn pop_oldest(&mut self) -> Option<Attempt> {
        self.pop_oldest_from((0, 0))
    }

    /// Takes the oldest batch, due or not, that is not out of the spool.
    pub fn pop_oldest_unspooled(&mut self) -> Option<Attempt> {
        self.pop_oldest_from((FIRST_NUMBER, 0))
    }

    fn pop_oldest_from(&mut self, first: Age) -> Option<Attempt> {
        let due = self.due.range(first..).next().map(|(age, _)| *age);
        let later = self.later_by_age.range(first..).next().map(|(age, at)| (*age, *at));
        match (due, later) {
            (due, Some((age, at))) if due.is_none_or(|due| age < due) => {
                self.later_by_age.remove(&age);
                self.later.remove(&(at, age))
            }
            (due, _) => self.due.remove(&due?),
        }
    }

    /// When a batch is due, `now` if one is already; `None` while none waits.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(now);
        }
        self.later.first_key_value().map(|(key, _)| key.0)
    }

    /// A jittered pause after so many failures.
    pub fn backoff(&self, failure_count: u32) -> Duration {
        backoff(failure_count, fastrand::f64()).min(self.backoff_max)
    }

    /// Makes every batch due at once, and keeps pauses short from now on.
    pub fn begin_drain(&mut self) {
        self.backoff_max = BACKOFF_MAX_HURRIED;
        self.make_due();
    }

    /// Makes every batch due at once, since whatever held them back is over.
    pub fn make_due(&mut self) {
        self.later_by_age.clear();
        self.due.extend(std::mem::take(&mut self.later).into_iter().map(|((_, age), a)| (age, a)));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty() && self.later.is_empty()
    }

    /// Whole batches out of the spool that wait.
    pub fn spooled_count(&self) -> usize {
        let spooled = ..(FIRST_NUMBER, 0);
        let due = self.due.range(spooled).filter(|(age, _)| age.1 == 0).count();
        due + self.later_by_age.range(spooled).filter(|(age, _)| age.1 == 0).count()
    }

    /// The attempts that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        self.due.values().chain(self.later.values())
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
    use super::super::bisect::halve;
    use super::*;
    use crate::pipeline::batch::test_batch;
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

    fn name(attempt: &Attempt) -> u8 {
        attempt.batch.body_sha256[0]
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
        waiting.begin_drain();
        assert!((0..100).all(|_| waiting.backoff(20) <= BACKOFF_MAX_HURRIED));
    }

    #[test]
    fn a_failed_batch_waits_and_does_not_hold_up_fresh_ones() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.push(batch(1), None);
        let failed = waiting.pop_due(now).unwrap();
        let pause = waiting.push_failed(failed, now, Duration::from_secs(2));
        assert_eq!(pause, Duration::from_secs(2));
        waiting.push(batch(2), None);
        assert_eq!(name(&waiting.pop_due(now).unwrap()), 2);
        assert!(waiting.pop_due(now).is_none());
        assert_eq!(waiting.next_due(now), Some(now + pause));
        let again = waiting.pop_due(now + pause).unwrap();
        assert_eq!((name(&again), again.failure_count), (1, 1));
    }

    #[test]
    fn a_fresh_batch_waits_for_one_of_the_old_ones_at_most() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        (0..100).for_each(|number| waiting.push(batch(number), None));
        assert_eq!(name(&waiting.pop_due(now).unwrap()), 0);
        waiting.push(batch(200), None);
        assert_eq!(name(&waiting.pop_due(now).unwrap()), 200);
        // And the old ones leave while fresh ones come.
        for number in 1..50 {
            waiting.push(batch(100 + number), None);
            assert_eq!(name(&waiting.pop_due(now).unwrap()), number);
            assert_eq!(name(&waiting.pop_due(now).unwrap()), 100 + number);
        }
    }

    #[test]
    fn the_oldest_gives_way_first_even_when_it_is_not_due() {
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.push(batch(1), None);
        let failed = waiting.pop_due(now).unwrap();
        waiting.push_failed(failed, now, Duration::from_secs(9));
        waiting.push(batch(2), None);
        assert_eq!(name(&waiting.pop_oldest().unwrap()), 1);
        assert_eq!(name(&waiting.pop_oldest_unspooled().unwrap()), 2);
        assert!(waiting.pop_oldest().is_none() && waiting.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        PopDue,
        Fail(u64),
        Divide,
        PopOldest,
        MakeDue,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push),
            Just(Step::PopDue),
            (0u64..5_000).prop_map(Step::Fail),
            Just(Step::Divide),
            Just(Step::PopOldest),
            Just(Step::MakeDue),
            (0u64..5_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn no_document_is_lost_or_doubled(steps in proptest::collection::vec(step(), 0..100)) {
            let mut waiting = Waiting::default();
            let mut now = Instant::now();
            let mut taken: Vec<Attempt> = Vec::new();
            let mut gone: Vec<Attempt> = Vec::new();
            let mut count = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        let ids = (0..8).map(|place| format!("{}", count + place));
                        waiting.push(test_batch(ids), None);
                        count += 8;
                    }
                    Step::PopDue => taken.extend(waiting.pop_due(now)),
                    Step::Fail(pause) => if let Some(attempt) = taken.pop() {
                        waiting.push_failed(attempt, now, Duration::from_millis(pause));
                    },
                    Step::Divide => if let Some(attempt) = taken.pop() {
                        if attempt.batch.documents.len() > 1 {
                            let [first, second] = halve(&attempt, 0);
                            waiting.push_due(first);
                            taken.push(second);
                        }  else {
                            taken.push(attempt);
                        }
                    },
                    Step::PopOldest => gone.extend(waiting.pop_oldest()),
                    Step::MakeDue => waiting.make_due(),
                    Step::Wait(pause) => now += Duration::from_millis(pause),
                }
                prop_assert_eq!(waiting.later.len(), waiting.later_by_age.len());
            }
            waiting.make_due();
            let waited: Vec<_> = std::iter::from_fn(|| waiting.pop_due(now)).collect();
            let all = waited.iter().chain(&taken).chain(&gone);
            let mut ids: Vec<_> = all.flat_map(|attempt| &attempt.batch.documents)
                .map(|document| document.id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), count);
            prop_assert!(waiting.is_empty());
        }
    }
}
