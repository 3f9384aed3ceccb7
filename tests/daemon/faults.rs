//! No segment is lost because of faults of the service or of the connection to it.

use super::answers::{Failure, Reply};
use super::endpoint::{Endpoint, Way};
use super::pacing::memory_low_bytes;
use super::process::{Daemon, HEADER, config_file};
use std::time::Duration;

const THROTTLED: &str = r#"{"__type":"ThrottledException","message":"slow down"}"#;

fn documents(count: usize) -> Vec<String> {
    // The numbers have leading zeros, so that sorted documents are in the order of sending.
    let document = |index| {
        format!(
            r#"{{"trace_id":"1-5759e988-{index:024x}","id":"{index:016x}","name":"n","n":{index}}}"#
        )
    };
    (0..count).map(document).collect()
}

fn send(daemon: &Daemon, documents: &[String]) {
    daemon.send(documents.iter().map(|document| format!("{HEADER}{document}")));
}

/// Waits until the daemon has sent all documents, stops the daemon, and asserts that each document
/// arrived once and that the account agrees.
fn settle(daemon: Daemon, endpoint: &Endpoint, sent: &[String]) {
    daemon.wait_for_metric("xray_segments_sent_total", sent.len() as u64);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(endpoint.sorted_documents(), sent);
    let account = format!("received={0} replayed=0 sent={0} rejected=0 dropped=0", sent.len());
    assert!(log.contains(&account), "{log}");
}

#[test]
fn server_errors_cost_no_segment_and_double_none() {
    let endpoint = Endpoint::scripted(|index| match index {
        0..3 => Reply::Fail(Failure::body(500, "<html>Internal Server Error</html>")),
        3 => Reply::Fail(Failure::status(503)),
        _ => Reply::Accept,
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(120);
    send(&daemon, &sent);
    settle(daemon, &endpoint, &sent);
}

#[test]
fn throttling_costs_no_segment_and_doubles_none() {
    let endpoint = Endpoint::scripted(|index| match index {
        0 => Reply::Fail(Failure::code(429, "ThrottledException")),
        1 => Reply::Fail(Failure::body(400, THROTTLED)),
        2 => Reply::Fail(Failure::status(429).with("retry-after", 1)),
        _ => Reply::Accept,
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(120);
    send(&daemon, &sent);
    daemon.wait_for_metric("xray_requests_throttled_total", 3);
    settle(daemon, &endpoint, &sent);
}

#[test]
fn broken_connections_before_the_request_was_taken_cost_no_segment_and_double_none() {
    let endpoint = Endpoint::scripted(|index| match index {
        0..4 => Reply::Break,
        _ => Reply::Accept,
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(120);
    send(&daemon, &sent);
    settle(daemon, &endpoint, &sent);
}

#[test]
fn a_lost_answer_doubles_its_own_batch_and_nothing_else() {
    let endpoint = Endpoint::scripted(|index| match index {
        0 => Reply::AcceptAndBreak,
        _ => Reply::Accept,
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(120);
    send(&daemon, &sent);
    daemon.wait_for_metric("xray_segments_sent_total", 120);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let mut arrived = endpoint.sorted_documents();
    assert!((121..=170).contains(&arrived.len()), "{} documents", arrived.len());
    arrived.dedup();
    assert_eq!(arrived, sent);
}

#[test]
fn slow_answers_are_waited_for_with_as_many_calls_as_configured() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.pause = Duration::from_millis(300));
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(folder.path(), "Concurrency: 8");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &path], &[]);
    let sent = documents(1_000);
    send(&daemon, &sent);
    settle(daemon, &endpoint, &sent);
    let open_count_max = endpoint.ledger(|ledger| ledger.open_count_max);
    assert!((2..=8).contains(&open_count_max), "{open_count_max} calls at a time");
}

#[test]
fn connections_are_used_again() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(30);
    for (index, part) in sent.chunks(10).enumerate() {
        send(&daemon, part);
        daemon.wait_for_metric("xray_segments_sent_total", 10 * (index as u64 + 1));
    }
    // The counts are read before the shutdown, because its telemetry opens one more connection.
    let (requests, connections) = (endpoint.request_count(), endpoint.connection_count());
    settle(daemon, &endpoint, &sent);
    assert!(requests >= 3 && connections == 1, "{requests} requests, {connections} connections");
}

#[test]
fn an_endpoint_that_comes_late_gets_everything() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(60);
    send(&daemon, &sent);
    daemon.wait_for_line("Sending segment batch failed with:");
    assert_eq!(daemon.metric("xray_segments_sent_total"), 0);
    endpoint.set_way(Way::Open);
    settle(daemon, &endpoint, &sent);
}

#[test]
fn unprocessed_documents_are_reported_by_trace_and_counted() {
    let answer = r#"{"UnprocessedTraceSegments":[
        {"Id":"0000000000000001","ErrorCode":"InvalidTraceId","Message":"no"},
        {"ErrorCode":"ParseError"}]}"#;
    let endpoint = Endpoint::scripted(move |_| Reply::Answer(answer.into()));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    send(&daemon, &documents(50));
    daemon.wait_for_metric("xray_segments_rejected_total{reason=\"unprocessed\"}", 2);
    daemon.wait_for_metric("xray_segments_sent_total", 48);
    let (_, log) = daemon.stop();
    assert!(log.contains("Sent batch of 50 segments but had 2 Unprocessed segments"), "{log}");
    assert!(log.contains("1-5759e988-000000000000000000000001"), "{log}");
    assert!(log.contains("InvalidTraceId: no"), "{log}");
    assert!(log.contains("sent=48 rejected=2 (unprocessed=2) dropped=0"), "{log}");
}

