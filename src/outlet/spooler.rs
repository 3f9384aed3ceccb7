//! The spool's part of the upload thread: batches to disk and back, without a wait for the disk.
//!
//! In: attempts for which memory is too short, or for which no time is left. Out: the same ones
//! again when the service takes batches. Files are read and written in *turns* on a thread beside
//! (`turn.rs`): one at a time, each with all that has come together since the last. What could not
//! be written comes back ([`Spooler::unwritten`]); after a failure the spool rests for
//! [`RETRY_PAUSE`], and memory is all there is until then. It is tried after each such pause, with
//! whatever is to be written or with a probe: so it is known to fail for as long as it does, and no
//! longer. What lies in it is read meanwhile, which may be what makes room. `spool_report.rs` says
//! what happens.
//!
//! Bounds: [`WRITE_COUNT_MAX`] batches on their way to the disk, [`READ_COUNT_MAX`] out of it.

use super::spool_report::Report;
use super::turn::{Done, Work, Writes, turn};
use crate::account::Account;
use crate::batch::Batch;
use crate::memory::Pool;
use crate::spool::{Found, Options, RecordId, Spool, SpoolError};
use crate::upload::Attempt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

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
    Open(Box<Spool>),
    Opening(JoinHandle<Result<(Spool, Found), SpoolError>>),
    Busy { turn: JoinHandle<(Box<Spool>, Done)>, writes: Arc<Writes> },
}

/// The spool, and what is on its way to it.
#[derive(Debug)]
pub struct Spooler {
    options: Options,
    pool: Arc<Pool>,
    account: Arc<Account>,
    state: State,
    writes: Vec<Attempt>,
    work: Work,
    unwritten: Vec<Attempt>,
    read: Vec<(Batch, RecordId)>,
    /// Whether there may be something to be read.
    may_have_more: bool,
    report: Report,
    /// Before this the spool is left alone.
    rests_until: Option<Instant>,
    /// When to find out whether it can be written to again: perhaps nothing else does.
    probe_at: Option<Instant>,
    /// When what was written is brought to the disk itself.
    sync_at: Option<Instant>,
    /// Before this nothing is read: memory had no room.
    reads_at: Option<Instant>,
    /// When files that could not be read are tried again.
    retries_at: Option<Instant>,
}

impl Spooler {
    /// A spooler whose spool is not open yet; it counts into `account`.
    pub fn new(options: Options, pool: Arc<Pool>, account: Arc<Account>) -> Self {
        let report = Report::new(&options, Arc::clone(&account));
        Self {
            options,
            pool,
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
            reads_at: None,
            retries_at: None,
        }
    }

    /// Whether the spool is open and has not just failed.
    pub fn is_working(&self) -> bool {
        matches!(self.state, State::Open(_) | State::Busy { .. }) && self.rests_until.is_none()
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
        self.may_have_more && self.is_working()
    }

