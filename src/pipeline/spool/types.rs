//! The types of the spool's interface.
//!
//! In: the options of the operator. Out: what [`Spool`](super::Spool) returns. Thread: any.

use super::error::{Damage, SpoolError};
use super::parts::Place;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Where the spool is, how much it keeps, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder. The spool creates the folder if it is missing, but not the parent of the folder.
    pub path: PathBuf,
    /// The largest size of all files together, in bytes. If it is reached, the spool evicts the
    /// oldest file, which has a sixteenth of this size or 1 MiB, whichever is more. Three things
    /// may exceed it: the progress of settled records, by 12 bytes each, until the next record is
    /// appended; the files that were found at the start; records that are written again after a
    /// failed fsync.
    pub size_bytes_max: u64,
    /// Older records expire when reading comes to them.
    pub age_max: Duration,
}

/// The content of the folder when [`Spool::open`](super::Spool::open) opened it, for the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many data files earlier runs have left.
    pub file_count: u64,
    /// The size of these files in bytes. Some of their records may be settled already.
    pub bytes: u64,
    /// How many names of the spool stand for links, folders or the like. The spool does not touch
    /// them.
    pub refused_count: u64,
    /// How many files without records were removed.
    pub orphan_count: u64,
    /// The permissions of the folder if other users had any. The spool has taken them away.
    pub tightened_from: Option<u32>,
    /// See [`Spool::oldest_age`](super::Spool::oldest_age).
    pub oldest_age: Option<Duration>,
}

/// The segments that were evicted from the spool and are never sent. Records that were taken at
/// that time are not counted here: the caller still has them, and
/// [`Spool::release`](super::Spool::release) returns `false` for them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[must_use = "these segments are lost and have to be counted"]
pub struct Evicted {
    /// How many files.
    pub file_count: u64,
    /// The bytes of these files on disk.
    pub bytes: u64,
    /// How many records in them were neither settled nor taken.
    pub record_count: u64,
    /// How many segments were in these records.
    pub segment_count: u64,
    /// How many bytes of the files could not be read. The number of segments in them is not known.
    pub unknown_bytes: u64,
}

/// A removal by another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The program removed the file that records are appended to. As long as the daemon runs it
    /// can still read the file, through the open descriptor.
    File,
    /// The program removed the folder with all of its files. The spool has created a new, empty
    /// folder.
    Folder,
}

/// The place of a record that was taken, or of a part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(Default))]
pub struct RecordId {
    /// The number of the spool among all that this process has opened.
    pub(super) opening: u64,
    /// The number of the file.
    pub(super) sequence: u64,
    pub(super) place: Place,
}

/// A record that was taken, or the rest of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The place of the record, for [`Spool::read`](super::Spool::read),
    /// [`Spool::settle`](super::Spool::settle) and the like.
    pub id: RecordId,
    /// The size of the whole payload in bytes.
    pub payload_bytes: u32,
    /// How many segments are in the whole payload.
    pub segment_count: u32,
    /// The segments that were taken, by their place in the payload. The other segments are settled,
    /// or come as a part of their own.
    pub taken: Range<u32>,
    /// The time since the record was made.
    pub age: Duration,
}

/// The result of [`Spool::next`](super::Spool::next).
#[derive(Debug)]
#[must_use = "a record that is taken has to be settled or released, a loss has to be counted"]
pub enum Next {
    /// A record, which is taken from now on.
    Record(Record),
    /// A record that is too old. It is settled, and its segments are lost.
    Expired {
        /// How many segments are lost.
        segment_count: u32,
    },
    /// Bytes that are not a record. They are skipped.
    Damaged(Damage),
    /// A file that could not be read. It is not read again until
    /// [`Spool::try_unreadable`](super::Spool::try_unreadable) is called.
    Unreadable(SpoolError),
    /// No record waits. Some may be taken.
    Empty,
}

/// The reason why a record was not appended, and what was evicted in the attempt.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct AppendError {
    /// The evicted segments, for the caller to count.
    pub evicted: Evicted,
    /// The reason.
    pub cause: SpoolError,
}
