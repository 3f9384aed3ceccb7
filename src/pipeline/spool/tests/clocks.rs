//! Tests of clocks that are set while records wait, and of impossible dates on disk.

use super::*;
use crate::base::clock::Clock;
use std::time::UNIX_EPOCH;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn next_is_record(spool: &mut Spool, now: Moment) -> bool {
    match spool.next(now) {
        Next::Record(record) => spool.release(record.id),
        Next::Expired { .. } => false,
        other => panic!("{other:?}"),
    }
}

fn open_at(path: &Path, now: Moment) -> Spool {
    let options = Options { age_max: WEEK, ..options(path, 1 << 30) };
    Spool::open(options, now).unwrap().0
}

#[test]
fn a_date_that_is_set_forward_expires_nothing_that_this_run_wrote() {
    let folder = folder();
    // The host has no battery for its clock, so the clock begins in 1970. The service confirms the
    // date later.
    let clock = Clock::manual(30, UNIX_EPOCH);
    let mut spool = open_at(folder.path(), clock.now());
    let _ = spool.append(&[b"x"], 1, clock.now()).unwrap();
    assert!(next_is_record(&mut spool, clock.now()));
    clock.confirm_date(UNIX_EPOCH + Duration::from_secs(NOW));
    clock.advance(Duration::from_secs(9));
    assert!(next_is_record(&mut spool, clock.now()));
    assert_eq!(spool.oldest_age(clock.now()), Some(Duration::from_secs(9)));
    // New records have the date of the service, and are in another file.
    let _ = spool.append(&[b"y"], 1, clock.now()).unwrap();
    assert_eq!(file_names(folder.path()), ["0000000001.spool", "0000000002.spool"]);
    clock.advance(WEEK);
    assert!(matches!(spool.next(clock.now()), Next::Expired { segment_count: 1 }));
    assert!(next_is_record(&mut spool, clock.now()));
    drop(spool);
    let spool = open_at(folder.path(), clock.now()).oldest_age(clock.now());
    assert_eq!(spool, Some(WEEK));
}

#[test]
fn of_an_earlier_run_nothing_expires_before_the_service_has_answered() {
    let folder = folder();
    let mut spool = open_at(folder.path(), at(NOW));
    let _ = spool.append(&[b"x"], 1, at(NOW)).unwrap();
    drop(spool);
    // The clock of the host shows two weeks later, but it may be wrong.
    let clock = Clock::manual(30, UNIX_EPOCH + Duration::from_secs(NOW) + 2 * WEEK);
    let mut spool = open_at(folder.path(), clock.now());
    assert!(next_is_record(&mut spool, clock.now()));
    assert_eq!(spool.oldest_age(clock.now()), Some(2 * WEEK));
    clock.confirm_date(UNIX_EPOCH + Duration::from_secs(NOW + 60));
    assert!(next_is_record(&mut spool, clock.now()));
    assert_eq!(spool.oldest_age(clock.now()), Some(Duration::from_secs(60)));
    clock.advance(WEEK);
    assert!(!next_is_record(&mut spool, clock.now()));
}

#[test]
fn a_date_on_disk_that_is_yet_to_come_or_impossible_counts_from_when_the_file_was_found() {
    for created_at in [0, 1, NOW + 1_000_000, u64::MAX / 2, u64::MAX] {
        let folder = folder();
        let path = folder.path().join("0000000001.spool");
        let header = super::super::record::Header {
            payload_length: 1,
            segment_count: 1,
            created_at,
            payload_crc32: crc32fast::hash(b"x"),
        };
        std::fs::write(&path, [&b"xrayspl1"[..], &header.encode(), b"x"].concat()).unwrap();
        let mut spool = open_at(folder.path(), at(NOW));
        assert_eq!(spool.oldest_age(at(NOW + 7)), Some(Duration::from_secs(7)), "{created_at}");
        assert!(next_is_record(&mut spool, at(NOW + 7)));
        let later = NOW + WEEK.as_secs();
        assert!(next_is_record(&mut spool, at(later)));
        assert!(!next_is_record(&mut spool, at(later + 1)));
    }
}
