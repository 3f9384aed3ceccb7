//! `xray verify`: checks the way of a segment, from the configuration to the service.
//!
//! In: the command line and the environment of a daemon. Out: a checklist with one line for each
//! check; a failure says what to do. Most checks do what the daemon does, in this process. The
//! other checks ask the running daemon.
//!
//! ```text
//!   host.rs      configuration, kernel, memory
//!   service.rs   region, credentials, name, connection, TLS, a signed request
//!   segment.rs   the running daemon, a segment through it, the segment read back
//!   unit.rs      flags, variables and user of the service of systemd (--unit)
//! ```
//!
//! The last line says whether it works, or what to do first.
//!
//! Bound: every check has a timeout. The checks take about 3 s if all is well, and at most about a
//! minute if nothing answers. The only side effect is one segment for the service, and only if a
//! daemon runs. Thread: main, with a runtime that this command creates.

mod host;
mod segment;
mod service;
mod spans;
mod unit;

use super::{EXIT_USAGE, fail, refuse};
use crate::aws::transport::Resolver;
use crate::base::panics;
use crate::config::cli::{Command, Flags, Invocation};
use crate::config::{Config, DEFAULT_PATHS};
use serde::Serialize;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use unit::Unit;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// The check has passed.
    Ok,
    /// The check found something that the operator should know. Segments still arrive.
    Note,
    /// The check found a problem that prevents segments from arriving.
    Fail,
}

/// One line of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// The name of the check. Names are stable: programs may rely on them.
    check: &'static str,
    /// Whether the check has passed, gives a note, or has failed.
    verdict: Verdict,
    /// The result in words, for the operator.
    text: String,
    /// The advice to the operator. Empty if there is nothing to do, or if `text` has the advice.
    advice: String,
}

impl std::fmt::Display for Check {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { check, verdict, text, advice } = self;
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Fail => "FAIL",
        };
        write!(out, "{word:<5} {check}: {text}")?;
        if advice.is_empty() { Ok(()) } else { write!(out, ". {advice}") }
    }
}

/// The checks that are done so far.
struct Checklist<'a> {
    checks: Vec<Check>,
    /// Callback that gets each check as soon as the check is done.
    listener: &'a mut dyn FnMut(&Check),
}

/// The checklist as JSON.
#[derive(Debug, Serialize)]
struct Json<'a> {
    version: &'static str,
    ok: bool,
    result: String,
    checks: &'a [Check],
}

impl<'a> Checklist<'a> {
    /// Creates an empty list. The list calls `listener` with each check as soon as the check is
    /// done.
    fn new(listener: &'a mut dyn FnMut(&Check)) -> Self {
        Self { checks: Vec::new(), listener }
    }

    /// Whether no check has failed.
    fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }

    /// Returns the whole list as a JSON object.
    fn json(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let (ok, result) = (self.is_ok(), self.result());
        let json = Json { version, ok, result, checks: &self.checks };
        serde_json::to_string_pretty(&json).expect("texts can be written")
    }

    /// Returns the result in one line: whether segments arrive, or what to do first. The checks are
    /// in the order of a segment's way, so a later failure is often the effect of an earlier one.
    fn result(&self) -> String {
        if let Some(Check { check, text, advice, .. }) =
            self.checks.iter().find(|check| check.verdict == Verdict::Fail)
        {
            let advice = if advice.is_empty() { text } else { advice };
            return format!("Do this first ({check}): {advice}");
        }
        let has_passed = |it: &Check| it.check == segment::CHECK && it.verdict == Verdict::Ok;
        let is_proven = self.checks.iter().any(has_passed);
        let text = match is_proven {
            true => "It works: the service has accepted a segment that the daemon received",
            false => {
                "No check has failed. Whether the service has accepted this one segment is not \
                 known, because others came at the same time"
            }
        };
        text.to_owned()
    }

    /// Returns whether the last check has not failed. A note is not a failure.
    fn is_last_ok(&self) -> bool {
        self.checks.last().is_none_or(|check| check.verdict != Verdict::Fail)
    }

    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Ok, text.into(), "");
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>, advice: &str) {
        self.add(check, Verdict::Note, text.into(), advice);
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>, advice: &str) {
        self.add(check, Verdict::Fail, text.into(), advice);
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, text: String, advice: &str) {
        // An error text may have several lines. A check is one line.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = text.trim_end_matches('.').to_owned();
        let check = Check { check, verdict, text, advice: advice.to_owned() };
        (self.listener)(&check);
        self.checks.push(check);
    }
}

