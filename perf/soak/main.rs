//! A soak: the real daemon under a steady load for ten minutes, with an endpoint that fails at
//! random. At the end the account must balance exactly and memory must not have grown.
//!
//! Run: `cargo bench --bench soak -- [--quick] [--seconds 600] [--rate 20000] [--seed 1]
//! [--memory-mb 256] [--rows 20] [--spool]`. Out: Markdown; `perf/results` keeps some of it. The
//! exit code is 1 if a check has failed.
//!
//! The soak begins with an outage until memory is full, because the daemon allocates its chunks
//! when they are first needed and keeps them: growth after that is a leak. After the daemon has
//! caught up, `faults` draws faults of 1 to 5 s. `endpoint` and `answer` execute them, `tally`
//! counts every accepted document, and `watch` samples the daemon once a second. Then the faults
//! end, the remaining segments are sent, and `checks` compares the daemon's account with the sent
//! and the delivered documents.
//!
//! The same seed gives the same documents and windows. The requests that fall into a window depend
//! on the machine.

mod answer;
mod checks;
mod daemon;
mod document;
mod endpoint;
mod faults;
#[path = "../shared/machine.rs"]
mod machine;
mod report;
mod sender;
mod tally;
mod watch;

use answer::Script;
use checks::Account;
use daemon::Daemon;
use endpoint::{Endpoint, Phase};
use sender::Sender;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use tally::Tally;
use watch::Sample;

/// The longest outage at the start, and the longest wait for the remaining segments at the end.
const WARM_UP_MAX: Duration = Duration::from_secs(90);
const DRAIN_MAX: Duration = Duration::from_secs(180);

const INTERVAL: Duration = Duration::from_secs(1);

/// The options of the command line.
#[derive(Debug, Clone, Copy)]
struct Options {
    seconds: u64,
    rate: u32,
    seed: u64,
    memory_mb: u64,
    has_spool: bool,
    /// Number of rows in the table over time.
    row_count: usize,
}

/// The results of a soak.
struct Run {
    options: Options,
    start_line: String,
    account: Account,
    exit: String,
    is_success: bool,
    /// Lines of the daemon's log that must not occur in a soak.
    complaints: Vec<String>,
    sent_count: u64,
    poison_count: u64,
    tally: Tally,
    /// Samples of the daemon, taken once a second during the phase with faults.
    samples: Vec<Sample>,
    drain_time: Duration,
}

fn main() -> ExitCode {
    let outcome = Options::parse(std::env::args().skip(1)).map_err(io::Error::other).and_then(soak);
    match outcome {
        Ok(run) => {
            let checks = checks::all(&run);
            report::print(&run, &checks);
            ExitCode::from(u8::from(checks.iter().any(|check| !check.is_kept)))
        }
        Err(error) => {
            eprintln!("The soak has failed: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seconds: 600,
            rate: 20_000,
            seed: 1,
            memory_mb: 256,
            has_spool: false,
            row_count: 20,
        };
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                value.parse().map_err(|_| format!("{word}: {value:?} is no number"))
            };
            match word.as_str() {
                // `cargo bench` passes this argument.
                "--bench" => {}
                "--quick" => options.seconds = 30,
                "--spool" => options.has_spool = true,
                "--seconds" => options.seconds = number()?,
                "--rate" => options.rate = number()?.try_into().unwrap_or(u32::MAX),
                "--seed" => options.seed = number()?,
                "--memory-mb" => options.memory_mb = number()?,
                "--rows" => options.row_count = number()?.try_into().unwrap_or(usize::MAX),
                _ => return Err(format!("{word} is no option of the soak")),
            }
        }
        Ok(options)
    }

    /// Returns the largest number of documents that a soak with these options can send.
    fn document_count_max(&self) -> u64 {
        (self.seconds + 2 * WARM_UP_MAX.as_secs() + 60) * u64::from(self.rate)
    }
}

