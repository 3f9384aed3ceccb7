//! Panics in the flow of spans: said, counted, and no accepted span is lost without being counted.

use super::account::Account;
use super::client::Client;
use super::endpoint::{Endpoint, Way};
use super::exporter::{EXPORT, PORTS, PROTOBUF, arrived, endpoint, export, port, spans, spans_of};
use super::process::{Daemon, config_file, daemon_command, run_to_end_with, with_credentials};
use super::{SECRET, assert_shown, start_with};
use std::path::Path;

/// The names of the spans in the request of most tests.
const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

fn start(endpoint: &Endpoint, panics: &str, keys: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), &format!("{PORTS}{keys}"));
    start_with(endpoint, panics, &["-c", &config])
}

/// Starts a daemon with a spool in `folder` while the service is down.
fn start_in_outage(endpoint: &Endpoint, panics: &str, folder: &Path) -> Daemon {
    endpoint.set_way(Way::Down);
    start(endpoint, panics, &format!("Spool: {{Path: {}}}", folder.join("spool").display()))
}

/// Sends one request with all of [`NAMES`], which the daemon accepts.
fn send(daemon: &Daemon) {
    assert_eq!(export(port(daemon, "HTTP"), &spans_of(&NAMES)).status, 200, "{}", daemon.log());
}

/// Waits for the end of a daemon, which has this exit status. Returns its account of spans and its
/// log. Both accounts must balance.
fn end(daemon: Daemon, status: i32) -> (Account, String) {
    let (ended, log) = daemon.wait();
    assert_eq!(ended.code(), Some(status), "{log}");
    let account = Account::of_spans(&log).unwrap();
    assert_eq!(account.imbalance() + Account::of_log(&log).unwrap().imbalance(), 0, "{log}");
    assert!(!log.contains("does not balance"), "{log}");
    (account, log)
}

fn stop(daemon: Daemon) -> (Account, String) {
    daemon.signal(rustix::process::Signal::TERM);
    end(daemon, 0)
}

fn panic_count(daemon: &Daemon, thread: &str) -> u64 {
    daemon.metric(&format!("xray_panics_total{{thread=\"{thread}\"}}"))
}

#[test]
fn the_thread_of_the_ports_ends_the_daemon_in_order_if_it_panics() {
    let endpoint = endpoint();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), PORTS);
    let arguments = ["-c", &config, "-b", "127.0.0.1:0", "-t", "127.0.0.1:0"];
    let mut command = daemon_command(&endpoint.url(), &arguments);
    with_credentials(&mut command).env("XRAY_PANICS", "otlp=1");
    let (code, log) = run_to_end_with(command);
    assert_eq!(code, Some(1), "{log}");
    assert_shown(&log, "otlp", "the thread otlp met a fault in the program");
    assert!(log.contains("Account of spans: received=0"), "{log}");
}

#[test]
fn a_panic_of_the_thread_of_the_ports_at_the_end_loses_no_accepted_span() {
    let endpoint = endpoint();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, "otlp_end=1", "ShutdownSeconds: 120");
    send(&daemon);
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for_line("panic in thread otlp");
    endpoint.set_way(Way::Open);
    let (account, log) = end(daemon, 0);
    assert_shown(&log, "otlp", "Account of spans");
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
    assert_eq!(arrived(&endpoint), NAMES);
}

#[test]
fn a_request_that_panics_is_status_500_and_the_next_one_is_served() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, "export=1", "");
    let mut client = Client::connect(port(&daemon, "HTTP"));
    let answer = client.call(EXPORT, PROTOBUF, &spans("first"));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!((answer.status, text.contains("a fault in the program")), (500, true), "{text}");
    assert!(!text.contains(SECRET), "{text}");
    send(&daemon);
    assert_eq!(panic_count(&daemon, "otlp"), 1);
    let (account, log) = stop(daemon);
    assert_shown(&log, "otlp", "Answering /v1/traces on the OTLP/HTTP port met a fault");
    assert_eq!((account.get("received"), account.get("sent")), (10, 10), "{log}");
    assert_eq!(arrived(&endpoint), NAMES);
}

#[test]
fn spans_of_a_request_that_panics_after_they_are_queued_are_sent_and_counted() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, "exported=1", "");
    assert_eq!(export(port(&daemon, "HTTP"), &spans_of(&NAMES)).status, 500);
    let (account, log) = stop(daemon);
    assert_shown(&log, "otlp", "Answering /v1/traces on the OTLP/HTTP port met a fault");
    assert_eq!((account.get("received"), account.get("sent")), (10, 10), "{log}");
    assert_eq!(arrived(&endpoint), NAMES);
}

