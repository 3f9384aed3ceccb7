//! Tests of the public functions of the spool. A test drops a spool to simulate a crash, because
//! `Spool` writes nothing when it is dropped.

mod clocks;
mod damage;
mod disk;
pub mod faulty;
mod model;
mod parts;
mod spans;
mod sync;

use super::record::{FILE_HEADER_BYTES, HEADER_BYTES};
use super::*;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The time when records are made, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
const AGE_MAX: Duration = Duration::from_secs(100);

/// Returns the moment with this date. The clock is never set, and the host was started 1000 s
/// before [`NOW`].
fn at(unix_seconds: u64) -> Moment {
    let offset_seconds = NOW.cast_signed() - 1_000;
    let uptime_seconds = unix_seconds.cast_signed() - offset_seconds;
    Moment { uptime_seconds, offset_seconds, is_confirmed: true }
}

/// The size in bytes of a record that the function [`append`] writes.
const RECORD_BYTES: u64 = HEADER_BYTES as u64 + 72;

/// Returns whether all records are settled.
fn is_empty(spool: &Spool) -> bool {
    let is_active_empty = spool.files.active.as_ref().is_none_or(|file| file.length_bytes() == 0);
    is_active_empty && spool.files.sealed.values().all(DataFile::is_finished)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn options(path: &Path, size_bytes_max: u64) -> Options {
    Options { path: path.to_owned(), size_bytes_max, age_max: AGE_MAX }
}

fn open(path: &Path) -> Spool {
    Spool::open(options(path, 1 << 30), at(NOW)).unwrap().0
}

/// Opens a spool that seals a file at `file_bytes_max`.
fn open_small(path: &Path, size_bytes_max: u64, file_bytes_max: u64) -> Spool {
    let (mut spool, _) = Spool::open(options(path, size_bytes_max), at(NOW)).unwrap();
    spool.appender.file_bytes_max = file_bytes_max;
    spool
}

fn payload(name: u32) -> Vec<u8> {
    let mut payload = vec![b'x'; 72];
    payload[..4].copy_from_slice(&name.to_le_bytes());
    payload
}

/// Appends a record of one segment in three pieces.
fn append(spool: &mut Spool, name: u32) -> Evicted {
    let payload = payload(name);
    spool.append(&[&payload[..3], &[], &payload[3..]], 1, at(NOW)).unwrap()
}

/// Takes the next record, which must exist and be whole.
fn take(spool: &mut Spool) -> (u32, RecordId) {
    try_take(spool).expect("a record waits")
}

/// Returns the whole payload of a record.
fn read(spool: &mut Spool, record: &Record) -> Vec<u8> {
    let mut payload = vec![0; record.payload_bytes as usize];
    // Reads piece by piece, as a caller with little memory does.
    for (index, piece) in payload.chunks_mut(5_000).enumerate() {
        spool.read(record.id, 5_000 * index as u64, piece).unwrap();
    }
    payload
}

/// Takes the next record, which must exist.
fn take_record(spool: &mut Spool) -> Record {
    match spool.next(at(NOW)) {
        Next::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

fn try_take(spool: &mut Spool) -> Option<(u32, RecordId)> {
    match spool.next(at(NOW)) {
        Next::Record(record) => {
            let found = read(spool, &record);
            let name = u32::from_le_bytes(*found.first_chunk().unwrap());
            assert_eq!(found, payload(name));
            assert_eq!((record.segment_count, record.age), (1, Duration::ZERO));
            Some((name, record.id))
        }
        Next::Empty => None,
        other => panic!("{other:?}"),
    }
}

fn take_all(spool: &mut Spool) -> Vec<u32> {
    std::iter::from_fn(|| try_take(spool)).map(|(name, _)| name).collect()
}

fn file_names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
    names.sort_unstable();
    names
}

#[test]
fn records_come_in_the_order_in_which_they_were_appended() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 1_000);
    for name in 0..50 {
        assert_eq!(append(&mut spool, name), Evicted::default());
    }
    assert_eq!(spool.segment_count(), 50);
    assert!(file_names(folder.path()).len() > 4);
    assert_eq!(take_all(&mut spool), (0..50).collect::<Vec<_>>());
}

