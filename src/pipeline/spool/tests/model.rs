//! Compares the spool with a simple model, over random steps.
//!
//! A record of the model stands for a run of segments of one record of the spool.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Step {
    Append {
        length: usize,
        segment_count: u32,
        age: u64,
    },
    Next,
    /// Takes the next record, keeps this number of its first segments, and puts the rest back.
    Split(u32),
    SetAside(usize),
    Settle(usize),
    Release(usize),
    Wait(u64),
    Sync,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300usize, 1..9u32, 0..60u64)
            .prop_map(|(length, segment_count, age)| Step::Append { length, segment_count, age }),
        5 => Just(Step::Next),
        2 => (1..5u32).prop_map(Step::Split),
        1 => any::<usize>().prop_map(Step::SetAside),
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

/// A run of segments of one record. Every byte of the payload is the `name` of the record.
#[derive(Debug, Clone)]
struct Expected {
    name: u8,
    length: usize,
    created_at: u64,
    segments: Range<u32>,
    taken: Option<RecordId>,
    is_set_aside: bool,
}

/// All records that are not settled, the oldest first.
#[derive(Debug, Default)]
struct Model {
    records: VecDeque<Expected>,
}

impl Model {
    /// Returns the taken record with this index, modulo the number of taken records.
    fn taken(&self, index: usize) -> Option<(usize, RecordId)> {
        let taken = self.records.iter().enumerate();
        let taken: Vec<_> =
            taken.filter_map(|(place, record)| Some((place, record.taken?))).collect();
        taken.get(index % taken.len().max(1)).copied()
    }

    /// Takes the next record of the spool and compares it with the next record of the model.
    /// Returns the index in the model and the id of the record; `None` if no record was taken.
    fn check_next(&mut self, spool: &mut Spool, now: u64) -> Option<(usize, RecordId)> {
        let waits = |record: &Expected| record.taken.is_none() && !record.is_set_aside;
        let place = self.records.iter().position(waits);
        let expected = place.map(|place| &mut self.records[place]);
        match (spool.next(at(now)), expected) {
            (Next::Empty, None) => None,
            (Next::Expired { segment_count }, Some(expected)) => {
                assert!(now - expected.created_at > AGE_MAX.as_secs());
                assert_eq!(segment_count as usize, expected.segments.len());
                self.records.remove(place.unwrap());
                None
            }
            (Next::Record(record), Some(expected)) => {
                assert!(now - expected.created_at <= AGE_MAX.as_secs());
                assert_eq!(record.taken, expected.segments);
                assert_eq!(record.age, Duration::from_secs(now - expected.created_at));
                assert_eq!(read(spool, &record), vec![expected.name; expected.length]);
                expected.taken = Some(record.id);
                Some((place.unwrap(), record.id))
            }
            (next, expected) => panic!("{next:?} instead of {expected:?}"),
        }
    }

    /// Puts all but the first `count` segments of the record at `place` back.
    fn split(&mut self, place: usize, count: u32) {
        let record = &mut self.records[place];
        let middle = record.segments.start + count;
        let rest =
            Expected { segments: middle..record.segments.end, taken: None, ..record.clone() };
        record.segments.end = middle;
        self.records.insert(place + 1, rest);
    }

    /// Simulates a crash: all segments that are not settled can be taken again. Neighbouring runs
    /// of one record become one.
    fn crash(&mut self) {
        let mut records: VecDeque<Expected> = VecDeque::new();
        for record in std::mem::take(&mut self.records) {
            let record = Expected { taken: None, is_set_aside: false, ..record };
            match records.back_mut() {
                Some(last)
                    if (last.name, last.segments.end) == (record.name, record.segments.start) =>
                {
                    last.segments.end = record.segments.end;
                }
                _ => records.push_back(record),
            }
        }
        self.records = records;
    }

    fn segment_count(&self) -> u64 {
        self.records.iter().map(|record| record.segments.len() as u64).sum()
    }
}