#[test]
fn the_ports_for_spans_are_served_again_after_a_panic() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, "otlp_serve=2", "");
    for name in ["HTTP", "gRPC"] {
        let line = daemon.wait_for_line(&format!("The OTLP/{name} port met a fault"));
        assert!(line.contains("It is started again in 5 s"), "{line}");
    }
    // The system accepts the connection, and the port answers when it is served again.
    send(&daemon);
    assert_eq!(panic_count(&daemon, "otlp"), 2);
    let (account, log) = stop(daemon);
    assert_eq!(account.get("sent"), 10, "{log}");
}

#[test]
fn a_call_with_spans_that_panics_is_tried_again() {
    for panics in ["upload_call=2", "sign=2"] {
        let endpoint = endpoint();
        let daemon = start(&endpoint, panics, "");
        send(&daemon);
        daemon.wait_for_metric("xray_otlp_spans_sent_total{signal=\"spans\"}", 10);
        assert_eq!(panic_count(&daemon, "upload"), 2);
        let (account, log) = stop(daemon);
        assert_shown(&log, "upload-spans", "A call for uploading met a fault in the program");
        assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
        assert_eq!(arrived(&endpoint), NAMES);
    }
}

#[test]
fn a_sender_of_spans_that_panics_sends_what_is_left_and_the_daemon_ends() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, "sender=1", "");
    send(&daemon);
    let (account, log) = end(daemon, 1);
    assert_shown(&log, "upload-spans", "the thread upload-spans met a fault in the program");
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
    assert_eq!(arrived(&endpoint), NAMES);
}

#[test]
fn a_sender_of_spans_that_panics_spools_what_is_left_once() {
    let (endpoint, folder) = (endpoint(), tempfile::tempdir().unwrap());
    let daemon = start_in_outage(&endpoint, "sender=1", folder.path());
    send(&daemon);
    let (account, log) = end(daemon, 1);
    assert_shown(&log, "upload-spans", "the thread upload-spans met a fault in the program");
    assert_eq!((account.get("spooled"), account.get("dropped")), (10, 0), "{log}");
    let daemon = start_in_outage(&endpoint, "", folder.path());
    endpoint.set_way(Way::Open);
    daemon.wait_for_metric("xray_otlp_spans_sent_total{signal=\"spans\"}", 10);
    let (account, log) = stop(daemon);
    assert_eq!(account.get("replayed"), 10, "{log}");
    assert_eq!(arrived(&endpoint), NAMES);
}

#[test]
fn spans_that_a_sender_holds_that_panics_again_and_again_are_counted() {
    let (endpoint, folder) = (endpoint(), tempfile::tempdir().unwrap());
    // The senders of segments and of spans come to the second place, each more than once.
    let daemon = start_in_outage(&endpoint, "sender=1,sender_end=9", folder.path());
    send(&daemon);
    let (account, log) = end(daemon, 1);
    assert_shown(&log, "upload-spans", "10 spans are dropped: a thread panicked");
    assert_eq!(account.reason("dropped", "panic"), 10, "{log}");
}

#[test]
fn spans_of_a_request_that_is_being_merged_when_the_sender_panics_are_counted() {
    let endpoint = endpoint();
    let daemon = start(&endpoint, "merge=1", "");
    send(&daemon);
    let (account, log) = end(daemon, 1);
    assert_shown(&log, "upload-spans", "10 spans are dropped: a thread panicked");
    assert_eq!(account.reason("dropped", "panic"), 10, "{log}");
}

#[test]
fn a_job_of_the_spool_of_spans_that_panics_is_done_again() {
    let (endpoint, folder) = (endpoint(), tempfile::tempdir().unwrap());
    // The first jobs of both spools open them.
    let daemon = start_in_outage(&endpoint, "spool_job=2", folder.path());
    let path = folder.path().join("spool/otlp");
    daemon.wait_for_line(&format!("The spool {} is open: 0 bytes in 0 files", path.display()));
    send(&daemon);
    assert_eq!(panic_count(&daemon, "spool"), 2);
    let (account, log) = stop(daemon);
    assert_shown(&log, "spool", "its thread met a fault in the program");
    assert_eq!((account.get("spooled"), account.get("dropped")), (10, 0), "{log}");
}

#[test]
fn a_shutdown_that_panics_counts_the_spans_that_are_left() {
    let endpoint = endpoint();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, "shutdown=1", "");
    send(&daemon);
    let (account, log) = stop(daemon);
    assert_shown(&log, "main", "The shutdown met a fault in the program");
    assert_eq!(account.reason("dropped", "shutdown"), 10, "{log}");
    assert!(log.contains("10 spans had not been sent by the end of the shutdown"), "{log}");
}
