//! Starts and ends the log of the daemon, with the settings of the configuration.
//!
//! In: a [`Config`]. Out: the running log, or an error that names the flag or key to change.

use super::Mode;
use crate::base::log::{self, LogFile};
use crate::base::panics;
use crate::config::{Config, Source};
use std::io;
use tracing::warn;
use tracing_appender::non_blocking::WorkerGuard;

/// Starts the log. It goes to the log file if the configuration has one, else to standard output.
/// If the log file cannot be opened, the log goes to standard error, with a warning: the original
/// daemon runs on too.
/// The sandbox prints its traces on standard output; its log goes to standard error.
///
/// # Errors
///
/// Returns a text for the operator if the log's thread cannot be created.
pub fn start_log(config: &Config, mode: &Mode) -> Result<WorkerGuard, String> {
    let (level, format) = (config.log_level, config.log_format);
    let started = match &config.log_path {
        Some(path) => {
            let (file, error) = LogFile::open_or_stderr(path, config.log_rotation, level);
            let started = log::start(level, format, file);
            if let (Ok(_), Some(error)) = (&started, error) {
                let name = match config.sources.get("Logging.LogPath") {
                    Some(Source::Flag(_)) => "-f",
                    _ => "Logging.LogPath",
                };
                warn!(
                    "{name}: the log file {} cannot be opened: {error}. The log goes to standard \
                     error instead. Give a file that this user may write, then restart the daemon \
                     or send SIGHUP",
                    path.display()
                );
            }
            started
        }
        None if *mode == Mode::Service => log::start(level, format, io::stdout()),
        None => log::start(level, format, io::stderr()),
    };
    started.map_err(|error| format!("the log cannot be started: {error}"))
}

/// Writes the rest of the log. If that takes too long, the library `tracing-appender` prints a note
/// on standard output. The print panics if standard output is closed, hence the catch.
pub fn flush_log(log: WorkerGuard) {
    let _ = panics::catch(|| drop(log));
}
