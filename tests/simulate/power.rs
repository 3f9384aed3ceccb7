//! Power cuts: short workloads of the spool, and every legal state of the disk after a cut at any
//! call.
//!
//! In: a workload, which appends, takes, settles and syncs. Out: a failure if a state breaks a
//! promise of the spool: synced records come back, records that were settled and synced do not, and
//! opening never panics and counts what is damaged. Bound: [`STATE_COUNT_MAX`] states for each cut;
//! above that, as many random ones.

use super::disk::{MemoryDisk, Mood};
use super::documents::SIZE_MIN;
use super::format::scan;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use xrayd::base::clock::Moment;
use xrayd::pipeline::spool::{Next, Options, RecordId, Spool};

/// How many states of the disk are tried exhaustively for one cut.
const STATE_COUNT_MAX: usize = 2_000;

const NOW: Moment =
    Moment { uptime_seconds: 1_000, offset_seconds: 1_790_000_000, is_confirmed: true };

/// One step of a workload. A number is that of a record.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append(u32),
    Take,
    Settle(u32),
    Release(u32),
    Sync,
    /// A sync in which every fsync fails. The disk works again after it.
    FailedSync,
    Probe,
    /// The daemon is killed and started again.
    Restart,
}

use Step::{Append, FailedSync, Probe, Release, Restart, Settle, Sync, Take};

/// Workloads that have each kind of call: the first file, a second file, files that go.
const WORKLOADS: &[(&str, &[Step])] = &[
    ("append and sync", &[Append(0), Append(1), Sync, Append(2), Append(3), Sync]),
    (
        "settle in a sealed file",
        &[Append(0), Append(1), Sync, Take, Settle(0), Sync, Append(2), Sync],
    ),
    (
        "a file that is removed",
        &[Append(0), Sync, Take, Append(1), Settle(0), Sync, Take, Settle(1), Sync],
    ),
    (
        "a record that is put back",
        &[Append(0), Append(1), Take, Release(0), Sync, Take, Settle(0), Sync],
    ),
    (
        "many records in one sync",
        &[Append(0), Append(3), Append(1), Append(7), Append(2), Append(4), Append(5), Sync],
    ),
    (
        "many files in one sync",
        &[
            Append(0),
            Take,
            Append(3),
            Take,
            Append(1),
            Take,
            Append(7),
            Settle(3),
            Sync,
            Settle(0),
            Sync,
        ],
    ),
    ("probes", &[Append(0), Probe, Append(1), Sync, Probe, Sync]),
    (
        "a restart",
        &[
            Append(0),
            Append(1),
            Sync,
            Take,
            Settle(0),
            Restart,
            Append(2),
            Sync,
            Take,
            Settle(1),
            Sync,
        ],
    ),
    ("an fsync that fails", &[Append(0), Sync, Append(1), FailedSync, Append(2), Sync, Sync]),
    (
        "an fsync that fails while a record is taken",
        &[Append(0), Append(1), Take, FailedSync, Settle(0), Sync, Take, Settle(1), Sync],
    ),
    (
        "an fsync that fails while records are taken that stay taken",
        &[Append(0), Append(3), Take, Take, FailedSync, Sync, Settle(0), Sync],
    ),
    (
        "an fsync that fails while a record is taken that is put back",
        &[Append(0), Append(1), Take, FailedSync, Sync, Release(0), Sync, Take],
    ),
    (
        "several files",
        &[
            Append(0),
            Sync,
            Take,
            Append(1),
            Sync,
            Take,
            Append(2),
            Settle(1),
            Sync,
            Settle(0),
            Sync,
        ],
    ),
];

/// The records of a workload that a cut leaves certain.
#[derive(Debug, Clone, Default)]
struct Certain {
    appended: BTreeSet<u32>,
    /// Records that were appended before a sync that succeeded.
    synced: BTreeSet<u32>,
    settled: BTreeSet<u32>,
    /// Records that were settled before a sync that succeeded.
    settled_synced: BTreeSet<u32>,
    /// Whether records may come twice: an fsync has failed, and the copies that the spool makes
    /// then are not synced yet.
    has_copies: bool,
}

fn size_of(number: u32) -> Option<usize> {
    // The fourth record is larger than a block.
    Some(if number % 4 == 3 { 1_500 } else { SIZE_MIN })
}

fn options() -> Options {
    let age_max = Duration::from_secs(3_600);
    Options { path: PathBuf::from("spool"), size_bytes_max: 1 << 30, age_max }
}

fn open(disk: &MemoryDisk) -> Spool {
    Spool::open_on(Arc::new(disk.clone()), options(), NOW).expect("the disk works").0
}

/// Returns the payload of the record with this document.
fn payload(number: u32) -> Vec<u8> {
    let (file, _) = super::format::older_files(&[vec![(number, size_of(number).unwrap())]], 0, 0);
    // Behind the header of the file and that of the record.
    file[8 + 28..].to_vec()
}

