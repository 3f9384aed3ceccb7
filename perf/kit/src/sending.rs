//! The thread of a sender, which can be stopped.
//!
//! In: the work of the thread. Out: how much it has sent so far, and its report. Thread: `sender`,
//! whose CPU time the comparison reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// The state that the thread of a sender and its owner share.
#[derive(Debug, Default)]
pub struct Progress {
    is_over: AtomicBool,
    sent_count: AtomicU64,
}

impl Progress {
    /// Returns whether the thread has to end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Notes how many documents or spans are sent.
    pub fn set_sent_count(&self, sent_count: u64) {
        self.sent_count.store(sent_count, Ordering::Relaxed);
    }
}

/// A sender that runs on a thread of its own and returns a report.
#[derive(Debug)]
pub struct Sending<R> {
    progress: Arc<Progress>,
    thread: JoinHandle<io::Result<R>>,
}

impl<R: Send + 'static> Sending<R> {
    /// Starts the thread. `work` sends until it has sent everything, or until it
    /// [has to end](Progress::is_over).
    ///
    /// # Errors
    ///
    /// Fails if the system does not create the thread.
    pub fn start(
        work: impl FnOnce(&Progress) -> io::Result<R> + Send + 'static,
    ) -> io::Result<Self> {
        let progress = Arc::<Progress>::default();
        let shared = Arc::clone(&progress);
        let thread = thread::Builder::new().name("sender".into()).spawn(move || work(&shared))?;
        Ok(Self { progress, thread })
    }

    /// Returns how many documents the kernel has accepted so far, or how many spans are in the
    /// requests so far.
    pub fn sent_count(&self) -> u64 {
        self.progress.sent_count.load(Ordering::Relaxed)
    }

    /// Returns whether the sender has ended, with everything sent or with an error.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the sender and returns its report.
    ///
    /// # Errors
    ///
    /// Returns the error that ended the sender, if any.
    pub fn stop(self) -> io::Result<R> {
        self.progress.is_over.store(true, Ordering::Relaxed);
        self.wait()
    }

    /// Waits until everything is sent, and returns the report.
    ///
    /// # Errors
    ///
    /// Returns the error that ended the sender, if any.
    pub fn wait(self) -> io::Result<R> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the sender has panicked")))
    }
}
