//! Pending batches that wait for their first or next call.
//!
//! In: finished batches, and pending batches whose call failed. Out: a pending batch that is due,
//! or the oldest pending batch when memory runs short. The oldest and the newest due pending batch
//! leave in turn. So the backlog after an outage does not hold up fresh batches, and fresh batches
//! do not hold up the backlog. Bound: the pool's memory. No I/O.

use super::backoff::Backoff;
use super::pending_batch::{Age, FIRST_NUMBER, PendingBatch};
use super::report;
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::RecordId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pending batches that wait.
#[derive(Debug)]
pub struct Waiting {
    due: BTreeMap<Age, PendingBatch>,
    later: BTreeMap<(Instant, Age), PendingBatch>,
    /// The due times of the pending batches in `later`, by age.
    later_by_age: BTreeMap<Age, Instant>,
    next_number: u64,
    next_spooled_number: u64,
    oldest_is_next: bool,
    backoff: Backoff,
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
            backoff: Backoff::default(),
        }
    }
}

impl Waiting {
    /// Adds a batch, which is due at once. `record` is the record of the spool that the batch was
    /// read from.
    pub fn push(&mut self, batch: Batch, record: Option<RecordId>) {
        let next_number = match record {
            None => &mut self.next_number,
            Some(_) => &mut self.next_spooled_number,
        };
        let pending = PendingBatch::new(batch, record, (*next_number, 0));
        *next_number += 1;
        report::taken(&pending);
        self.push_due(pending);
    }

    /// Adds a pending batch that is due at once.
    pub fn push_due(&mut self, pending: PendingBatch) {
        self.due.insert(pending.age, pending);
    }

    /// Adds a pending batch whose call failed. It is due after its backoff, or after `pause_min` if
    /// `pause_min` is longer. Returns the pause.
    pub fn push_failed(
        &mut self,
        mut pending: PendingBatch,
        now: Instant,
        pause_min: Duration,
    ) -> Duration {
        let pause = self.backoff.pause(pending.failure_count).max(pause_min);
        pending.failure_count = pending.failure_count.saturating_add(1);
        let age = pending.age;
        self.later_by_age.insert(age, now + pause);
        self.later.insert((now + pause, age), pending);
        pause
    }

    /// Takes a pending batch that is due: the oldest and the newest in turn.
    pub fn pop_due(&mut self, now: Instant) -> Option<PendingBatch> {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let pending = entry.remove();
            self.later_by_age.remove(&pending.age);
            self.due.insert(pending.age, pending);
        }
        let taken = if self.oldest_is_next { self.due.pop_first() } else { self.due.pop_last() };
        self.oldest_is_next = !self.oldest_is_next;
        taken.map(|(_, pending)| pending)
    }

    /// Takes the oldest pending batch, due or not.
    pub fn pop_oldest(&mut self) -> Option<PendingBatch> {
        self.pop_oldest_from((0, 0), |_| true)
    }

    /// Takes the oldest pending batch, due or not, that is not a part of a batch from the spool.
    pub fn pop_oldest_unshared(&mut self) -> Option<PendingBatch> {
        self.pop_oldest_from((0, 0), |pending| pending.record.is_none() || pending.is_in_spool())
    }

    /// Takes the oldest pending batch, due or not, that was not read from the spool.
    pub fn pop_oldest_unspooled(&mut self) -> Option<PendingBatch> {
        self.pop_oldest_from((FIRST_NUMBER, 0), |_| true)
    }

    fn pop_oldest_from(
        &mut self,
        first: Age,
        may_leave: impl Fn(&PendingBatch) -> bool,
    ) -> Option<PendingBatch> {
        let mut due = self.due.range(first..);
        let due = due.find(|(_, pending)| may_leave(pending)).map(|(age, _)| *age);
        let mut later = self.later_by_age.range(first..).map(|(age, at)| (*age, *at));
        let later = later.find(|&(age, at)| self.later.get(&(at, age)).is_some_and(&may_leave));
        match (due, later) {
            (due, Some((age, at))) if due.is_none_or(|due| age < due) => {
                self.later_by_age.remove(&age);
                self.later.remove(&(at, age))
            }
            (due, _) => self.due.remove(&due?),
        }
    }

    /// Returns the time at which the next pending batch is due: `now` if a pending batch is due
    /// already, `None` if no pending batch waits.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(now);
        }
        self.later.first_key_value().map(|(key, _)| key.0)
    }

    /// Makes every pending batch due at once, and keeps all later pauses short: the shutdown has a
    /// deadline.
    pub fn begin_drain(&mut self) {
        self.backoff.begin_drain();
        self.make_due();
    }

    /// Makes every pending batch due at once, because its call may succeed now.
    pub fn make_due(&mut self) {
        self.later_by_age.clear();
        self.due.extend(std::mem::take(&mut self.later).into_iter().map(|((_, age), a)| (age, a)));
    }

    /// Returns whether no pending batch waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty() && self.later.is_empty()
    }

    /// Returns the number of whole batches from the spool that wait.
    pub fn spooled_count(&self) -> usize {
        let spooled = ..(FIRST_NUMBER, 0);
        let due = self.due.range(spooled).filter(|(age, _)| age.1 == 0).count();
        due + self.later_by_age.range(spooled).filter(|(age, _)| age.1 == 0).count()
    }

    /// Returns the pending batches that wait, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &PendingBatch> {
        self.due.values().chain(self.later.values())
    }
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
            spans: None,
        }
    }

    fn name(pending: &PendingBatch) -> u8 {
        pending.batch.body_sha256[0]
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
        // The old batches leave, too, while fresh ones come.
        for number in 1..50 {
            waiting.push(batch(100 + number), None);
            assert_eq!(name(&waiting.pop_due(now).unwrap()), number);
            assert_eq!(name(&waiting.pop_due(now).unwrap()), 100 + number);
        }
    }

    #[test]
    fn the_oldest_is_evicted_first_even_when_it_is_not_due() {
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
            let mut taken: Vec<PendingBatch> = Vec::new();
            let mut gone: Vec<PendingBatch> = Vec::new();
            let mut count = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        let ids = (0..8).map(|place| format!("{}", count + place));
                        waiting.push(test_batch(ids), None);
                        count += 8;
                    }
                    Step::PopDue => taken.extend(waiting.pop_due(now)),
                    Step::Fail(pause) => if let Some(pending) = taken.pop() {
                        waiting.push_failed(pending, now, Duration::from_millis(pause));
                    },
                    Step::Divide => if let Some(pending) = taken.pop() {
                        if pending.batch.documents.len() > 1 {
                            let [first, second] = halve(&pending, 0).unwrap();
                            waiting.push_due(first);
                            taken.push(second);
                        }  else {
                            taken.push(pending);
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
            let mut ids: Vec<_> = all.flat_map(|pending| &pending.batch.documents)
                .map(|document| document.id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), count);
            prop_assert!(waiting.is_empty());
        }
    }
}
