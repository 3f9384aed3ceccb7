//! The first part of a shutdown: the daemon still receives the datagrams that wait in the kernel. A
//! restart on a shared port loses no datagram.

use super::account::Account;
use super::backend::is_backend_missing;
use super::delivery::Delivery;
use super::endpoint::Endpoint;
use super::load::{Load, Sent, document};
use super::process::{Daemon, config_file, wait_until};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The sockets must be quiet for this long before the daemon stops receiving.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// Starts a daemon and a load on it. The daemon's shutdown may take `shutdown_seconds`.
fn start(endpoint: &Endpoint, shutdown_seconds: u32) -> (Daemon, Load) {
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), &format!("ShutdownSeconds: {shutdown_seconds}"));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16", "-c", &config], &[]);
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_for_metric_of_at_least("xray_segments_received_total", 100);
    (daemon, load)
}

/// Returns whether all segments arrived that were sent within `time` after the signal. If the
/// machine is so busy that the load or the receiver stood still for [`QUIET_TIME`], the daemon may
/// have stopped receiving earlier; segments sent after that are missing.
fn takes_all(
    time: Duration,
    endpoint: &Endpoint,
    sent: &[Sent],
    signal_at: Instant,
    log: &str,
) -> bool {
    let account = Account::of_log(log).unwrap();
    let lost_count = account.get("dropped") + account.get("rejected") + account.get("kernel_drops");
    assert_eq!(lost_count, 0, "{account}\n{log}");
    let missing_count = sent.len() - usize::try_from(account.get("received")).unwrap();
    Delivery::of(endpoint, sent).misses(missing_count, log).has_none_twice(log);
    let has_all_within = |time| {
        let mut due = sent.iter().take_while(|sent| sent.at < signal_at + time);
        endpoint.ledger(|ledger| due.all(|sent| ledger.arrivals.contains_key(&sent.document)))
    };
    assert!(has_all_within(QUIET_TIME), "{account}\n{log}");
    has_all_within(time)
}

/// Stops the load during the shutdown; until then the daemon keeps receiving. Returns whether all
/// segments arrived.
fn drain_until_quiet() -> bool {
    let endpoint = Endpoint::start();
    // The drain ends because the sockets are quiet: the limit on the shutdown is longer than the
    // test.
    let (daemon, load) = start(&endpoint, 3600);
    let signal_at = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    let before_count = load.sent_count();
    wait_until("more is sent", || load.sent_count() > before_count + 300);
    let sent = load.stop();
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    takes_all(Duration::from_secs(3600), &endpoint, &sent, signal_at, &log)
}

#[test]
fn what_arrives_during_the_drain_is_taken_until_it_is_quiet() {
    if is_backend_missing() {
        return;
    }
    assert!((0..10).any(|_| drain_until_quiet()), "something was missing each time");
}

/// Continues the load until the daemon has ended. Returns whether the daemon received until half of
/// its time was over; otherwise the load or a receiver stood still for [`QUIET_TIME`].
fn drain_for_half_the_time() -> bool {
    let endpoint = Endpoint::start();
    let (daemon, load) = start(&endpoint, 8);
    let signal_at = Instant::now();
    let (status, log) = daemon.stop();
    let sent = load.stop();
    assert!(status.success(), "{log}");
    let has_all = takes_all(Duration::from_secs(3), &endpoint, &sent, signal_at, &log);
    let is_over = log.contains("Applications still send segments: the daemon stops receiving");
    assert!(has_all || !is_over, "{log}");
    is_over
}

#[test]
fn a_sender_that_never_stops_does_not_keep_it_beyond_half_its_time() {
    if is_backend_missing() {
        return;
    }
    assert!((0..20).any(|_| drain_for_half_the_time()), "the sockets were quiet each time");
}

#[test]
fn a_second_signal_while_segments_still_arrive_ends_it_at_once_too() {
    if is_backend_missing() {
        return;
    }
    let endpoint = Endpoint::start();
    let (daemon, load) = start(&endpoint, 3600);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    // During its shutdown the daemon still receives the datagrams of the load.
    let count = load.sent_count();
    daemon.wait_until("more is sent", || load.sent_count() > count + 100);
    // The second SIGTERM ends the daemon at once, although the load continues and the limit of the
    // shutdown is an hour.
    let (status, log) = daemon.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    drop(load);
}

#[test]
fn ten_restarts_one_after_the_other_on_a_shared_port_cost_nothing() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Receive: {Receivers: 1, SharePort: true}");
    let endpoint = Endpoint::start();
    // A quarter of the 64 MB is for the kernel's queue. The queue must hold the datagrams that
    // arrive while a daemon starts.
    let memory = ["-c", &config, "-m", "64"];
    let mut daemon = Daemon::start(&endpoint.url(), &memory, &[]);
    let address = daemon.udp.to_string();
    let load = Load::start(daemon.udp, 2_000, document);
    let mut received_count = 0;
    let mut count = |(status, log): (std::process::ExitStatus, String)| {
        assert!(status.success(), "{log}");
        // `wait` has checked that the account balances.
        let account = Account::of_log(&log).unwrap();
        let lost = account.get("kernel_drops") + account.get("dropped") + account.get("rejected");
        assert_eq!(lost, 0, "{log}");
        received_count += account.get("received");
    };
    for _ in 0..10 {
        let arguments = [&["-b", address.as_str()], &memory[..]].concat();
        let next = Daemon::start(&endpoint.url(), &arguments, &[]);
        count(daemon.stop());
        daemon = next;
    }
    let sent = load.stop();
    daemon.wait_for_arrivals(&endpoint, sent.len());
    count(daemon.stop());
    assert_eq!(received_count, sent.len() as u64);
    Delivery::of(&endpoint, &sent).misses(0, "").has_none_twice("");
}
