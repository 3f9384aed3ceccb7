//! The spool's part of the sender thread: batches to disk and back, without a wait for the disk.
//!
//! In: attempts for which memory is too short, or for which no time is left. Out: the same ones
//! again when the service takes batches. Files are read and written in *turns* on the spool's
//! thread (`spool_thread.rs`, `spool_job.rs`): one at a time, each with all that has come together
//! since the last. What could not be written comes back ([`Spooler::unwritten`]); after a failure
//! nothing
//! is written for [`RETRY_PAUSE`], and memory is all there is until then. It is tried after each
//! such pause, with whatever is to be written or with a probe: so it is known to fail for as long
//! as it does, and no longer. What lies in it is read and brought to the disk meanwhile. A turn
//! that panics is a failure too, after which the spool is opened again. `spool_report.rs` says what
//! happens.
//!
//! Bounds: [`WRITE_COUNT_MAX`] batches on their way to the disk, [`READ_COUNT_MAX`] out of it.

use super::spool_job::{Done, Work, Writes};
use super::spool_report::Report;
use super::spool_thread::{Job, Outcome, Sizes, SpoolThread};
use crate::base::account::Account;
use crate::base::clock::Clock;
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::{Found, RecordId, SpoolError};
use crate::pipeline::upload::Attempt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Batches on their way to the disk at most.
const WRITE_COUNT_MAX: usize = 8;

/// Batches out of the spool in memory at most.
pub const READ_COUNT_MAX: usize = 8;

/// After a failure the spool is tried again when this time is over.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What was written is on the disk itself, and not only in the system's cache, after this time.
const SYNC_DELAY: Duration = Duration::from_secs(1);

/// When memory has no room for a record it is tried again after this time.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum State {
    Closed,
    Open,
    Opening,
    Busy { writes: Arc<Writes> },
}

/// The spool, and what is on its way to it.
#[derive(Debug)]
pub struct Spooler {
    thread: SpoolThread,
    account: Arc<Account>,
    state: State,
    writes: Vec<Attempt>,
    work: Work,
    unwritten: Vec<Attempt>,
    read: Vec<(Batch, RecordId)>,
    /// Whether there may be something to be read.
    may_have_more: bool,
    report: Report,
    /// Before this nothing is written, and a closed spool is left alone.
    rests_until: Option<Instant>,
    /// When to find out whether it can be written to again: perhaps nothing else does.
    probe_at: Option<Instant>,
    /// When what was written is brought to the disk itself.
    sync_at: Option<Instant>,
    /// Whether that has failed the last time.
    is_unsynced: bool,
    /// Before this nothing is read: memory had no room.
    reads_at: Option<Instant>,
    /// When files that could not be read are tried again.
    retries_at: Option<Instant>,
}

impl Spooler {
    /// A spooler whose spool is not open yet; it counts into `account`.
    pub fn new(thread: SpoolThread, account: Arc<Account>) -> Self {
        let report = Report::new(thread.options(), Arc::clone(&account));
        Self {
            thread,
            account,
            state: State::Closed,
            writes: Vec::new(),
            work: Work::default(),
            unwritten: Vec::new(),
            read: Vec::new(),
            may_have_more: false,
            report,
            rests_until: None,
            probe_at: None,
            sync_at: None,
            is_unsynced: false,
            reads_at: None,
            retries_at: None,
        }
    }

