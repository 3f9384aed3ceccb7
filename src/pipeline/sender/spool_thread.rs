//! The thread of the spool, which waits for the disk.
//!
//! In: jobs, one at a time. Out: a [`JobResult`] for each job. Bound: one job. Thread: `spool`, or
//! `spool-spans`.
//!
//! The thread is created at the start of the daemon, so that a limit on threads cannot stop it when
//! memory is short. The spool belongs to the thread. If a job panics, its result is
//! [`JobResult::Panicked`]. The spool is then dropped and has to be opened again. The thread ends
//! after its current job when the [`SpoolThread`] is dropped.
//!
//! A simulation has no threads. [`SpoolThread::on_runtime`] returns a future that does the jobs in
//! the place of the thread.

use super::spool_job::{Done, Job, JobResult, Sizes};
use super::spool_work::work;
use crate::base::account::{Account, Signal};
use crate::base::clock::Clock;
use crate::base::memory::ChunkPool;
use crate::base::panics;
use crate::pipeline::spool::{Disk, Found, Options, Spool, SpoolError, SystemDisk};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The sender's handle of the spool's thread.
#[derive(Debug)]
pub struct SpoolThread {
    options: Options,
    jobs: UnboundedSender<Job>,
    results: UnboundedReceiver<JobResult>,
}

impl SpoolThread {
    /// Creates the thread for a spool on the machine's file system. The spool is not open yet. The
    /// thread reads records into chunks of `pool`, and uses the clock of `account`.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot create a thread.
    pub fn start(
        options: Options,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> io::Result<Self> {
        Self::start_on(Arc::new(SystemDisk), options, pool, account)
    }

    /// Does the same as [`start`](Self::start), but for a spool on the file system `disk`.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot create a thread.
    pub fn start_on(
        disk: Arc<dyn Disk>,
        options: Options,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> io::Result<Self> {
        let (handle, worker) = Self::new(disk, options, pool, account);
        let name = match worker.spool_owner.account.signal {
            Signal::Segments => "spool",
            Signal::Spans => "spool-spans",
        };
        thread::Builder::new().name(name.into()).spawn(|| worker.run())?;
        Ok(handle)
    }

    /// Does the same as [`start_on`](Self::start_on), but without a thread. The caller runs the
    /// returned future beside the sender, in the same runtime. The future waits for the time that
    /// `pause` returns before it does a job.
    pub fn on_runtime(
        disk: Arc<dyn Disk>,
        options: Options,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
        pause: impl FnMut() -> Duration + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (handle, worker) = Self::new(disk, options, pool, account);
        (handle, worker.run_on_runtime(pause))
    }

    fn new(
        disk: Arc<dyn Disk>,
        options: Options,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> (Self, Worker) {
        let (jobs, job_receiver) = unbounded_channel();
        let (result_sender, results) = unbounded_channel();
        let spool_owner = SpoolOwner { disk, options: options.clone(), pool, account, spool: None };
        let worker = Worker { jobs: job_receiver, results: result_sender, spool_owner };
        (Self { options, jobs, results }, worker)
    }

    /// The options that the spool is opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Gives the thread a job. [`result`](Self::result) then waits for its result.
    pub fn give(&self, job: Job) {
        // An error is ignored: if the thread has ended, `result` returns a panic.
        let _ = self.jobs.send(job);
    }

    /// Waits for the result of the current job. If the caller drops the future, the result is not
    /// lost.
    pub async fn result(&mut self) -> JobResult {
        let ended = || JobResult::Panicked {
            reason: "its thread has ended".to_owned(),
            done: Box::default(),
        };
        self.results.recv().await.unwrap_or_else(ended)
    }
}

/// The other end of a [`SpoolThread`], which runs on the thread.
struct Worker {
    jobs: UnboundedReceiver<Job>,
    results: UnboundedSender<JobResult>,
    spool_owner: SpoolOwner,
}

impl Worker {
    fn run(mut self) {
        while let Some(job) = self.jobs.blocking_recv() {
            if self.results.send(self.spool_owner.result(job)).is_err() {
                return;
            }
        }
    }

    async fn run_on_runtime(mut self, mut pause: impl FnMut() -> Duration) {
        while let Some(job) = self.jobs.recv().await {
            tokio::time::sleep(pause()).await;
            if self.results.send(self.spool_owner.result(job)).is_err() {
                return;
            }
        }
    }
}

/// Owns the spool, and does the jobs.
struct SpoolOwner {
    disk: Arc<dyn Disk>,
    options: Options,
    pool: Arc<ChunkPool>,
    account: Arc<Account>,
    spool: Option<Box<Spool>>,
}

impl SpoolOwner {
    fn result(&mut self, job: Job) -> JobResult {
        // Lives outside of `catch`, so that losses of the job before a panic are counted.
        let mut done = Box::<Done>::default();
        match panics::catch(|| self.perform(job, &mut done)) {
            Ok(Some(opened)) => JobResult::Opened(opened),
            Ok(None) => JobResult::Done(done),
            Err(panicked) => {
                self.drop_spool(&mut done);
                JobResult::Panicked { reason: panicked.to_string(), done }
            }
        }
    }

    /// Does a job. Returns the result of opening the spool if this was the job; otherwise `None`.
    fn perform(&mut self, job: Job, done: &mut Done) -> Option<Result<(Found, Sizes), SpoolError>> {
        let clock = &self.account.clock;
        panics::inject("spool_job");
        match job {
            Job::Open => {
                let options = self.options.clone();
                let (signal, disk) = (self.account.signal, Arc::clone(&self.disk));
                let opened = Spool::open_for(signal, disk, options, clock.now());
                Some(opened.map(|(mut spool, found)| {
                    let sizes = sizes(&mut spool, clock);
                    self.spool = Some(Box::new(spool));
                    (found, sizes)
                }))
            }
            Job::Work(writes, todo) => {
                if let Some(spool) = &mut self.spool {
                    work(spool, &writes, todo, &self.pool, clock, done);
                    done.sizes = sizes(spool, clock);
                }
                None
            }
        }
    }

    /// Syncs and closes the spool after a panic.
    fn drop_spool(&mut self, done: &mut Done) {
        let Some(mut spool) = self.spool.take() else { return };
        done.note_evicted(spool.evicted());
        done.read.clear();
        // A second panic is ignored: the spool is dropped in any case.
        let _ = panics::catch(move || spool.sync());
    }
}

fn sizes(spool: &mut Spool, clock: &Clock) -> Sizes {
    let now = clock.now();
    let oldest_age = spool.oldest_age(now);
    Sizes {
        bytes: spool.size_bytes(),
        segment_count: spool.segment_count(),
        oldest_made_at: oldest_age.map(|age| now.before(age).uptime_seconds),
    }
}
