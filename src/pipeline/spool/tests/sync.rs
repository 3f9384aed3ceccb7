//! Tests of a spool on a disk where fsync fails.

use super::faulty::FaultyDisk;
use super::*;

/// Syncs the spool. The first `pass_count` calls of fsync succeed and the next `fail_count` calls
/// fail. The sync must fail.
fn sync_with_faults(spool: &mut Spool, disk: &FaultyDisk, pass_count: u32, fail_count: u32) {
    disk.fail_syncs(pass_count, fail_count);
    let synced = spool.sync();
    disk.fail_syncs(0, 0);
    assert!(matches!(synced, Err(SpoolError::Sync(_))), "{synced:?}");
}

/// A spool of three records on a disk that can fail.
fn three(folder: &Path) -> (Spool, FaultyDisk) {
    let disk = FaultyDisk::default();
    let opened = Spool::open_on(Arc::new(disk.clone()), options(folder, 1 << 30), at(NOW));
    let mut spool = opened.unwrap().0;
    for name in 0..3 {
        let _ = append(&mut spool, name);
    }
    (spool, disk)
}

#[test]
fn suspect_records_are_written_to_a_new_file_and_come_once() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    sync_with_faults(&mut spool, &disk, 0, 1);
    // All records of the first file were copied, so the file is removed.
    assert_eq!(file_names(folder.path()), ["0000000002.spool"]);
    assert_eq!(
        (spool.segment_count(), spool.size_bytes()),
        (3, FILE_HEADER_BYTES + 3 * RECORD_BYTES)
    );
    spool.sync().unwrap();
    let _ = append(&mut spool, 3);
    assert_eq!(take_all(&mut spool), [0, 1, 2, 3]);
    assert_eq!(spool.oldest_age(at(NOW + 1)), Some(Duration::from_secs(1)));
}

#[test]
fn what_was_synced_before_stays_where_it_is() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    spool.sync().unwrap();
    let _ = append(&mut spool, 3);
    sync_with_faults(&mut spool, &disk, 0, 1);
    assert_eq!(
        file_names(folder.path()),
        ["0000000001.done", "0000000001.spool", "0000000002.spool"]
    );
    assert_eq!(spool.segment_count(), 4);
    drop(spool);
    // No record comes twice after a crash.
    assert_eq!(take_all(&mut open(folder.path())), [0, 1, 2, 3]);
}

#[test]
fn a_disk_that_goes_on_to_fail_has_the_first_copy_kept_and_no_other() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    for pass_count in [0, 0, 1] {
        // Either the fsync of the copy fails, or the fsync of the folder.
        sync_with_faults(&mut spool, &disk, pass_count, 9);
        assert_eq!(file_names(folder.path()), ["0000000001.spool"]);
        assert_eq!(spool.segment_count(), 3);
    }
    spool.sync().unwrap();
    assert_eq!(file_names(folder.path()), ["0000000005.spool"]);
    assert_eq!(take_all(&mut spool), [0, 1, 2]);
}

#[test]
fn a_failed_sync_of_the_folder_makes_its_files_suspect_too() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    sync_with_faults(&mut spool, &disk, 1, 1);
    assert_eq!(file_names(folder.path()), ["0000000002.spool"]);
    spool.sync().unwrap();
    assert_eq!(take_all(&mut spool), [0, 1, 2]);
}

#[test]
fn what_is_taken_at_that_time_stays_where_it_is_and_is_not_copied_any_more() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    let ids = [(); 2].map(|()| take(&mut spool).1);
    sync_with_faults(&mut spool, &disk, 0, 1);
    assert_eq!(file_names(folder.path()).len(), 3, "with what is noted of the one that was copied");
    assert_eq!(spool.segment_count(), 3);
    spool.settle(ids[0]).unwrap();
    assert!(spool.release(ids[1]));
    spool.sync().unwrap();
    assert_eq!(spool.segment_count(), 2);
    assert_eq!(file_names(folder.path()).len(), 3);
    assert_eq!(take_all(&mut spool), [1, 2]);
    drop(spool);
    assert_eq!(take_all(&mut open(folder.path())), [1, 2]);
}

