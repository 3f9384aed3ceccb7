//! A queue of records on disk, for what cannot be delivered now.
//!
//! In: records, which are any bytes with a count of the segments in them and the time they were
//! made. Out: the same records, the oldest first, until each is settled, across restarts and
//! crashes. Bound: [`Options::size_bytes_max`]; when it is reached the oldest file is evicted as a
//! whole, and [`Evicted`] says what was lost with it. Memory: [`BUFFER_BYTES`], and some bytes
//! for each record that is taken. One thread at a time, and every call may wait for the disk.
//!
//! ```text
//!          append                             next                  settle
//!            │                                 ▲                       │
//!   ┌────────▼────────┐ sealed  ┌──────────────┴─────────────┐  ┌──────▼──────┐
//!   │ the active file ├────────►│ sealed files, oldest first │  │ their .done │
//!   └─────────────────┘         └────────────────────────────┘  └─────────────┘
//!        active.rs                    file.rs, record.rs          progress.rs
//! ```
//!
//! Files are sealed when they have grown to a sixteenth of the bound, and when reading comes upon
//! the active one. A sealed file goes, with its progress, when all of it was read and settled.
//!
//! What is lost, and when: nothing when the daemon alone dies, whatever it was doing. When the
//! machine dies, what was appended after the last [`Spool::sync`], and records that were settled
//! after it come again. A damaged byte costs the record that it lies in.
//!
//! A record is taken by [`Spool::next`] and read piece by piece. Where memory has no room for all
//! of its segments the rest is put back ([`Spool::split`]) and comes next, as a record of its own.
//! What is taken is then settled, released or, where memory could never hold it, set aside. It
//! cannot be taken twice, and what is taken when the daemon dies comes again: at least once, not at
//! most once. What is set aside waits for another run: it stays counted, also when its file is
//! evicted.

mod active;
mod age;
mod append;
mod disk;
mod error;
mod file;
mod folder;
mod progress;
mod record;
mod suspect;
mod sync;
mod take;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use disk::faults::set as fail_syncs;
pub use error::{AppendError, Damage, DamageCause, SpoolError};
pub use record::RECORD_BYTES_MAX;

use crate::base::clock::Moment;
use active::ActiveFile;
use age::Dates;
use file::{DataFile, Place};
use folder::{Folder, Kind, Listing};
use record::WINDOW_BYTES;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Which part of the bound a file takes at most, and so what gives way at once.
const FILE_SHARE: u64 = 16;

/// The size at which files are sealed, at least and at most.
const FILE_BYTES_MIN: u64 = 1024 * 1024;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How many spools this process has opened: what one has taken is not taken from another.
static OPENED_COUNT: AtomicU64 = AtomicU64::new(0);

/// The memory that a spool reads records through.
pub const BUFFER_BYTES: usize = WINDOW_BYTES;

/// Where the spool is, and how much it keeps for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; it is made where it is missing, the one above it is not.
    pub path: PathBuf,
    /// Bytes on disk at most, all files together. What gives way at once is a sixteenth of it or 1
    /// MB, whichever is more. The progress of settled records may exceed it, by twelve bytes each,
    /// until the next record is appended; so may what is found at the start, and what is written
    /// again after a failure to bring it to disk.
    pub size_bytes_max: u64,
    /// Older records expire when they are come upon.
    pub age_max: Duration,
}

/// What [`Spool::open`] came upon, for the line in the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Files of earlier runs.
    pub file_count: u64,
    /// Their size; what of it is settled already is not known yet.
    pub bytes: u64,
    /// Names of ours that are links, folders or the like. They are left alone.
    pub refused_count: u64,
    /// Files without records, which were removed.
    pub orphan_count: u64,
    /// The permissions of the folder, where other users had any. They have none now.
    pub tightened_from: Option<u32>,
    /// See [`Spool::oldest_age`].
    pub oldest_age: Option<Duration>,
}

/// What was evicted, never to be sent. Records that were taken at the time are not among it:
/// who took them has them, and [`Spool::release`] tells when there is no way back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[must_use = "these segments are lost and have to be counted"]
pub struct Evicted {
    /// Files.
    pub file_count: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Records in them that were neither settled nor taken.
    pub record_count: u64,
    /// Segments in those records.
    pub segment_count: u64,
    /// Bytes of them that could not be read: the segments in them are not known.
    pub unknown_bytes: u64,
}

/// What somebody else has done to the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// A file was removed while it was written to. It is read through its descriptor as long as
    /// the daemon lives.
    File,
    /// The folder was removed, with all that was in it, and is made anew.
    Folder,
}

/// The place of a record that was taken, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(Default))]
pub struct RecordId {
    /// Which spool of this process has given it.
    opening: u64,
    sequence: u64,
    place: Place,
}

/// A record that was taken, or what is left of it; its payload is as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// For [`Spool::read`], [`Spool::settle`] and the like.
    pub id: RecordId,
    /// How long the payload is.
    pub payload_bytes: u32,
    /// Segments in the payload.
    pub segment_count: u32,
    /// Those of them that were taken, by their place in the payload. The others are settled, or
    /// come on their own.
    pub taken: Range<u32>,
    /// How long ago it was made.
    pub age: Duration,
}

