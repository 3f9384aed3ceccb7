//! Tests of files that were damaged, removed or replaced, and of disks that are full or read-only.

use super::*;
use crate::skip::{Need, skip};
use std::process::Command;

/// The records and the damage that [`drain`] has found.
#[derive(Debug, Default, PartialEq)]
struct Drained {
    names: Vec<u32>,
    damaged_bytes: u64,
    damaged_segment_count: u64,
    damage_count: u32,
    errors: Vec<String>,
}

/// Takes all records and settles them.
fn drain(spool: &mut Spool) -> Drained {
    let mut drained = Drained::default();
    loop {
        let id = match spool.next(at(NOW)) {
            Next::Record(record) => {
                let found = read(spool, &record);
                let name = u32::from_le_bytes(*found.first_chunk().unwrap());
                assert_eq!(found, payload(name));
                drained.names.push(name);
                record.id
            }
            Next::Damaged(_, damage) => {
                drained.damaged_bytes += damage.bytes;
                drained.damaged_segment_count += damage.segment_count;
                drained.damage_count += 1;
                assert!(drained.damage_count < 100, "reading does not end");
                continue;
            }
            Next::Unreadable(error) => {
                drained.errors.push(error.to_string());
                assert!(drained.errors.len() < 100, "reading does not end");
                continue;
            }
            Next::Expired { .. } => panic!("none is old"),
            Next::Empty => return drained,
        };
        spool.settle(id).unwrap();
    }
}

/// Returns a folder with a file of three records, the path of the file, and the bytes of the file.
fn three_records() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..3 {
        let _ = append(&mut spool, name);
    }
    let path = folder.path().join("0000000001.spool");
    let bytes = std::fs::read(&path).unwrap();
    (folder, path, bytes)
}

#[test]
fn a_torn_tail_costs_the_last_record_alone_and_is_reported_once() {
    let (folder, path, bytes) = three_records();
    let last = bytes.len() - usize::try_from(RECORD_BYTES).unwrap();
    for length in last..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut spool = open(folder.path());
        let drained = drain(&mut spool);
        assert_eq!(drained.names, [0, 1]);
        assert_eq!(drained.damaged_bytes, (length - last) as u64);
        assert_eq!(drained.damage_count, u32::from(length > last));
        assert!(is_empty(&spool) && file_names(folder.path()).is_empty());
    }
}

#[test]
fn damage_says_where_it_is_and_what_it_cost() {
    let (folder, path, bytes) = three_records();
    std::fs::write(&path, &bytes[..50]).unwrap();
    let mut spool = open(folder.path());
    let Next::Damaged(name, damage) = spool.next(at(NOW)) else { panic!("the file is torn") };
    let expected = "the file ends within a record; 42 bytes skipped";
    assert_eq!((&*name, damage.to_string().as_str()), ("0000000001.spool", expected));
    assert_eq!(damage.segment_count, 1);
}

#[test]
fn a_torn_file_header_holds_no_record() {
    for length in 1..8 {
        let (folder, path, bytes) = three_records();
        std::fs::write(&path, &bytes[..length]).unwrap();
        let mut spool = open(folder.path());
        let drained = drain(&mut spool);
        assert_eq!((drained.damaged_bytes, drained.damage_count), (length as u64, 1));
        assert!(file_names(folder.path()).is_empty());
    }
}

#[test]
fn a_flipped_byte_costs_the_record_that_it_lies_in_and_none_in_the_file_header() {
    let (folder, path, bytes) = three_records();
    let header = usize::try_from(FILE_HEADER_BYTES).unwrap();
    for flipped in 0..bytes.len() {
        for bit in [0x01, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[flipped] ^= bit;
            std::fs::write(&path, &bytes).unwrap();
            let mut spool = open(folder.path());
            let drained = drain(&mut spool);
            let hit = flipped.checked_sub(header).map(|place| place as u64 / RECORD_BYTES);
            let expected: Vec<_> = (0..3).filter(|&name| Some(u64::from(name)) != hit).collect();
            assert_eq!(drained.names, expected, "byte {flipped}");
            let damaged_bytes = if hit.is_some() { RECORD_BYTES } else { FILE_HEADER_BYTES };
            assert_eq!((drained.damaged_bytes, drained.damage_count), (damaged_bytes, 1));
            assert!(file_names(folder.path()).is_empty());
        }
    }
}

