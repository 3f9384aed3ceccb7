//! Fuzzes the spool with any data file and any progress file: reading must end, and each record
//! that is read must be in the file with its checksum. Each record is settled in several parts, and
//! no part may be read twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xrayd::base::clock::Moment;
use xrayd::pipeline::spool::{Next, Options, Record, Spool};

/// The time of the whole run. No answer of the service has confirmed its date.
const NOW: Moment =
    Moment { uptime_seconds: 100, offset_seconds: 1_800_000_000, is_confirmed: false };

const MAGIC: &[u8] = b"xrayspl1";
const DATA_NAME: &str = "0000000001.spool";
const PROGRESS_NAME: &str = "0000000001.done";

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::Builder::new()
        .prefix("xrayd-fuzz-spool-")
        .tempdir_in(if fs::exists("/dev/shm").unwrap_or(false) {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        })
        .expect("the folder for temporary files is writable");
}

/// Number of segments in a part of a record, if the record can be divided.
const PART_SEGMENT_COUNT: u32 = 3;

/// The parts of the input, in order: valid records (segment count and payload), changes of single
/// bytes in the data file, bytes to add at the end of the data file, and the progress file.
type Input<'bytes> = (Vec<(u32, &'bytes [u8])>, Vec<(u16, u8)>, &'bytes [u8], &'bytes [u8]);

fuzz_target!(|input: Input<'_>| FOLDER.with(|folder| check(folder.path().to_owned(), input)));

fn check(path: PathBuf, (records, changes, tail, progress): Input<'_>) {
    let _ = fs::remove_file(path.join(DATA_NAME));
    let _ = fs::remove_file(path.join(PROGRESS_NAME));
    let mut spool = open(&path);
    for (segment_count, payload) in &records {
        let (front, back) = payload.split_at(payload.len() / 2);
        let evicted = spool.append(&[front, back], *segment_count, NOW).expect("the disk has room");
        assert_eq!(evicted.file_count, 0);
    }
    drop(spool);
    // Without records there is no file yet. The data file then consists of `tail` only.
    let mut bytes = fs::read(path.join(DATA_NAME)).unwrap_or_default();
    for (place, change) in changes {
        if let Some(byte) = bytes.get_mut(usize::from(place)) {
            *byte ^= change;
        }
    }
    bytes.extend(tail);
    fs::write(path.join(DATA_NAME), &bytes).expect("the disk has room");
    fs::write(path.join(PROGRESS_NAME), progress).expect("the disk has room");
    let mut spool = open(&path);
    // This must not panic with any date in a header.
    let _ = spool.oldest_age(NOW);
    drain(&mut spool, &bytes);
    assert!(!path.join(DATA_NAME).exists(), "the spool deletes a file that was read to its end");
}

fn open(path: &Path) -> Spool {
    let age_max = Duration::from_secs(1_000);
    let options = Options { path: path.to_path_buf(), size_bytes_max: 1 << 30, age_max };
    Spool::open(options, NOW).expect("no other process uses the folder").0
}

fn drain(spool: &mut Spool, bytes: &[u8]) {
    let mut passed_bytes = 0;
    // The previously read record. It shows whether the next read returns a further part of it.
    let mut last: Option<Record> = None;
    loop {
        let record = match spool.next(NOW) {
            Next::Record(record) => record,
            Next::Damaged(_, damage) => {
                assert!(damage.bytes > 0, "damage has a length");
                passed_bytes += damage.bytes;
                continue;
            }
            Next::Unreadable(error) => panic!("{error}"),
            Next::Expired { .. } => panic!("the clock stands"),
            Next::Empty => break,
        };
        let mut payload = vec![0; record.payload_bytes as usize];
        spool.read(record.id, 0, &mut payload).expect("the record was read a moment ago");
        assert!(holds(bytes, &payload));
        assert!(record.taken.end <= record.segment_count);
        let is_rest = last.as_ref().is_some_and(|last| {
            let shape = |record: &Record| (record.segment_count, record.payload_bytes);
            shape(last) == shape(&record) && record.taken.start > last.taken.start
        });
        if !is_rest {
            passed_bytes += u64::from(record.payload_bytes);
        }
        let _ = spool.split(record.id, PART_SEGMENT_COUNT);
        spool.settle(record.id).expect("the disk has room");
        last = Some(record);
    }
    assert!(passed_bytes <= bytes.len() as u64, "a record was read twice");
    assert!(bytes.is_empty() || bytes.starts_with(MAGIC) || passed_bytes > 0);
    assert_eq!(spool.segment_count(), 0);
}

/// Returns whether `bytes` contain a record with `payload`: the checksum of the payload, the
/// checksum of the header, the payload.
fn holds(bytes: &[u8], payload: &[u8]) -> bool {
    let crc32 = crc32fast::hash(payload).to_le_bytes();
    let mut places = bytes.windows(8 + payload.len());
    places.any(|place| place.starts_with(&crc32) && place.ends_with(payload))
}
