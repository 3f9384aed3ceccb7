//! A queue of records on disk, for batches that cannot be delivered now.
//!
//! In: records. A record has a payload of any bytes, the number of segments in the payload, and the
//! time when the record was made. Out: the same records, the oldest first. A record stays on disk,
//! across restarts and crashes, until the caller settles it or the spool evicts it. Bound:
//! [`Options::size_bytes_max`] on disk; [`BUFFER_BYTES`] of memory, and 80 bytes for each record
//! that is taken. When full: the oldest file is evicted as a whole, and [`Evicted`] counts the lost
//! segments. Thread: one at a time; every call may wait for the disk.
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
//! The active file is sealed when the next record would make it larger than a sixteenth of the
//! spool's largest size (at least 1 MiB, at most 64 MiB). It is also sealed when the clock was set,
//! when an fsync fails, or when reading comes to it. A sealed file is removed, with its `.done`
//! file, when all of its records are settled.
//!
//! If only the daemon dies, no appended record is lost. If the machine crashes, the records that
//! were appended after the last [`Spool::sync`] may be lost, and the records that were settled
//! after it may come again. A sync does not concern what an earlier run has written: the system
//! writes that within its own time, half a minute on Linux. A damaged byte costs only the record
//! that it lies in.
//!
//! A record is taken by [`Spool::next`] and read piece by piece. If memory has no room for all of
//! its segments, the caller puts the rest back ([`Spool::split`]) and takes it later. The caller
//! then settles or releases the taken record. A record that can never fit into memory is set aside:
//! it stays in the spool for a later run, and its segments are still counted. A taken record is not
//! taken a second time before it is released. A record that is taken when the daemon dies comes
//! again: the spool delivers at least once, not at most once.

mod active;
mod age;
mod append;
mod disk;
mod error;
mod file;
mod files;
mod folder;
mod names;
mod parts;
mod progress;
mod record;
mod suspect;
mod sync;
mod take;
#[cfg(test)]
mod tests;
mod types;

pub use disk::{Access, Disk, DiskFile, DiskFolder, Stat, SystemDisk};
pub use error::{Damage, DamageCause, SpoolError};
pub use record::RECORD_BYTES_MAX;
pub use take::BUFFER_BYTES;
#[cfg(test)]
pub use tests::faulty::FaultyDisk;
pub use types::{AppendError, Evicted, Found, Next, Options, Record, RecordId, Removal};

use crate::base::account::Signal;
use crate::base::clock::Moment;
use append::Appender;
use file::DataFile;
use files::Files;
use names::Kind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use take::Taker;

/// How many spools this process has opened. A [`RecordId`] has the number of its spool, so that
/// [`Spool::settle`] and [`Spool::release`] ignore the ids of an earlier spool.
static OPENED_COUNT: AtomicU64 = AtomicU64::new(0);

/// A queue of records on disk.
#[derive(Debug)]
pub struct Spool {
    signal: Signal,
    files: Files,
    appender: Appender,
    taker: Taker,
}

impl Spool {
    /// Opens the folder on the machine's file system, for this daemon alone, and lists the files of
    /// earlier runs.
    ///
    /// Reads only names, sizes and the start of the oldest file. Opening a large spool therefore
    /// takes no longer than opening a small one.
    ///
    /// # Errors
    ///
    /// Fails if the folder is missing and cannot be created, belongs to another user, cannot be
    /// written to, or is in use by another daemon.
    pub fn open(options: Options, now: Moment) -> Result<(Self, Found), SpoolError> {
        Self::open_on(Arc::new(SystemDisk), options, now)
    }