#[test]
fn a_record_may_be_empty_or_as_large_as_allowed_but_no_larger() {
    let folder = folder();
    let mut spool = open(folder.path());
    let large = vec![7; RECORD_BYTES_MAX as usize];
    let _ = spool.append(&[], 0, at(NOW)).unwrap();
    let _ = spool.append(&[&large], 9, at(NOW)).unwrap();
    let error = spool.append(&[&large, &[7]], 9, at(NOW)).unwrap_err();
    assert!(matches!(error.cause, SpoolError::TooLarge { .. }), "{error}");
    for expected in [&[][..], &large] {
        let record = take_record(&mut spool);
        assert!(read(&mut spool, &record) == expected);
    }
    assert!(matches!(spool.next(at(NOW)), Next::Empty));
}

#[test]
fn more_pieces_than_one_call_takes_are_written() {
    let folder = folder();
    let mut spool = open(folder.path());
    let pieces: Vec<&[u8]> = (0..5_000).map(|index| [&b"ab"[..], b""][index % 2]).collect();
    let _ = spool.append(&pieces, 1, at(NOW)).unwrap();
    let record = take_record(&mut spool);
    assert!(read(&mut spool, &record) == pieces.concat());
}

#[test]
fn what_is_settled_does_not_come_again_after_a_crash_and_what_is_taken_does() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 350);
    for name in 0..9 {
        let _ = append(&mut spool, name);
    }
    let ids: Vec<_> = (0..8).map(|_| take(&mut spool).1).collect();
    for index in [1, 5, 6] {
        spool.settle(ids[index]).unwrap();
    }
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(take_all(&mut spool), [0, 2, 3, 4, 7, 8]);
}

#[test]
fn a_file_goes_when_all_of_it_is_settled() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 250);
    for name in 0..4 {
        let _ = append(&mut spool, name);
    }
    let ids: Vec<_> = (0..4).map(|_| take(&mut spool).1).collect();
    spool.settle(ids[0]).unwrap();
    spool.settle(ids[2]).unwrap();
    let names = ["0000000001.done", "0000000001.spool", "0000000002.done", "0000000002.spool"];
    assert_eq!(file_names(folder.path()), names);
    spool.settle(ids[1]).unwrap();
    assert_eq!(file_names(folder.path()), names[2..]);
    assert!(!is_empty(&spool));
    spool.settle(ids[3]).unwrap();
    assert!(file_names(folder.path()).is_empty());
    assert!(is_empty(&spool));
    assert_eq!((spool.size_bytes(), spool.segment_count()), (0, 0));
}

#[test]
fn a_file_whose_last_records_were_settled_before_a_crash_goes_too() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..3 {
        let _ = append(&mut spool, name);
    }
    let ids: Vec<_> = (0..3).map(|_| take(&mut spool).1).collect();
    spool.settle(ids[1]).unwrap();
    spool.settle(ids[2]).unwrap();
    drop(spool);
    let mut spool = open(folder.path());
    let (name, id) = take(&mut spool);
    assert_eq!(name, 0);
    assert!(try_take(&mut spool).is_none());
    spool.settle(id).unwrap();
    // Reading has come to the end of the file, so the file is removed.
    assert!(file_names(folder.path()).is_empty());
}

#[test]
fn a_record_that_is_put_back_comes_again_before_those_after_it() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 250);
    for name in 0..6 {
        let _ = append(&mut spool, name);
    }
    let ids: Vec<_> = (0..5).map(|_| take(&mut spool).1).collect();
    assert!(spool.release(ids[4]) && spool.release(ids[1]) && spool.release(ids[3]));
    assert!(!spool.release(ids[3]), "it is not taken any longer");
    assert_eq!(spool.segment_count(), 6);
    assert_eq!(take_all(&mut spool), [1, 3, 4, 5]);
}

#[test]
fn reading_and_appending_go_on_side_by_side() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..20 {
        let _ = append(&mut spool, name);
        let (found, id) = take(&mut spool);
        assert_eq!(found, name);
        assert!(try_take(&mut spool).is_none());
        spool.settle(id).unwrap();
        assert!(is_empty(&spool));
    }
    assert_eq!(spool.files.next_sequence, 21);
}

