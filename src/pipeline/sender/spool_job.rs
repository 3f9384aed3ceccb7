//! A job of the spool's thread, and its result.
//!
//! In: pending batches to write, and [`Work`]. Out: [`Done`], which the
//! [`SpoolClient`](super::spool_client::SpoolClient) counts and logs. Bound: what the spool client
//! puts into one job. Thread: the sender's and the spool's, which hand this data to each other.

use crate::pipeline::batch::Batch;
use crate::pipeline::spool::{Evicted, Found, RecordId, Removal, SpoolError};
use crate::pipeline::upload::PendingBatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A job for the spool's thread.
#[derive(Debug)]
pub enum Job {
    /// Open the spool.
    Open,
    /// Write the pending batches, then do the work. The thread drops its [`Arc`] before it sends
    /// the result.
    Work(Arc<Writes>, Work),
}

/// The result of a job.
#[derive(Debug)]
pub enum JobResult {
    /// The spool was opened, or could not be opened.
    Opened(Result<(Found, Sizes), SpoolError>),
    /// The work is done.
    Done(Box<Done>),
    /// The job has panicked. The spool is not open any more.
    Panicked {
        /// Where the panic was, for the log.
        reason: String,
        /// The results of the job before the panic. The batches that the job had read are dropped,
        /// and their records stay in the spool.
        done: Box<Done>,
    },
}

/// The pending batches of one job. The spool's thread writes them, and the sender counts them
/// meanwhile.
#[derive(Debug, Default)]
pub struct Writes {
    /// The pending batches, in the order in which they are written.
    pub pending_batches: Vec<PendingBatch>,
    written_count: AtomicUsize,
    is_cancelled: AtomicBool,
}

impl Writes {
    /// Takes pending batches that are not written yet.
    pub fn new(pending_batches: Vec<PendingBatch>) -> Self {
        Self { pending_batches, ..Self::default() }
    }

    /// Returns how many pending batches, from the first one on, are in the spool.
    pub fn written_count(&self) -> usize {
        self.written_count.load(Ordering::Acquire)
    }

    /// Notes that the first `count` pending batches are in the spool.
    pub fn set_written_count(&self, count: usize) {
        self.written_count.store(count, Ordering::Release);
    }

    /// Makes the job stop after the pending batch that it is writing now.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// The work of a job besides writing.
#[derive(Debug, Default)]
pub struct Work {
    /// Records to settle.
    pub settled: Vec<RecordId>,
    /// Records to put back, each with its number of segments.
    pub released: Vec<(RecordId, u64)>,
    /// How many batches to read.
    pub read_count: usize,
    /// Whether to sync the spool.
    pub is_sync_due: bool,
    /// Whether to read files again that could not be read, and to settle on disk what could not be
    /// settled there.
    pub is_retry_due: bool,
    /// Whether to test that the spool can be written to. A job that writes pending batches needs no
    /// probe.
    pub is_probe_due: bool,
    #[cfg(test)]
    pub before_write: Hook,
}

impl Work {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let is_asked = !self.settled.is_empty() || !self.released.is_empty() || self.read_count > 0;
        !is_asked && !self.is_sync_due && !self.is_retry_due && !self.is_probe_due
    }
}

/// Runs before each pending batch is written, with the index of the pending batch. A test uses this
/// to panic or to wait.
#[cfg(test)]
#[derive(Default)]
pub struct Hook(pub Option<Box<dyn FnMut(usize) + Send>>);

#[cfg(test)]
impl std::fmt::Debug for Hook {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.0.is_some())
    }
}

/// The size of the spool.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sizes {
    /// The size of all files of the spool in bytes.
    pub bytes: u64,
    /// How many segments are not settled, without segments of earlier runs that were not read yet.
    pub segment_count: u64,
    /// When the first unsettled segment was received, in seconds since boot; `None` if there is
    /// none.
    pub oldest_made_at: Option<i64>,
}

/// The results of a job.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether the job has probed the spool. If the probe has failed, its error is in `failure`.
    pub has_probed: bool,
    /// The batches that were read from the spool, with the ids of their records.
    pub read: Vec<(Batch, RecordId)>,
    /// Whether no record is left to be read.
    pub is_read_out: bool,
    /// How many segments were evicted from the spool.
    pub evicted_count: u64,
    /// The number of the newest file that was evicted; `None` if there is none.
    pub evicted_sequence: Option<u64>,
    /// How many segments were older than `Spool.MaxAgeHours`.
    pub expired_count: u64,
    /// How many records were damaged.
    pub damaged_record_count: u64,
    /// How many bytes were damaged.
    pub damaged_bytes: u64,
    /// How many segments are known to be lost with the damaged bytes.
    pub damaged_segment_count: u64,
    /// The description of the last damage, for the log.
    pub damage: Option<String>,
    /// Whether a file could not be read. The error is in `condition`.
    pub is_unreadable: bool,
    /// Whether some records are settled that could not be settled on disk.
    pub is_behind: bool,
    /// Whether memory had no room for the next record.
    pub is_memory_short: bool,
    /// The size of the spool after the job.
    pub sizes: Sizes,
    /// Whether the job has called fsync.
    pub has_tried_to_sync: bool,
    /// Whether an fsync of this job has failed.
    pub is_unsynced: bool,
    /// A file or folder of the spool that another program has removed.
    pub removal: Option<Removal>,
    /// The error of a write, a probe or an fsync that has failed.
    pub failure: Option<SpoolError>,
    /// The error of settling a record or reading a file, if that has failed.
    pub condition: Option<SpoolError>,
}

impl Done {
    /// Counts evicted segments. Counts evicted bytes that could not be read as damage.
    pub fn note_evicted(&mut self, evicted: Evicted) {
        self.evicted_count += evicted.segment_count;
        self.evicted_sequence = self.evicted_sequence.max(evicted.newest_sequence);
        if evicted.unknown_bytes > 0 {
            self.damaged_record_count += 1;
            self.damaged_bytes += evicted.unknown_bytes;
            let what = "a file was evicted of which a part could not be read";
            self.damage = Some(what.to_owned());
        }
    }
}
