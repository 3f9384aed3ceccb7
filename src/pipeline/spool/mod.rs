//! A queue of records on disk, for batches that cannot be delivered now.
//!
//! In: records. A record is any bytes, with the number of segments in them and the time when they
//! were made. Out: the same records, the oldest first, until each one is settled; they outlive
//! restarts and crashes. Bound: [`Options::size_bytes_max`] on disk; [`BUFFER_BYTES`] of memory,
//! and 80 bytes for each record that is taken. When full: the oldest file is evicted as a whole,
//! and [`Evicted`] says what was lost with it. Thread: one at a time; every call may wait for the
//! disk.
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
//! A file is sealed when it has grown to a sixteenth of the largest size, or when reading comes to
//! the active file. A sealed file is removed, with its progress, when all of its records were read
//! and settled.
//!
//! If only the daemon dies, nothing is lost, whatever the daemon was doing. If the machine dies,
//! the records are lost that were appended after the last [`Spool::sync`], and records that were
//! settled after it come again. A damaged byte costs only the record that it lies in.
//!
//! A record is taken by [`Spool::next`] and read piece by piece. If memory has no room for all of
//! its segments, the caller puts the rest back ([`Spool::split`]), and the rest comes next, as a
//! record. A taken record is then settled or released. If it can never fit into memory, it is set
//! aside: it waits for another run and stays counted, also when its file is evicted. A record
//! cannot be taken twice. A record that is taken when the daemon dies comes again: the spool
//! delivers at least once, not at most once.

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

use crate::base::clock::Moment;
use append::Appender;
use file::DataFile;
use files::Files;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use take::Taker;

/// How many spools this process has opened. A record that was taken from one of them is not taken
/// from another.
static OPENED_COUNT: AtomicU64 = AtomicU64::new(0);

/// The queue.
#[derive(Debug)]
pub struct Spool {
    files: Files,
    appender: Appender,
    taker: Taker,
}

impl Spool {
    /// Opens the folder on the machine's file system, for this daemon alone, and lists the files of
    /// earlier runs.
    ///
    /// Reads only names, sizes and the start of the oldest file, so that opening takes no longer if
    /// there is much to send.
    ///
    /// # Errors
    ///
    /// Fails if the folder is missing and cannot be created, belongs to another user, cannot be
    /// written to, or is in use by another daemon.
    pub fn open(options: Options, now: Moment) -> Result<(Self, Found), SpoolError> {
        Self::open_on(Arc::new(SystemDisk), options, now)
    }