#[test]
fn the_oldest_file_is_evicted_at_the_largest_size_and_the_count_is_exact() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1_000, 310);
    let mut evicted_segment_count = 0;
    for name in 0..100 {
        let evicted = append(&mut spool, name);
        assert_eq!(evicted.record_count, evicted.segment_count);
        assert_eq!(evicted.file_count * 3, evicted.record_count);
        evicted_segment_count += evicted.segment_count;
        assert!(spool.size_bytes() <= 1_000);
        assert_eq!(spool.segment_count() + evicted_segment_count, u64::from(name) + 1);
    }
    let left = take_all(&mut spool);
    assert_eq!(left.len() as u64 + evicted_segment_count, 100);
    let first = u32::try_from(evicted_segment_count).unwrap();
    assert_eq!(left, (first..100).collect::<Vec<_>>());
}

#[test]
fn the_active_file_is_evicted_if_it_is_the_only_one() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 350, 1 << 20);
    for name in 0..3 {
        assert_eq!(append(&mut spool, name), Evicted::default());
    }
    let expected = Evicted {
        file_count: 1,
        bytes: FILE_HEADER_BYTES + 3 * RECORD_BYTES,
        record_count: 3,
        segment_count: 3,
        unknown_bytes: 0,
        newest_sequence: Some(1),
    };
    assert_eq!(append(&mut spool, 3), expected);
    assert_eq!(take_all(&mut spool), [3]);
    let error = spool.append(&[&[0; 350 - HEADER_BYTES - 7]], 1, at(NOW)).unwrap_err();
    assert!(matches!(error.cause, SpoolError::TooLarge { .. }), "{error}");
    assert_eq!(error.evicted, Evicted::default());
}

#[test]
fn evicted_files_of_earlier_runs_are_counted_without_settled_records() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..9 {
        let _ = append(&mut spool, name);
    }
    let (_, id) = take(&mut spool);
    spool.settle(id).unwrap();
    drop(spool);
    let (mut spool, found) = Spool::open(options(folder.path(), 1_000), at(NOW)).unwrap();
    let bytes = FILE_HEADER_BYTES + 9 * RECORD_BYTES;
    assert_eq!((found.file_count, found.bytes), (1, bytes));
    assert_eq!((spool.segment_count(), spool.size_bytes() > bytes), (0, true));
    let (name, taken) = take(&mut spool);
    assert_eq!(name, 1);
    assert!(try_take(&mut spool).is_some_and(|(_, id)| spool.release(id)));
    // Nine records less the settled one and the taken one.
    assert_eq!(append(&mut spool, 9).segment_count, 7);
    assert!(!spool.release(taken), "there is no way back");
    spool.settle(taken).unwrap();
    assert_eq!(file_names(folder.path()), ["0000000002.spool"]);
}

#[test]
fn a_file_that_is_evicted_before_it_is_read_is_counted_without_settled_records() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..9 {
        let _ = append(&mut spool, name);
    }
    let ids: Vec<_> = (0..6).map(|_| take(&mut spool).1).collect();
    spool.settle(ids[2]).unwrap();
    spool.settle(ids[5]).unwrap();
    drop(spool);
    let (mut spool, _) = Spool::open(options(folder.path(), 1_000), at(NOW)).unwrap();
    assert_eq!(append(&mut spool, 9).segment_count, 7);
    assert_eq!(take_all(&mut spool), [9]);
}

#[test]
fn records_expire_with_age_and_do_not_come_again() {
    let folder = folder();
    let mut spool = open(folder.path());
    let age_max = AGE_MAX.as_secs();
    for (segment_count, age) in [(1, age_max + 1), (2, age_max), (3, age_max + 9), (4, 0)] {
        let _ = spool.append(&[b"x"], segment_count, at(NOW - age)).unwrap();
    }
    // A record with a date in the future does not expire.
    let _ = spool.append(&[b"x"], 5, at(NOW + 1_000)).unwrap();
    assert!(matches!(spool.next(at(NOW)), Next::Expired { segment_count: 1 }));
    assert!(matches!(spool.next(at(NOW)), Next::Record(record) if record.segment_count == 2));
    assert!(matches!(spool.next(at(NOW)), Next::Expired { segment_count: 3 }));
    drop(spool);
    let mut spool = open(folder.path());
    let counts = [(); 3].map(|()| match spool.next(at(NOW)) {
        Next::Record(record) => record.segment_count,
        other => panic!("{other:?}"),
    });
    assert_eq!(counts, [2, 4, 5]);
}