#[test]
fn what_damage_costs_of_this_run_is_counted_in_segments() {
    let place = |record: u64, byte: u64| FILE_HEADER_BYTES + record * RECORD_BYTES + byte;
    for flipped in [place(0, 5), place(0, 40), place(1, 5), place(2, 5), place(2, 40)] {
        let folder = folder();
        let mut spool = open(folder.path());
        for name in 0..3 {
            let _ = append(&mut spool, name);
        }
        let path = folder.path().join("0000000001.spool");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(flipped).unwrap()] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let drained = drain(&mut spool);
        assert_eq!((drained.names.len(), drained.damaged_segment_count), (2, 1), "{flipped}");
        assert_eq!(spool.segment_count(), 0);
        assert!(is_empty(&spool) && file_names(folder.path()).is_empty());
    }
}

#[test]
fn damage_between_records_is_skipped_to_the_next_one() {
    let (folder, path, bytes) = three_records();
    let middle = usize::try_from(FILE_HEADER_BYTES + RECORD_BYTES).unwrap();
    for rubbish_bytes in [1, 2, 3, 4, 27, 28, 29, 200_000] {
        let rubbish = vec![0xFF; rubbish_bytes];
        std::fs::write(&path, [&bytes[..middle], &rubbish, &bytes[middle..]].concat()).unwrap();
        let drained = drain(&mut open(folder.path()));
        assert_eq!(drained.names, [0, 1, 2]);
        let expected = (rubbish_bytes as u64, 1);
        assert_eq!((drained.damaged_bytes, drained.damage_count), expected);
    }
}

#[test]
fn a_file_that_somebody_removed_is_counted_and_forgotten() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1 << 30, 250);
    for name in 0..6 {
        let _ = append(&mut spool, name);
    }
    spool.sync().unwrap();
    std::fs::remove_file(folder.path().join("0000000001.spool")).unwrap();
    let drained = drain(&mut spool);
    assert_eq!(drained.names, [2, 3, 4, 5]);
    assert_eq!((drained.damaged_segment_count, drained.damage_count), (2, 1));
    assert!(is_empty(&spool) && spool.size_bytes() == 0);
}

#[test]
fn a_file_that_is_removed_while_it_is_written_is_read_still_and_appended_to_no_more() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append(&mut spool, 0);
    std::fs::remove_file(folder.path().join("0000000001.spool")).unwrap();
    spool.sync().unwrap();
    let _ = append(&mut spool, 1);
    assert_eq!((spool.removal(), spool.removal()), (Some(Removal::File), None));
    // A sync does not close the file: a removed file cannot be opened again.
    spool.sync().unwrap();
    assert_eq!(file_names(folder.path()), ["0000000002.spool"]);
    assert_eq!(take_all(&mut spool), [0, 1]);
}

#[test]
fn a_folder_that_is_removed_is_made_anew_and_locked() {
    let parent = folder();
    let path = parent.path().join("spool");
    let mut spool = open_small(&path, 1 << 30, 250);
    for name in 0..3 {
        let _ = append(&mut spool, name);
    }
    spool.sync().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let _ = append(&mut spool, 3);
    assert_eq!(spool.removal(), Some(Removal::Folder));
    assert_eq!(file_names(&path), ["0000000003.spool"]);
    assert!(matches!(
        Spool::open(options(&path, 1 << 30), at(NOW)),
        Err(SpoolError::Locked { .. })
    ));
    // The first file was closed, so its records are lost. The second file was open.
    let drained = drain(&mut spool);
    assert_eq!((drained.names, drained.damaged_segment_count), (vec![2, 3], 2));
}

#[test]
fn a_file_that_cannot_be_read_is_passed_over_and_tried_again() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1_000, 250);
    for name in 0..6 {
        let _ = append(&mut spool, name);
    }
    spool.sync().unwrap();
    // Even root cannot read the file now: the spool never follows a link.
    let (path, aside) = (folder.path().join("0000000001.spool"), folder.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    symlink("aside", &path).unwrap();
    let drained = drain(&mut spool);
    assert_eq!((drained.names, drained.damage_count), (vec![2, 3, 4, 5], 0));
    assert_eq!((drained.errors.len(), spool.segment_count()), (1, 2), "nothing of it is lost");
    assert!(drained.errors[0].contains("0000000001.spool"), "{:?}", drained.errors);
    spool.try_unreadable();
    assert_eq!(drain(&mut spool).errors.len(), 1, "it is tried again when that is asked for");
    std::fs::rename(&aside, &path).unwrap();
    assert!(try_take(&mut spool).is_none());
    spool.try_unreadable();
    assert_eq!(drain(&mut spool).names, [0, 1]);
    assert!(is_empty(&spool));
}

