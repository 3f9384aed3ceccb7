//! A panic in any thread or task of the daemon is caught and logged, and the account balances.
//!
//! The variable `XRAY_PANICS` names a place in the code and the number of panics to inject there,
//! as in `log=1`. The message of the panic contains a word that must not appear in any output.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod answers;
mod client;
mod dates;
mod endpoint;
mod exporter;
mod load;
mod pacing;
mod process;
mod span_panics;

use account::Account;
use endpoint::{Endpoint, Way};
use process::{
    Daemon, HEADER, behind_shell, command, daemon_command, run_to_end_with, with_credentials,
};
use rustix::process::Signal;

/// A word in the message of every injected panic.
const SECRET: &str = "secret-of-the-message";

fn start_with(endpoint: &Endpoint, panics: &str, arguments: &[&str]) -> Daemon {
    Daemon::start(&endpoint.url(), arguments, &[("XRAY_PANICS", panics)])
}

fn start(endpoint: &Endpoint, panics: &str) -> Daemon {
    start_with(endpoint, panics, &[])
}

fn datagrams(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{HEADER}{{\"id\":\"{index}\"}}")).collect()
}

/// Asserts that the log has the line of the panic hook and the text `what`, but not the message of
/// the panic.
fn assert_shown(log: &str, thread: &str, what: &str) {
    assert!(!log.contains(SECRET), "{log}");
    let version = env!("CARGO_PKG_VERSION");
    let line = log.lines().find(|line| line.starts_with(&format!("xrayd {version}: panic in ")));
    let line = line.unwrap_or_else(|| panic!("no line of the hook in\n{log}"));
    assert!(line.contains(&format!("thread {thread}")), "{line}");
    assert!(line.contains(" at src/base/panics.rs:"), "{line}");
    assert!(log.contains(what), "{what:?} is not in\n{log}");
}

/// Stops the daemon, which must end in order. Returns its account and its log.
fn end(daemon: Daemon) -> (Account, String) {
    let (status, log) = daemon.stop();
    assert!(status.success(), "{status}\n{log}");
    (Account::of_log(&log).unwrap(), log)
}

/// Waits for a daemon that shuts down without a signal and ends with exit status 1.
fn end_of_fault(daemon: Daemon) -> (Account, String) {
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    (Account::of_log(&log).unwrap(), log)
}

/// Asserts that a panic loses nothing: all ten documents arrive once, and the daemon continues.
fn costs_nothing(panics: &str, thread: &str, what: &str) {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, panics);
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    daemon.wait_for_line(what);
    let label = thread.split('-').next().unwrap();
    let metric = format!("xray_panics_total{{thread=\"{label}\"}}");
    let (_, count) = panics.split_once('=').unwrap();
    assert_eq!(daemon.metric(&metric), count.parse::<u64>().unwrap());
    let (account, log) = end(daemon);
    assert_shown(&log, thread, what);
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
    assert_eq!(endpoint.sorted_documents().len(), 10);
}

#[test]
fn a_call_that_panics_puts_its_batch_back_and_counts_as_an_attempt() {
    costs_nothing("upload_call=2", "upload", "A call for uploading met a fault in the program");
}

#[test]
fn a_signature_that_panics_is_tried_again() {
    costs_nothing("sign=2", "upload", "A call for uploading met a fault in the program");
}

#[test]
fn a_connection_that_panics_is_made_again() {
    costs_nothing("connection=1", "upload", "A connection met a fault in the program");
}

#[test]
fn the_search_for_credentials_goes_on_after_a_panic() {
    costs_nothing(
        "identity=2",
        "main",
        "No credentials: a source fails. unexpected credentials error: a fault in the program",
    );
}

#[test]
fn the_search_for_the_region_goes_on_after_a_panic() {
    costs_nothing("region=1", "main", "The search for region and endpoint met a fault");
}

