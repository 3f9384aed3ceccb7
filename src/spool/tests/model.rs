//! The spool beside a model of it that is too simple to be wrong.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Step {
    Append { length: usize, age: u64 },
    Next,
    Settle(usize),
    Release(usize),
    Wait(u64),
    Sync,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300usize, 0..60u64).prop_map(|(length, age)| Step::Append { length, age }),
        6 => Just(Step::Next),
        3 => any::<usize>().prop_map(Step::Settle),
        3 => any::<usize>().prop_map(Step::Release),
        1 => (0..60u64).prop_map(Step::Wait),
        1 => Just(Step::Sync),
        1 => Just(Step::Crash),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..120)
}

/// A record as the model knows it; `name` is its number and its count of segments.
#[derive(Debug, Clone)]
struct Expected {
    name: u32,
    length: usize,
    created_at: u64,
    taken: Option<RecordId>,
}

/// All that is not settled, from the oldest on.
#[derive(Debug, Default)]
struct Model {
    records: VecDeque<Expected>,
}

impl Model {
    /// The `index`th of those that are taken, counted in a circle.
    fn taken(&self, index: usize) -> Option<(usize, RecordId)> {
        let taken = self.records.iter().enumerate();
        let taken: Vec<_> =
            taken.filter_map(|(place, record)| Some((place, record.taken?))).collect();
        taken.get(index % taken.len().max(1)).copied()
    }

    /// Compares what the spool came upon with what it should come upon.
    fn check_next(&mut self, next: &Next<'_>, now: u64) {
        let place = self.records.iter().position(|record| record.taken.is_none());
        let expected = place.map(|place| &mut self.records[place]);
        match (next, expected) {
            (Next::Empty, None) => {}
            (Next::Expired { segment_count }, Some(expected)) => {
                assert!(now - expected.created_at > AGE_MAX.as_secs());
                assert_eq!(*segment_count, expected.name);
                self.records.remove(place.unwrap());
            }
            (Next::Record(record), Some(expected)) => {
                assert!(now - expected.created_at <= AGE_MAX.as_secs());
                assert_eq!(record.segment_count, expected.name);
                assert_eq!(record.created_at, expected.created_at);
                assert_eq!(record.payload, vec![7; expected.length]);
                expected.taken = Some(record.id);
            }
            (next, expected) => panic!("{next:?} instead of {expected:?}"),
        }
    }

    fn segment_count(&self) -> u64 {
        self.records.iter().map(|record| u64::from(record.name)).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_is_a_queue_that_remembers_across_crashes(steps in steps()) {
        let folder = folder();
        let mut spool = open_small(folder.path(), 1 << 30, 800);
        let mut model = Model::default();
        let (mut now, mut name, mut is_counted) = (NOW, 0, true);
        for step in steps {
            match step {
                Step::Append { length, age } => {
                    name += 1;
                    let created_at = now - age;
                    let displaced = spool.append(&[&vec![7; length]], name, created_at).unwrap();
                    prop_assert_eq!(displaced, Displaced::default());
                    model.records.push_back(Expected { name, length, created_at, taken: None });
                }
                Step::Next => model.check_next(&spool.next(now), now),
                Step::Settle(index) => if let Some((place, id)) = model.taken(index) {
                    spool.settle(id).unwrap();
                    model.records.remove(place);
                },
                Step::Release(index) => if let Some((place, id)) = model.taken(index) {
                    prop_assert!(spool.release(id));
                    model.records[place].taken = None;
                },
                Step::Wait(seconds) => now += seconds,
                Step::Sync => spool.sync().unwrap(),
                Step::Crash => {
                    drop(spool);
                    spool = open_small(folder.path(), 1 << 30, 800);
                    model.records.iter_mut().for_each(|record| record.taken = None);
                    is_counted = false;
                }
            }
            if is_counted {
                prop_assert_eq!(spool.segment_count(), model.segment_count());
                prop_assert_eq!(is_empty(&spool), model.records.is_empty());
            }
        }
        while !matches!(spool.next(now), Next::Empty) { }
    }

    #[test]
    fn every_segment_is_delivered_displaced_or_expired_once(steps in steps()) {
        let folder = folder();
        let mut spool = open_small(folder.path(), 3_000, 800);
        let mut taken: Vec<(RecordId, u64)> = Vec::new();
        let (mut now, mut appended, mut gone) = (NOW, 0, 0);
        for step in steps {
            match step {
                Step::Append { length, age } => {
                    let displaced = spool.append(&[&vec![7; length]], 3, now - age).unwrap();
                    appended += 3;
                    gone += displaced.segment_count;
                    prop_assert!(spool.size_bytes() <= 3_000);
                }
                Step::Next => match spool.next(now) {
                    Next::Record(record) => taken.push((record.id, record.segment_count.into())),
                    Next::Expired { segment_count } => gone += u64::from(segment_count),
                    Next::Damaged(damage) => panic!("{damage:?}"),
                    Next::Unreadable(error) => panic!("{error}"),
                    Next::Empty => {}
                },
                Step::Settle(_) => if let Some((id, segment_count)) = taken.pop() {
                    spool.settle(id).unwrap();
                    gone += segment_count;
                },
                Step::Release(_) => if let Some((id, segment_count)) = taken.pop() {
                    gone += if spool.release(id) { 0 } else { segment_count };
                },
                Step::Wait(seconds) => now += seconds,
                Step::Sync | Step::Crash => spool.sync().unwrap(),
            }
            let on_disk: u64 = file_names(folder.path()).iter()
                .map(|name| folder.path().join(name).metadata().unwrap().len()).sum();
            prop_assert_eq!(on_disk, spool.size_bytes());
        }
        for (id, segment_count) in taken {
            gone += if spool.release(id) { 0 } else { segment_count };
        }
        loop {
            match spool.next(now) {
                Next::Record(record) => gone += u64::from(record.segment_count),
                Next::Expired { segment_count } => gone += u64::from(segment_count),
                Next::Damaged(damage) => panic!("{damage:?}"),
                    Next::Unreadable(error) => panic!("{error}"),
                Next::Empty => break,
            }
        }
        prop_assert_eq!(appended, gone);
    }
}
