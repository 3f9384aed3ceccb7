//! Runs one turn: starts one contender, puts it under load, measures it from outside, and stops it.
//!
//! CPU time is measured in a window that begins after connections are open and buffers have grown.
//! The window goes from one delivery to another, so that it contains whole requests. The CPU time
//! is divided by the number of documents delivered in the window.

use super::contender::{Contender, Kind, Running, Setting};
use super::limit::Cgroup;
use super::process;
use super::scenario::Scenario;
use super::span_turn;
use super::turn::{Turn, in_megabytes};
use super::window::{Look, drain, latency_figures, sample, wait_for_delivery, window_figures};
use crate::endpoint::{Counts, Endpoint, Faults, Http, Options as EndpointOptions};
use crate::sender::{self, Load, Report, Size};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Up to this rate (documents a second) a window begins and ends with a delivery. At higher rates a
/// part of a request more or less makes no difference.
const ALIGN_RATE_MAX: u32 = 5_000;
/// A load for a limited daemon counts if the sender and the endpoint each have nothing to do for
/// this share of the time, and the processors together. Waiting for a processor is no idle time.
/// On a machine without idle time the daemon may get less than its limit allows.
const IDLE_MIN: f64 = 0.05;
/// Such a load counts if the sender sends this share of what it is to send.
const OFFERED_MIN: f64 = 0.95;

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
    /// Length of the windows of steady loads, instead of that of each scenario.
    pub window: Option<Duration>,
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
    let own_endpoint = match scenario {
        Scenario::Streams(count) => Some(few_streams(count, conditions)?),
        _ => None,
    };
    let endpoint = own_endpoint.as_ref().unwrap_or(endpoint);
    endpoint.reset(scenario.faults());
    let cgroup = match scenario {
        Scenario::Offered { limit, .. } => Some(Cgroup::new(limit)?),
        _ => None,
    };
    let ended_before_ns = process::ended_children_cpu_ns();
    let (mut running, mut turn) =
        start(contender, scenario, endpoint, conditions, cgroup.as_ref())?;
    turn.put("start_ms", running.start_time.as_secs_f64() * 1e3);
    let loaded = match scenario {
        Scenario::Burst { count, .. } => burst(&running, count, endpoint, conditions, &mut turn),
        Scenario::Outage => outage(&running, scenario, endpoint, conditions, &mut turn),
        Scenario::Idle | Scenario::Start | Scenario::Binary | Scenario::Limited(_) => Ok(()),
        Scenario::Spans(load) => {
            let (warm_up, window) = scenario.times(conditions.is_quick);
            let times = (warm_up, conditions.window.unwrap_or(window));
            span_turn::steady(&running, load, times, endpoint, conditions.seed, &mut turn)
        }
        _ => steady(&running, scenario, endpoint, conditions, &mut turn),
    };
    // If the contender has ended, the sender has failed too. The contender's log says more than the
    // sender's error.
    if running.has_ended() {
        let (name, log) = (&contender.name, running.log());
        return Err(io::Error::other(format!("{name} has ended early:\n{log}")));
    }
    loaded?;
    if let Some(cgroup) = &cgroup {
        turn.put("throttled_periods", cgroup.throttled_count() as f64);
        turn.discarded = why_not_limited_alone(scenario, &turn);
    }
    turn.put("peak_mb", in_megabytes(process::resident(running.id()).most_bytes));
    let sockets = process::udp_sockets(running.udp.port());
    turn.put("kernel_drops", sockets.drop_count as f64);
    turn.put("sockets", sockets.count as f64);
    if let Some(bytes) = process::queue_bytes(running.id(), running.udp.port()) {
        turn.put("queues_mb", in_megabytes(bytes));
    }
    let total_ns = process::cpu_ns(running.id())?;
    running.stop();
    let usage_ns = process::ended_children_cpu_ns() - ended_before_ns;
    turn.put("cpu_total_ms", total_ns as f64 / 1e6);
    turn.put("cpu_total_rusage_ms", usage_ns as f64 / 1e6);
    account(&running.log(), account_name(scenario), endpoint.counts(), &mut turn);
    Ok(turn)
}

