//! An outage of the service costs nothing that memory holds, and ends with it.

use super::account::Account;
use super::delivery::{Delivery, settle_once};
use super::endpoint::{Endpoint, Way};
use super::load::{Load, Sent, document, large_document};
use super::process::Daemon;
use std::thread;
use std::time::{Duration, Instant};

/// Within which everything that has waited must have arrived once the service is back.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// How long a segment may take that was sent once the daemon knows that the service is back.
/// Aimed at are two seconds; a machine that is busy with other tests gets more.
const FRESH_DELAY_MAX: Duration = Duration::from_secs(5);

/// Until the service has taken something again.
fn wait_for_recovery(daemon: &Daemon, endpoint: &Endpoint, back_at: Instant) -> Instant {
    let first = || endpoint.ledger(|ledger| ledger.first_accepted_after(back_at));
    daemon.wait_until("something arrives after the outage", || first().is_some());
    first().unwrap()
}

fn outage_costs_nothing(length: Duration) {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start(daemon.udp, 1_000, document);
    daemon.wait_until("the service takes segments", || endpoint.arrived_count() > 500);
    endpoint.set_way(Way::Down);
    thread::sleep(length);
    let back_at = Instant::now();
    endpoint.set_way(Way::Open);
    let recovered_at = wait_for_recovery(&daemon, &endpoint, back_at);
    // Fresh segments for a while.
    thread::sleep(Duration::from_secs(4));
    let sent = load.stop();
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("Sending segment batch failed with:"), "{log}");
    assert!(!log.contains("Spilling over"), "{log}");

    let (old, fresh): (Vec<Sent>, Vec<Sent>) =
        sent.into_iter().partition(|sent| sent.at < recovered_at);
    assert!(old.len() > 700 && fresh.len() > 1_000, "{} and {}", old.len(), fresh.len());
    let last_at = endpoint
        .ledger(|ledger| old.iter().map(|sent| ledger.arrivals[&sent.document].at).max().unwrap());
    let recovery = last_at.saturating_duration_since(back_at);
    assert!(recovery < RECOVERY_MAX, "{recovery:?}\n{log}");
    let delay = endpoint.ledger(|ledger| ledger.delay_max(&fresh));
    assert!(delay < FRESH_DELAY_MAX, "{delay:?}\n{log}");
}

#[test]
fn a_short_outage_costs_nothing_and_fresh_segments_are_soon_on_time_again() {
    outage_costs_nothing(Duration::from_secs(3));
}

#[test]
fn an_outage_of_half_a_minute_costs_nothing_and_fresh_segments_are_soon_on_time_again() {
    outage_costs_nothing(Duration::from_secs(30));
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
    let sent = load.stop();
    daemon.wait_until("nothing waits any more", || {
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
    // What fits is kept, the newest ones; a third of the memory is for what is on its way.
    let kept_count = sent.len() - dropped_count;
    assert!(kept_count >= fits_count / 3, "{kept_count}, {fits_count} fit\n{log}");
    let newest = &sent[sent.len() - fits_count / 4..];
    let arrived = |sent: &&Sent| endpoint.ledger(|l| l.arrivals.contains_key(&sent.document));
    // On a busy machine the upload thread may come too late now and then; then a ring gives way.
    let arrived_count = newest.iter().filter(arrived).count();
    assert!(arrived_count >= newest.len() / 2, "{arrived_count} of {}\n{log}", newest.len());
}