#[test]
fn a_line_of_the_log_that_panics_is_lost_and_the_next_one_is_not() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command).env("XRAY_PANICS", "log=1");
    // The panic happens at the first log line, so that line is lost.
    let daemon = Daemon::spawn(command);
    let (_, log) = end(daemon);
    assert_shown(&log, "log", "Listening on UDP");
    assert!(!log.contains("Initializing AWS X-Ray daemon"), "{log}");
}

#[test]
fn informing_the_service_manager_goes_on_after_a_panic() {
    costs_nothing("manager=1", "main", "Informing the service manager met a fault");
}

#[test]
fn a_lookup_that_panics_is_tried_again() {
    let endpoint = Endpoint::start();
    let url = format!("http://localhost:{}", endpoint.address.port());
    // The daemon's first lookup is for the address of its TCP port.
    let daemon = Daemon::start(&url, &[], &[("XRAY_PANICS", "host_lookup=1")]);
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    let (account, log) = end(daemon);
    assert_shown(&log, "resolve-", "A name lookup met a fault in the program");
    assert_eq!(account.get("sent"), 10, "{log}");
}

#[test]
fn a_page_that_panics_is_an_answer_and_the_next_one_is_served() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "page=1");
    let answer = daemon.get("/metrics");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("a fault in the program") && !answer.contains(SECRET), "{answer}");
    assert_eq!(daemon.metric("xray_panics_total{thread=\"main\"}"), 1);
    let (_, log) = end(daemon);
    assert_shown(&log, "main", "Answering /metrics on the TCP port met a fault");
}

#[test]
fn the_tcp_port_is_opened_again_after_a_panic() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "serve=1");
    daemon.wait_for_line("The TCP port met a fault in the program");
    // The daemon logs a second line, with another port: the kernel chooses a free port each time.
    daemon.wait_until("the daemon listens again", || {
        daemon.log().matches("Listening on TCP").count() == 2
    });
    let (_, log) = end(daemon);
    assert_shown(&log, "main", "It is started again in 5 s");
}

#[test]
fn telemetry_that_panics_does_not_keep_the_daemon_from_its_end() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "telemetry=1");
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    let (account, log) = end(daemon);
    assert_shown(&log, "main", "Telemetry met a fault in the program");
    assert_eq!(account.get("sent"), 10, "{log}");
}

#[test]
fn a_datagram_that_panics_is_lost_alone_and_the_daemon_ends_in_order() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "datagram=1");
    // All datagrams are in the kernel's queue when the receiver reads the first one.
    daemon.signal(Signal::STOP);
    daemon.send(datagrams(10));
    daemon.signal(Signal::CONT);
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "receive-", "Sending the remaining segments, then ending");
    assert_eq!((account.get("received"), account.get("sent")), (10, 9), "{log}");
    assert_eq!(account.reason("dropped", "panic"), 1, "{log}");
}

#[test]
fn a_receiver_that_panics_loses_nothing_and_the_daemon_ends_in_order() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "receiver=1");
    daemon.signal(Signal::STOP);
    daemon.send(datagrams(10));
    daemon.signal(Signal::CONT);
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "receive-", "Sending the remaining segments, then ending");
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
}

#[test]
fn a_receiver_that_panics_twice_ends_and_the_others_empty_their_queues() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "receiver=2");
    daemon.signal(Signal::STOP);
    daemon.send(datagrams(10));
    daemon.signal(Signal::CONT);
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "receive-", "Sending the remaining segments, then ending");
    assert_eq!(account.get("sent") + account.get("dropped"), account.get("received"), "{log}");
}

#[test]
fn an_upload_thread_that_panics_sends_what_is_left_and_the_daemon_ends() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "sender=1");
    daemon.send(datagrams(10));
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "upload", "the thread upload met a fault in the program");
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
}