/// Starts an endpoint that allows this many calls at once on an HTTP/2 connection.
fn few_streams(stream_count_max: u32, conditions: &Conditions) -> io::Result<Endpoint> {
    Endpoint::start(EndpointOptions {
        tls: Some(Http::Two),
        seed: conditions.seed,
        stream_count_max,
        ..EndpointOptions::default()
    })
}

/// Returns why a load of a limited daemon does not count: because something else than the daemon
/// was at its limit.
fn why_not_limited_alone(scenario: Scenario, turn: &Turn) -> Option<String> {
    let figure = |name| turn.figures.get(name).copied().unwrap_or(f64::NAN);
    let wanted = scenario.rate().map_or(0.0, f64::from);
    for name in ["sender_busy_share", "endpoint_busy_share", "machine_busy_share"] {
        let share = figure(name);
        // A share that is not a number is no proof either.
        let is_idle = share <= 1.0 - IDLE_MIN;
        if !is_idle {
            return Some(format!("{name} is {share:.2}"));
        }
    }
    let offered = figure("offered_per_s");
    let is_offered = offered >= OFFERED_MIN * wanted;
    (!is_offered).then(|| format!("{offered:.0} of {wanted:.0} documents a second were offered"))
}

/// Records what was lost, and checks the daemon's own account: each datagram that was sent was
/// received or dropped by the kernel. Other programs than xrayd have no account.
fn account(log: &str, name: &str, counts: Counts, turn: &mut Turn) {
    let Some(sent) = turn.figures.get("sent").copied() else { return };
    turn.put("lost", sent - counts.delivered_count as f64);
    let Some(received) = account_number(log, name, "received") else { return };
    let drops = turn.figures.get("kernel_drops").copied().unwrap_or_default();
    turn.put("received", received);
    let difference = sent - received - drops;
    turn.put("unaccounted", difference);
    if difference != 0.0 {
        turn.discarded = Some(format!(
            "{UNBALANCED}: {sent} sent, {received} received, {drops} dropped by the kernel"
        ));
    }
}

/// The start of the reason why a turn does not count, if its account does not balance.
pub const UNBALANCED: &str = "the account does not balance";

/// Returns the start of the account that xrayd logs at its end, for the load of a scenario.
fn account_name(scenario: Scenario) -> &'static str {
    if matches!(scenario, Scenario::Spans(_)) { "Account of spans: " } else { "Account: " }
}