#[test]
fn a_refusal_that_no_document_is_to_blame_for_costs_no_segment() {
    let refusal = r#"{"__type":"InvalidRequestException","message":"not like this"}"#;
    let endpoint = Endpoint::scripted(move |index| match index {
        0..3 => Reply::Fail(Failure::body(400, refusal)),
        _ => Reply::Accept,
    });
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(50);
    send(&daemon, &sent);
    daemon.wait_for_line("InvalidRequestException: not like this");
    settle(daemon, &endpoint, &sent);
}

#[test]
fn a_service_that_comes_back_during_the_shutdown_gets_what_is_left() {
    let endpoint = Endpoint::failing(Failure::status(500));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = documents(500);
    send(&daemon, &sent);
    // The first calls run at the same time. After they have failed, the daemon makes one call at a
    // time.
    daemon.wait_for_metric_of_at_least("xray_requests_retried_total", 9);
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    endpoint.change(|rules| rules.failure = None);
    let (status, log) = daemon.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("received=500 replayed=0 sent=500 rejected=0 dropped=0"), "{log}");
    assert_eq!(endpoint.sorted_documents(), sent);
}

#[test]
fn credentials_that_no_header_can_hold_cost_no_segment_and_are_said() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[("AWS_ACCESS_KEY_ID", "AKID\nEXAMPLE")]);
    send(&daemon, &documents(1));
    daemon.wait_for_line("line break");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("received=1 replayed=0 sent=0 rejected=0 dropped=1 (shutdown=1)"),
        "{log}"
    );
}

#[test]
fn when_memory_is_full_the_oldest_give_way_and_the_newest_arrive() {
    let endpoint = Endpoint::failing(Failure::status(500));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "3"], &[]);
    let sent: Vec<String> = documents(5_000)
        .into_iter()
        .map(|document| document.replace("\"name\":\"n\"", &format!("\"name\":\"{:800}\"", "n")))
        .collect();
    send(&daemon, &sent[..4_900]);
    daemon.wait_for_line("Spilling over");
    daemon.wait_for_metric("xray_segments_received_total", 4_900);
    // The following segments fit into the memory that is free now, even if the sender evicts
    // nothing in time.
    daemon.wait_until("memory has room again", || {
        daemon.metric("xray_memory_used_bytes") <= memory_low_bytes(&daemon)
    });
    send(&daemon, &sent[4_900..]);
    daemon.wait_for_metric("xray_segments_received_total", 5_000);
    endpoint.change(|rules| rules.failure = None);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let arrived = endpoint.sorted_documents();
    let account = format!(
        "received=5000 replayed=0 sent={} rejected=0 dropped={} (memory={1}) spooled=0 held=0 kernel_drops=0",
        arrived.len(),
        5_000 - arrived.len()
    );
    assert!(log.contains(&account), "{account} is not in\n{log}");
    // Memory of 3 MB holds about 1,000 of these segments. The newest segments are the last ones of
    // `sent`.
    assert!(arrived.len() > 300, "{} arrived", arrived.len());
    let newest_count = arrived.iter().filter(|document| **document >= sent[4_900]).count();
    assert_eq!(newest_count, 100, "all of the newest 100 arrive\n{log}");
}
