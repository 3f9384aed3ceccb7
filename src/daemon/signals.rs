//! The signals of the daemon: SIGTERM and SIGINT end it, SIGHUP opens the log file again.
//!
//! Thread: main.

use crate::base::log;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// The signals that the daemon handles.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// SIGXFSZ has a handler, so that its default action does not end the process: a write beyond
    /// the file size limit (`ulimit -f`) then fails with an error, like a write to a full disk. See
    /// signal(7) and setrlimit(2).
    _file_size: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// Fails if the system does not install a handler.
    pub fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self { terminate, interrupt, hang_up, _file_size })
    }

    /// Waits for SIGTERM or SIGINT. Meanwhile each SIGHUP opens the log file again.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    log::reopen();
                    info!("Got SIGHUP: opening the log file again, if there is one");
                }
            }
        }
    }
}
