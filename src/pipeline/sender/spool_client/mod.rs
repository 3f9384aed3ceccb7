//! The spool's part of the sender: batches to disk and back, without waiting for the disk.
//!
//! In: pending batches that have no room in memory, or that are left at the end of a shutdown. Out:
//! the same batches, when the service takes batches again. Bound: [`WRITE_COUNT_MAX`] batches on
//! their way to the disk and [`READ_COUNT_MAX`] batches that were read. When full:
//! [`SpoolClient::has_room`] returns `false`. Thread: the sender's; files are read and written on
//! the spool's thread (`spool_thread.rs`).
//!
//! The spool's thread does one *job* at a time (`spool_job.rs`). A job has all the work that was
//! requested since the last job was started. The sender takes pending batches back that could not
//! be written ([`SpoolClient::unwritten`]). After a failed write nothing is written for
//! [`RETRY_PAUSE`], and memory holds all batches until then. After each pause the next write or a
//! probe shows whether the spool works again (`write_state.rs`). Meanwhile records are still read
//! and synced. If a job panics, the spool is opened again after the same pause. `spool_report.rs`
//! writes the log.

mod timers;
mod write_state;

use super::spool_job::{Done, Job, JobResult, Sizes, Work, Writes};
use super::spool_report::Report;
use super::spool_thread::SpoolThread;
use crate::base::account::Account;
use crate::base::clock::Clock;
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::{Found, RecordId, SpoolError};
use crate::pipeline::upload::PendingBatch;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timers::{Timer, Timers};
use write_state::WriteState;

/// The largest number of batches on their way to the disk.
const WRITE_COUNT_MAX: usize = 8;

/// The largest number of batches in memory that were read from the spool.
pub const READ_COUNT_MAX: usize = 8;

/// The pause after a failure of the spool, before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Records are synced this long after they were written. The operator is promised one second.
const SYNC_DELAY: Duration = Duration::from_secs(1);

/// The pause before the next read, after memory had no room for a record.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// Whether the spool is open, and whether a job is running.
#[derive(Debug)]
enum State {
    /// The spool is not open. It is opened at the time `open_at`.
    Closed { open_at: Instant },
    /// The spool is being opened.
    Opening,
    /// The spool is open. `job` has the pending batches of the current job, if there is one.
    Open { writing: WriteState, job: Option<Arc<Writes>> },
}

/// The spool, and the batches on their way to it and out of it.
#[derive(Debug)]
pub struct SpoolClient {
    thread: SpoolThread,
    account: Arc<Account>,
    state: State,
    timers: Timers,
    /// Pending batches that the next job writes.
    writes: Vec<PendingBatch>,
    /// The work of the next job besides writing.
    work: Work,
    /// Pending batches that could not be written, until the sender takes them back.
    unwritten: Vec<PendingBatch>,
    /// Batches that were read from the spool, until the sender takes them.
    read: Vec<(Batch, RecordId)>,
    /// Whether the spool may have records that are not taken.
    may_have_more: bool,
    /// The number of the newest file that was evicted from the spool; `None` if there is none. The
    /// records of this file and of older ones are only in memory.
    evicted_sequence: Option<u64>,
    report: Report,
}

impl SpoolClient {
    /// A spool client for the spool of `thread`, which is not open yet. Counts into `account`.
    pub fn new(thread: SpoolThread, account: Arc<Account>) -> Self {
        let report = Report::new(thread.options(), Arc::clone(&account));
        Self {
            thread,
            account,
            state: State::Closed { open_at: Clock::instant() },
            timers: Timers::default(),
            writes: Vec::new(),
            work: Work::default(),
            unwritten: Vec::new(),
            read: Vec::new(),
            may_have_more: false,
            evicted_sequence: None,
            report,
        }
    }

    /// Returns whether the spool is open and may be written to.
    pub fn is_working(&self) -> bool {
        matches!(self.state, State::Open { writing, .. } if writing.may_write())
    }