/// Runs a workload until the disk stops. Returns what is certain then.
fn work(disk: &MemoryDisk, steps: &[Step]) -> Certain {
    let mut certain = Certain::default();
    let Ok((mut spool, _)) = Spool::open_on(Arc::new(disk.clone()), options(), NOW) else {
        return certain;
    };
    let mut taken: Vec<(u32, RecordId)> = Vec::new();
    // A sync does not concern the bytes of an earlier run.
    let mut earlier = Certain::default();
    for step in steps {
        match *step {
            Append(number) => {
                if spool.append(&[&payload(number)], 1, NOW).is_ok() {
                    certain.appended.insert(number);
                }
            }
            Take => match spool.next(NOW) {
                Next::Record(record) => {
                    let mut bytes = vec![0; record.payload_bytes as usize];
                    if spool.read(record.id, 0, &mut bytes).is_err() {
                        break;
                    }
                    let number = certain.appended.iter().find(|&&it| payload(it) == bytes);
                    taken.push((*number.expect("it was appended"), record.id));
                }
                _ => break,
            },
            Settle(number) => {
                let taken = taken.iter().find(|(it, _)| *it == number);
                let Some((_, id)) = taken else { break };
                // From here on the record may be gone.
                certain.settled.insert(number);
                if spool.settle(*id).is_err() {
                    break;
                }
            }
            Release(number) => {
                let taken = taken.iter().find(|(it, _)| *it == number);
                assert!(taken.is_some_and(|(_, id)| spool.release(*id)));
            }
            Sync => {
                if spool.sync().is_err() {
                    break;
                }
                certain.has_copies = false;
                certain.synced.extend(certain.appended.difference(&earlier.appended));
                certain.settled_synced.extend(certain.settled.difference(&earlier.settled));
            }
            FailedSync => {
                disk.set_mood(Mood::Fails { read: 0, write: 0, sync: 100 });
                // This succeeds if the disk was cut in such a way that nothing is to be synced.
                certain.has_copies = true;
                let _ = spool.sync();
                disk.set_mood(Mood::Works);
            }
            Probe => {
                if spool.probe().is_err() {
                    break;
                }
            }
            Restart => {
                drop(spool);
                taken.clear();
                earlier = certain.clone();
                match Spool::open_on(Arc::new(disk.clone()), options(), NOW) {
                    Ok((opened, _)) => spool = opened,
                    Err(_) => break,
                }
            }
        }
    }
    certain
}

/// Checks one state of the disk after a cut.
fn check(disk: &MemoryDisk, certain: &Certain, context: &str) {
    let files = disk.files();
    let found = scan(&files, size_of).unwrap_or_else(|text| panic!("{context}: {text}"));
    let mut spool = open(disk);
    let (mut numbers, mut damaged_count) = (BTreeSet::new(), 0);
    loop {
        match spool.next(NOW) {
            Next::Record(record) => {
                let mut bytes = vec![0; record.payload_bytes as usize];
                spool.read(record.id, 0, &mut bytes).expect("the disk works");
                let number = certain.appended.iter().find(|&&it| payload(it) == bytes);
                let number = number.unwrap_or_else(|| panic!("{context}: a record of nobody"));
                let is_first = numbers.insert(*number);
                assert!(is_first || certain.has_copies, "{context}: record {number} comes twice");
            }
            Next::Damaged(..) => damaged_count += 1,
            Next::Empty => break,
            other => panic!("{context}: {other:?}"),
        }
    }
    let scanned: BTreeSet<u32> = found.documents.keys().copied().collect();
    assert_eq!(numbers, scanned, "{context}: what the spool finds and what is in its files");
    let is_damaged = found.damaged_count > 0;
    assert_eq!(damaged_count > 0, is_damaged, "{context}: damage is counted");
    for number in &certain.synced {
        let is_kept = numbers.contains(number) || certain.settled.contains(number);
        assert!(is_kept, "{context}: record {number} was synced and is lost");
    }
    for number in &certain.settled_synced {
        assert!(
            !numbers.contains(number),
            "{context}: record {number} was settled and comes again"
        );
    }
}

/// Tries the states of a disk after a cut. Returns how many were tried.
fn cut(disk: &MemoryDisk, certain: &Certain, context: &str) -> usize {
    // The picks of the state, each with the number of its choices. The last one that can be raised
    // is raised for the next state.
    let mut picks: Vec<(usize, usize)> = Vec::new();
    for state_count in 1.. {
        let (copy, mut place) = (disk.copy(), 0);
        copy.lose_power(&mut |count| {
            if place == picks.len() {
                picks.push((0, count));
            }
            place += 1;
            picks[place - 1].0
        });
        picks.truncate(place);
        let state: Vec<usize> = picks.iter().map(|pick| pick.0).collect();
        check(&copy, certain, &format!("{context}, state {state:?}"));
        while picks.last().is_some_and(|(pick, count)| pick + 1 == *count) {
            picks.pop();
        }
        match picks.last_mut() {
            Some(last) => last.0 += 1,
            None => return state_count,
        }
        if state_count >= STATE_COUNT_MAX {
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..STATE_COUNT_MAX {
                let (copy, mut state) = (disk.copy(), Vec::new());
                copy.lose_power(&mut |count| {
                    state.push(random.usize(..count));
                    *state.last().unwrap()
                });
                check(&copy, certain, &format!("{context}, state {state:?}"));
            }
            return state_count + STATE_COUNT_MAX;
        }
    }
    unreachable!("the loop ends with a return")
}

#[test]
fn after_a_power_cut_at_any_call_the_spool_has_what_was_synced_and_not_what_was_settled() {
    let (mut cut_count, mut state_count) = (0, 0);
    for (name, steps) in WORKLOADS {
        let disk = MemoryDisk::new(512, fastrand::Rng::with_seed(1), None);
        work(&disk, steps);
        for call in 0..=disk.call_count() {
            let disk = MemoryDisk::new(512, fastrand::Rng::with_seed(1), None);
            disk.cut_after(call);
            let certain = work(&disk, steps);
            state_count += cut(&disk, &certain, &format!("{name}, cut before call {call}"));
            cut_count += 1;
        }
    }
    println!("{cut_count} power cuts, {state_count} states of the disk");
    assert!(state_count > 10_000, "{state_count} states are too few");
}
