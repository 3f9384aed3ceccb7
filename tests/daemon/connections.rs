//! Network faults between the daemon and the service: no segment is lost, and no segment arrives
//! twice unless an answer was lost.

use super::answers::Failure;
use super::delivery::settle_once;
use super::endpoint::{Endpoint, Way};
use super::load::{Load, document};
use super::process::{Daemon, config_file};
use super::tls::Authority;
use std::time::{Duration, Instant};

/// Short timeouts, so that the daemon detects a fault within the time of a test.
const SHORT_TIMEOUTS: &str = "Upload: {RequestTimeoutSeconds: 3, ConnectTimeoutSeconds: 3}";

/// Starts a fault under load and ends the fault after calls have failed. Every segment must arrive
/// exactly once.
fn passes(
    endpoint: &Endpoint,
    daemon: Daemon,
    begin: impl FnOnce(&Endpoint),
    end: impl FnOnce(&Endpoint),
) -> String {
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_until("the service takes segments", || endpoint.arrived_count() >= 100);
    let retried_count = daemon.metric("xray_requests_retried_total");
    begin(endpoint);
    let retried = "xray_requests_retried_total";
    daemon.wait_for_metric_of_at_least(retried, retried_count + 2);
    let back_at = Instant::now();
    end(endpoint);
    daemon.wait_until("something arrives after the fault", || {
        endpoint.ledger(|ledger| ledger.first_accepted_after(back_at).is_some())
    });
    let sent = load.stop();
    let (log, _) = settle_once(daemon, endpoint, &sent);
    assert!(log.contains("Sending segment batch failed with:"), "{log}");
    log
}

/// Runs [`passes`] with a fault between daemon and service.
fn way_passes(endpoint: &Endpoint, daemon: Daemon, way: Way) -> String {
    passes(endpoint, daemon, |it| it.set_way(way), |it| it.set_way(Way::Open))
}

/// Runs [`passes`] with a service that answers with a failure.
fn failure_passes(failure: Failure) {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    passes(
        &endpoint,
        daemon,
        |it| it.change(|rules| rules.failure = Some(failure)),
        |it| it.change(|rules| rules.failure = None),
    );
}

#[test]
fn refused_connections_cost_nothing() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    way_passes(&endpoint, daemon, Way::Down);
}

#[test]
fn reset_connections_cost_nothing() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    way_passes(&endpoint, daemon, Way::Reset);
}

#[test]
fn half_answers_are_no_success_and_cost_nothing() {
    for half in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"UnprocessedTraceSegments\":[]}",
    ] {
        let endpoint = Endpoint::start();
        let daemon = Daemon::start(&endpoint.url(), &[], &[]);
        way_passes(&endpoint, daemon, Way::Half(half));
    }
}

#[test]
fn a_service_that_fails_for_a_while_costs_nothing() {
    failure_passes(Failure::status(500));
    failure_passes(Failure::status(503).with("retry-after", 1));
}

#[test]
fn pages_of_a_proxy_on_the_way_cost_nothing() {
    for status in [400, 403, 502] {
        failure_passes(Failure::html(status));
    }
}

#[test]
fn a_black_hole_is_given_up_after_the_time_for_a_request_and_costs_nothing() {
    for way in [Way::BlackHole, Way::Unread] {
        let endpoint = Endpoint::start();
        let folder = tempfile::tempdir().unwrap();
        let config = config_file(folder.path(), SHORT_TIMEOUTS);
        let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
        let log = way_passes(&endpoint, daemon, way);
        assert!(log.contains("no answer within 3 s"), "{log}");
    }
}

#[test]
fn slow_answers_are_waited_for() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.pause = Duration::from_millis(700));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Upload: {RequestTimeoutSeconds: 300}");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    let load = Load::start(daemon.udp, 300, document);
    daemon.wait_until("the service takes segments", || endpoint.arrived_count() >= 300);
    let sent = load.stop();
    assert_eq!(daemon.metric("xray_requests_retried_total"), 0);
    settle_once(daemon, &endpoint, &sent);
}

fn tls_pair(folder: &tempfile::TempDir, protocol: &[u8], upload: &str) -> (Endpoint, Daemon) {
    let authority = Authority::new(folder.path(), "private");
    let tls = authority.server("127.0.0.1", &[protocol]);
    let endpoint = Endpoint::start_tls(tls);
    let bundle = authority.path.to_str().unwrap();
    let config = config_file(folder.path(), upload);
    let arguments = ["-c", config.as_str()];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[("AWS_CA_BUNDLE", bundle)]);
    (endpoint, daemon)
}

#[test]
fn a_tls_handshake_that_is_cut_costs_nothing() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, daemon) = tls_pair(&folder, protocol, "");
        way_passes(&endpoint, daemon, Way::CutHandshake);
    }
}

#[test]
fn connections_reset_under_tls_cost_nothing() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, daemon) = tls_pair(&folder, protocol, "");
        way_passes(&endpoint, daemon, Way::Reset);
    }
}

#[test]
fn connections_that_the_service_ends_in_order_cost_nothing() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, daemon) = tls_pair(&folder, protocol, "");
        endpoint.change(|rules| rules.requests_per_connection = Some(3));
        let load = Load::start(daemon.udp, 1_000, document);
        daemon.wait_until("connections have ended", || endpoint.connection_count() >= 5);
        let sent = load.stop();
        settle_once(daemon, &endpoint, &sent);
    }
}

#[test]
fn a_dead_connection_of_http2_is_noticed_by_pings_long_before_its_requests_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let upload = "Upload: {PingIntervalSeconds: 1, ConnectTimeoutSeconds: 1, \
                  RequestTimeoutSeconds: 300}";
    let (endpoint, daemon) = tls_pair(&folder, b"h2", upload);
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_until("the service takes segments", || endpoint.arrived_count() >= 100);
    assert_eq!(endpoint.connection_count(), 1);
    endpoint.set_way(Way::Unread);
    daemon.wait_until("the open connection is dead for good", || {
        endpoint.dead_connection_count() == 1
    });
    // New connections work again. Without HTTP/2 pings the requests on the dead connection would
    // wait for 300 s.
    let mended_at = Instant::now();
    endpoint.set_way(Way::Open);
    daemon.wait_until("something arrives over another connection", || {
        endpoint.ledger(|ledger| ledger.first_accepted_after(mended_at).is_some())
    });
    let sent = load.stop();
    settle_once(daemon, &endpoint, &sent);
    assert!(endpoint.connection_count() >= 2);
}
