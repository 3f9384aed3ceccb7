//! The types of the spool's interface.
//!
//! In: the options of the operator. Out: what [`Spool`](super::Spool) returns. Thread: any.

use super::error::{Damage, SpoolError};
use super::parts::Place;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// The options of a spool: its folder, its largest size, and the largest age of a record.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the spool. The spool creates the folder if it is missing, but not the parent
    /// of the folder.
    pub path: PathBuf,
    /// The largest size of all files together, in bytes. When this size is reached, the spool
    /// evicts its oldest file. A file grows to a sixteenth of this size, but at least to 1 MiB and
    /// at most to 64 MiB. Three things may exceed this size: entries of 12 bytes that note settled
    /// records, until the next record is appended; the files that were found at the start; records
    /// that are copied after a failed fsync.
    pub size_bytes_max: u64,
    /// The largest age of a record. An older record expires when reading comes to it.
    pub age_max: Duration,
}

/// The content of the folder when [`Spool::open`](super::Spool::open) opened it, for the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many data files earlier runs have left.
    pub file_count: u64,
    /// The size of the data files of earlier runs, in bytes. Some of their records may be settled
    /// already.
    pub bytes: u64,
    /// How many links, folders or devices have the name of a spool file. The spool does not touch
    /// them.
    pub refused_count: u64,
    /// How many files without records were removed.
    pub orphan_count: u64,
    /// The earlier permissions of the folder, if the spool has taken the permissions of other users
    /// away; `None` if other users had none.
    pub tightened_from: Option<u32>,
    /// The age of the oldest record; see [`Spool::oldest_age`](super::Spool::oldest_age).
    pub oldest_age: Option<Duration>,
}

/// The segments that were evicted from the spool and are never sent. Records that were taken at
/// that time are not counted here: the caller still has them, and
/// [`Spool::release`](super::Spool::release) returns `false` for them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[must_use = "these segments are lost and have to be counted"]
pub struct Evicted {
    /// How many files were evicted.
    pub file_count: u64,
    /// The size of the evicted files in bytes.
    pub bytes: u64,
    /// How many records of the evicted files were neither settled nor taken.
    pub record_count: u64,
    /// How many segments of the evicted files were neither settled nor taken.
    pub segment_count: u64,
    /// How many bytes of the evicted files were damaged or could not be read. The number of
    /// segments in these bytes is not known.
    pub unknown_bytes: u64,
    /// The number in the name of the newest file that was evicted; `None` if there is none. Files
    /// are evicted in the order of their numbers, so all older ones are gone too.
    pub newest_sequence: Option<u64>,
}

impl Evicted {
    /// Adds segments that were evicted later.
    pub fn add(&mut self, later: Self) {
        self.file_count += later.file_count;
        self.bytes = self.bytes.saturating_add(later.bytes);
        self.record_count += later.record_count;
        self.segment_count += later.segment_count;
        self.unknown_bytes = self.unknown_bytes.saturating_add(later.unknown_bytes);
        self.newest_sequence = self.newest_sequence.max(later.newest_sequence);
    }
}

/// A file or folder of the spool that another program has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Another program removed the file that records are appended to. The daemon can still read the
    /// file through its open descriptor, until the daemon ends.
    File,
    /// Another program removed the folder of the spool and all files in it. The spool has created a
    /// new, empty folder.
    Folder,
}

/// The id of a taken record, or of a taken part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(Default))]
pub struct RecordId {
    /// The number of the spool that has returned the record. A process numbers its spools from 0
    /// on.
    pub(super) opening: u64,
    /// The number in the name of the data file.
    pub(super) sequence: u64,
    pub(super) place: Place,
}

impl RecordId {
    /// Returns the number in the name of the record's file.
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

/// A taken record, or a taken part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id of the record, for calls like [`Spool::read`](super::Spool::read) and
    /// [`Spool::settle`](super::Spool::settle).
    pub id: RecordId,
    /// The size of the record's whole payload in bytes, even if only a part is taken.
    pub payload_bytes: u32,
    /// How many segments the whole record has, even if only a part is taken.
    pub segment_count: u32,
    /// The indexes of the segments that were taken, counted from 0 within the record. The other
    /// segments of the record are settled or belong to another part.
    pub taken: Range<u32>,
    /// The time since the record was made.
    pub age: Duration,
}

/// The result of [`Spool::next`](super::Spool::next).
#[derive(Debug)]
#[must_use = "a record that is taken has to be settled or released, a loss has to be counted"]
pub enum Next {
    /// A record. The spool counts it as taken from now on.
    Record(Record),
    /// A record that is older than [`Options::age_max`]. The spool has settled it, and its segments
    /// are lost.
    Expired {
        /// How many segments are lost.
        segment_count: u32,
    },
    /// The name of a file, and bytes of it that are not a valid record. The spool has skipped them.
    Damaged(String, Damage),
    /// A file that could not be read. It is not read again until
    /// [`Spool::try_unreadable`](super::Spool::try_unreadable) is called.
    Unreadable(SpoolError),
    /// No record waits to be taken. Records that were taken earlier may still be unsettled.
    Empty,
}

/// The reason why a record was not appended, and what was evicted in the attempt.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct AppendError {
    /// The evicted segments, for the caller to count.
    pub evicted: Evicted,
    /// The reason why the record was not appended.
    pub cause: SpoolError,
}