    /// Does the same as [`open`](Self::open), but on the file system `disk`.
    ///
    /// # Errors
    ///
    /// The same as those of [`open`](Self::open).
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        now: Moment,
    ) -> Result<(Self, Found), SpoolError> {
        Self::open_for(Signal::Segments, disk, options, now)
    }

    /// Does the same as [`open_on`](Self::open_on), but for records of `signal`. A spool of spans
    /// evicts nothing: if it is full, it takes no record before others are settled.
    ///
    /// # Errors
    ///
    /// The same as those of [`open`](Self::open).
    pub fn open_for(
        signal: Signal,
        disk: Arc<dyn Disk>,
        options: Options,
        now: Moment,
    ) -> Result<(Self, Found), SpoolError> {
        let data_kind = match signal {
            Signal::Segments => Kind::Data,
            Signal::Spans => Kind::Spans,
        };
        let (files, mut found) = Files::open(disk, &options.path, data_kind, now)?;
        let opening = OPENED_COUNT.fetch_add(1, Ordering::Relaxed);
        let may_evict = signal == Signal::Segments;
        let mut spool = Self {
            signal,
            files,
            appender: Appender::new(options.size_bytes_max, may_evict, now),
            taker: Taker::new(opening, options.age_max),
        };
        found.oldest_age = spool.oldest_age(now);
        Ok((spool, found))
    }

    /// Returns what the records have.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Returns which file or folder another program has removed since the last call; `None` if
    /// nothing was removed.
    pub fn removal(&mut self) -> Option<Removal> {
        self.files.removal()
    }

    /// Returns the size of all files in bytes. A settled record counts until its whole file is
    /// removed.
    pub fn size_bytes(&self) -> u64 {
        self.files.size_bytes()
    }

    /// Returns how many segments are in records that are not settled. The segments of a record of
    /// an earlier run count only after the record was read: their number is not known before.
    pub fn segment_count(&self) -> u64 {
        self.files.segment_count()
    }

    /// Returns the age of the first record that is not settled; `None` if there is none or it
    /// cannot be read. May read from a file.
    pub fn oldest_age(&mut self, now: Moment) -> Option<Duration> {
        self.files.oldest_age(now)
    }

    /// Appends a record that was made at the moment `made`. Its payload consists of the pieces in
    /// `payload`, one after the other.
    ///
    /// If the record does not fit, the oldest files are evicted first.
    ///
    /// # Errors
    ///
    /// Fails if the record is larger than [`RECORD_BYTES_MAX`] or than the whole spool, if no file
    /// can be evicted, or if the record cannot be written. The spool then keeps nothing of the
    /// record, and a later call may succeed. The error counts the segments that were evicted in the
    /// attempt.
    pub fn append(
        &mut self,
        payload: &[&[u8]],
        segment_count: u32,
        made: Moment,
    ) -> Result<Evicted, AppendError> {
        self.appender.append(&mut self.files, payload, segment_count, made)
    }

    /// Returns the segments that [`append`](Self::append) has evicted in a call that panicked. That
    /// call could not return them.
    pub fn evicted(&mut self) -> Evicted {
        self.appender.evicted()
    }

    /// Tests whether the disk has room for a record as large as the last one that was appended.
    /// Writes no more bytes than the largest size of the spool allows, and removes them again.
    /// Evicts nothing.
    ///
    /// # Errors
    ///
    /// Fails if not all of these bytes can be written.
    pub fn probe(&mut self) -> Result<(), SpoolError> {
        self.appender.probe(&mut self.files)
    }

    /// Writes all new records, and the notes on settled records, to stable storage, so that it
    /// survives a crash of the machine. The caller calls this within about a second after a record
    /// was appended. After an error the caller calls this again until a call succeeds.
    ///
    /// # Errors
    ///
    /// Fails if some bytes may not be on stable storage. The spool keeps all records even then.
    /// After a failed fsync it copies the records that may be lost to another file, if the disk
    /// takes the copy.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        sync::sync(&mut self.files, self.taker.window())
    }

    /// Takes the oldest record, or rest of a record, that waits to be taken. Its payload matches
    /// the checksum in its header.
    ///
    /// Every call gets further, even in damaged files. A loop of calls therefore ends with
    /// [`Next::Empty`].
    pub fn next(&mut self, now: Moment) -> Next {
        self.taker.next(&mut self.files, now)
    }

    /// Fills `buffer` with the bytes at the offset `at` in the payload of a taken record.
    ///
    /// # Errors
    ///
    /// Fails if the bytes cannot be read. The record is then not taken any longer, and the returned
    /// [`Next`] says whether the record comes again or is lost.
    pub fn read(&mut self, id: RecordId, at: u64, buffer: &mut [u8]) -> Result<(), Next> {
        take::read(&mut self.files, id, at, buffer)
    }

    /// Keeps the first `segment_count` segments of a taken record, and puts the rest back, to be
    /// taken by a later call of [`next`](Self::next). Returns `false` if the record cannot be
    /// divided in this way.
    #[must_use = "a record that is not divided is still taken as a whole"]
    pub fn split(&mut self, id: RecordId, segment_count: u32) -> bool {
        let file = self.files.sealed.get_mut(&id.sequence);
        file.is_some_and(|file| file.parts.split(id.place, segment_count))
    }

    /// Leaves a taken record in the spool for a later run of the daemon. This run does not take the
    /// record again, but still counts its segments.
    pub fn set_aside(&mut self, id: RecordId) {
        if let Some(file) = self.files.sealed.get_mut(&id.sequence) {
            file.parts.set_aside(id.place);
        }
    }

    /// Lets [`next`](Self::next) read the files again that could not be read before. The caller
    /// calls this after a pause.
    pub fn try_unreadable(&mut self) {
        self.files.sealed.values_mut().for_each(DataFile::try_again);
    }

    /// Settles a taken record, because it was delivered or dropped.
    ///
    /// The record does not come again after a crash of the daemon. If the record is not taken any
    /// longer, because its file was evicted, nothing happens. If an earlier spool of this process
    /// has returned the record, nothing happens either, and this spool returns the record again.
    ///
    /// # Errors
    ///
    /// Fails if the spool cannot note on disk that the record is settled, or cannot remove a file
    /// that is not needed any more. The record does not come again in this run, but it may after a
    /// restart, unless [`settle_again`](Self::settle_again) succeeds before.
    pub fn settle(&mut self, id: RecordId) -> Result<(), SpoolError> {
        self.taker.settle(&mut self.files, id)
    }

    /// Returns whether some records are settled that could not be settled on disk.
    pub fn is_behind(&self) -> bool {
        self.files.is_behind()
    }

    /// Settles on disk what could not be settled before. The caller calls this after a pause.
    ///
    /// # Errors
    ///
    /// Fails as [`settle`](Self::settle) does.
    pub fn settle_again(&mut self) -> Result<(), SpoolError> {
        self.files.settle_again()
    }

    /// Puts a taken record back. The record comes again, before those behind it.
    ///
    /// Returns `false` if the file of the record was evicted meanwhile: the record is then lost,
    /// and [`Evicted`] has not counted it. Returns `true` if an earlier spool of this process has
    /// returned the record: this spool still has the record, and it is not taken.
    #[must_use = "a record that could not be put back is lost and has to be counted"]
    pub fn release(&mut self, id: RecordId) -> bool {
        self.taker.release(&mut self.files, id)
    }
}
