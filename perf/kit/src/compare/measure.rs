//! Runs one turn: starts one contender, puts it under load, measures it from outside, and stops it.
//!
//! CPU time is measured in a window that begins after connections are open and buffers have grown.
//! The window goes from one delivery to another, so that it contains whole requests. The CPU time
//! is divided by the number of documents delivered in the window.

use super::contender::{Contender, Kind, Running, Setting};
use super::process::{self, Sleeps};
use super::scenario::Scenario;
use crate::endpoint::{Counts, Endpoint, Faults};
use crate::sender::{self, Load, Report, Sender, Size};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Up to this rate (documents a second) a window begins and ends with a delivery. At higher rates a
/// part of a request more or less makes no difference.
const ALIGN_RATE_MAX: u32 = 5_000;
/// The longest wait for a delivery: a batch that is not full is sent after 1 s.
const ALIGN_MAX: Duration = Duration::from_millis(1_500);
/// Time for the daemon to finish its work after an answer.
const SETTLE: Duration = Duration::from_millis(3);

/// Time between two readings of memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// If nothing is delivered for this time, the remaining documents count as lost.
const QUIET: Duration = Duration::from_millis(1_300);
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Rate of the load during an outage, in documents a second.
const OUTAGE_RATE: f64 = 50_000.0;
/// Time after an outage, with a working service, in which memory is still measured.
const RECOVERY: Duration = Duration::from_secs(4);

/// The settings that all turns of a comparison share.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Size of the documents.
    pub size: Size,
    /// Number of sockets of the sender.
    pub socket_count: usize,
    /// Seed for drawing documents from the recorded datagrams, if `size` is a mix.
    pub seed: u64,
    /// Whether the sender lets the kernel split messages into datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// Whether daemons run as in a container without privileges.
    pub is_confined: bool,
    /// Whether the measured windows are short, as in a quick run.
    pub is_quick: bool,
}

/// The result of a turn: one contender in one scenario and round.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// The measured numbers by name. The name contains the unit.
    pub figures: BTreeMap<&'static str, f64>,
    /// Receive backend that the start-up line names, if it names one.
    pub backend: Option<String>,
    /// The start-up line.
    pub start_line: String,
    /// Resident memory over time: seconds and megabytes.
    pub memory: Vec<(f64, f64)>,
}

impl Turn {
    fn put(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }
}

/// The counters of the contender, the sender and the endpoint at one moment.
struct Look {
    time: Instant,
    cpu_ns: u64,
    schedstat_ns: u64,
    sleeps: Sleeps,
    sender_cpu_ns: u64,
    endpoint_cpu_ns: u64,
    sent_count: u64,
    counts: Counts,
}

impl Look {
    fn take(running: &Running, endpoint: &Endpoint, sender: Option<&Sender>) -> io::Result<Self> {
        Ok(Self {
            time: Instant::now(),
            cpu_ns: process::cpu_ns(running.id())?,
            counts: endpoint.counts(),
            sent_count: sender.map_or(0, Sender::sent_count),
            schedstat_ns: process::schedstat_ns(running.id()),
            sleeps: Sleeps::of(running.id()),
            sender_cpu_ns: process::own_thread_cpu_ns("sender"),
            endpoint_cpu_ns: process::own_thread_cpu_ns("endpoint"),
        })
    }
}

/// Runs a turn. The scenario must not be [`Scenario::Idle`]: there all contenders run at the same
/// time.
///
/// # Errors
///
/// Fails if the contender does not start, ends early, or does not run on the requested backend.
pub fn turn(
    contender: &Contender,
    scenario: Scenario,
    endpoint: &Endpoint,
    conditions: &Conditions,
) -> io::Result<Turn> {
    if let (Scenario::Binary, Kind::Daemon(program, _)) = (scenario, &contender.kind) {
        let mut turn = Turn::default();
        turn.put("binary_mb", in_megabytes(fs::metadata(program)?.len()));
        if let Some(bytes) = stripped_bytes(program)? {
            turn.put("stripped_mb", in_megabytes(bytes));
        }
        return Ok(turn);
    }
    let faults = match scenario {
        Scenario::Outage => Faults { failed_share: 1.0, ..Faults::default() },
        _ => Faults::default(),
    };
    endpoint.reset(faults);
    let ended_before_ns = process::ended_children_cpu_ns();
    let (mut running, mut turn) = start(contender, scenario, endpoint, conditions)?;
    turn.put("start_ms", running.start_time.as_secs_f64() * 1e3);
    let loaded = match scenario {
        Scenario::Rate(_) | Scenario::Flat => {
            steady(&running, scenario, endpoint, conditions, &mut turn)
        }
        Scenario::Burst { count, .. } => burst(&running, count, endpoint, conditions, &mut turn),
        Scenario::Outage => outage(&running, scenario, endpoint, conditions, &mut turn),
        Scenario::Idle | Scenario::Start | Scenario::Binary => Ok(()),
    };
    // If the contender has ended, the sender has failed too. The contender's log says more than the
    // sender's error.
    if running.has_ended() {
        let (name, log) = (&contender.name, running.log());
        return Err(io::Error::other(format!("{name} has ended early:\n{log}")));
    }
    loaded?;
    turn.put("peak_mb", in_megabytes(process::resident(running.id()).most_bytes));
    turn.put("kernel_drops", process::udp_sockets(running.udp.port()).drop_count as f64);
    let total_ns = process::cpu_ns(running.id())?;
    running.stop();
    let usage_ns = process::ended_children_cpu_ns() - ended_before_ns;
    turn.put("cpu_total_ms", total_ns as f64 / 1e6);
    turn.put("cpu_total_rusage_ms", usage_ns as f64 / 1e6);
    Ok(turn)
}