#[test]
fn whichever_fsync_fails_while_a_record_is_taken_each_record_comes_once() {
    let mut failed_count = 0;
    for pass_count in 0..8 {
        let folder = folder();
        let (mut spool, disk) = three(folder.path());
        let (_, id) = take(&mut spool);
        // Nothing can be copied, so the file stays suspect.
        sync_with_faults(&mut spool, &disk, 0, 9);
        disk.fail_syncs(pass_count, 1);
        failed_count += usize::from(spool.sync().is_err());
        disk.fail_syncs(0, 0);
        assert!(spool.release(id));
        assert_eq!(spool.segment_count(), 3, "{pass_count}");
        spool.sync().unwrap();
        let mut names = take_all(&mut spool);
        names.sort_unstable();
        assert_eq!(names, [0, 1, 2], "{pass_count}");
    }
    // The fsyncs of the folder, the copy, its name, and the bytes that were written again.
    assert!(failed_count >= 4, "{failed_count}");
}

#[test]
fn what_cannot_be_read_back_is_counted_as_damaged_and_the_rest_is_kept() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    // Changes a byte, as if the kernel had dropped a page.
    let path = folder.path().join("0000000001.spool");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = usize::try_from(FILE_HEADER_BYTES + RECORD_BYTES).unwrap() + 50;
    bytes[place] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    sync_with_faults(&mut spool, &disk, 0, 1);
    assert_eq!(spool.segment_count(), 3);
    let Next::Damaged(_, damage) = spool.next(at(NOW)) else { panic!("it is damaged") };
    assert_eq!((damage.segment_count, damage.bytes), (1, RECORD_BYTES));
    assert_eq!(take_all(&mut spool), [0, 2]);
}

/// Takes all records. Returns their names, and the bytes and segments that are reported as damaged.
fn take_around_damage(spool: &mut Spool) -> (Vec<u8>, u64, u64) {
    let (mut names, mut bytes, mut segment_count) = (Vec::new(), 0, 0);
    loop {
        match spool.next(at(NOW)) {
            Next::Record(record) => names.push(read(spool, &record)[0]),
            Next::Damaged(_, damage) => {
                bytes += damage.bytes;
                segment_count += damage.segment_count;
            }
            Next::Empty => return (names, bytes, segment_count),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_damaged_header_among_what_is_copied_costs_its_record_alone() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    let path = folder.path().join("0000000001.spool");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(FILE_HEADER_BYTES + RECORD_BYTES).unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    sync_with_faults(&mut spool, &disk, 0, 1);
    assert_eq!(take_around_damage(&mut spool), (vec![0, 2], RECORD_BYTES, 1));
    drop(spool);
    // A crash brings none of the copied records twice, and the damage is not counted again.
    assert_eq!(take_around_damage(&mut open(folder.path())), (vec![0, 2], 0, 0));
}

#[test]
fn a_copy_that_was_not_needed_is_removed_as_soon_as_the_disk_lets_it() {
    let folder = folder();
    let (mut spool, disk) = three(folder.path());
    disk.fail_removals(true);
    // The fsync of the copy fails too, so the copy is not needed.
    sync_with_faults(&mut spool, &disk, 0, 9);
    assert_eq!(file_names(folder.path()), ["0000000001.spool", "0000000002.spool"]);
    assert!(spool.is_behind() && spool.settle_again().is_err() && spool.is_behind());
    disk.fail_removals(false);
    spool.settle_again().unwrap();
    assert!(!spool.is_behind());
    assert_eq!(file_names(folder.path()), ["0000000001.spool"]);
    // The next run does not send its records again.
    drop(spool);
    assert_eq!(take_all(&mut open(folder.path())), [0, 1, 2]);
}

#[test]
fn a_file_with_the_last_number_does_not_keep_others_from_being_written() {
    let folder = folder();
    let _ = append(&mut open(folder.path()), 0);
    let last = folder.path().join("9999999999.spool");
    std::fs::rename(folder.path().join("0000000001.spool"), last).unwrap();
    let mut spool = open(folder.path());
    let _ = append(&mut spool, 7);
    assert_eq!(file_names(folder.path()), ["0000000001.spool", "0000000002.spool"]);
    assert_eq!(take_all(&mut spool), [0, 7]);
}
