//! Compares daemons under the same load and with the same endpoint. The daemons take turns in each
//! round.
//!
//! In: contenders and scenarios. Out: rows in a file, tables in Markdown, the check of budgets.
//! Threads: the sender and the endpoint are threads of this process. Each contender is a separate
//! process; one of them runs at a time, except in the scenario `idle`.

mod budget;
mod contender;
mod limit;
#[path = "../../../shared/machine.rs"]
mod machine;
mod measure;
mod peak;
mod process;
mod row;
mod scenario;
mod span_load;
mod span_turn;
mod summary;
mod template;
mod turn;
mod window;

pub use contender::Contender;
pub use scenario::{ALL as SCENARIOS, Scenario};

use crate::endpoint::{Endpoint, Faults, Http, Options as EndpointOptions};
use crate::sender::Size;
use budget::Budgets;
use contender::Kind;
use measure::{Conditions, Idle, UNBALANCED};
use peak::Bench;
use row::{Writer, mode};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use summary::{COLLECTOR, Summary};

/// The options of a comparison.
#[derive(Debug, Clone)]
pub struct Options {
    /// The contenders to compare.
    pub contenders: Vec<Contender>,
    /// The scenarios to run; empty means all.
    pub scenarios: Vec<Scenario>,
    /// Number of rounds; 0 means the default of each scenario.
    pub round_count: usize,
    /// Length of the windows of steady loads, instead of that of each scenario.
    pub window: Option<Duration>,
    /// Whether the run is short. The numbers of a short run vary more.
    pub is_quick: bool,
    /// Whether daemons run as in a container without privileges.
    pub is_confined: bool,
    /// Size of the documents.
    pub size: Size,
    /// Number of sockets of the sender.
    pub socket_count: usize,
    /// Seed for drawing documents from the recorded datagrams, if `size` is a mix.
    pub seed: u64,
    /// Whether the sender lets the kernel split messages into datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// HTTP version of the endpoint.
    pub http: Http,
    /// An existing folder for the rows and their summary.
    pub folder: PathBuf,
    /// Commit of the measured build.
    pub commit: String,
    /// File with the limits to check (`perf/budgets.toml`), if they are checked.
    pub budgets: Option<PathBuf>,
}

/// Runs the comparison. Returns the report in Markdown, and the number of exceeded budgets
/// and of accounts that do not balance.
///
/// # Errors
///
/// Fails if a contender does not run as requested, or if a file cannot be written.
pub fn run(options: &Options) -> io::Result<(String, usize)> {
    let budgets = options.budgets.as_ref().map(fs::read_to_string).transpose()?;
    let budgets =
        budgets.map(|text| Budgets::parse(&text)).transpose().map_err(io::Error::other)?;
    let endpoint = Endpoint::start(EndpointOptions {
        tls: Some(options.http),
        seed: options.seed,
        ..EndpointOptions::default()
    })?;
    let conditions = Conditions {
        size: options.size.clone(),
        socket_count: options.socket_count,
        seed: options.seed,
        gso: options.gso,
        is_confined: options.is_confined,
        is_quick: options.is_quick,
        window: options.window,
    };
    let http = if options.http == Http::One { "1.1" } else { "2" };
    let path = options.folder.join("rows.jsonl");
    let mut writer = Writer::create(&path, &options.commit, &conditions, http)?;
    let mut summary = Summary::default();
    let mut skipped = Vec::new();
    let all = if options.scenarios.is_empty() { &SCENARIOS[..] } else { &options.scenarios };
    for &scenario in all {
        let takes_part = |contender: &&Contender| match contender.kind {
            Kind::Daemon(..) => true,
            Kind::Floor { with_parsing } => scenario.has_floor(with_parsing),
        };
        let contenders: Vec<&Contender> = options.contenders.iter().filter(takes_part).collect();
        if scenario == Scenario::Idle {
            idle(&contenders, &endpoint, &conditions, &mut writer, &mut summary)?;
            continue;
        }
        let round_count = match options.round_count {
            0 => scenario.round_count(options.is_quick),
            count => count,
        };
        if let Scenario::Limited(limit) = scenario {
            let mut bench = Bench {
                contenders: &contenders,
                endpoint: &endpoint,
                conditions: &conditions,
                writer: &mut writer,
                summary: &mut summary,
            };
            if let Some(reason) = bench.run(limit, round_count)? {
                skipped.push(format!("{} was skipped: {reason}", scenario.name()));
            }
            continue;
        }
        for round in 0..round_count {
            for index in scenario::order(contenders.len(), round) {
                let contender = contenders[index];
                eprintln!("{} round {}: {}", scenario.name(), round + 1, contender.name);
                let turn = measure::turn(contender, scenario, &endpoint, &conditions)?;
                summary.rows.push(writer.write(contender, scenario, round, turn)?);
            }
        }
    }
    report(options, budgets, &summary, &skipped)
}

