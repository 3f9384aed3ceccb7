//! The `xray` binary: parses the command line, loads the configuration, runs, and sets the exit
//! code.

use std::env;
use std::process::ExitCode;
use tracing::warn;
use xrayd::base::{aborts, panics};
use xrayd::commands;
use xrayd::config::cli::{self, Command, Invocation};
use xrayd::daemon::{self, Environment, Mode};
use xrayd::pipeline::receive;

fn main() -> ExitCode {
    if let Some(exit_code) = receive::trial_child(env::args_os().skip(1)) {
        return exit_code;
    }
    forget_empty_variables();
    panics::install();
    aborts::install();
    // In an argument that is not valid UTF-8, U+FFFD replaces each invalid part.
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let invocation = match cli::parse(words) {
        Ok(invocation) => invocation,
        Err(error) => {
            commands::fail(&error.to_string());
            commands::print(&cli::usage());
            return ExitCode::from(commands::EXIT_USAGE);
        }
    };
    // An empty variable counts as not set.
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    match commands::run(&invocation, &variable) {
        Some(exit_code) => exit_code,
        None => run_daemon(&invocation, &variable).unwrap_or_else(|exit_code| exit_code),
    }
}

/// Removes the variables of AWS and of the system's certificates that are set but empty, because an
/// empty variable counts as not set. The libraries that read these variables themselves do not all
/// agree: with an empty `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `aws-config` does not look at
/// `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
#[allow(unsafe_code)]
fn forget_empty_variables() {
    for (name, value) in env::vars_os() {
        let prefixes = [&b"AWS_"[..], b"ECS_", b"SSL_CERT_"];
        let is_ours = prefixes.iter().any(|it| name.as_encoded_bytes().starts_with(it));
        if is_ours && value.as_encoded_bytes().trim_ascii().is_empty() {
            // SAFETY: the process has only this thread yet, so no other code reads the environment.
            // JUSTIFICATION: the providers of `aws-config` read the environment of the process, and
            // take no other.
            unsafe { env::remove_var(&name) };
        }
    }
}

/// Runs the daemon until a signal or an error ends it. An `Err` is the exit code for a failure that
/// was already reported to the operator.
fn run_daemon(
    invocation: &Invocation,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<ExitCode, ExitCode> {
    let mode = mode(invocation)?;
    let config = commands::load(invocation, variable)?;
    let log = daemon::start_log(&config, &mode).map_err(|error| commands::fail(&error))?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let result = daemon::run(&config, &Environment::read(variable), &mode);
    // This writes the rest of the log before the error appears on standard error.
    daemon::flush_log(log);
    result.map(|()| ExitCode::SUCCESS).map_err(|error| match config.log_path {
        // The log file has the error. Standard error has it for an operator who does not read the
        // file.
        Some(_) => commands::fail(&error.to_string()),
        None => ExitCode::FAILURE,
    })
}

/// Returns the mode of the daemon that the command asks for.
fn mode(invocation: &Invocation) -> Result<Mode, ExitCode> {
    match invocation.command {
        #[cfg(feature = "sandbox")]
        Command::Sandbox => Ok(Mode::Sandbox(invocation.sandbox.clone())),
        #[cfg(not(feature = "sandbox"))]
        Command::Sandbox => {
            let reason = "this xray has no sandbox: build it with the cargo feature `sandbox`";
            Err(commands::refuse(invocation, reason))
        }
        _ => Ok(Mode::Service),
    }
}