/// Returns whether a record of `length` bytes and `total` segments can be divided after the first
/// `count` of `segments`.
fn is_divisible(length: usize, segments: &Range<u32>, count: u32, total: u32) -> bool {
    total as usize * HEADER_BYTES <= length && (count as usize) < segments.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_is_a_queue_that_remembers_across_crashes(steps in steps()) {
        let folder = folder();
        let mut spool = open_small(folder.path(), 1 << 30, 800);
        let mut model = Model::default();
        let mut totals = std::collections::BTreeMap::new();
        let (mut now, mut name, mut is_counted) = (NOW, 0, true);
        for step in steps {
            match step {
                Step::Append { length, segment_count, age } => {
                    name += 1;
                    let created_at = now - age;
                    let payload = vec![name; length];
                    let made = at(created_at);
                    let evicted = spool.append(&[&payload], segment_count, made).unwrap();
                    prop_assert_eq!(evicted, Evicted::default());
                    let segments = 0..segment_count;
                    totals.insert(name, segment_count);
                    let (taken, is_set_aside) = (None, false);
                    model.records.push_back(
                        Expected { name, length, created_at, segments, taken, is_set_aside }
                    );
                }
                Step::Next => _ = model.check_next(&mut spool, now),
                Step::Split(count) => if let Some((place, id)) = model.check_next(&mut spool, now) {
                    let Expected { name, length, segments, .. } = &model.records[place];
                    let is_divisible = is_divisible(*length, segments, count, totals[name]);
                    prop_assert_eq!(spool.split(id, count), is_divisible);
                    if is_divisible {
                        model.split(place, count);
                    }
                },
                Step::SetAside(index) => if let Some((place, id)) = model.taken(index) {
                    spool.set_aside(id);
                    model.records[place].taken = None;
                    model.records[place].is_set_aside = true;
                },
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
                    model.crash();
                    is_counted = false;
                }
            }
            if is_counted {
                prop_assert_eq!(spool.segment_count(), model.segment_count());
                prop_assert_eq!(is_empty(&spool), model.records.is_empty());
            }
        }
        while !matches!(spool.next(at(now)), Next::Empty) { }
    }

    #[test]
    fn every_segment_is_delivered_evicted_or_expired_once(steps in steps()) {
        let folder = folder();
        let mut spool = open_small(folder.path(), 3_000, 800);
        let mut taken: Vec<(RecordId, u64)> = Vec::new();
        let (mut now, mut appended, mut gone) = (NOW, 0, 0);
        for step in steps {
            match step {
                Step::Append { length, segment_count, age } => {
                    let payload = vec![7; length];
                    let made = at(now - age);
                    let evicted = spool.append(&[&payload], segment_count, made).unwrap();
                    appended += u64::from(segment_count);
                    gone += evicted.segment_count;
                    prop_assert!(spool.size_bytes() <= 3_000);
                }
                Step::Next | Step::Split(_) => match spool.next(at(now)) {
                    Next::Record(record) => {
                        let mut count = record.taken.len() as u64;
                        if let Step::Split(first) = step && spool.split(record.id, first) {
                            count = first.into();
                        }
                        taken.push((record.id, count));
                    }
                    Next::Expired { segment_count } => gone += u64::from(segment_count),
                    Next::Damaged(_, damage) => panic!("{damage:?}"),
                    Next::Unreadable(error) => panic!("{error}"),
                    Next::Empty => {}
                },
                Step::SetAside(_) => if let Some((id, segment_count)) = taken.pop() {
                    // A record cannot be set aside if its file was evicted.
                    if spool.release(id) {
                        while let Next::Record(record) = spool.next(at(0)) {
                            if record.id == id {
                                spool.set_aside(id);
                                break;
                            }
                            taken.push((record.id, record.taken.len() as u64));
                        }
                    } else {
                        gone += segment_count;
                    }
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
            match spool.next(at(now)) {
                Next::Record(record) => {
                    gone += record.taken.len() as u64;
                    spool.settle(record.id).unwrap();
                }
                Next::Expired { segment_count } => gone += u64::from(segment_count),
                Next::Damaged(_, damage) => panic!("{damage:?}"),
                Next::Unreadable(error) => panic!("{error}"),
                Next::Empty => break,
            }
        }
        // Records that were set aside are still in the spool.
        prop_assert_eq!(appended, gone + spool.segment_count());
    }
}
