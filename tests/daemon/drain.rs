//! The first part of a shutdown: what still arrives is taken, and one daemon hands its port over to
//! the next without a gap.

use super::account::Account;
use super::backend::is_backend_missing;
use super::delivery::Delivery;
use super::endpoint::Endpoint;
use super::load::{Load, Sent, document};
use super::process::{Daemon, config_file};
use rustix::process::Signal;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn what_arrives_during_the_drain_is_taken_until_it_is_quiet() {
    if is_backend_missing() {
        return;
    }
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_for_metric_of_at_least("xray_segments_received_total", 100);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    let before_count = load.sent_count();
    // Well within half of the eight seconds that it has.
    thread::sleep(Duration::from_secs(1));
    let sent = load.stop();
    let quiet_at = Instant::now();
    assert!(sent.len() > before_count + 300);
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    // 100 ms of quiet are enough for it; the rest is a busy machine.
    assert!(quiet_at.elapsed() < Duration::from_secs(2), "{:?}\n{log}", quiet_at.elapsed());
    let account = Account::of_log(&log).unwrap();
    assert_eq!(account.get("received"), sent.len() as u64, "{log}");
    Delivery::of(&endpoint, &sent).misses(0, &log).has_none_twice(&log);
}

#[test]
fn a_sender_that_never_stops_does_not_keep_it_beyond_half_its_time() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "ShutdownSeconds: 4");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16", "-c", &config], &[]);
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_for_metric_of_at_least("xray_segments_received_total", 100);
    let signal_at = Instant::now();
    let (status, log) = daemon.stop();
    let time = signal_at.elapsed();
    let sent = load.stop();
    assert!(status.success(), "{log}");
    assert!(time > Duration::from_secs(1) && time < Duration::from_secs(4), "{time:?}\n{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!(account.get("dropped"), 0, "{log}");
    let received_count = usize::try_from(account.get("received")).unwrap();
    // All that was sent in the first second after the signal; and no more than it has counted.
    let must: Vec<&Sent> =
        sent.iter().filter(|sent| sent.at < signal_at + Duration::from_secs(1)).collect();
    assert!(must.len() > 300 && received_count >= must.len(), "{}\n{log}", must.len());
    let missing_count = sent.len() - received_count;
    Delivery::of(&endpoint, &sent).misses(missing_count, &log).has_none_twice(&log);
    let arrived = |sent: &&&Sent| endpoint.ledger(|l| l.arrivals.contains_key(&sent.document));
    assert_eq!(must.iter().filter(arrived).count(), must.len(), "{log}");
}

#[test]
fn a_second_signal_while_segments_still_arrive_ends_it_at_once_too() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "ShutdownSeconds: 60");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16", "-c", &config], &[]);
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_for_metric_of_at_least("xray_segments_received_total", 100);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    // It is taking what still arrives.
    let count = load.sent_count();
    daemon.wait_until("more is sent", || load.sent_count() > count + 100);
    let second_at = Instant::now();
    let (status, log) = daemon.stop();
    assert!(second_at.elapsed() < Duration::from_secs(3), "{:?}\n{log}", second_at.elapsed());
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
    // A quarter of it is the kernel's queue, which has to hold while a daemon starts.
    let memory = ["-c", &config, "-m", "64"];
    let mut daemon = Daemon::start(&endpoint.url(), &memory, &[]);
    let address = daemon.udp.to_string();
    let load = Load::start(daemon.udp, 2_000, document);
    let mut received_count = 0;
    let mut count = |(status, log): (std::process::ExitStatus, String)| {
        assert!(status.success(), "{log}");
        // `wait` has seen to it that the account balances.
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
    daemon.wait_until("all has arrived", || endpoint.arrived_count() >= sent.len());
    count(daemon.stop());
    assert_eq!(received_count, sent.len() as u64);
    Delivery::of(&endpoint, &sent).misses(0, "").has_none_twice("");
}