fn soak(options: Options) -> io::Result<Run> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let document_count_max = options.document_count_max();
    let script = Script::new(
        options.seed,
        random.fork(),
        options.rate.into(),
        usize::try_from(document_count_max).map_err(io::Error::other)?,
    );
    let endpoint = Endpoint::start(script, random.fork());
    let folder = tempfile::tempdir()?;
    let arguments = arguments(options, folder.path())?;
    let mut daemon = Daemon::start(endpoint.address, &arguments)?;
    let sender = Sender::start(daemon.udp, options.seed, options.rate.into(), document_count_max)?;
    let look = |daemon: &Daemon, start| Sample::take(daemon, start, endpoint.fault_name());

    // The endpoint is in an outage until memory is full. Then it has no fault until the daemon has
    // caught up.
    let warm_up_max = WARM_UP_MAX.min(Duration::from_secs(options.seconds));
    wait(&mut daemon, &sender, warm_up_max, |daemon| {
        let sample = look(daemon, Instant::now());
        sample.metric("xray_segments_dropped_total") + sample.metric("xray_segments_spooled_total")
            > 0.0
    })?;
    endpoint.begin(Phase::Calm);
    wait(&mut daemon, &sender, warm_up_max, |daemon| {
        look(daemon, Instant::now()).held_count() < Some(options.rate.into())
    })?;

    endpoint.begin(Phase::Faults);
    let (start, mut samples) = (Instant::now(), Vec::new());
    let time = Duration::from_secs(options.seconds);
    for second in 0.. {
        samples.push(look(&daemon, start));
        check_that_both_run(&mut daemon, &sender)?;
        if start.elapsed() >= time {
            break;
        }
        thread::sleep((INTERVAL * (second + 1)).saturating_sub(start.elapsed()));
    }

    let (sent_count, poison_count) = sender.stop()?;
    endpoint.begin(Phase::Calm);
    let start = Instant::now();
    loop {
        thread::sleep(INTERVAL / 10);
        let sample = look(&daemon, start);
        let counted = sample.metric("xray_segments_received_total")
            + sample.metric("xray_kernel_drops_total");
        let is_spool_empty = sample.metric("xray_segments_spooled_total")
            <= sample.metric("xray_segments_replayed_total");
        let is_all_counted = counted >= sent_count as f64;
        if sample.held_count() == Some(0.0) && is_spool_empty && is_all_counted {
            break;
        }
        if daemon.has_ended() {
            return Err(ended_early(&daemon));
        }
        if start.elapsed() > DRAIN_MAX {
            break;
        }
    }
    let drain_time = start.elapsed();
    let status = daemon.stop()?;
    Ok(Run {
        options,
        start_line: daemon.lines_with("Listening on UDP").pop().unwrap_or_default(),
        account: Account { line: account_line(&daemon) },
        exit: status.to_string(),
        is_success: status.success(),
        complaints: [daemon.lines_with("does not balance"), daemon.lines_with("panicked")].concat(),
        sent_count,
        poison_count,
        tally: endpoint.end(),
        samples,
        drain_time,
    })
}

/// Returns the daemon's arguments. They refer to files in `folder`.
fn arguments(options: Options, folder: &std::path::Path) -> io::Result<Vec<String>> {
    let config = folder.join("cfg.yaml");
    std::fs::write(
        &config,
        "Version: 2\nUpload:\n  RequestTimeoutSeconds: 2\n  ConnectTimeoutSeconds: 2\n",
    )?;
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let memory = options.memory_mb.to_string();
    let mut arguments = vec!["-c".to_owned(), path(&config), "-m".to_owned(), memory];
    if options.has_spool {
        arguments.extend(["--spool-path".to_owned(), path(&folder.join("spool"))]);
    }
    Ok(arguments)
}

fn account_line(daemon: &Daemon) -> String {
    let line = daemon.lines_with("Account: ").pop().unwrap_or_default();
    line.split_once("Account: ").map(|(_, line)| line.to_owned()).unwrap_or_default()
}

/// Waits until `is_true` returns true, for at most `time_max`.
fn wait(
    daemon: &mut Daemon,
    sender: &Sender,
    time_max: Duration,
    is_true: impl Fn(&Daemon) -> bool,
) -> io::Result<()> {
    let start = Instant::now();
    while !is_true(daemon) && start.elapsed() < time_max {
        check_that_both_run(daemon, sender)?;
        thread::sleep(INTERVAL);
    }
    Ok(())
}

fn check_that_both_run(daemon: &mut Daemon, sender: &Sender) -> io::Result<()> {
    if daemon.has_ended() || sender.has_ended() {
        return Err(ended_early(daemon));
    }
    Ok(())
}

fn ended_early(daemon: &Daemon) -> io::Error {
    let log = daemon.lines_with("");
    let end = &log[log.len().saturating_sub(30)..];
    io::Error::other(format!("the daemon or the load ended early:\n{}", end.join("\n")))
}
