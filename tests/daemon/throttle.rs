//! The daemon sends at the rate that a throttling service allows, and no segment is lost.

use super::answers::{Bucket, Failure, Verdict};
use super::delivery::{settle_once, wait_until_received};
use super::endpoint::Endpoint;
use super::load::{Load, document, send};
use super::process::Daemon;
use std::time::{Duration, Instant};

/// The rate that the service allows, in documents a second.
const ALLOWED: u32 = 500;

/// The metric of the daemon's rate limit, in documents a second.
const RATE_LIMIT: &str = "xray_upload_rate_limit";

/// The rate limit settles during the first `SETTLING` calls. The next `MEASURED` calls are
/// measured.
const SETTLING: usize = 60;
const MEASURED: usize = 120;

#[test]
fn the_rate_settles_at_what_the_service_allows_and_recovers_after_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.bucket = Some(Bucket::new(ALLOWED, ALLOWED)));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start(daemon.udp, 3 * ALLOWED, document);
    daemon.wait_until("the rate has settled", || endpoint.request_count() >= SETTLING);
    let mut rates = Vec::new();
    daemon.wait_until("many calls are answered", || {
        rates.push(daemon.metric(RATE_LIMIT));
        endpoint.request_count() >= SETTLING + MEASURED
    });
    let sent = load.stop();
    let throttled_count = endpoint.ledger(|ledger| {
        let measured = ledger.requests[SETTLING..SETTLING + MEASURED].iter();
        measured.filter(|(_, verdict)| *verdict == Verdict::Throttled).count()
    });
    let log = daemon.log();
    // The daemon aims at a share of at most 10 % throttled calls.
    let share = throttled_count * 100 / MEASURED;
    assert!(share < 15, "{throttled_count} of {MEASURED} calls were throttled\n{log}");
    let rate = rates.iter().sum::<u64>() / rates.len() as u64;
    assert!(rate >= u64::from(ALLOWED) * 3 / 4, "{rate} documents a second at most\n{log}");

    wait_until_received(&daemon, &sent);
    endpoint.change(|rules| rules.bucket = None);
    daemon.wait_for_metric_of_at_least(RATE_LIMIT, u64::from(ALLOWED) * 5 / 4);
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn throttled_documents_arrive_once() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.bucket = Some(Bucket::new(300, 100)));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let sent = send(daemon.udp, (0..1_200).map(document));
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let was_throttled = |ledger: &super::answers::Ledger| {
        ledger.requests.iter().any(|(_, verdict)| *verdict == Verdict::Throttled)
    };
    assert!(endpoint.ledger(was_throttled), "{log}");
}

#[test]
fn the_pause_that_the_service_asks_for_is_kept() {
    let endpoint = Endpoint::start();
    let throttled = Failure::code(429, "ThrottledException").with("retry-after", 2);
    endpoint.change(|rules| rules.failure = Some(throttled));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    // With one document the daemon makes one call at a time.
    let sent = send(daemon.udp, [document(0)]);
    daemon.wait_until("a call was throttled", || endpoint.request_count() > 0);
    endpoint.change(|rules| rules.failure = None);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let at: Vec<Instant> = endpoint.ledger(|l| l.requests.iter().map(|(at, _)| *at).collect());
    let pause = at[1] - at[0];
    assert!(pause >= Duration::from_secs(2), "{pause:?}\n{log}");
}
