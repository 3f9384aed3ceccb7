//! If the service refuses one document of a request, only this document is lost. The other
//! documents of the request arrive.

use super::account::Account;
use super::answers::{Failure, Verdict};
use super::delivery::{Delivery, settle_once, wait_until_received};
use super::endpoint::Endpoint;
use super::load::{Sent, document, document_of, send, trace_id};
use super::process::Daemon;
use std::time::Duration;

const REFUSED: &str = "xray_segments_rejected_total{reason=\"refused\"}";

/// Stops a daemon and asserts that it lost exactly the documents that contain `mark`.
fn loses_only(mark: &str, daemon: Daemon, endpoint: &Endpoint, sent: &[Sent]) -> String {
    let (lost, kept): (Vec<&Sent>, Vec<&Sent>) =
        sent.iter().partition(|sent| sent.document.contains(mark));
    wait_until_received(&daemon, sent);
    daemon.wait_for_metric("xray_segments_sent_total", kept.len() as u64);
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    let (rejected, dropped) = (account.get("rejected"), account.get("dropped"));
    assert_eq!((rejected, dropped), (lost.len() as u64, 0), "{log}");
    let delivery = Delivery::of(endpoint, sent).has_none_twice(&log).misses(lost.len(), &log);
    let lost: Vec<&String> = lost.iter().map(|sent| &sent.document).collect();
    assert_eq!(delivery.missing.iter().collect::<Vec<_>>(), lost, "{log}");
    log
}

#[test]
fn a_poison_document_in_each_batch_is_lost_alone_and_said_with_its_trace() {
    const BATCH_COUNT: usize = 100;
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    // One document in 50 is poison, so a batch of up to 50 consecutive documents has at most one.
    let shape =
        |index: usize| document_of(index / 50, index, if index % 50 == 25 { "poison" } else { "" });
    let sent = send(daemon.udp, (0..50 * BATCH_COUNT).map(shape));
    daemon.wait_for_metric(REFUSED, BATCH_COUNT as u64);
    let log = loses_only("poison", daemon, &endpoint, &sent);
    let refusals = log.lines().filter(|line| line.contains("InvalidRequestException"));
    let named = |line: &&str| (0..BATCH_COUNT).any(|trace| line.contains(&trace_id(trace)));
    assert!(refusals.filter(named).count() > 0, "{log}");
    // A batch needs one request for the whole, and two requests (the halves) in each of at most
    // seven rounds. That is 15; the limit of 21 leaves room.
    let request_count = endpoint.request_count();
    assert!(request_count <= 3 * BATCH_COUNT * 7, "{request_count} requests\n{log}");
}

#[test]
fn a_poison_document_that_comes_alone_is_kept_until_the_service_takes_another_one() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let mut sent = send(daemon.udp, [document_of(1, 1, "poison")]);
    // The daemon keeps the document, because it cannot know yet whether the service refuses every
    // document.
    daemon.wait_until("the document was refused twice", || endpoint.request_count() >= 2);
    assert_eq!(daemon.metric(REFUSED), 0, "{}", daemon.log());
    sent.extend(send(daemon.udp, [document(2)]));
    daemon.wait_for_metric(REFUSED, 1);
    sent.extend(send(daemon.udp, [document(3)]));
    let log = loses_only("poison", daemon, &endpoint, &sent);
    assert!(log.contains(&trace_id(1)), "{log}");
}

#[test]
fn when_every_request_is_refused_no_document_is_at_fault_and_all_arrive_later() {
    let endpoint = Endpoint::start();
    let refusal = Failure::code(400, "InvalidRequestException");
    endpoint.change(|rules| rules.failure = Some(refusal));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let sent = send(daemon.udp, (0..500).map(document));
    wait_until_received(&daemon, &sent);
    // The service refuses every request.
    daemon.wait_until("the service has refused", || endpoint.request_count() >= 20);
    assert_eq!(daemon.metric(REFUSED), 0, "{}", daemon.log());
    // The daemon halves ten batches, with growing pauses between the calls. Without pauses 20 calls
    // would take some ten milliseconds.
    let time = endpoint.ledger(|ledger| ledger.requests[19].0 - ledger.requests[0].0);
    assert!(time > Duration::from_millis(100), "{time:?}\n{}", daemon.log());
    endpoint.change(|rules| rules.failure = None);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("InvalidRequestException"), "{log}");
}

#[test]
fn a_body_that_is_too_large_is_halved_until_it_is_not_and_all_arrive() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.body_bytes_max = Some(20_000));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let shape = |index| document_of(index, index, &"x".repeat(900));
    let sent = send(daemon.udp, (0..500).map(shape));
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let too_large = |ledger: &super::answers::Ledger| {
        ledger.requests.iter().any(|(_, verdict)| *verdict == Verdict::Failed(413))
    };
    assert!(endpoint.ledger(too_large), "{log}");
}

#[test]
fn a_document_that_is_too_large_by_itself_is_lost_alone() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.body_bytes_max = Some(20_000));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    // One document in ten is large, so that each request also has small documents.
    let shape = |index| {
        document_of(index, index, &if index % 10 == 5 { "long".repeat(7_000) } else { "x".into() })
    };
    let sent = send(daemon.udp, (0..50).map(shape));
    let log = loses_only("longlong", daemon, &endpoint, &sent);
    assert!((0..5).any(|index| log.contains(&trace_id(10 * index + 5))), "{log}");
    assert!(log.lines().all(|line| line.len() < 2_000), "a line holds a document");
}

#[test]
fn documents_unprocessed_for_a_passing_reason_go_again_and_no_others_do() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let shape = |index: usize| {
        let text = if index.is_multiple_of(5) { "unprocessed:throttled" } else { "" };
        document_of(index, index, text)
    };
    let sent = send(daemon.udp, (0..500).map(shape));
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn documents_unprocessed_for_good_are_said_by_trace_and_counted_and_their_text_is_not_shown() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let shape = |index: usize| {
        let text = if index == 77 { "unprocessed:invalid private" } else { "" };
        document_of(index, index, text)
    };
    let sent = send(daemon.udp, (0..200).map(shape));
    daemon.wait_for_metric("xray_segments_rejected_total{reason=\"unprocessed\"}", 1);
    let log = loses_only("unprocessed:invalid", daemon, &endpoint, &sent);
    let line = log.lines().find(|line| line.contains("Unprocessed trace ID, ")).unwrap();
    assert!(line.contains(&trace_id(77)), "{line}");
    assert!(line.contains("InvalidTraceId: of the test"), "{line}");
    assert!(!log.contains("private"), "{log}");
}
