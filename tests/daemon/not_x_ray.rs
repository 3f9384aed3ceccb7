//! Only an answer of X-Ray counts as a delivery, whether it is compressed or not. A successful
//! answer of another server does not count.

use super::account::Account;
use super::answers::{Failure, gzip};
use super::delivery::{Delivery, settle_once, wait_until_received};
use super::endpoint::Endpoint;
use super::load::{Sent, document, send};
use super::process::{Daemon, config_file};

const NOT_X_RAY: &str = "xray_answers_not_x_ray_total";
const UNREADABLE: &str = "xray_answers_unreadable_total";
const TOO_LARGE: &str = "xray_answers_too_large_total";
const DROPPED: &str = "xray_segments_dropped_total{reason=\"not_x_ray\"}";
const SENT: &str = "xray_segments_sent_total";

/// Returns answers with a status of success from servers that are not X-Ray.
fn pages() -> Vec<Failure> {
    vec![
        Failure::html(200),
        Failure::body(200, r#"{"error":"please log in"}"#),
        Failure::status(200),
        Failure::body(200, gzip(b"<html>log in</html>")).with("content-encoding", "gzip"),
        Failure::body(200, "not gzip at all").with("content-encoding", "gzip"),
        Failure::body(200, vec![0x1b; 30]).with("content-encoding", "br"),
    ]
}

/// Returns an answer of this many bytes that lists unprocessed documents. Each entry is an empty
/// JSON object.
fn many_entries(length_bytes: usize) -> String {
    let entries = vec!["{}"; length_bytes / 3].join(",");
    format!(r#"{{"UnprocessedTraceSegments":[{entries}]}}"#)
}

/// Starts an endpoint that answers with `failure`, and a daemon. Sends one document, which is the
/// daemon's first batch.
fn begin(failure: &Failure) -> (Endpoint, Daemon, Vec<Sent>) {
    let endpoint = Endpoint::start();
    let failure = failure.clone();
    endpoint.change(|rules| rules.failure = Some(failure));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = send(daemon.udp, (0..1).map(document));
    (endpoint, daemon, sent)
}

#[test]
fn a_batch_that_another_server_answers_is_dropped_after_three_attempts_and_counted() {
    let begun: Vec<_> = pages().iter().map(begin).collect();
    for (endpoint, daemon, mut sent) in begun {
        wait_until_received(&daemon, &sent);
        // The attempts are 10 s apart.
        for count in 1..=3 {
            let asked = || endpoint.request_count() >= count;
            daemon.wait_until(&format!("attempt {count} was made"), asked);
        }
        daemon.wait_for_metric(DROPPED, 1);
        assert_eq!(endpoint.request_count(), 3, "{}", daemon.log());
        assert_eq!((daemon.metric(NOT_X_RAY), daemon.metric(SENT)), (3, 0), "{}", daemon.log());
        // Segments that are sent after the other server is gone arrive.
        endpoint.change(|rules| rules.failure = None);
        sent.extend(send(daemon.udp, (1..31).map(document)));
        daemon.wait_for_metric(SENT, 30);
        daemon.balance();
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        let account = Account::of_log(&log).unwrap();
        assert_eq!(account.reason("dropped", "not_x_ray"), 1, "{log}");
        Delivery::of(&endpoint, &sent).has_none_twice(&log).misses(1, &log);
        let errors: Vec<_> = log.lines().filter(|line| line.contains("[Error]")).collect();
        let failed = |line: &&&str| line.contains("Sending segment batch failed with: 200 OK");
        assert_eq!(errors.iter().filter(failed).count(), 2, "{log}");
        let dropped = errors.iter().find(|line| line.contains("1 segments are dropped"));
        assert!(dropped.is_some_and(|line| line.contains("xray verify")), "{log}");
    }
}

#[test]
fn another_server_that_answers_for_a_while_costs_nothing() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.failure = Some(Failure::html(200)));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let sent = send(daemon.udp, (0..2_000).map(document));
    wait_until_received(&daemon, &sent);
    // The three calls belong to at least two batches, even on a slow machine: a batch is retried
    // after 10 s at the earliest, and the other batches are sent before that.
    daemon.wait_until("three calls have failed", || endpoint.request_count() >= 3);
    daemon.wait_until("/ready says so", || daemon.get("/ready").contains("uploads_failing"));
    endpoint.change(|rules| rules.failure = None);
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn what_another_server_answers_at_the_end_goes_to_the_spool_and_is_delivered_later() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let config = config_file(folder.path(), "ShutdownSeconds: 2");
    let spool = spool.to_str().unwrap();
    let arguments = ["-c", &config, "--spool-path", spool, "--spool-size-mb", "16"];
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.failure = Some(Failure::html(200)));
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    let sent = send(daemon.udp, (0..20).map(document));
    wait_until_received(&daemon, &sent);
    daemon.wait_until("the call was answered", || endpoint.request_count() >= 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!((account.get("spooled"), account.get("dropped")), (20, 0), "{log}");
    endpoint.change(|rules| rules.failure = None);
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    daemon.wait_for_metric(SENT, 20);
    let (_, log) = daemon.stop();
    Delivery::of(&endpoint, &sent).has_none_twice(&log).misses(0, &log);
}