/// Returns the size of a program without its symbols, or `None` if `strip` (binutils) is not
/// installed.
fn stripped_bytes(program: &Path) -> io::Result<Option<u64>> {
    let copy = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").arg(copy.path()).arg(program).status();
    let is_stripped = status.is_ok_and(|status| status.success());
    is_stripped.then(|| Ok(fs::metadata(copy.path())?.len())).transpose()
}

/// Starts a contender and checks its backend.
pub fn start(
    contender: &Contender,
    scenario: Scenario,
    endpoint: &Endpoint,
    conditions: &Conditions,
) -> io::Result<(Running, Turn)> {
    let setting = Setting { memory_mb: scenario.memory_mb(), is_confined: conditions.is_confined };
    let running = Running::start(contender, endpoint, setting)?;
    let backend = running.backend(contender)?;
    let start_line = running.start_line();
    // The time of day and the port differ in each turn and are left out.
    let start_line = start_line.split_once("receive backend").map_or("", |(_, rest)| rest.trim());
    Ok((running, Turn { backend, start_line: start_line.to_owned(), ..Turn::default() }))
}

/// A measurement of a contender without load. It has the counters at its beginning.
pub struct Idle(Look);

impl Idle {
    /// Begins the measurement.
    ///
    /// # Errors
    ///
    /// Fails if the process no longer exists.
    pub fn begin(running: &Running, endpoint: &Endpoint) -> io::Result<Self> {
        Look::take(running, endpoint, None).map(Self)
    }

    /// Ends the measurement and records CPU time, wake-ups and memory.
    ///
    /// # Errors
    ///
    /// Fails if the process no longer exists.
    pub fn end(self, running: &Running, endpoint: &Endpoint, turn: &mut Turn) -> io::Result<()> {
        let (before, after) = (self.0, Look::take(running, endpoint, None)?);
        let seconds = (after.time - before.time).as_secs_f64();
        let cpu_ms = (after.cpu_ns - before.cpu_ns) as f64 / 1e6;
        turn.put("window_s", seconds);
        // Scaled to one minute, whatever the length of the window.
        turn.put("idle_cpu_ms_per_minute", cpu_ms * 60.0 / seconds);
        turn.put("wake_ups_per_s", after.sleeps.since(&before.sleeps) as f64 / seconds);
        turn.put("resident_mb", in_megabytes(process::resident(running.id()).now_bytes));
        Ok(())
    }
}

fn options(running: &Running, conditions: &Conditions, load: Load) -> sender::Options {
    sender::Options {
        target: running.udp,
        load,
        size: conditions.size.clone(),
        socket_count: conditions.socket_count,
        seed: conditions.seed,
        gso: conditions.gso,
        first_sequence: 0,
        count_max: u64::MAX,
    }
}

/// Runs a scenario with a steady rate, or as fast as the sender can send.
fn steady(
    running: &Running,
    scenario: Scenario,
    endpoint: &Endpoint,
    conditions: &Conditions,
    turn: &mut Turn,
) -> io::Result<()> {
    let (load, is_aligned) = match scenario {
        Scenario::Rate(rate) => {
            (Load::Paced { rate: rate.into(), burst: 0 }, rate <= ALIGN_RATE_MAX)
        }
        _ => (Load::Flat, false),
    };
    let (warm_up, window) = scenario.times(conditions.is_quick);
    let begin = Instant::now();
    let sender = Sender::start(&options(running, conditions, load))?;
    sample(running, begin, warm_up, turn);
    if is_aligned {
        wait_for_delivery(endpoint);
    }
    let first = Look::take(running, endpoint, Some(&sender))?;
    sample(running, begin, window, turn);
    if is_aligned {
        wait_for_delivery(endpoint);
    }
    let last = Look::take(running, endpoint, Some(&sender))?;
    let report = sender.stop()?;
    drain(endpoint, report.sent_count);
    window_figures(&first, &last, turn);
    let (from, to) = (first.counts.delivered_count, last.counts.delivered_count);
    let percentiles = endpoint.percentiles_us(from, to, &[0.5, 0.99]);
    turn.put("latency_p50_ms", percentiles[0] / 1e3);
    turn.put("latency_p99_ms", percentiles[1] / 1e3);
    load_figures(&report, endpoint.counts(), turn);
    Ok(())
}

