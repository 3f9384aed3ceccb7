//! Tests of records that are taken in parts, and of records that are set aside.

use super::*;

/// Appends a record of six segments that can be divided.
fn append_six(spool: &mut Spool) -> Evicted {
    spool.append(&[&[7; 6 * HEADER_BYTES]], 6, at(NOW)).unwrap()
}

/// Takes all parts that wait. Returns the index of the first segment of each part, and the index
/// behind its last segment.
fn take_parts(spool: &mut Spool) -> Vec<(u32, u32)> {
    let next = |spool: &mut Spool| match spool.next(at(NOW)) {
        Next::Record(record) => Some((record.taken.start, record.taken.end)),
        Next::Empty => None,
        other => panic!("{other:?}"),
    };
    std::iter::from_fn(|| next(spool)).collect()
}

#[test]
fn what_is_put_back_of_a_divided_record_comes_next_and_each_part_is_settled_on_its_own() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let _ = append(&mut spool, 9);
    let first = take_record(&mut spool);
    assert_eq!((first.segment_count, first.taken), (6, 0..6));
    assert!(spool.split(first.id, 2));
    let second = take_record(&mut spool);
    assert_eq!((second.segment_count, second.taken), (6, 2..6));
    assert!(spool.split(second.id, 1));
    assert_eq!(spool.segment_count(), 7);
    spool.settle(second.id).unwrap();
    assert_eq!(spool.segment_count(), 6);
    assert!(spool.release(first.id));
    assert_eq!(take_parts(&mut spool), [(0, 2), (3, 6), (0, 1)]);
}

#[test]
fn a_part_that_was_settled_does_not_come_again_after_a_crash_and_the_others_do() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let _ = append(&mut spool, 9);
    let first = take_record(&mut spool).id;
    assert!(spool.split(first, 2));
    let second = take_record(&mut spool).id;
    assert!(spool.split(second, 3));
    spool.settle(second).unwrap();
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(take_parts(&mut spool), [(0, 2), (5, 6), (0, 1)]);
    drop(spool);
    let mut spool = open(folder.path());
    for _ in 0..3 {
        let id = take_record(&mut spool).id;
        spool.settle(id).unwrap();
    }
    assert!(file_names(folder.path()).is_empty(), "all of it is settled");
}

#[test]
fn parts_that_were_settled_are_not_counted_when_their_file_is_evicted() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let first = take_record(&mut spool).id;
    assert!(spool.split(first, 2));
    spool.settle(first).unwrap();
    let waiting = |spool: &mut Spool| {
        let evicted = spool.append(&[&[0; 700]], 1, at(NOW)).unwrap();
        (evicted.segment_count, evicted.unknown_bytes)
    };
    // The spool is opened again and has not read the file yet.
    drop(spool);
    let (mut spool, _) = Spool::open(options(folder.path(), 800), at(NOW)).unwrap();
    assert_eq!(waiting(&mut spool), (4, 0));
}

#[test]
fn a_record_that_is_too_short_for_marks_is_not_divided() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = spool.append(&[&[7; 2 * HEADER_BYTES - 1]], 2, at(NOW)).unwrap();
    let record = take_record(&mut spool);
    assert!(!spool.split(record.id, 1));
    assert!(spool.release(record.id));
    assert_eq!(take_parts(&mut spool), [(0, 2)]);
}

#[test]
fn what_is_set_aside_is_not_read_in_this_run_and_is_counted_until_its_file_is_evicted() {
    let folder = folder();
    let mut spool = open_small(folder.path(), 1_000, 250);
    let _ = append_six(&mut spool);
    let id = take_record(&mut spool).id;
    spool.set_aside(id);
    assert!(matches!(spool.next(at(NOW)), Next::Empty));
    spool.settle(id).unwrap();
    assert_eq!((spool.segment_count(), is_empty(&spool)), (6, false));
    assert_eq!(spool.oldest_age(at(NOW + 5)), Some(Duration::from_secs(5)));
    let mut evicted_count = 0;
    for name in 0..8 {
        evicted_count += append(&mut spool, name).segment_count;
    }
    assert_eq!(evicted_count, 6);
}

#[test]
fn what_is_set_aside_comes_again_in_the_next_run() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let id = take_record(&mut spool).id;
    spool.set_aside(id);
    drop(spool);
    assert_eq!(take_parts(&mut open(folder.path())), [(0, 6)]);
}

#[test]
fn what_waits_of_a_damaged_record_is_lost_with_the_part_that_shows_it() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let _ = append(&mut spool, 9);
    let first = take_record(&mut spool).id;
    assert!(spool.split(first, 1));
    let path = folder.path().join("0000000001.spool");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(spool.release(first));
    let Next::Damaged(_, damage) = spool.next(at(NOW)) else { panic!("it is damaged") };
    assert_eq!(damage.segment_count, 6);
    assert_eq!(take_parts(&mut spool), [(0, 1)]);
}

#[test]
fn a_record_that_is_cut_off_while_it_is_read_is_lost_and_counted() {
    let folder = folder();
    let mut spool = open(folder.path());
    let _ = append_six(&mut spool);
    let record = take_record(&mut spool);
    let file = File::options().write(true).open(folder.path().join("0000000001.spool")).unwrap();
    file.set_len(100).unwrap();
    let read = spool.read(record.id, 60, &mut [0; 50]);
    let Err(Next::Damaged(_, damage)) = read else { panic!("{read:?}") };
    assert_eq!((damage.segment_count, spool.segment_count()), (6, 0));
    assert!(matches!(spool.next(at(NOW)), Next::Empty));
}

#[test]
fn what_cannot_be_read_of_a_file_that_is_evicted_is_told_in_bytes() {
    let folder = folder();
    let mut spool = open(folder.path());
    for name in 0..6 {
        let _ = append(&mut spool, name);
    }
    drop(spool);
    let path = folder.path().join("0000000001.spool");
    let mut bytes = std::fs::read(&path).unwrap();
    // Damages the header of the second record.
    bytes[usize::try_from(FILE_HEADER_BYTES + RECORD_BYTES).unwrap()] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (mut spool, _) = Spool::open(options(folder.path(), 700), at(NOW)).unwrap();
    let evicted = append(&mut spool, 6);
    assert_eq!((evicted.segment_count, evicted.unknown_bytes), (5, RECORD_BYTES));
}