#[test]
fn compressed_answers_of_success_are_read_and_each_document_arrives_once() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.gzips = true);
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = send(daemon.udp, (0..120).map(document));
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn a_compressed_answer_that_throttles_is_known_as_one() {
    let endpoint = Endpoint::start();
    let throttled = r#"{"__type":"ThrottledException","message":"slow down"}"#;
    endpoint.change(|rules| {
        rules.gzips = true;
        rules.failure = Some(Failure::body(400, throttled));
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = send(daemon.udp, (0..20).map(document));
    daemon.wait_for_metric_of_at_least("xray_requests_throttled_total", 1);
    endpoint.change(|rules| rules.failure = None);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("ThrottledException: slow down"), "{log}");
}

#[test]
fn an_answer_with_the_request_id_of_x_ray_is_a_delivery_whatever_its_body_is() {
    for (failure, unreadable_count) in [
        (Failure::status(200), 0),
        (Failure::body(200, "{}"), 0),
        (Failure::html(200), 1),
        (Failure::body(200, many_entries(200_000)), 1),
    ] {
        let (endpoint, daemon, _) = begin(&failure.with("x-amzn-RequestId", "1-2-3"));
        daemon.wait_for_metric(SENT, 1);
        assert_eq!(endpoint.request_count(), 1, "{}", daemon.log());
        assert_eq!(daemon.metric(UNREADABLE), unreadable_count, "{}", daemon.log());
        daemon.balance();
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        let is_said = log.contains("could not be read");
        assert_eq!(is_said, unreadable_count > 0, "{log}");
    }
}

#[test]
fn an_answer_that_is_too_large_is_not_read_to_its_end_and_takes_no_memory() {
    let (endpoint, daemon, sent) = begin(&Failure::body(200, many_entries(1_000_000)));
    daemon.wait_for_metric_of_at_least(TOO_LARGE, 1);
    endpoint.change(|rules| rules.failure = None);
    let without = Daemon::start(&endpoint.url(), &[], &[]);
    let grown = daemon.peak_memory_bytes().saturating_sub(without.peak_memory_bytes());
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more than a daemon without an answer");
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn a_compressed_answer_is_not_expanded_beyond_the_limit() {
    let bomb = gzip(&vec![b' '; 5_000_000]);
    let failure = Failure::body(200, bomb).with("content-encoding", "gzip");
    let (endpoint, daemon, sent) = begin(&failure);
    daemon.wait_for_metric_of_at_least(TOO_LARGE, 1);
    endpoint.change(|rules| rules.failure = None);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("longer than 131072 bytes"), "{log}");
}
