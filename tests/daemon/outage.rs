//! During an outage of the service, segments that fit into memory are not lost. After the outage,
//! deliveries resume.

use super::account::Account;
use super::delivery::{Delivery, settle_once};
use super::endpoint::{Endpoint, Way};
use super::load::{Load, Sent, document, document_of, large_document, send};
use super::pacing::memory_low_bytes;
use super::process::Daemon;
use std::time::Instant;

const RETRIED: &str = "xray_requests_retried_total";

/// Waits until the service has accepted a document after `back_at`.
fn wait_for_recovery(daemon: &Daemon, endpoint: &Endpoint, back_at: Instant) {
    daemon.wait_until("something arrives after the outage", || {
        endpoint.ledger(|ledger| ledger.first_accepted_after(back_at).is_some())
    });
}

/// Runs an outage until this many calls have failed, with growing pauses between them. Asserts that
/// no segment is lost.
fn outage_costs_nothing(failed_count: u64) {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start(daemon.udp, 1_000, document);
    daemon.wait_for_arrivals(&endpoint, 500);
    let before_count = daemon.metric(RETRIED);
    endpoint.set_way(Way::Down);
    daemon.wait_for_metric_of_at_least(RETRIED, before_count + failed_count);
    let back_at = Instant::now();
    endpoint.set_way(Way::Open);
    wait_for_recovery(&daemon, &endpoint, back_at);
    // A segment that is sent from now on arrives while the load continues.
    let fresh = document(load.sent_count() + 1);
    daemon.wait_until("a fresh segment arrives", || {
        endpoint.ledger(|ledger| ledger.arrivals.contains_key(&fresh))
    });
    let sent = load.stop();
    assert!(sent.iter().any(|sent| sent.document == fresh && sent.at > back_at));
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("Sending segment batch failed with:"), "{log}");
    assert!(!log.contains("Spilling over"), "{log}");
}

#[test]
fn a_short_outage_costs_nothing_and_fresh_segments_arrive_after_it() {
    outage_costs_nothing(10);
}

#[test]
fn an_outage_until_the_longest_pause_costs_nothing_and_fresh_segments_arrive_after_it() {
    outage_costs_nothing(17);
}

#[test]
fn with_little_memory_an_outage_costs_the_oldest_and_each_of_them_is_counted() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = Daemon::start(&endpoint.url(), &["-m", "5"], &[]);
    let memory_bytes = usize::try_from(daemon.metric("xray_memory_limit_bytes")).unwrap();
    let fits_count = memory_bytes / large_document(0).len();
    let load = Load::start(daemon.udp, 1_000, large_document);
    daemon.wait_for_line("Spilling over");
    daemon.wait_for_metric_of_at_least("xray_segments_dropped_total{reason=\"memory\"}", 1_000);
    let back_at = Instant::now();
    endpoint.set_way(Way::Open);
    wait_for_recovery(&daemon, &endpoint, back_at);
    let mut sent = load.stop();
    daemon.wait_until("memory has room again", || {
        daemon.metric("xray_memory_used_bytes") < memory_low_bytes(&daemon)
    });
    let fresh = |index| document_of(index, 1_000_000 + index, &"x".repeat(900));
    let newest = send(daemon.udp, (0..100).map(fresh));
    sent.extend(newest.iter().cloned());
    daemon.wait_until("no segment waits", || {
        let account = daemon.account();
        let settled_count = account.get("sent") + account.get("dropped");
        account.get("received") == sent.len() as u64 && settled_count >= sent.len() as u64
    });
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!(account.get("dropped"), account.reason("dropped", "memory"), "{log}");
    assert_eq!(account.get("sent") + account.get("dropped"), sent.len() as u64, "{log}");
    let dropped_count = usize::try_from(account.get("dropped")).unwrap();
    Delivery::of(&endpoint, &sent).misses(dropped_count, &log).has_none_twice(&log);
    // The daemon keeps the segments that fit. A third of the memory is reserved for calls in
    // flight.
    let kept_count = sent.len() - dropped_count;
    assert!(kept_count >= fits_count / 3, "{kept_count}, {fits_count} fit\n{log}");
    let arrived = |sent: &&Sent| endpoint.ledger(|l| l.arrivals.contains_key(&sent.document));
    assert_eq!(newest.iter().filter(arrived).count(), newest.len(), "{log}");
}
