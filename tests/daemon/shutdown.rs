//! The shutdown of the daemon. It answers the open calls of clients and counts the segments that it
//! cannot send. A second signal ends it at once.

use super::account::Account;
use super::client::{Client, RULES, start};
use super::endpoint::{Endpoint, Way};
use super::load::{document, send};
use super::process::{Daemon, config_file, wait_until};
use rustix::process::Signal;

#[test]
fn calls_of_clients_under_way_are_answered_before_it_ends() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "Telemetry: false\nShutdownSeconds: 3600");
    let mut idle = Client::connect(daemon.tcp);
    assert_eq!(idle.call("GET /metrics", "", b"").status, 200);
    endpoint.change(|rules| rules.is_held = true);
    let mut client = Client::connect(daemon.tcp);
    client
        .write(format!("{RULES} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes());
    wait_until("the call is in flight", || endpoint.connection_count() == 1);
    daemon.signal(Signal::TERM);
    // During the shutdown the daemon closes the connections that have no call in flight.
    assert_eq!(idle.rest(), "");
    endpoint.change(|rules| rules.is_held = false);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let (status, log) = daemon.wait();
    assert!(status.success() && !log.contains("cut off"), "{log}");
}

#[test]
fn a_call_that_hangs_does_not_keep_it_beyond_its_time() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "Telemetry: false\nShutdownSeconds: 1");
    endpoint.set_way(Way::BlackHole);
    let mut client = Client::connect(daemon.tcp);
    client
        .write(format!("{RULES} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes());
    wait_until("the call is in flight", || endpoint.connection_count() == 1);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("1 requests on the TCP port are aborted"), "{log}");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_is_left_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "ShutdownSeconds: 3600");
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::BlackHole);
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16", "-c", &config], &[]);
    let sent = send(daemon.udp, (0..120).map(document));
    daemon.wait_for_metric("xray_segments_received_total", sent.len() as u64);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    let (status, log) = daemon.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("Got shutdown signal again"), "{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!(account.reason("dropped", "shutdown"), 120, "{log}");
    assert_eq!(account.get("dropped"), 120, "{log}");
}