/// Records the figures of the window between two readings of the counters.
fn window_figures(first: &Look, last: &Look, turn: &mut Turn) {
    let seconds = (last.time - first.time).as_secs_f64();
    let delivered = (last.counts.delivered_count - first.counts.delivered_count) as f64;
    let sent = (last.sent_count - first.sent_count) as f64;
    let requests = (last.counts.request_count - first.counts.request_count) as f64;
    let each = |ns: u64| ns as f64 / 1e3 / delivered;
    turn.put("window_s", seconds);
    turn.put("cpu_us_per_segment", each(last.cpu_ns - first.cpu_ns));
    turn.put("cpu_schedstat_us_per_segment", each(last.schedstat_ns - first.schedstat_ns));
    turn.put("sender_us_per_sent", (last.sender_cpu_ns - first.sender_cpu_ns) as f64 / 1e3 / sent);
    turn.put("endpoint_us_per_segment", each(last.endpoint_cpu_ns - first.endpoint_cpu_ns));
    turn.put("delivered_per_s", delivered / seconds);
    turn.put("offered_per_s", sent / seconds);
    turn.put("wake_ups_per_s", last.sleeps.since(&first.sleeps) as f64 / seconds);
    turn.put("segments_per_request", delivered / requests);
}

/// Records the figures of the whole load, from the first document to the last.
fn load_figures(report: &Report, counts: Counts, turn: &mut Turn) {
    turn.put("sent", report.sent_count as f64);
    turn.put("delivered", counts.delivered_count as f64);
    turn.put("delivered_share", counts.delivered_count as f64 / report.sent_count as f64);
    turn.put("duplicates", counts.duplicate_count as f64);
    turn.put("connections", counts.connection_count as f64);
    turn.put("sender_burst", f64::from(report.burst));
    turn.put("sender_back_to_back_max", report.back_to_back_max as f64);
    turn.put("sender_late_max_us", report.late_max_us);
    turn.put("sender_held_up_s", report.held_up_s);
}

/// Runs a scenario that sends `count` documents as fast as possible.
fn burst(
    running: &Running,
    count: u64,
    endpoint: &Endpoint,
    conditions: &Conditions,
    turn: &mut Turn,
) -> io::Result<()> {
    let report = Sender::start(&options(running, conditions, Load::Once(count)))?.wait()?;
    drain(endpoint, report.sent_count);
    turn.put("offered_per_s", report.rate);
    load_figures(&report, endpoint.counts(), turn);
    let percentiles = endpoint.percentiles_us(0, u64::MAX, &[0.5, 1.0]);
    turn.put("latency_p50_ms", percentiles[0] / 1e3);
    turn.put("latency_max_ms", percentiles[1] / 1e3);
    Ok(())
}

/// Runs the outage: the service fails under load, then works again without load.
fn outage(
    running: &Running,
    scenario: Scenario,
    endpoint: &Endpoint,
    conditions: &Conditions,
    turn: &mut Turn,
) -> io::Result<()> {
    let begin = Instant::now();
    let (_, time) = scenario.times(conditions.is_quick);
    let load = Load::Paced { rate: OUTAGE_RATE, burst: 0 };
    let sender = Sender::start(&options(running, conditions, load))?;
    sample(running, begin, time, turn);
    let report = sender.stop()?;
    endpoint.reset(Faults::default());
    sample(running, begin, RECOVERY, turn);
    turn.put("sent", report.sent_count as f64);
    turn.put("offered_per_s", report.rate);
    Ok(())
}

/// Waits for `time`. Meanwhile records the memory of the contender.
fn sample(running: &Running, begin: Instant, time: Duration, turn: &mut Turn) {
    let end = Instant::now() + time;
    loop {
        let resident = process::resident(running.id()).now_bytes;
        turn.memory.push((begin.elapsed().as_secs_f64(), in_megabytes(resident)));
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(SAMPLE_INTERVAL));
    }
}

/// Waits until a document is delivered to the endpoint, for at most [`ALIGN_MAX`].
fn wait_for_delivery(endpoint: &Endpoint) {
    let (start, before) = (Instant::now(), endpoint.counts().delivered_count);
    while endpoint.counts().delivered_count == before && start.elapsed() < ALIGN_MAX {
        thread::sleep(Duration::from_micros(500));
    }
    thread::sleep(SETTLE);
}

/// Waits until all documents are delivered, or nothing is delivered for [`QUIET`], or [`DRAIN_MAX`]
/// has passed.
fn drain(endpoint: &Endpoint, sent_count: u64) {
    let start = Instant::now();
    let (mut count, mut changed) = (endpoint.counts().delivered_count, start);
    while count < sent_count && changed.elapsed() < QUIET && start.elapsed() < DRAIN_MAX {
        thread::sleep(Duration::from_millis(10));
        let now = endpoint.counts().delivered_count;
        if now != count {
            (count, changed) = (now, Instant::now());
        }
    }
}

fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