    /// Whether the spool is open and has not just failed.
    pub fn is_working(&self) -> bool {
        self.is_open() && self.rests_until.is_none()
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Busy { .. })
    }

    /// Whether it takes one more attempt now.
    pub fn has_room(&self) -> bool {
        self.is_working() && self.writing_count() < WRITE_COUNT_MAX
    }

    /// Batches on their way to the disk.
    pub fn writing_count(&self) -> usize {
        self.writes_on_their_way().count()
    }

    fn writes_on_their_way(&self) -> impl Iterator<Item = &Attempt> {
        let busy = match &self.state {
            State::Busy { writes, .. } => writes.attempts.as_slice(),
            _ => &[],
        };
        self.writes.iter().chain(busy).chain(&self.unwritten)
    }

    /// Segments that it holds in memory, counted one by one.
    pub fn segment_count(&self) -> usize {
        let writes = self.writes_on_their_way().map(|attempt| &attempt.batch);
        let read = self.read.iter().map(|(batch, _)| batch);
        writes.chain(read).map(|batch| batch.documents.len()).sum()
    }

    /// Memory that they take up.
    pub fn memory_bytes(&self) -> usize {
        let writes = self.writes_on_their_way().map(Attempt::memory_bytes);
        writes.chain(self.read.iter().map(|(batch, _)| batch.memory_bytes())).sum()
    }

    /// Takes over an attempt that memory has no room for, or that there is no time for.
    ///
    /// The rest of a batch of which some are delivered is a batch of its own.
    pub fn write(&mut self, mut attempt: Attempt) {
        if !attempt.is_in_spool() {
            self.writes.push(attempt);
            return;
        }
        // It lies there already.
        let segment_count = attempt.batch.documents.len() as u64;
        self.account.spooled.add(segment_count);
        let record = attempt.record.take().and_then(Arc::into_inner);
        self.work.released.extend(record.map(|record| (record, segment_count)));
        self.may_have_more = true;
    }

    /// These records are needed no more: they are delivered, or given up for good.
    pub fn settle(&mut self, records: impl IntoIterator<Item = RecordId>) {
        self.work.settled.extend(records);
    }

    /// Whether there is something to read, as far as is known.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more && self.is_open()
    }

    /// Asks for so many batches out of the spool; [`read`](Self::read) has them later.
    ///
    /// Not while a turn is on its way: it may be reading some already.
    pub fn ask(&mut self, count: usize) {
        let may_read = self.may_have_more && self.reads_at.is_none();
        if may_read && matches!(self.state, State::Open) {
            self.work.read_count = count;
        }
    }

    /// Takes the batches that were read; they are counted from here on.
    pub fn read(&mut self, now: Instant) -> Vec<(Batch, RecordId)> {
        self.reads_at = self.reads_at.filter(|at| *at > now);
        mem::take(&mut self.read)
    }

    /// Takes back what could not be written.
    pub fn unwritten(&mut self) -> Vec<Attempt> {
        mem::take(&mut self.unwritten)
    }

    /// Starts a turn if there is something to do and none is on its way.
    pub fn start_due(&mut self, now: Instant) {
        if self.rests_until.is_some_and(|until| until <= now) {
            self.rests_until = None;
        }
        if self.probe_at.is_some_and(|at| at <= now) {
            self.probe_at = None;
            self.work.is_probe_due = true;
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            self.work.is_sync_due = true;
        }
        if self.retries_at.is_some_and(|at| at <= now) {
            self.retries_at = None;
            self.work.is_retry_due = true;
            self.may_have_more = true;
        }
        match self.state {
            State::Closed if self.rests_until.is_none() => {
                self.thread.give(Job::Open);
                self.state = State::Opening;
            }
            State::Open if self.has_work() => {
                let is_resting = self.rests_until.is_some();
                let attempts = if is_resting { Vec::new() } else { mem::take(&mut self.writes) };
                let writes = Arc::new(Writes::new(attempts));
                self.thread.give(Job::Turn(Arc::clone(&writes), mem::take(&mut self.work)));
                self.state = State::Busy { writes };
            }
            _ => {}
        }
    }

    fn has_work(&self) -> bool {
        let work = &self.work;
        let is_asked = !work.settled.is_empty() || !work.released.is_empty() || work.read_count > 0;
        let is_due = work.is_sync_due || work.is_retry_due || work.is_probe_due;
        is_asked || is_due || (self.rests_until.is_none() && !self.writes.is_empty())
    }

    /// Whether all that it was given is done, or nothing can be done now.
    pub fn is_idle(&self) -> bool {
        let is_busy = matches!(self.state, State::Busy { .. } | State::Opening);
        !is_busy && (self.rests_until.is_some() || !self.has_work())
    }

    /// When [`start_due`](Self::start_due) has something to do without an
    /// [`event`](Self::event) before it.
    pub fn next_due(&self) -> Option<Instant> {
        let waits = [self.rests_until, self.probe_at, self.sync_at, self.reads_at, self.retries_at];
        waits.into_iter().flatten().min()
    }

    /// Has it tried again at once, however recent the last failure.
    pub fn begin_drain(&mut self) {
        self.rests_until = None;
    }

    /// Does all that it was given, and brings it to the disk itself.
    ///
    /// Nothing is lost when the wait is given up.
    pub async fn finish(&mut self) {
        loop {
            self.work.is_sync_due |= self.sync_at.take().is_some();
            self.start_due(Clock::instant());
            if self.is_idle() {
                return;
            }
            self.event().await;
        }
    }

    /// Gives up what has not been written; returns how many segments that were.
    ///
    /// A turn that has not ended yet ends with the batch that it is writing. Nobody waits for that
    /// one: it is counted as lost, and where the disk takes it after all the next run sends it.
    #[must_use = "segments that are lost have to be counted"]
    pub fn give_up(&mut self) -> usize {
        let mut lost_count = self.segment_count();
        self.writes.clear();
        self.unwritten.clear();
        self.read.clear();
        if let State::Busy { writes, .. } = mem::replace(&mut self.state, State::Closed) {
            writes.give_up();
            let written = &writes.attempts[..writes.written_count()];
            let written_count: usize = written.iter().map(|it| it.batch.documents.len()).sum();
            self.account.spooled.add(written_count as u64);
            lost_count -= written_count;
        }
        lost_count
    }

    /// Waits until a turn is over, and takes note of what it did.
    ///
    /// Nothing is lost when the wait is given up.
    pub async fn event(&mut self) {
        match self.state {
            State::Closed | State::Open => std::future::pending().await,
            State::Opening | State::Busy { .. } => match self.thread.outcome().await {
                Outcome::Opened(opened) => self.opened(opened),
                Outcome::Done(done) => self.done(*done),
                Outcome::Panicked { reason, done } => self.panicked(&reason, &done),
            },
        }
    }

    fn opened(&mut self, opened: Result<(Found, Sizes), SpoolError>) {
        match opened {
            Ok((found, sizes)) => {
                self.report.opened(&sizes, &found);
                self.may_have_more = found.file_count > 0;
                self.state = State::Open;
            }
            Err(error) => {
                self.state = State::Closed;
                self.report.failed(&error, RETRY_PAUSE);
                self.rests_until = Some(Clock::instant() + RETRY_PAUSE);
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.report.done(&done);
        let written_count = self.take_writes(State::Open);
        let now = Clock::instant();
        if written_count > 0 {
            self.may_have_more = true;
            self.sync_at.get_or_insert(now + SYNC_DELAY);
        }
        if done.is_read_out && written_count == 0 && self.work.released.is_empty() {
            self.may_have_more = false;
        }
        if done.is_memory_short {
            self.reads_at = Some(now + MEMORY_PAUSE);
        }
        let again_at = now + RETRY_PAUSE;
        if done.is_unreadable {
            self.retries_at.get_or_insert(again_at);
        }
        for (batch, _) in &done.read {
            self.account.replayed.add(batch.documents.len() as u64);
        }
        self.read.extend(done.read);
        if done.has_tried_to_sync {
            self.is_unsynced = done.is_unsynced;
        }
        if done.is_unsynced {
            self.sync_at = Some(again_at);
        }
        match &done.failure {
            Some(error) => {
                self.report.failed(error, RETRY_PAUSE);
                self.probe_at = Some(again_at);
                if !done.has_probed || done.is_unsynced {
                    self.rests_until = self.probe_at;
                }
            }
            None if !self.is_unsynced && (done.has_probed || written_count > 0) => {
                self.probe_at = None;
                self.report.works();
            }
            None => {}
        }
    }

    /// A job has panicked: what was not written comes back, and the spool is opened again.
    fn panicked(&mut self, message: &str, done: &Done) {
        self.take_writes(State::Closed);
        self.report.lost(done);
        self.report.panicked(message, RETRY_PAUSE);
        // What the turn had to do was for a spool that is there no more. What was not settled comes
        // again, what was to be put back lies there.
        self.work = Work::default();
        (self.may_have_more, self.is_unsynced) = (false, false);
        (self.probe_at, self.sync_at) = (None, None);
        self.rests_until = Some(Clock::instant() + RETRY_PAUSE);
    }

    /// A turn is over: counts what it has written, and has the rest come back. Returns how many
    /// attempts it has written.
    fn take_writes(&mut self, next: State) -> usize {
        let State::Busy { writes } = mem::replace(&mut self.state, next) else { return 0 };
        // The thread has given up its share of them.
        let writes = Arc::into_inner(writes).unwrap_or_default();
        let written_count = writes.written_count();
        let mut writes = writes.attempts;
        self.unwritten.extend(writes.drain(written_count..));
        let records = writes.iter_mut().filter_map(|attempt| attempt.record.take());
        self.work.settled.extend(records.filter_map(Arc::into_inner));
        let written = writes.iter().map(|attempt| attempt.batch.documents.len() as u64);
        self.account.spooled.add(written.sum());
        written_count
    }
}

#[cfg(test)]
mod tests;