/// Checks everything and prints the result on standard output.
pub(super) fn run(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
    json: bool,
) -> ExitCode {
    let paths = DEFAULT_PATHS.map(Path::new);
    match verify(invocation, environment, &paths, json, &mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(invocation, &format!("xray verify cannot run: {error}")),
    }
}

/// Runs `xray verify` again, with the flags, the variables and the user of the service of systemd.
/// Returns only if that is not possible.
pub(super) fn run_as_unit(invocation: &Invocation) -> ExitCode {
    if invocation.flags != Flags::default() {
        fail("--unit takes the flags of the service: leave the others out, or leave out --unit");
        return ExitCode::from(EXIT_USAGE);
    }
    let unit = match Unit::read() {
        Ok(unit) => unit,
        Err(error) => return fail(&error.to_string()),
    };
    // On standard error, because standard output may be read by a program.
    let _ = writeln!(io::stderr(), "With the flags, variables and user of {}:", unit.source());
    let json = matches!(invocation.command, Command::Verify { json: true, .. });
    let arguments: &[_] = if json { &["verify", "--json"] } else { &["verify"] };
    let error = unit.command(arguments).exec();
    fail(&format!("xray verify cannot run as the user of the service: {error}"))
}

/// Checks everything and writes each check to `output` as soon as it is done, or with `json` all
/// checks at the end. Returns whether no check has failed.
///
/// # Errors
///
/// Fails if the system does not create a runtime or a thread.
pub fn verify(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
    default_paths: &[&Path],
    json: bool,
    output: &mut dyn Write,
) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A write error is ignored: the reader has closed the output, and the exit code has the result.
    let mut print = |check: &Check| {
        let _ = if json { Ok(()) } else { writeln!(output, "{check}") };
    };
    let mut list = Checklist::new(&mut print);
    let resolver = Resolver::start()?;
    let checked = runtime.block_on(panics::caught(async {
        panics::inject("verify");
        check_all(invocation, environment, default_paths, &resolver, &mut list).await;
    }));
    if let Err(panicked) = checked {
        let after = list.checks.last().map_or("the start", |check| check.check);
        let text = format!("the check after {after} met {panicked}");
        list.fail("verify", text, "The remaining checks were not made");
    }
    // This does not wait for a name lookup that is still running.
    runtime.shutdown_background();
    let (is_ok, text) = (list.is_ok(), if json { list.json() } else { list.result() });
    let _ = writeln!(output, "{text}");
    Ok(is_ok)
}

/// Runs all checks in order. Stops if the configuration cannot be loaded.
async fn check_all(
    invocation: &Invocation,
    environment: &dyn Fn(&str) -> Option<String>,
    default_paths: &[&Path],
    resolver: &Resolver,
    list: &mut Checklist<'_>,
) {
    let config = match Config::load(invocation, environment, default_paths) {
        Ok(config) => config,
        Err(error) => {
            let advice = "The daemon does not start with it. The other checks were not made";
            list.fail("configuration", error.to_string(), advice);
            return;
        }
    };
    host::check(&config, list);
    let service = service::check(&config, environment, resolver, list).await;
    if let Some(service) = &service {
        spans::check(&config, service, list).await;
    }
    segment::check(&config, service.as_ref(), list).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_that_says_what_to_do() {
        let mut lines = Vec::new();
        let mut listener = |check: &Check| lines.push(check.to_string());
        let mut list = Checklist::new(&mut listener);
        list.ok("region", "eu-west-1");
        list.note("io_uring", "denied.\n  By whom is not known.", "Allow it");
        assert!(list.is_ok());
        assert!(list.result().starts_with("No check has failed."), "{}", list.result());
        list.fail("name", "no address", "Look for slips");
        list.fail("connection", "none", "Open it");
        assert!(!list.is_ok());
        assert_eq!(list.result(), "Do this first (name): Look for slips");
        let json: serde_json::Value = serde_json::from_str(&list.json()).unwrap();
        assert_eq!((&json["ok"], &json["checks"][2]["verdict"]), (&false.into(), &"fail".into()));
        assert_eq!(json["result"], list.result());
        assert_eq!(json["checks"][1]["advice"], "Allow it");
        assert_eq!(
            lines,
            [
                "ok    region: eu-west-1",
                "note  io_uring: denied. By whom is not known. Allow it",
                "FAIL  name: no address. Look for slips",
                "FAIL  connection: none. Open it",
            ]
        );
    }
}