#[test]
fn the_age_of_the_first_record_that_is_not_settled_is_known_wherever_it_is() {
    let folder = folder();
    let mut spool = open(folder.path());
    let oldest = |spool: &mut Spool| spool.oldest_age(at(NOW + 50)).map(|age| 50 - age.as_secs());
    assert_eq!(oldest(&mut spool), None);
    for later in 0..3 {
        let _ = spool.append(&[b"x"], 1, at(NOW + later)).unwrap();
    }
    assert_eq!(oldest(&mut spool), Some(0), "in the active file");
    let mut taken = [(); 2].map(|()| take_record(&mut spool).id);
    assert_eq!(oldest(&mut spool), Some(0), "taken");
    taken.reverse();
    for (id, expected) in taken.into_iter().zip([0, 2]) {
        spool.settle(id).unwrap();
        assert_eq!(oldest(&mut spool), Some(expected));
    }
    drop(spool);
    let (mut spool, found) = Spool::open(options(folder.path(), 1 << 30), at(NOW + 9)).unwrap();
    assert_eq!(found.oldest_age, Some(Duration::from_secs(7)), "of an earlier run");
    let _ = spool.append(&[b"x"], 1, at(NOW + 9)).unwrap();
    let id = take_record(&mut spool).id;
    spool.settle(id).unwrap();
    assert_eq!(oldest(&mut spool), Some(9), "in another file");
    let id = take_record(&mut spool).id;
    spool.settle(id).unwrap();
    assert_eq!(oldest(&mut spool), None);
}

#[test]
fn a_file_of_expired_records_goes() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append(&mut spool, 0);
    let _ = append(&mut spool, 1);
    let id = take(&mut spool).1;
    assert!(spool.release(id));
    for _ in 0..2 {
        assert!(matches!(spool.next(at(NOW + 101)), Next::Expired { segment_count: 1 }));
    }
    assert!(is_empty(&spool));
    assert!(file_names(folder.path()).is_empty());
}

#[test]
fn nothing_is_appended_to_a_file_of_an_earlier_run_and_no_number_is_used_twice() {
    let folder = folder();
    let _ = append(&mut open(folder.path()), 0);
    std::fs::write(folder.path().join("0000000007.done"), "no records belong to this").unwrap();
    std::fs::write(folder.path().join("0000000008.spool"), "").unwrap();
    let (mut spool, found) = Spool::open(options(folder.path(), 1 << 30), at(NOW)).unwrap();
    assert_eq!((found.file_count, found.orphan_count), (1, 2));
    let _ = append(&mut spool, 1);
    assert_eq!(file_names(folder.path()), ["0000000001.spool", "0000000009.spool"]);
    assert_eq!(take_all(&mut spool), [0, 1]);
}

#[test]
fn a_link_in_place_of_a_data_file_is_neither_read_nor_removed() {
    let folder = folder();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), folder.path().join("0000000001.spool")).unwrap();
    std::fs::write(folder.path().join("0000000001.done"), "").unwrap();
    let (mut spool, found) = Spool::open(options(folder.path(), 1 << 30), at(NOW)).unwrap();
    assert_eq!((found.file_count, found.refused_count), (0, 1));
    let _ = append(&mut spool, 5);
    assert_eq!(take_all(&mut spool), [5]);
    assert_eq!(file_names(folder.path()), ["0000000001.spool", "0000000002.spool"]);
}

#[test]
fn a_second_spool_in_the_same_folder_is_refused() {
    let folder = folder();
    let _first = open(folder.path());
    let error = Spool::open(options(folder.path(), 1 << 30), at(NOW)).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
}

#[test]
fn a_sync_closes_what_is_not_being_read() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 250);
    for name in 0..8 {
        let _ = append(&mut spool, name);
    }
    let (_, id) = take(&mut spool);
    spool.settle(id).unwrap();
    spool.sync().unwrap();
    spool.sync().unwrap();
    let open_count = spool.files.sealed.values().filter(|file| file.handle.is_some()).count();
    assert_eq!(open_count, 1, "the one being read");
    assert_eq!(take_all(&mut spool), (1..8).collect::<Vec<_>>());
}
