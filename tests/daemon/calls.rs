//! How many calls are in flight: a fixed number, or as many as the time of the answers needs.

use super::delivery::settle_once;
use super::endpoint::Endpoint;
use super::load::{Load, document, send};
use super::process::{Daemon, config_file};
use super::tls::Authority;
use std::time::Duration;

/// The metrics of the largest number of calls at this moment, and of the reason of its last change.
const LIMIT: &str = "xray_upload_concurrency_limit";
const QUEUE: &str = "xray_upload_concurrency_changes_total{reason=\"queue\"}";

/// The number of calls at the start.
const COUNT_FIRST: usize = 8;

/// The time of an answer: so long that the calls at the start do not carry [`PER_SECOND`], although
/// this is a rate for any machine.
const PAUSE: Duration = Duration::from_millis(600);
const PER_SECOND: u32 = 2_000;

#[test]
fn a_number_of_calls_in_the_file_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(folder.path(), "Concurrency: 3");
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.is_held = true);
    let daemon = Daemon::start(&endpoint.url(), &["-c", &path, "-m", "16"], &[]);
    let sent = send(daemon.udp, (0..1_000).map(document));
    daemon.wait_for_metric_of_at_least("xray_batches_held{state=\"waiting\"}", 5);
    daemon.wait_until("three calls are in flight", || endpoint.in_flight() == 3);
    assert_eq!((daemon.metric(LIMIT), daemon.metric("xray_upload_calls_in_flight")), (3, 3));
    endpoint.change(|rules| rules.is_held = false);
    daemon.wait_for_arrivals(&endpoint, sent.len());
    assert_eq!((endpoint.in_flight_max(), daemon.metric(QUEUE)), (3, 0));
    settle_once(daemon, &endpoint, &sent);
}

/// Sends until more calls are in flight than at the start. Everything must arrive once. Returns the
/// log, and how many connections the calls have needed.
fn grows(endpoint: &Endpoint, daemon: Daemon) -> (String, usize) {
    endpoint.change(|rules| rules.pause = PAUSE);
    let load = Load::start(daemon.udp, PER_SECOND, document);
    daemon.wait_until("more calls are in flight", || endpoint.in_flight_max() > COUNT_FIRST);
    let sent = load.stop();
    assert!(daemon.metric(LIMIT) > COUNT_FIRST as u64, "{}", daemon.log());
    assert!(daemon.metric(QUEUE) > 0, "{}", daemon.log());
    assert_eq!(daemon.metric("xray_requests_retried_total"), 0, "{}", daemon.log());
    // The shutdown opens another connection, for telemetry.
    let connection_count = endpoint.connection_count();
    endpoint.change(|rules| rules.pause = Duration::ZERO);
    (settle_once(daemon, endpoint, &sent).0, connection_count)
}

#[test]
fn calls_grow_with_the_time_of_the_answers_and_have_a_connection_each_over_http1() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64", "-l", "debug"], &[]);
    let (log, connection_count) = grows(&endpoint, daemon);
    assert!(log.contains("calls at a time now (queue)"), "{log}");
    assert!(connection_count > COUNT_FIRST, "{connection_count}");
}

#[test]
fn over_http2_the_calls_share_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
    let bundle = [("AWS_CA_BUNDLE", authority.path.to_str().unwrap())];
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64", "-l", "debug"], &bundle);
    let (log, connection_count) = grows(&endpoint, daemon);
    assert_eq!(connection_count, 1, "{log}");
}

#[test]
fn a_server_that_allows_eight_streams_gets_a_further_connection() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
    endpoint.change(|rules| rules.stream_count_max = Some(8));
    let bundle = [("AWS_CA_BUNDLE", authority.path.to_str().unwrap())];
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64", "-l", "debug"], &bundle);
    let (log, connection_count) = grows(&endpoint, daemon);
    // A connection is full before the next one is opened. The largest number was not reached yet
    // when the connections were counted.
    let most = endpoint.in_flight_max().div_ceil(8) + 1;
    assert!((2..=most).contains(&connection_count), "{connection_count} connections\n{log}");
}