/// Returns a number of an account.
fn account_number(log: &str, account: &str, name: &str) -> Option<f64> {
    let (_, account) = log.rsplit_once(account)?;
    let line = account.lines().next()?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
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
    cgroup: Option<&Cgroup>,
) -> io::Result<(Running, Turn)> {
    let is_confined = conditions.is_confined;
    let memory_mb = scenario.memory_mb(is_confined);
    let spans = match scenario {
        Scenario::Spans(load) => Some(load),
        _ => None,
    };
    let setting = Setting { memory_mb, is_confined, cgroup, spans };
    let running = Running::start(contender, endpoint, setting)?;
    let backend = running.backend(contender)?;
    let start_line = running.start_line();
    // The time of day and the port differ in each turn and are left out.
    let start_line = start_line.split_once("receive backend").map_or("", |(_, rest)| rest.trim());
    let mut turn = Turn { backend, start_line: start_line.to_owned(), ..Turn::default() };
    turn.put("memory_mb", memory_mb as f64);
    Ok((running, turn))
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
        Look::take(running, endpoint, 0).map(Self)
    }

    /// Ends the measurement and records CPU time, wake-ups and memory.
    ///
    /// # Errors
    ///
    /// Fails if the process no longer exists.
    pub fn end(self, running: &Running, endpoint: &Endpoint, turn: &mut Turn) -> io::Result<()> {
        let (before, after) = (self.0, Look::take(running, endpoint, 0)?);
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
    let (load, is_aligned) = match scenario.rate() {
        Some(rate) => (Load::Paced { rate: rate.into(), burst: 0 }, rate <= ALIGN_RATE_MAX),
        None => (Load::Flat, false),
    };
    let (warm_up, window) = scenario.times(conditions.is_quick);
    let window = conditions.window.unwrap_or(window);
    let begin = Instant::now();
    let sender = sender::start(&options(running, conditions, load))?;
    sample(running, begin, warm_up, turn);
    if is_aligned {
        wait_for_delivery(endpoint);
    }
    let first = Look::take(running, endpoint, sender.sent_count())?;
    let memory_before = turn.memory.last().copied();
    sample(running, begin, window, turn);
    if let (Some((from, before)), Some((to, after))) = (memory_before, turn.memory.last().copied())
    {
        turn.put("memory_growth_mb_per_s", (after - before) / (to - from));
    }
    if is_aligned {
        wait_for_delivery(endpoint);
    }
    let last = Look::take(running, endpoint, sender.sent_count())?;
    let report = sender.stop()?;
    drain(endpoint, report.sent_count);
    window_figures(&first, &last, turn);
    latency_figures(&first, &last, endpoint, turn);
    load_figures(&report, endpoint.counts(), turn);
    Ok(())
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
    let report = sender::start(&options(running, conditions, Load::Once(count)))?.wait()?;
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
    let sender = sender::start(&options(running, conditions, load))?;
    sample(running, begin, time, turn);
    let report = sender.stop()?;
    endpoint.reset(Faults::default());
    sample(running, begin, RECOVERY, turn);
    turn.put("sent", report.sent_count as f64);
    turn.put("offered_per_s", report.rate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "x [Info] Account: received=1 replayed=0\n\
                       x [Info] Account: received=95 replayed=0 sent=90 dropped=5 kernel_drops=5\n\
                       x [Info] Account of spans: received=512 replayed=0 sent=512 held=0\n";

    fn turn(figures: &[(&'static str, f64)]) -> Turn {
        Turn { figures: figures.iter().copied().collect(), ..Turn::default() }
    }

    #[test]
    fn a_turn_counts_if_all_that_was_sent_was_received_or_dropped() {
        let counts = Counts { delivered_count: 90, ..Counts::default() };
        let mut balanced = turn(&[("sent", 100.0), ("kernel_drops", 5.0)]);
        account(LOG, "Account: ", counts, &mut balanced);
        assert_eq!((balanced.figures["lost"], balanced.figures["unaccounted"]), (10.0, 0.0));
        assert_eq!(balanced.discarded, None);
        let mut missing = turn(&[("sent", 100.0), ("kernel_drops", 4.0)]);
        account(LOG, "Account: ", counts, &mut missing);
        assert!(missing.discarded.unwrap().starts_with(UNBALANCED));
        // A program without an account is judged by what it delivers.
        let mut other = turn(&[("sent", 100.0), ("kernel_drops", 4.0)]);
        account("started\n", "Account: ", counts, &mut other);
        assert_eq!((other.figures["lost"], other.discarded), (10.0, None));
    }

    #[test]
    fn spans_have_an_account_of_their_own() {
        let scenario = Scenario::parse("spans-http-10000").unwrap()[0];
        let mut spans = turn(&[("sent", 512.0)]);
        let counts = Counts { delivered_count: 500, ..Counts::default() };
        account(LOG, account_name(scenario), counts, &mut spans);
        assert_eq!((spans.figures["lost"], spans.figures["unaccounted"]), (12.0, 0.0));
    }

    #[test]
    fn a_limited_load_counts_only_while_sender_endpoint_and_machine_have_time() {
        let limit = super::super::limit::Limit::Quota(20);
        let scenario = Scenario::Offered { limit, rate: 1_000, multiple: Some(1.0) };
        let reason = |sender, endpoint, machine, offered| {
            let turn = turn(&[
                ("sender_busy_share", sender),
                ("endpoint_busy_share", endpoint),
                ("machine_busy_share", machine),
                ("offered_per_s", offered),
            ]);
            why_not_limited_alone(scenario, &turn)
        };
        assert_eq!(reason(0.9, 0.5, 0.9, 960.0), None);
        assert!(reason(0.96, 0.5, 0.9, 960.0).unwrap().contains("sender"));
        assert!(reason(0.9, 0.96, 0.9, 960.0).unwrap().contains("endpoint"));
        assert!(reason(0.9, 0.5, 0.96, 960.0).unwrap().contains("machine"));
        assert!(reason(0.9, 0.5, f64::NAN, 960.0).is_some());
        assert!(reason(0.9, 0.5, 0.9, 940.0).unwrap().contains("940 of 1000"));
    }
}
