//! Reports what the spool does: to the account, the conditions and the log.
//!
//! In: results of jobs, and failures. Out: counters, the conditions that `/ready` shows, and log
//! lines. Bound: a [`LogLimit`] for each log line. Thread: the sender's.

use super::spool_job::{Done, Sizes};
use crate::base::account::{Account, DropReason, PerSignal, Signal};
use crate::base::conditions::Condition;
use crate::base::log::LogLimit;
use crate::pipeline::spool::{Found, Options, Removal, SpoolError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{error, info, warn};

/// The limits of the log lines about one spool.
#[derive(Debug)]
struct Lines {
    failed: LogLimit,
    condition: LogLimit,
    file_removed: LogLimit,
    folder_removed: LogLimit,
    full: LogLimit,
    expired: LogLimit,
    damaged: LogLimit,
}

impl Lines {
    const fn new() -> Self {
        Self {
            failed: LogLimit::once_a_minute(),
            condition: LogLimit::once_a_minute(),
            file_removed: LogLimit::once_a_minute(),
            folder_removed: LogLimit::once_a_minute(),
            full: LogLimit::new(),
            expired: LogLimit::new(),
            damaged: LogLimit::new(),
        }
    }
}

/// A line about one of the spools does not replace the same line about the other.
static LINES: PerSignal<Lines> = PerSignal::new(Lines::new(), Lines::new());

/// Reports on one spool: counts, conditions and log lines.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    size_bytes_max: u64,
    account: Arc<Account>,
    /// Whether the last write or the last opening has failed.
    has_failed: bool,
    lines: &'static Lines,
}

impl Report {
    /// A report on the spool with these options.
    pub fn new(options: &Options, account: Arc<Account>) -> Self {
        let (path, size_bytes_max) = (options.path.clone(), options.size_bytes_max);
        let lines = LINES.of(account.signal);
        Self { path, size_bytes_max, account, has_failed: false, lines }
    }

    /// Reports that the spool was opened.
    pub fn opened(&mut self, sizes: &Sizes, found: &Found) {
        let path = self.path.display();
        info!(
            "The spool {path} is open: {} bytes in {} files of earlier runs",
            found.bytes, found.file_count
        );
        if let Some(mode) = found.tightened_from {
            warn!(
                "Other users could use the spool {path} (mode {mode:o}). xrayd has taken these \
                 permissions away"
            );
        }
        if found.refused_count > 0 {
            warn!(
                "{} names in the spool {path} are links or not regular files, and are ignored",
                found.refused_count
            );
        }
        self.note_size(sizes);
        self.has_failed = false;
        self.account.conditions.end(Condition::SpoolFailing);
    }

    /// Reports that the spool cannot be opened or written to, and is tried again after `pause`.
    pub fn failed(&mut self, error: &SpoolError, pause: Duration) {
        self.has_failed = true;
        self.account.conditions.begin(Condition::SpoolFailing, error.to_string());
        self.account.spool.errors.add(1);
        self.lines.failed.log(|more| {
            error!(
                "The spool {} cannot be used: {error}. Its {} are kept only in memory. The next \
                 attempt is in {} s{more}",
                self.path.display(),
                self.account.signal,
                pause.as_secs()
            );
        });
    }

    /// Reports that a job has panicked, and that the spool is opened again after `pause`.
    pub fn panicked(&mut self, message: &str, pause: Duration) {
        self.failed(&SpoolError::Panic(message.to_owned()), pause);
    }

    /// Reports that the spool can be written to. Logs this only after a failure.
    pub fn works(&mut self) {
        if std::mem::take(&mut self.has_failed) {
            self.account.conditions.end(Condition::SpoolFailing);
            info!("The spool {} can be used again", self.path.display());
        }
    }

    /// Reports a job that is done. The caller counts the batches that were written and read.
    pub fn done(&self, done: &Done) {
        self.note_size(&done.sizes);
        self.lost(done);
    }

    /// Reports the losses that a job has found, even if the job has panicked.
    pub fn lost(&self, done: &Done) {
        self.note_fullness(done.evicted_count);
        self.dropped(DropReason::SpoolFull, done.evicted_count);
        self.dropped(DropReason::SpoolAge, done.expired_count);
        self.damaged(done);
        self.removed(done.removal);
        if let Some(error) = done.condition.as_ref().filter(|_| done.failure.is_none()) {
            self.account.spool.errors.add(1);
            self.lines
                .condition
                .log(|more| warn!("The spool {}: {error}{more}", self.path.display()));
        }
    }

    fn note_size(&self, sizes: &Sizes) {
        let counts = &self.account.spool;
        counts.size_bytes.store(sizes.bytes, Ordering::Relaxed);
        counts.segment_count.store(sizes.segment_count, Ordering::Relaxed);
        counts.set_oldest(sizes.oldest_made_at);
    }

    fn note_fullness(&self, evicted_count: u64) {
        let (conditions, size_bytes_max) = (&self.account.conditions, self.size_bytes_max);
        if evicted_count > 0 {
            let reason = "the spool is full (Spool.MaxSizeMB), so its oldest segments are dropped";
            conditions.begin(Condition::SpoolFull, reason);
        } else if self.account.spool.size_bytes.load(Ordering::Relaxed) < size_bytes_max / 8 * 7 {
            conditions.end(Condition::SpoolFull);
        }
    }

    /// Counts and logs segments or spans that leave the spool unsent.
    fn dropped(&self, reason: DropReason, count: u64) {
        self.account.replayed.add(count);
        self.account.dropped(reason).add(count);
        let (path, signal) = (self.path.display(), self.account.signal);
        match (reason, signal) {
            _ if count == 0 => {}
            (DropReason::SpoolFull, _) => self.lines.full.log(|more| {
                warn!(
                    "Spilling over {count} {signal}: the spool {path} is full (Spool.MaxSizeMB), \
                     so its oldest {signal} are dropped{more}"
                );
            }),
            // Their exporters were told that the daemon has them.
            (_, Signal::Spans) => self.lines.expired.log(|more| {
                error!(
                    "{count} {signal} are dropped: they were in the spool {path} for longer than \
                     Spool.MaxAgeHours, or than X-Ray takes{more}"
                );
            }),
            (_, Signal::Segments) => self.lines.expired.log(|more| {
                warn!(
                    "{count} {signal} are dropped: they were in the spool {path} for longer than \
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
            self.lines.damaged.log(|more| {
                error!(
                    "{} bytes of the spool {} are damaged and are skipped. At least {} {} are \
                     lost with them. The last damage: {}{more}",
                    done.damaged_bytes,
                    self.path.display(),
                    done.damaged_segment_count,
                    self.account.signal,
                    done.damage.as_deref().unwrap_or_default()
                );
            });
        }
    }

    fn removed(&self, removal: Option<Removal>) {
        let (path, signal) = (self.path.display(), self.account.signal);
        match removal {
            None => {}
            Some(Removal::File) => self.lines.file_removed.log(|more| {
                error!(
                    "Another program has removed a file of the spool {path}. Its {signal} are lost \
                     unless they are sent before the daemon ends{more}"
                );
            }),
            Some(Removal::Folder) => self.lines.folder_removed.log(|more| {
                error!(
                    "Another program has removed the spool {path}. Its {signal} are lost, except \
                     those in a file that is open. The folder is created again{more}"
                );
            }),
        }
    }
}