    /// Opens the folder on this disk; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// The same as those of [`open`](Self::open).
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: Options,
        now: Moment,
    ) -> Result<(Self, Found), SpoolError> {
        let (files, mut found) = Files::open(disk, &options.path, now)?;
        let opening = OPENED_COUNT.fetch_add(1, Ordering::Relaxed);
        let mut spool = Self {
            files,
            appender: Appender::new(options.size_bytes_max, now),
            taker: Taker::new(opening, options.age_max),
        };
        found.oldest_age = spool.oldest_age(now);
        Ok((spool, found))
    }

    /// Returns what another program has removed since the last call.
    pub fn removal(&mut self) -> Option<Removal> {
        self.files.removal()
    }

    /// Returns the bytes on disk, with the settled records of files that are still needed.
    pub fn size_bytes(&self) -> u64 {
        self.files.size_bytes()
    }

    /// Returns how many segments are in records that are not settled. Segments of earlier runs are
    /// left out until they are read: before that their number is not known.
    pub fn segment_count(&self) -> u64 {
        self.files.segment_count()
    }

    /// Returns the age of the first record that is not settled; `None` if there is none or it
    /// cannot be read. May read from a file.
    pub fn oldest_age(&mut self, now: Moment) -> Option<Duration> {
        self.files.oldest_age(now)
    }

    /// Appends a record that was made at the moment `made`. Its payload is all the pieces of
    /// `payload`, one after the other.
    ///
    /// If the record does not fit, the oldest files are evicted first.
    ///
    /// # Errors
    ///
    /// Fails if the record is larger than [`RECORD_BYTES_MAX`] or than the whole spool, if no file
    /// can be evicted, or if the record cannot be written. Nothing of the record is kept then; a
    /// later call may succeed. The error has what was evicted.
    pub fn append(
        &mut self,
        payload: &[&[u8]],
        segment_count: u32,
        made: Moment,
    ) -> Result<Evicted, AppendError> {
        self.appender.append(&mut self.files, payload, segment_count, made)
    }

    /// Returns what was evicted by a call that has panicked, and was therefore not reported.
    pub fn evicted(&mut self) -> Evicted {
        self.appender.evicted()
    }

    /// Tries whether a record of the size of the last one can be written, as far as the largest
    /// size of the spool allows it. Nothing is kept and nothing is evicted.
    ///
    /// # Errors
    ///
    /// Fails if nothing, or not as much, can be written.
    pub fn probe(&mut self) -> Result<(), SpoolError> {
        self.appender.probe(&mut self.files)
    }

    /// Writes all that was appended and settled to stable storage, so that it outlives a crash of
    /// the machine. The caller calls this within the delay that the operator was promised, and
    /// after an error again until a call succeeds.
    ///
    /// # Errors
    ///
    /// Fails if some of it may not be on stable storage. All records are in the spool even then:
    /// those that an fsync has failed for are written to another file, if the disk takes that.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        sync::sync(&mut self.files, self.taker.window())
    }

    /// Takes the oldest record, or rest of a record, that is neither settled nor taken. The payload
    /// matches its checksum.
    ///
    /// Every call comes closer to [`Next::Empty`], whatever is in the files.
    pub fn next(&mut self, now: Moment) -> Next {
        self.taker.next(&mut self.files, now)
    }

    /// Fills `buffer` from the offset `at` of the payload of a taken record.
    ///
    /// # Errors
    ///
    /// Fails if the bytes cannot be read. The record is then not taken any longer, and the error
    /// says whether the record comes again or is lost.
    pub fn read(&mut self, id: RecordId, at: u64, buffer: &mut [u8]) -> Result<(), Next> {
        take::read(&mut self.files, id, at, buffer)
    }

    /// Keeps the first `segment_count` segments of a taken record, and puts the others back: they
    /// come next. Returns `false` if the record cannot be divided in this way.
    #[must_use = "a record that is not divided is still taken as a whole"]
    pub fn split(&mut self, id: RecordId, segment_count: u32) -> bool {
        let file = self.files.sealed.get_mut(&id.sequence);
        file.is_some_and(|file| file.parts.split(id.place, segment_count))
    }

    /// Lets a taken record wait for another run. The record is not settled and stays counted.
    pub fn set_aside(&mut self, id: RecordId) {
        if let Some(file) = self.files.sealed.get_mut(&id.sequence) {
            file.parts.set_aside(id.place);
        }
    }

    /// Lets files be read again that could not be read. The caller calls this after a pause.
    pub fn try_unreadable(&mut self) {
        self.files.sealed.values_mut().for_each(DataFile::try_again);
    }

    /// Forgets a taken record, because it was delivered or dropped.
    ///
    /// The record does not come again after a crash of the daemon. If the record is not taken,
    /// because its file was evicted, nothing happens. If another spool of this process has given
    /// the record, nothing happens either, and the record comes again.
    ///
    /// # Errors
    ///
    /// Fails if this could not be noted on disk, or if a file that is not needed any more could not
    /// be removed. The record does not come again in this run, but it may after a restart.
    pub fn settle(&mut self, id: RecordId) -> Result<(), SpoolError> {
        self.taker.settle(&mut self.files, id)
    }

    /// Puts a taken record back. The record comes again, before those behind it.
    ///
    /// Returns `false` if the file of the record was evicted meanwhile: then the record is lost,
    /// and was not counted as evicted. A record that another spool of this process has given is in
    /// the spool and not taken.
    #[must_use = "a record that could not be put back is lost and has to be counted"]
    pub fn release(&mut self, id: RecordId) -> bool {
        self.taker.release(&mut self.files, id)
    }
}