/// Writes the report. Returns it, and the number of exceeded budgets and of accounts that do not
/// balance.
fn report(
    options: &Options,
    budgets: Option<Budgets>,
    summary: &Summary,
    skipped: &[String],
) -> io::Result<(String, usize)> {
    let mut report = format!("{}\n\n{}", heading(options, summary), summary.tables());
    let discarded = summary.discarded();
    for line in skipped.iter().chain(&discarded) {
        report += &format!("{line}\n");
    }
    // A daemon that loses count of what it received fails the run.
    let mut over_count = discarded.iter().filter(|line| line.contains(UNBALANCED)).count();
    if let Some(mut budgets) = budgets {
        if !options.scenarios.is_empty() {
            budgets.keep_those_that_ran(summary);
        }
        let is_judged =
            |contender: &&Contender| contender.is_daemon() && contender.name != COLLECTOR;
        let daemons = options.contenders.iter().filter(is_judged);
        let daemons: Vec<&str> = daemons.map(|contender| contender.name.as_str()).collect();
        let (table, count) = budgets.check(summary, &daemons, mode(options.is_confined));
        report += &format!("\n{table}\n{count} budgets are not kept.\n");
        over_count += count;
    }
    fs::write(options.folder.join("summary.md"), &report)?;
    Ok((report, over_count))
}

/// Measures all contenders at the same time without load. Without load they do not disturb each
/// other.
fn idle(
    contenders: &[&Contender],
    endpoint: &Endpoint,
    conditions: &Conditions,
    writer: &mut Writer,
    summary: &mut Summary,
) -> io::Result<()> {
    let scenario = Scenario::Idle;
    eprintln!("idle: all daemons");
    endpoint.reset(Faults::default());
    let mut started = Vec::new();
    for contender in contenders {
        started.push(measure::start(contender, scenario, endpoint, conditions, None)?);
    }
    let (warm_up, time) = scenario.times(conditions.is_quick);
    thread::sleep(warm_up);
    let windows = started.iter().map(|(running, _)| Idle::begin(running, endpoint));
    let windows = windows.collect::<io::Result<Vec<_>>>()?;
    thread::sleep(time);
    for ((running, turn), window) in started.iter_mut().zip(windows) {
        window.end(running, endpoint, turn)?;
    }
    for (contender, (mut running, turn)) in contenders.iter().zip(started) {
        running.stop();
        summary.rows.push(writer.write(contender, scenario, 0, turn)?);
    }
    Ok(())
}

/// Returns the heading of the report, which describes the run.
fn heading(options: &Options, summary: &Summary) -> String {
    let size = match &options.size {
        Size::Fixed(bytes) => format!("documents of {bytes} bytes"),
        Size::Mix(_) => "documents as recorded from SDKs".into(),
    };
    let backends = summary.contenders().into_iter().filter_map(|name| {
        let backend = summary.backend(name)?;
        Some(format!("{name} runs on {backend}"))
    });
    let backends = backends.collect::<Vec<_>>().join(", ");
    let backends = if backends.is_empty() { backends } else { format!(" {backends}.") };
    format!(
        "{}; commit {}, {size}, TLS, {}{}.{backends}",
        machine::Machine::read(),
        options.commit,
        mode(options.is_confined),
        if options.is_quick { ", quick" } else { "" },
    )
}