    /// Returns whether the spool client takes one more pending batch now.
    pub fn has_room(&self) -> bool {
        self.is_working() && self.writing_count() < WRITE_COUNT_MAX
    }

    /// Returns how many batches are on their way to the disk.
    pub fn writing_count(&self) -> usize {
        self.writes_on_their_way().count()
    }

    fn writes_on_their_way(&self) -> impl Iterator<Item = &PendingBatch> {
        let current = match &self.state {
            State::Open { job: Some(writes), .. } => writes.pending_batches.as_slice(),
            _ => &[],
        };
        self.writes.iter().chain(current).chain(&self.unwritten)
    }

    /// Returns how many segments the spool client holds in memory, counted one by one.
    pub fn segment_count(&self) -> usize {
        let writes = self.writes_on_their_way().map(|pending| &pending.batch);
        let read = self.read.iter().map(|(batch, _)| batch);
        writes.chain(read).map(|batch| batch.item_count()).sum()
    }

    /// Returns the memory of the segments that the spool client holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let writes = self.writes_on_their_way().map(PendingBatch::memory_bytes);
        writes.chain(self.read.iter().map(|(batch, _)| batch.memory_bytes())).sum()
    }

    /// Takes over a pending batch, to write it to the spool.
    ///
    /// If the whole batch of the pending batch is still a record of the spool, the record is put
    /// back instead. But if some documents of the batch are settled, the rest is written as a new
    /// record.
    pub fn write(&mut self, mut pending: PendingBatch) {
        if !pending.is_in_spool() {
            self.writes.push(pending);
            return;
        }
        let segment_count = pending.batch.item_count() as u64;
        self.account.spooled.add(segment_count);
        let record = pending.record.take().and_then(Arc::into_inner);
        self.work.released.extend(record.map(|record| (record, segment_count)));
        self.may_have_more = true;
    }

    /// Settles records: their batches are delivered, rejected or dropped.
    pub fn settle(&mut self, records: impl IntoIterator<Item = RecordId>) {
        self.work.settled.extend(records);
    }

    /// Returns whether the spool may have records to read.
    pub fn may_have_more(&self) -> bool {
        self.may_have_more && matches!(self.state, State::Open { .. })
    }

    /// Asks for `count` batches out of the spool. [`read`](Self::read) returns them later.
    ///
    /// Does nothing while a job is running, since the job may be reading batches already.
    pub fn ask(&mut self, count: usize) {
        let may_read = self.may_have_more && !self.timers.is_set(Timer::Read);
        if may_read && matches!(self.state, State::Open { job: None, .. }) {
            self.work.read_count = count;
        }
    }

    /// Returns the batches that were read. The caller holds and counts them from now on.
    pub fn read(&mut self, now: Instant) -> Vec<(Batch, RecordId)> {
        self.timers.clear_if_due(Timer::Read, now);
        mem::take(&mut self.read)
    }

    /// Returns the pending batches that could not be written. The caller holds them from now on.
    pub fn unwritten(&mut self) -> Vec<PendingBatch> {
        mem::take(&mut self.unwritten)
    }

    /// Starts a job if there is work and no job is running.
    pub fn start_due(&mut self, now: Instant) {
        if let State::Open { writing, .. } = &mut self.state
            && writing.starts_probe(now)
        {
            self.work.is_probe_due = true;
        }
        self.work.is_sync_due |= self.timers.clear_if_due(Timer::Sync, now);
        if self.timers.clear_if_due(Timer::Retry, now) {
            self.work.is_retry_due = true;
            self.may_have_more = true;
        }
        let has_work = self.has_work();
        match &mut self.state {
            State::Closed { open_at } if *open_at <= now => {
                self.thread.give(Job::Open);
                self.state = State::Opening;
            }
            State::Open { writing, job } if job.is_none() && has_work => {
                let pending_batches =
                    if writing.may_write() { mem::take(&mut self.writes) } else { Vec::new() };
                let writes = job.insert(Arc::new(Writes::new(pending_batches)));
                self.thread.give(Job::Work(Arc::clone(writes), mem::take(&mut self.work)));
            }
            State::Closed { .. } | State::Opening | State::Open { .. } => {}
        }
    }

    fn has_work(&self) -> bool {
        !self.work.is_empty() || (self.is_working() && !self.writes.is_empty())
    }

    /// Returns whether all work is done, or the spool can do no work now.
    pub fn is_idle(&self) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Opening | State::Open { job: Some(_), .. } => false,
            State::Open { writing, job: None } => !writing.may_write() || !self.has_work(),
        }
    }

    /// Returns when [`start_due`](Self::start_due) or [`read`](Self::read) has to be called, even
    /// if no [`event`](Self::event) comes before.
    pub fn next_due(&self) -> Option<Instant> {
        let state_due = match self.state {
            State::Closed { open_at } => Some(open_at),
            State::Opening => None,
            State::Open { writing, .. } => writing.next_due(),
        };
        [state_due, self.timers.next_due()].into_iter().flatten().min()
    }

    /// Ends the pause after a failure: the shutdown has no time for it.
    pub fn begin_drain(&mut self) {
        self.work.is_retry_due |= self.timers.clear(Timer::Retry);
        match &mut self.state {
            State::Closed { open_at } => *open_at = Clock::instant(),
            State::Opening => {}
            State::Open { writing, .. } => writing.end_pause(),
        }
    }

    /// Does all the work and syncs the spool.
    ///
    /// If the caller drops the future, no work and no result is lost.
    pub async fn finish(&mut self) {
        loop {
            self.work.is_sync_due |= self.timers.clear(Timer::Sync);
            self.start_due(Clock::instant());
            if self.is_idle() {
                return;
            }
            self.event().await;
        }
    }

    /// Drops pending batches at the end. Returns how many segments are lost with them.
    ///
    /// Batches and parts of batches whose record is in the spool are not lost: the next run sends
    /// the whole record. They count as spooled.
    #[must_use = "dropped segments have to be counted"]
    pub fn leave(&self, pending_batches: &[PendingBatch]) -> usize {
        let batches = pending_batches.iter();
        batches.map(|it| self.leave_one(&it.batch, it.record.as_deref().copied())).sum()
    }

    /// Drops a batch at the end. Returns how many segments are lost with it: none if its record is
    /// in the spool.
    fn leave_one(&self, batch: &Batch, record: Option<RecordId>) -> usize {
        let segment_count = batch.item_count();
        if record.is_some_and(|record| Some(record.sequence()) > self.evicted_sequence) {
            self.account.spooled.add(segment_count as u64);
            return 0;
        }
        segment_count
    }

    /// Drops all batches that were not written. Returns how many segments are lost with them.
    ///
    /// A running job ends after the batch that it is writing. This batch is counted as dropped. If
    /// the disk takes the batch after all, the next run sends it.
    #[must_use = "dropped segments have to be counted"]
    pub fn drop_all(&mut self) -> usize {
        let mut not_begun = mem::take(&mut self.writes);
        not_begun.append(&mut self.unwritten);
        let mut dropped_count = self.leave(&not_begun);
        for (batch, record) in mem::take(&mut self.read) {
            dropped_count += self.leave_one(&batch, Some(record));
        }
        let closed = State::Closed { open_at: Clock::instant() + RETRY_PAUSE };
        if let State::Open { job: Some(writes), .. } = mem::replace(&mut self.state, closed) {
            writes.cancel();
            let (written, left) = writes.pending_batches.split_at(writes.written_count());
            let written = written.iter().map(|pending| pending.batch.item_count() as u64);
            self.account.spooled.add(written.sum());
            dropped_count += self.leave(left);
        }
        dropped_count
    }

    /// Waits until a job is done, and takes note of its result. Waits for ever if no job is
    /// running.
    ///
    /// If the caller drops the future, no result is lost.
    pub async fn event(&mut self) {
        match self.state {
            State::Closed { .. } | State::Open { job: None, .. } => std::future::pending().await,
            State::Opening | State::Open { job: Some(_), .. } => match self.thread.result().await {
                JobResult::Opened(opened) => self.opened(opened),
                JobResult::Done(done) => self.done(*done),
                JobResult::Panicked { reason, done } => self.panicked(&reason, &done),
            },
        }
    }

    fn opened(&mut self, opened: Result<(Found, Sizes), SpoolError>) {
        match opened {
            Ok((found, sizes)) => {
                self.report.opened(&sizes, &found);
                self.may_have_more = found.file_count > 0;
                self.state = State::Open { writing: WriteState::Works, job: None };
            }
            Err(error) => {
                self.report.failed(&error, RETRY_PAUSE);
                self.state = State::Closed { open_at: Clock::instant() + RETRY_PAUSE };
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.report.done(&done);
        self.evicted_sequence = self.evicted_sequence.max(done.evicted_sequence);
        let written_count = self.take_job();
        let now = Clock::instant();
        if written_count > 0 {
            self.may_have_more = true;
            self.timers.set_if_unset(Timer::Sync, now + SYNC_DELAY);
        }
        if done.is_read_out && written_count == 0 && self.work.released.is_empty() {
            self.may_have_more = false;
        }
        if done.is_memory_short {
            self.timers.set(Timer::Read, now + MEMORY_PAUSE);
        }
        let again_at = now + RETRY_PAUSE;
        if done.is_unreadable || done.is_behind {
            self.timers.set_if_unset(Timer::Retry, again_at);
        }
        if done.is_unsynced {
            self.timers.set(Timer::Sync, again_at);
        }
        if let Some(error) = &done.failure {
            self.report.failed(error, RETRY_PAUSE);
        }
        if let State::Open { writing, .. } = &mut self.state
            && writing.note(&done, written_count, again_at)
        {
            self.report.works();
        }
        for (batch, _) in &done.read {
            self.account.replayed.add(batch.item_count() as u64);
        }
        self.read.extend(done.read);
    }

    /// Handles a job that has panicked: moves the pending batches that were not written to
    /// `unwritten`, and lets the spool be opened again after a pause.
    fn panicked(&mut self, message: &str, done: &Done) {
        self.take_job();
        self.report.lost(done);
        self.evicted_sequence = self.evicted_sequence.max(done.evicted_sequence);
        self.report.panicked(message, RETRY_PAUSE);
        // The work was for a spool that is closed now. Records that were to be settled come again,
        // and records that were to be put back are in the spool.
        self.work = Work::default();
        self.may_have_more = false;
        self.timers.clear(Timer::Sync);
        self.state = State::Closed { open_at: Clock::instant() + RETRY_PAUSE };
    }

    /// Ends the current job: counts the pending batches that were written, and moves the rest to
    /// `unwritten`. Returns how many pending batches were written.
    fn take_job(&mut self) -> usize {
        let State::Open { job, .. } = &mut self.state else { return 0 };
        // The thread has dropped its `Arc`, so this is the only one and `into_inner` succeeds.
        let writes = job.take().and_then(Arc::into_inner).unwrap_or_default();
        let written_count = writes.written_count();
        let mut writes = writes.pending_batches;
        self.unwritten.extend(writes.drain(written_count..));
        let records = writes.iter_mut().filter_map(|pending| pending.record.take());
        self.work.settled.extend(records.filter_map(Arc::into_inner));
        let written = writes.iter().map(|pending| pending.batch.item_count() as u64);
        self.account.spooled.add(written.sum());
        written_count
    }
}

#[cfg(test)]
mod tests;