/// What [`Spool::next`] came upon.
#[derive(Debug)]
#[must_use = "a record that is taken has to be settled or released, a loss has to be counted"]
pub enum Next {
    /// A record, which is taken from now on.
    Record(Record),
    /// A record that was too old; it is settled, and lost.
    Expired {
        /// Segments in it.
        segment_count: u32,
    },
    /// Something that is no record; it is skipped.
    Damaged(Damage),
    /// A file that could not be read; it is left alone until [`Spool::try_unreadable`].
    Unreadable(SpoolError),
    /// No record waits. Some may be taken.
    Empty,
}

/// The queue.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
    size_bytes_max: u64,
    file_bytes_max: u64,
    age_max: Duration,
    /// By number, and so from the oldest on.
    sealed: BTreeMap<u64, DataFile>,
    active: Option<ActiveFile>,
    /// Above the number of every file there ever was.
    next_sequence: u64,
    /// Numbers whose names are taken by what is no file of ours.
    refused: BTreeSet<u64>,
    opening: u64,
    /// By what clock records are written.
    dates: Dates,
    evicted: Evicted,
    window: Vec<u8>,
    /// The file that was read last, which may be open still.
    read_sequence: Option<u64>,
    /// What the record takes that was appended last, or was to be: for a probe.
    append_bytes: u64,
    removal: Option<Removal>,
}

impl Spool {
    /// Opens the folder for this daemon alone, and lists what earlier runs left in it.
    ///
    /// Of files no more is read than the start of the oldest one, so this takes no longer when
    /// there is much to send.
    ///
    /// # Errors
    ///
    /// When the folder is not there and cannot be made, is not ours alone, cannot be written to,
    /// or is in use.
    pub fn open(options: Options, now: Moment) -> Result<(Self, Found), SpoolError> {
        let (mut folder, tightened_from) = Folder::open(&options.path)?;
        let error = |source| SpoolError::Folder { path: options.path.clone(), source };
        let mut listing = folder.list().map_err(error)?;
        let orphan_count = remove_orphans(&mut folder, &mut listing);
        folder.renumber_if_used_up(&mut listing).map_err(error)?;
        let mut found = Found {
            file_count: listing.data.len() as u64,
            bytes: listing.data.values().fold(0, |sum, &bytes| sum.saturating_add(bytes)),
            refused_count: listing.refused_count,
            orphan_count,
            tightened_from,
            oldest_age: None,
        };
        let file_bytes_max =
            (options.size_bytes_max / FILE_SHARE).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX);
        let mut spool = Self {
            folder,
            size_bytes_max: options.size_bytes_max,
            file_bytes_max,
            age_max: options.age_max,
            next_sequence: listing.sequence_max + 1,
            sealed: found_files(&listing, now),
            refused: listing.refused,
            opening: OPENED_COUNT.fetch_add(1, Ordering::Relaxed),
            dates: Dates::Own { offset_seconds: now.offset_seconds },
            evicted: Evicted::default(),
            active: None,
            window: vec![0; WINDOW_BYTES],
            read_sequence: None,
            append_bytes: 0,
            removal: None,
        };
        found.oldest_age = spool.oldest_age(now);
        Ok((spool, found))
    }

    /// What somebody else has removed since the last time that this was asked.
    pub fn removal(&mut self) -> Option<Removal> {
        self.removal.take()
    }

    /// Bytes on disk, settled records in files that still have others among them.
    pub fn size_bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, ActiveFile::length_bytes);
        let sealed = self.sealed.values().map(DataFile::size_bytes);
        sealed.fold(active, u64::saturating_add)
    }

    /// Segments in records that are not settled, without those of earlier runs that were not read
    /// yet: nobody has counted them.
    pub fn segment_count(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, ActiveFile::segment_count);
        active + self.sealed.values().map(DataFile::segment_count).sum::<u64>()
    }

    /// How long ago the first record was made that is not settled; `None` where there is none, or
    /// it cannot be read. May look into a file for it.
    pub fn oldest_age(&mut self, now: Moment) -> Option<Duration> {
        let sealed = self.sealed.values_mut().filter_map(|file| {
            let created_at = file.oldest_created_at(&self.folder)?;
            Some(file.dates().age(created_at, now))
        });
        sealed.into_iter().next().or_else(|| {
            let active = self.active.as_ref()?;
            Some(active.dates().age(active.oldest_created_at()?, now))
        })
    }
}

fn found_files(listing: &Listing, now: Moment) -> BTreeMap<u64, DataFile> {
    let file = |(&sequence, &length_bytes)| {
        let progress_bytes = listing.progress.get(&sequence).copied().unwrap_or_default();
        let uptime_seconds = now.uptime_seconds;
        (sequence, DataFile::found(sequence, length_bytes, progress_bytes, uptime_seconds))
    };
    listing.data.iter().map(file).collect()
}

/// Removes what has no records: progress that was left alone, and files that were made and not
/// written to. Says how many there were.
fn remove_orphans(folder: &mut Folder, listing: &mut Listing) -> u64 {
    let Listing { data, progress, .. } = listing;
    let mut removed_count = 0;
    let mut keep = |sequence, kind| {
        let is_kept = folder.remove_one(sequence, kind).is_err();
        removed_count += u64::from(!is_kept);
        is_kept
    };
    data.retain(|&sequence, &mut bytes| bytes > 0 || keep(sequence, Kind::Data));
    progress.retain(|&sequence, _| data.contains_key(&sequence) || keep(sequence, Kind::Progress));
    removed_count
}
