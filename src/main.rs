//! The `xray` binary: parse, load, run, exit code.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use tracing::{error, warn};
use tracing_appender::non_blocking::WorkerGuard;
use xrayd::admin::health::ask::ask;
use xrayd::base::host::Host;
use xrayd::base::log::{self, LogFile, LogFormat, LogLevel};
use xrayd::base::panics;
use xrayd::commands::verify;
use xrayd::config::cli::{self, Command, Invocation};
use xrayd::config::{Config, DEFAULT_PATHS};
use xrayd::daemon::{self, Environment, Mode};
use xrayd::pipeline::limits::{Limits, Wanted};

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    panics::install();
    // What is no text cannot be a good value; shown as such it is refused by name.
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let invocation = match cli::parse(words) {
        Ok(invocation) => invocation,
        Err(error) => {
            say(&mut io::stderr(), &error.to_string());
            say(&mut io::stdout(), &cli::usage());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // An empty variable is as good as none.
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let mode = match invocation.command {
        Command::Version => return say(&mut io::stdout(), &cli::version_line()),
        Command::Help => return say(&mut io::stdout(), &cli::usage()),
        #[cfg(feature = "sandbox")]
        Command::Sandbox => Mode::Sandbox(invocation.sandbox.clone()),
        #[cfg(not(feature = "sandbox"))]
        Command::Sandbox => {
            let reason = "this xray has no sandbox: build it with the cargo feature `sandbox`";
            return refuse(&invocation, reason);
        }
        Command::Verify { json } => return verify(&invocation, &variable, json),
        _ => Mode::Service,
    };
    let config = match Config::load(&invocation, &variable, &DEFAULT_PATHS.map(Path::new)) {
        Ok(config) => config,
        Err(error) => return refuse(&invocation, &error.to_string()),
    };
    match invocation.command {
        Command::Limits => {
            let limits = Limits::derive(Wanted::from(&config), Host::read());
            return say(&mut io::stdout(), &limits.to_string());
        }
        Command::Healthcheck { ready } => return check_health(&config.tcp_address, ready),
        Command::Tail => return follow(&config.tcp_address),
        Command::Config => return say(&mut io::stdout(), config.table().trim_end()),
        _ => {}
    }
    let log = match start_log(&config, &invocation, &mode) {
        Ok(log) => log,
        Err(error) => {
            say(&mut io::stderr(), &error);
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let environment = Environment {
        execution_environment: variable("AWS_EXECUTION_ENV"),
        bundle_path: variable("AWS_CA_BUNDLE").map(Into::into),
        hostname: variable("AWS_HOSTNAME"),
        instance_id: variable("AWS_INSTANCE_ID"),
        disables_metadata: variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
    };
    let result = daemon::run(&config, &environment, &mode);
    // Flushed before the last word, which is for whoever does not look into the file.
    flush(log);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if config.log_path.is_some() {
                say(&mut io::stderr(), &error.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes what is left of the log. Where that takes too long, the library says so on standard
/// output, which may be full: that is a panic.
fn flush(log: WorkerGuard) {
    let _ = panics::catch(|| drop(log));
}

/// Asks the daemon on `address` how it is.
fn check_health(address: &str, ready: bool) -> ExitCode {
    match ask(address, if ready { "/ready" } else { "/health" }) {
        Ok(status) => say(&mut io::stdout(), &status),
        Err(error) => {
            say(&mut io::stderr(), &error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Checks everything from the configuration to a segment that the service has.
fn verify(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
    json: bool,
) -> ExitCode {
    let paths = DEFAULT_PATHS.map(Path::new);
    match verify::verify(invocation, environment, &paths, json, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(invocation, &format!("nothing can be checked: {error}")),
    }
}

/// Follows the daemon on `address` until it ends, or this does.
fn follow(address: &str) -> ExitCode {
    match xrayd::commands::tail::follow(address, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut io::stderr(), &error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Ends the start: the reason goes to standard error, and to the log file if one is given.
fn refuse(invocation: &Invocation, reason: &str) -> ExitCode {
    say(&mut io::stderr(), reason);
    let path = invocation.flags.log_file.as_deref().unwrap_or_default();
    if let Ok(file) = LogFile::open(Path::new(path), false) {
        let _log = log::start(LogLevel::default(), LogFormat::default(), file);
        error!("{reason}");
    }
    ExitCode::FAILURE
}

/// The log goes to its file, else to standard output, which in the sandbox belongs to the traces.
fn start_log(config: &Config, invocation: &Invocation, mode: &Mode) -> Result<WorkerGuard, String> {
    let (level, format) = (config.log_level, config.log_format);
    let started = match &config.log_path {
        Some(path) => {
            let file = LogFile::open(path, config.log_rotation).map_err(|error| {
                let is_flag = invocation.flags.log_file.as_ref().is_some_and(|it| !it.is_empty());
                let name = if is_flag { "-f" } else { "Logging.LogPath" };
                format!(
                    "{name}: the log file {} cannot be opened: {error}. Give a file that this \
                     user may write, or none for standard output",
                    path.display()
                )
            })?;
            log::start(level, format, file)
        }
        None if *mode == Mode::Service => log::start(level, format, io::stdout()),
        None => log::start(level, format, io::stderr()),
    };
    started.map_err(|error| format!("the log cannot be started: {error}"))
}

/// Writes a line; when nobody reads it there is nobody to tell.
fn say(output: &mut dyn Write, text: &str) -> ExitCode {
    let _ = writeln!(output, "{}", text.trim_end());
    ExitCode::SUCCESS
}
