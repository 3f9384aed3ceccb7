//! The thread of the spool: the one that waits for its disk.
//!
//! In: jobs, one at a time, to open the spool or to do a turn of work. Out: what became of each. It
//! is made at the start, so that no limit on threads is met when memory is short. The spool is its
//! own: a job that panics ends with an [`Outcome`] as any other does, and the spool that it was
//! done on is dropped and has to be opened again. It ends when the other side is gone, after the
//! job at hand.

use super::spool_job::{Done, Work, Writes, turn};
use crate::base::account::Account;
use crate::base::clock::Clock;
use crate::base::memory::Pool;
use crate::base::panics;
use crate::pipeline::spool::{Found, Options, Spool, SpoolError};
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the thread is to do.
#[derive(Debug)]
pub enum Job {
    /// Open the spool.
    Open,
    /// Do a turn of work on it. The thread has given up its share of the writes when it tells of
    /// it.
    Turn(Arc<Writes>, Work),
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// The spool was opened, or was not.
    Opened(Result<(Found, Sizes), SpoolError>),
    /// A turn is over.
    Done(Box<Done>),
    /// A job has panicked, after having done this much. The spool is not open any more.
    Panicked {
        /// Where, for the log.
        reason: String,
        /// Of what it had read nothing is there any more.
        done: Box<Done>,
    },
}

/// How large the spool is.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sizes {
    /// Bytes of its files.
    pub bytes: u64,
    /// Segments in it that are not settled, as far as they are known.
    pub segment_count: u64,
    /// When the first of them was made, in seconds since boot.
    pub oldest_made_at: Option<i64>,
}

impl Sizes {
    fn of(spool: &mut Spool, clock: &Clock) -> Self {
        let now = clock.now();
        let oldest_age = spool.oldest_age(now);
        Self {
            bytes: spool.size_bytes(),
            segment_count: spool.segment_count(),
            oldest_made_at: oldest_age.map(|age| now.before(age).uptime_seconds),
        }
    }
}

/// The other side of the thread.
#[derive(Debug)]
pub struct SpoolThread {
    options: Options,
    jobs: mpsc::Sender<Job>,
    outcomes: UnboundedReceiver<Outcome>,
}

impl SpoolThread {
    /// Makes the thread for a spool that is not open yet. It reads into chunks of `pool`, and asks
    /// the clock of `account`.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(options: Options, pool: Arc<Pool>, account: Arc<Account>) -> io::Result<Self> {
        let (jobs, job_receiver) = mpsc::channel();
        let (outcome_sender, outcomes) = unbounded_channel();
        let worker = Worker { options: options.clone(), pool, account, spool: None };
        let run = move || worker.run(&job_receiver, &outcome_sender);
        thread::Builder::new().name("spool".into()).spawn(run)?;
        Ok(Self { options, jobs, outcomes })
    }

    /// What the spool is opened with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Gives the thread a job; [`outcome`](Self::outcome) then tells of it.
    pub fn give(&self, job: Job) {
        // Where the thread is gone there is no outcome to come, which is told as a panic.
        let _ = self.jobs.send(job);
    }

    /// Waits for what becomes of the job at hand. Nothing is lost when the wait is given up.
    pub async fn outcome(&mut self) -> Outcome {
        let gone = || Outcome::Panicked {
            reason: "its thread has ended".to_owned(),
            done: Box::default(),
        };
        self.outcomes.recv().await.unwrap_or_else(gone)
    }
}

/// The thread's own side.
struct Worker {
    options: Options,
    pool: Arc<Pool>,
    account: Arc<Account>,
    spool: Option<Box<Spool>>,
}

impl Worker {
    fn run(mut self, jobs: &mpsc::Receiver<Job>, outcomes: &UnboundedSender<Outcome>) {
        for job in jobs {
            let outcome = self.outcome(job);
            if outcomes.send(outcome).is_err() {
                return;
            }
        }
    }

    fn outcome(&mut self, job: Job) -> Outcome {
        // Beside what may unwind: what was lost by then has to be counted.
        let mut done = Box::<Done>::default();
        match panics::catch(|| self.perform(job, &mut done)) {
            Ok(Some(opened)) => Outcome::Opened(opened),
            Ok(None) => Outcome::Done(done),
            Err(panicked) => {
                self.drop_spool(&mut done);
                Outcome::Panicked { reason: panicked.to_string(), done }
            }
        }
    }

    /// Does a job; returns what came of it if that was to open the spool.
    fn perform(&mut self, job: Job, done: &mut Done) -> Option<Result<(Found, Sizes), SpoolError>> {
        let clock = &self.account.clock;
        panics::inject("spool_job");
        match job {
            Job::Open => {
                let opened = Spool::open(self.options.clone(), clock.now());
                Some(opened.map(|(mut spool, found)| {
                    let sizes = Sizes::of(&mut spool, clock);
                    self.spool = Some(Box::new(spool));
                    (found, sizes)
                }))
            }
            Job::Turn(writes, work) => {
                if let Some(spool) = &mut self.spool {
                    turn(spool, &writes, work, &self.pool, clock, done);
                    done.sizes = Sizes::of(spool, clock);
                }
                None
            }
        }
    }

    /// Closes the spool that a job has panicked on, with what it has written brought to disk.
    fn drop_spool(&mut self, done: &mut Done) {
        let Some(mut spool) = self.spool.take() else { return };
        done.note_evicted(spool.evicted());
        done.read.clear();
        // It may panic again, and it is dropped for that.
        let _ = panics::catch(move || spool.sync());
    }
}