    /// Asks for so many batches out of the spool; [`read`](Self::read) has them later.
    ///
    /// Not while a turn is on its way: it may be reading some already.
    pub fn ask(&mut self, count: usize) {
        let may_read = self.may_have_more && self.reads_at.is_none();
        if may_read && matches!(self.state, State::Open(_)) {
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
        if self.rests_until.is_some() {
            return;
        }
        match mem::replace(&mut self.state, State::Closed) {
            State::Closed => {
                let options = self.options.clone();
                let opening = tokio::task::spawn_blocking(move || Spool::open(options));
                self.state = State::Opening(opening);
            }
            State::Open(spool) if self.has_work() => {
                let writes = Arc::new(Writes::new(mem::take(&mut self.writes)));
                let (work, pool) = (mem::take(&mut self.work), Arc::clone(&self.pool));
                let shared = Arc::clone(&writes);
                let turn = tokio::task::spawn_blocking(move || turn(spool, &shared, work, &pool));
                self.state = State::Busy { turn, writes };
            }
            state => self.state = state,
        }
    }

    fn has_work(&self) -> bool {
        let Work { settled, released, read_count, is_sync_due, is_retry_due, is_probe_due } =
            &self.work;
        let is_asked = !settled.is_empty() || !released.is_empty() || *read_count > 0;
        is_asked || *is_sync_due || *is_retry_due || *is_probe_due || !self.writes.is_empty()
    }

    /// Whether all that it was given is done.
    pub fn is_idle(&self) -> bool {
        let is_busy = matches!(self.state, State::Busy { .. } | State::Opening(_));
        self.rests_until.is_some() || (!is_busy && !self.has_work())
    }

    /// When [`start_due`](Self::start_due) has something to do without an
    /// [`event`](Self::event) before it.
    pub fn next_due(&self) -> Option<Instant> {
        let waits = [self.rests_until, self.probe_at, self.sync_at, self.reads_at, self.retries_at];
        waits.into_iter().flatten().min()
    }

    /// Has it tried again at once, however recent the last failure.
    pub fn hurry(&mut self) {
        self.rests_until = None;
    }

    /// Does all that it was given, and brings it to the disk itself.
    ///
    /// Nothing is lost when the wait is given up.
    pub async fn finish(&mut self) {
        loop {
            self.work.is_sync_due |= self.sync_at.take().is_some();
            self.start_due(Instant::now());
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
        match &mut self.state {
            State::Closed | State::Open(_) => std::future::pending().await,
            State::Opening(opening) => {
                let opened = opening.await;
                self.opened(opened.unwrap_or_else(panicked));
            }
            State::Busy { turn, .. } => {
                let done = turn.await;
                self.done(done.unwrap_or_else(panicked));
            }
        }
    }

    fn opened(&mut self, opened: Result<(Spool, Found), SpoolError>) {
        match opened {
            Ok((spool, found)) => {
                self.report.opened(&spool, &found);
                self.may_have_more = found.file_count > 0;
                self.state = State::Open(Box::new(spool));
            }
            Err(error) => {
                self.state = State::Closed;
                self.report.failed(&error, RETRY_PAUSE);
                self.rests_until = Some(Instant::now() + RETRY_PAUSE);
            }
        }
    }

    fn done(&mut self, (spool, done): (Box<Spool>, Done)) {
        self.report.done(&spool, &done);
        let before = mem::replace(&mut self.state, State::Open(spool));
        let State::Busy { writes, .. } = before else { return };
        // The turn has given up its share of them.
        let writes = Arc::into_inner(writes).unwrap_or_default();
        let written_count = writes.written_count();
        let mut writes = writes.attempts;
        self.unwritten.extend(writes.drain(written_count..));
        let records = writes.iter_mut().filter_map(|attempt| attempt.record.take());
        self.work.settled.extend(records.filter_map(Arc::into_inner));
        let written = writes.iter().map(|attempt| attempt.batch.documents.len() as u64);
        self.account.spooled.add(written.sum());
        if !writes.is_empty() {
            self.may_have_more = true;
            self.sync_at.get_or_insert(Instant::now() + SYNC_DELAY);
        }
        if done.is_read_out && writes.is_empty() && self.work.released.is_empty() {
            self.may_have_more = false;
        }
        if done.is_memory_short {
            self.reads_at = Some(Instant::now() + MEMORY_PAUSE);
        }
        if done.is_unreadable {
            self.retries_at.get_or_insert(Instant::now() + RETRY_PAUSE);
        }
        for (batch, _) in &done.read {
            self.account.replayed.add(batch.documents.len() as u64);
        }
        self.read.extend(done.read);
        match &done.failure {
            Some(error) => {
                self.report.failed(error, RETRY_PAUSE);
                self.probe_at = Some(Instant::now() + RETRY_PAUSE);
                if !done.has_probed {
                    self.rests_until = self.probe_at;
                }
            }
            None if done.has_probed || !writes.is_empty() => {
                self.probe_at = None;
                self.report.works();
            }
            None => {}
        }
    }
}

/// A panic in a turn is a fault of the program, to pass on.
fn panicked<T>(error: tokio::task::JoinError) -> T {
    std::panic::resume_unwind(error.into_panic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::test_batch;
    use crate::upload::Uploader;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn of_a_turn_that_hangs_what_it_has_written_is_no_loss_and_it_begins_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            path: folder.path().to_owned(),
            size_bytes_max: 16 << 20,
            age_max: Duration::from_secs(60),
        };
        let (pool, account) = (Pool::new(100, 8), Arc::new(Account::new(1)));
        let mut spooler = Spooler::new(options.clone(), Arc::clone(&pool), Arc::clone(&account));
        let mut uploader = Uploader::new(oneshot::channel().1, 8, Arc::clone(&account));
        let mut attempt = |ids: &[&str]| {
            uploader.push(test_batch(ids.iter().map(|id| (*id).to_owned())));
            uploader.displace_oldest().unwrap()
        };
        let mut spool = Box::new(Spool::open(options).unwrap().0);
        let writes = Arc::new(Writes::new(vec![attempt(&["a", "b", "c"])]));
        (spool, _) = turn(spool, &writes, Work::default(), &pool);
        assert_eq!((writes.written_count(), spool.segment_count()), (1, 3));
        // One more is given to the same turn, which hangs before it.
        let mut writes = Arc::into_inner(writes).unwrap();
        writes.attempts.push(attempt(&["d", "e"]));
        let writes = Arc::new(writes);
        let (go_on, waits) = mpsc::channel();
        let shared = Arc::clone(&writes);
        let busy = tokio::task::spawn_blocking(move || {
            let () = waits.recv().unwrap();
            turn(spool, &shared, Work::default(), &pool)
        });
        spooler.state = State::Busy { turn: busy, writes: Arc::clone(&writes) };
        assert_eq!(spooler.segment_count(), 5);
        assert_eq!((spooler.give_up(), account.spooled.get()), (2, 3));
        assert_eq!(spooler.segment_count(), 0);
        go_on.send(()).unwrap();
        while Arc::strong_count(&writes) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(writes.written_count(), 1, "it has begun no more");
    }
}