#[test]
fn a_file_that_cannot_be_read_is_evicted_first_and_its_segments_are_counted_then() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1_000, 250);
    for name in 0..6 {
        let _ = append(&mut spool, name);
    }
    spool.sync().unwrap();
    let path = folder.path().join("0000000001.spool");
    std::fs::remove_file(&path).unwrap();
    symlink("0000000002.spool", &path).unwrap();
    assert_eq!(drain(&mut spool).names, [2, 3, 4, 5]);
    let evicted_count: u64 = (0..8).map(|name| append(&mut spool, name).segment_count).sum();
    assert_eq!((evicted_count, path.exists()), (2, false));
}

#[test]
fn a_file_that_was_cut_while_open_ends_there() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..3 {
        let _ = append(&mut spool, name);
    }
    let path = folder.path().join("0000000001.spool");
    File::options().write(true).open(path).unwrap().set_len(150).unwrap();
    let drained = drain(&mut spool);
    assert_eq!((drained.names, drained.damaged_segment_count), (vec![0], 2));
    assert_eq!(drained.damage_count, 1);
}

#[test]
fn a_record_that_is_put_back_and_then_damaged_is_skipped() {
    let (folder, path, mut bytes) = three_records();
    let mut spool = open(folder.path());
    let (_, id) = take(&mut spool);
    assert!(spool.release(id));
    bytes[50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let drained = drain(&mut spool);
    assert_eq!((drained.names, drained.damaged_segment_count), (vec![1, 2], 1));
}

#[test]
fn after_a_failed_write_that_cannot_be_cut_off_a_new_file_is_begun() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append(&mut spool, 0);
    // A device that is always full and cannot be cut.
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    spool.files.active.as_mut().unwrap().handle = Box::new(full);
    let error = spool.append(&[b"lost"], 1, at(NOW)).unwrap_err();
    let SpoolError::Write(source) = &error.cause else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!((spool.segment_count(), spool.files.active.is_none()), (1, true));
    let _ = append(&mut spool, 1);
    drop(spool);
    assert_eq!(take_all(&mut open(folder.path())), [0, 1]);
}

/// Puts a folder in the place of a file: even root cannot unlink a folder.
fn block(path: &Path) {
    std::fs::remove_file(path).unwrap();
    std::fs::create_dir(path).unwrap();
}

#[test]
fn without_room_nothing_is_appended_and_the_error_has_what_was_evicted() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1_000, 250);
    for name in 0..8 {
        let _ = append(&mut spool, name);
    }
    let second = folder.path().join("0000000002.spool");
    block(&second);
    let size_bytes = spool.size_bytes();
    let error = spool.append(&[&[0; 400]], 1, at(NOW)).unwrap_err();
    assert!(matches!(error.cause, SpoolError::Remove(_)), "{error}");
    assert_eq!((error.evicted.file_count, error.evicted.segment_count), (1, 2));
    assert_eq!(spool.size_bytes() + error.evicted.bytes, size_bytes);
    assert_eq!(spool.segment_count(), 6);
    std::fs::remove_dir(&second).unwrap();
    let evicted = spool.append(&[&[0; 400]], 1, at(NOW)).unwrap();
    assert_eq!((evicted.file_count, evicted.segment_count), (1, 2));
}

#[test]
fn a_settled_file_that_cannot_be_removed_is_an_error_and_is_not_read_again() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append(&mut spool, 0);
    let (_, id) = take(&mut spool);
    block(&folder.path().join("0000000001.spool"));
    assert!(matches!(spool.settle(id), Err(SpoolError::Remove(_))));
    assert!(try_take(&mut spool).is_none() && is_empty(&spool));
}

