//! The commands that inspect a daemon or its surroundings, and then end.
//!
//! In: the command line and the environment. Out: text on standard output and standard error, and
//! an exit code: 0 for success, 1 for failure. `xray` and `xray sandbox` are not here: they run the
//! daemon.

mod config;
mod healthcheck;
mod limits;
pub mod tail;
pub mod verify;

use crate::base::log::{self, LogFile, LogFormat, LogLevel};
use crate::config::cli::{self, Command, Invocation};
use crate::config::{Config, DEFAULT_PATHS};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use tracing::error;

/// Exit code for a command line that is wrong, as with the original daemon.
pub const EXIT_USAGE: u8 = 2;

/// Runs the command of `invocation` to its end. Returns `None` if the command is to run the daemon.
pub fn run(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<ExitCode> {
    let with_config = |run: &dyn Fn(&Config) -> ExitCode| match load(invocation, environment) {
        Ok(config) => run(&config),
        Err(exit_code) => exit_code,
    };
    // The original ignores the word, and so does a service. But a person wants the subcommand.
    if let Some(slip) = invocation.slip().filter(|_| io::stdout().is_terminal()) {
        fail(&format!("{slip} `xray help` lists the subcommands"));
        return Some(ExitCode::from(EXIT_USAGE));
    }
    Some(match invocation.command {
        Command::Run | Command::Sandbox => return None,
        Command::Version => print(&cli::version_line()),
        Command::Help(topic) => print(&cli::help(topic)),
        Command::Config => with_config(&|config| print(&config::table(config))),
        Command::Limits => with_config(&|config| print(&limits::table(config))),
        Command::Healthcheck { ready } => {
            with_config(&|config| healthcheck::run(&config.tcp_address, ready))
        }
        Command::Tail => with_config(&|config| tail::run(&config.tcp_address)),
        Command::Verify { unit: true, .. } => verify::run_as_unit(invocation),
        Command::Verify { json, .. } => verify::run(invocation, environment, json),
    })
}

/// Loads the configuration for `invocation`.
///
/// # Errors
///
/// Reports the error to the operator and returns the exit code.
pub fn load(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ExitCode> {
    let loaded = Config::load(invocation, environment, &DEFAULT_PATHS.map(Path::new));
    loaded.map_err(|error| refuse(invocation, &error.to_string()))
}

/// Returns what keeps this user from writing the log file of the configuration.
fn log_fault(config: &Config) -> Option<String> {
    let path = config.log_path.as_ref()?;
    let error = LogFile::check(path).err()?;
    Some(format!(
        "Logging.LogPath: the log file {} cannot be written: {error}. The log goes to standard \
         error instead",
        path.display()
    ))
}

/// Reports why the program cannot do its work: on standard error, and in the log file if the
/// command line has one (`-f`). Returns the exit code for a failure.
pub fn refuse(invocation: &Invocation, reason: &str) -> ExitCode {
    let exit_code = fail(reason);
    let path = invocation.flags.text("Logging.LogPath").unwrap_or_default();
    let level = LogLevel::default();
    if let Ok(file) = LogFile::open(Path::new(path), false, level) {
        let _log = log::start(level, LogFormat::default(), file);
        error!("{reason}");
    }
    exit_code
}

/// Prints a text on standard output. Returns the exit code for success.
///
/// A write error is ignored: the reader has closed the output.
pub fn print(text: &str) -> ExitCode {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    ExitCode::SUCCESS
}

/// Prints a text on standard error. Returns the exit code for a failure.
///
/// A write error is ignored: the reader has closed the output.
pub fn fail(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
    ExitCode::FAILURE
}
