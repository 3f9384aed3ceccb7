//! What the spool has done and what ails it: for the account, the status and the log.
//!
//! In: what a turn has done, and failures. Out: counters, the reasons of `/ready`, lines of the
//! log, each bounded in its rate. Runs on the sender thread.

use super::spool_job::Done;
use super::spool_thread::Sizes;
use crate::base::account::{Account, DropReason};
use crate::base::conditions::Condition;
use crate::base::log::LogLimit;
use crate::pipeline::spool::{Found, Options, Removal, SpoolError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{error, info, warn};

static FAILED: LogLimit = LogLimit::once_a_minute();
static TROUBLE: LogLimit = LogLimit::once_a_minute();
static FILE_REMOVED: LogLimit = LogLimit::once_a_minute();
static FOLDER_REMOVED: LogLimit = LogLimit::once_a_minute();
static FULL: LogLimit = LogLimit::new();
static EXPIRED: LogLimit = LogLimit::new();
static DAMAGED: LogLimit = LogLimit::new();

/// Says what becomes of a spool.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    size_bytes_max: u64,
    account: Arc<Account>,
    /// Whether the last write, or the opening, has failed.
    has_failed: bool,
}

impl Report {
    /// On the spool that `options` are for; nothing has happened yet.
    pub fn new(options: &Options, account: Arc<Account>) -> Self {
        let (path, size_bytes_max) = (options.path.clone(), options.size_bytes_max);
        Self { path, size_bytes_max, account, has_failed: false }
    }

    /// The spool is open.
    pub fn opened(&mut self, sizes: &Sizes, found: &Found) {
        let path = self.path.display();
        info!(
            "The spool {path} is open: {} bytes in {} files of earlier runs",
            found.bytes, found.file_count
        );
        if let Some(mode) = found.tightened_from {
            warn!("The spool {path} was open to others (mode {mode:o}) and is not any more");
        }
        if found.refused_count > 0 {
            warn!(
                "{} names in the spool {path} are links or no files, and are left alone",
                found.refused_count
            );
        }
        self.note_size(sizes);
        self.has_failed = false;
        self.account.conditions.end(Condition::SpoolFailing);
    }

    /// It cannot be opened or written to, and is tried again after `pause`.
    pub fn failed(&mut self, error: &SpoolError, pause: Duration) {
        self.has_failed = true;
        self.account.conditions.begin(Condition::SpoolFailing, error.to_string());
        self.account.spool.errors.add(1);
        FAILED.log(|more| {
            error!(
                "The spool {} cannot be used: {error}. Segments are kept in memory alone; it is \
                 tried again in {} s{more}",
                self.path.display(),
                pause.as_secs()
            );
        });
    }

    /// A job of its thread has panicked, and the spool is opened again after `pause`.
    pub fn panicked(&mut self, message: &str, pause: Duration) {
        self.failed(&SpoolError::Panic(message.to_owned()), pause);
    }

    /// It takes what is written: a failure that went with a line ends with one.
    pub fn works(&mut self) {
        if std::mem::take(&mut self.has_failed) {
            self.account.conditions.end(Condition::SpoolFailing);
            info!("The spool {} can be used again", self.path.display());
        }
    }

    /// A turn is over. What it has written and read is for who has the batches to count.
    pub fn done(&self, done: &Done) {
        self.note_size(&done.sizes);
        self.lost(done);
    }

    /// What a turn has found to be lost, also one that did not come to its end.
    pub fn lost(&self, done: &Done) {
        self.note_fullness(done.displaced_count);
        self.given_up(DropReason::SpoolFull, done.displaced_count);
        self.given_up(DropReason::SpoolAge, done.expired_count);
        self.damaged(done);
        self.removed(done.removal);
        if let Some(error) = done.condition.as_ref().filter(|_| done.failure.is_none()) {
            self.account.spool.errors.add(1);
            TROUBLE.log(|more| warn!("The spool {}: {error}{more}", self.path.display()));
        }
    }

    fn note_size(&self, sizes: &Sizes) {
        let counts = &self.account.spool;
        counts.size_bytes.store(sizes.bytes, Ordering::Relaxed);
        counts.segment_count.store(sizes.segment_count, Ordering::Relaxed);
        counts.set_oldest(sizes.oldest_made_at);
    }

    fn note_fullness(&self, displaced_count: u64) {
        let (status, size_bytes_max) = (&self.account.conditions, self.size_bytes_max);
        if displaced_count > 0 {
            let reason = "the spool is full (Spool.MaxSizeMB) and its oldest segments are lost";
            status.begin(Condition::SpoolFull, reason);
        } else if self.account.spool.size_bytes.load(Ordering::Relaxed) < size_bytes_max / 8 * 7 {
            status.end(Condition::SpoolFull);
        }
    }

    /// Segments that leave the spool and are not sent.
    fn given_up(&self, reason: DropReason, count: u64) {
        self.account.replayed.add(count);
        self.account.dropped(reason).add(count);
        let path = self.path.display();
        match (reason, count) {
            (_, 0) => {}
            (DropReason::SpoolFull, _) => FULL.log(|more| {
                warn!(
                    "Spilling over {count} segments: the spool {path} is full (Spool.MaxSizeMB) \
                     and its oldest give way{more}"
                );
            }),
            _ => EXPIRED.log(|more| {
                warn!(
                    "{count} segments are given up: they were in the spool {path} for longer than \
                     Spool.MaxAgeHours{more}"
                );
            }),
        }
    }

    fn damaged(&self, done: &Done) {
        self.account.spool.damaged_records.add(done.damaged_record_count);
        self.account.spool.damaged_bytes.add(done.damaged_bytes);
        self.account.replayed.add(done.damaged_segment_count);
        self.account.dropped(DropReason::SpoolDamage).add(done.damaged_segment_count);
        if done.damaged_record_count > 0 {
            DAMAGED.log(|more| {
                error!(
                    "{} bytes of the spool {} are damaged and skipped, and with them {} segments \
                     that are known of. The last of it: {}{more}",
                    done.damaged_bytes,
                    self.path.display(),
                    done.damaged_segment_count,
                    done.damage.as_deref().unwrap_or_default()
                );
            });
        }
    }

    fn removed(&self, removal: Option<Removal>) {
        let path = self.path.display();
        match removal {
            None => {}
            Some(Removal::File) => FILE_REMOVED.log(|more| {
                error!(
                    "A file of the spool {path} was removed while it was written to: what is in \
                     it is lost unless it is sent before the daemon ends{more}"
                );
            }),
            Some(Removal::Folder) => FOLDER_REMOVED.log(|more| {
                error!(
                    "The spool {path} was removed under the daemon and is made anew: what was in \
                     it is lost, but for a file that is open still{more}"
                );
            }),
        }
    }
}