#[test]
fn progress_that_cannot_be_noted_is_an_error_and_the_record_does_not_come_again_in_this_run() {
    let (folder, _, _) = three_records();
    symlink("elsewhere", folder.path().join("0000000001.done")).unwrap();
    let mut spool = open(folder.path());
    let (name, id) = take(&mut spool);
    assert!(matches!(spool.settle(id), Err(SpoolError::Progress(_))));
    assert_eq!((name, take_all(&mut spool)), (0, vec![1, 2]));
    drop(spool);
    assert_eq!(take_all(&mut open(folder.path())), [0, 1, 2]);
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn what_could_not_be_settled_on_disk_is_settled_there_by_a_later_attempt() {
    let (folder, _, _) = three_records();
    let link = folder.path().join("0000000001.done");
    symlink("elsewhere", &link).unwrap();
    let mut spool = open(folder.path());
    let ids: Vec<_> = (0..2).map(|_| take(&mut spool).1).collect();
    assert!(spool.settle(ids[0]).is_err() && spool.is_behind());
    assert!(spool.settle_again().is_err());
    std::fs::remove_file(&link).unwrap();
    // The next record takes the entries before it along.
    spool.settle(ids[1]).unwrap();
    assert!(!spool.is_behind());
    drop(spool);
    let mut spool = open(folder.path());
    let (name, id) = take(&mut spool);
    assert_eq!(name, 2);
    // The file is finished with this record, and cannot be removed.
    block(&folder.path().join("0000000001.spool"));
    assert!(spool.settle(id).is_err() && spool.is_behind());
    std::fs::remove_dir_all(folder.path().join("0000000001.spool")).unwrap();
    spool.settle_again().unwrap();
    assert!(!spool.is_behind() && file_names(folder.path()).is_empty());
}

/// A tiny file system that is mounted as long as this value lives.
struct TinyDisk(TempDir);

impl TinyDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = folder();
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path());
        let is_mounted = rustix::process::geteuid().is_root()
            && mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(folder))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_full_disk_nothing_half_written_stays_and_appending_works_again_when_there_is_room() {
    let Some(disk) = TinyDisk::mount("64k") else {
        return skip(Need::Mount, "no file system can be mounted here");
    };
    let path = disk.0.path().join("spool");
    let mut spool = open(&path);
    let large = vec![1; 20_000];
    let mut written_count = 0;
    let error = loop {
        match spool.append(&[&large[..9_000], &large[9_000..]], 1, at(NOW)) {
            Ok(_) => written_count += 1,
            Err(error) => break error,
        }
    };
    let SpoolError::Write(source) = &error.cause else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(written_count >= 2);
    assert_eq!(spool.segment_count(), written_count);
    let length = std::fs::metadata(path.join("0000000001.spool")).unwrap().len();
    assert_eq!(length, spool.size_bytes(), "it was cut back");
    assert!(matches!(spool.probe(), Err(SpoolError::Write(_))));
    assert_eq!(length, std::fs::metadata(path.join("0000000001.spool")).unwrap().len());
    // A smaller record still fits, and is taken after the large records.
    let _ = append(&mut spool, 7);
    for _ in 0..written_count {
        let record = take_record(&mut spool);
        assert_eq!(read(&mut spool, &record), large);
        spool.settle(record.id).unwrap();
    }
    let (name, id) = take(&mut spool);
    assert_eq!(name, 7);
    spool.settle(id).unwrap();
    assert!(spool.append(&[&large], 1, at(NOW)).is_ok());
    spool.probe().unwrap();
    let (size_bytes, segment_count) = (spool.size_bytes(), spool.segment_count());
    assert_eq!((size_bytes, segment_count), (append::OVERHEAD_BYTES + 20_000, 1), "no trace of it");
}

#[test]
fn a_read_only_disk_is_named_as_such() {
    let Some(disk) = TinyDisk::mount("64k") else {
        return skip(Need::Mount, "no file system can be mounted here");
    };
    let path = disk.0.path().join("spool");
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", &options]).arg(disk.0.path()).status().unwrap().success());
    };
    let is_refused = || {
        let error = Spool::open(options(&path, 1 << 30), at(NOW)).unwrap_err();
        matches!(error, SpoolError::ReadOnly { .. })
    };
    remount("ro");
    assert!(is_refused(), "it cannot be made");
    remount("rw");
    let _ = append(&mut open(&path), 0);
    remount("ro");
    assert!(is_refused(), "it cannot be locked");
    remount("rw");
    assert_eq!(take_all(&mut open(&path)), [0]);
}