#[test]
fn an_upload_thread_that_panics_spools_what_is_left_once() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let spool = ["--spool-path", folder.path().to_str().unwrap()];
    let daemon = start_with(&endpoint, "sender=1", &spool);
    daemon.send(datagrams(10));
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "upload", "the thread upload met a fault in the program");
    assert_eq!((account.get("spooled"), account.get("dropped")), (10, 0), "{log}");
    // The next run of the daemon sends the spooled segments.
    endpoint.set_way(Way::Open);
    let daemon = start_with(&endpoint, "", &spool);
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    let (account, log) = end(daemon);
    assert_eq!(account.get("replayed"), 10, "{log}");
}

#[test]
fn a_shutdown_that_panics_over_the_spool_is_tried_again() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let spool = ["--spool-path", folder.path().to_str().unwrap()];
    let daemon = start_with(&endpoint, "sender_end=1", &spool);
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_received_total", 10);
    let (account, log) = end(daemon);
    assert_shown(&log, "upload", "10 segments more are in the spool");
    assert_eq!((account.get("spooled"), account.get("dropped")), (10, 0), "{log}");
}

#[test]
fn a_job_of_the_spool_that_panics_is_done_again() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let spool = ["--spool-path", folder.path().to_str().unwrap()];
    // The first spool job opens the spool.
    let daemon = start_with(&endpoint, "spool_job=1", &spool);
    daemon.wait_for_line("is open: 0 bytes in 0 files");
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_received_total", 10);
    assert_eq!(daemon.metric("xray_panics_total{thread=\"spool\"}"), 1);
    let (account, log) = end(daemon);
    assert_shown(&log, "spool", "its thread met a fault in the program");
    assert_eq!((account.get("spooled"), account.get("dropped")), (10, 0), "{log}");
}

#[test]
fn what_an_upload_thread_that_panics_twice_holds_is_counted() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let spool = ["--spool-path", folder.path().to_str().unwrap()];
    let daemon = start_with(&endpoint, "sender=1,sender_end=1", &spool);
    daemon.send(datagrams(10));
    let (account, log) = end_of_fault(daemon);
    assert_shown(&log, "upload", "Settling the remaining segments met a fault in the program");
    assert_eq!(account.reason("dropped", "panic"), 10, "{log}");
}

#[test]
fn what_is_at_work_in_a_frame_that_unwinds_is_counted() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "pack=1");
    daemon.send(datagrams(1));
    let (account, log) = end_of_fault(daemon);
    assert_shown(
        &log,
        "upload",
        "1 segments are dropped: a thread panicked while it processed them",
    );
    assert_eq!(account.reason("dropped", "panic"), 1, "{log}");
}

#[test]
fn a_main_thread_that_panics_ends_the_daemon_in_order() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command).env("XRAY_PANICS", "main=1");
    let (code, log) = run_to_end_with(command);
    assert_eq!(code, Some(1), "{log}");
    assert_shown(&log, "main", "the thread main met a fault in the program");
    assert!(log.contains("Account: received=0"), "{log}");
}

#[test]
fn a_shutdown_that_panics_ends_at_once_and_counts_what_is_left() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, "shutdown=1");
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_received_total", 10);
    let (account, log) = end(daemon);
    assert_shown(&log, "main", "The shutdown met a fault in the program");
    assert_eq!(account.reason("dropped", "shutdown"), 10, "{log}");
}

#[test]
fn a_verification_that_panics_is_a_check_that_failed() {
    let mut command = command(&["verify", "-n", "us-east-1", "-t", "127.0.0.1:1"]);
    command.env("XRAY_PANICS", "verify=1");
    let (code, log) = run_to_end_with(command);
    assert_eq!(code, Some(1), "{log}");
    assert_shown(&log, "main", "FAIL  verify: the check after the start met a fault");
}

#[test]
fn a_panic_ends_nothing_where_standard_error_is_full() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command).env("XRAY_PANICS", "upload_call=1");
    let daemon = Daemon::spawn(behind_shell(&command, r#"exec "$@" 2>/dev/full"#));
    daemon.send(datagrams(10));
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    let (account, log) = end(daemon);
    assert_eq!((account.get("sent"), account.get("dropped")), (10, 0), "{log}");
}
