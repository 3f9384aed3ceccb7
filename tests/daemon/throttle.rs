//! A service that allows only so much gets that much, and nothing is lost over it.

use super::answers::{Bucket, Failure, Verdict};
use super::delivery::{settle_once, wait_until_received};
use super::endpoint::Endpoint;
use super::load::{Load, document, send};
use super::process::Daemon;
use std::thread;
use std::time::{Duration, Instant};

/// Documents a second that the service allows.
const ALLOWED: u32 = 500;

#[test]
fn the_rate_settles_at_what_the_service_allows_and_recovers_after_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.bucket = Some(Bucket::new(ALLOWED, ALLOWED)));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start(daemon.udp, 4 * ALLOWED, document);
    thread::sleep(Duration::from_secs(5));
    let settled_at = Instant::now();
    thread::sleep(Duration::from_secs(10));
    let sent = load.stop();
    // What has not been sent yet keeps the service busy for long after the load.
    thread::sleep(Duration::from_secs(5));
    let seconds = settled_at.elapsed().as_secs_f64();
    let verdicts = endpoint.ledger(|ledger| ledger.since(settled_at));
    let throttled_count = verdicts.iter().filter(|v| **v == Verdict::Throttled).count();
    let accepted = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Accepted(count) => u32::try_from(*count).ok(),
        _ => None,
    });
    let accepted_per_second = f64::from(accepted.sum::<u32>()) / seconds;
    let log = daemon.log();
    // Aimed at is a tenth.
    let share = throttled_count * 100 / verdicts.len();
    assert!(share < 15, "{throttled_count} of {} calls were throttled\n{log}", verdicts.len());
    let least = 0.8 * f64::from(ALLOWED);
    assert!(accepted_per_second >= least, "{accepted_per_second:.0} documents a second\n{log}");

    wait_until_received(&daemon, &sent);
    endpoint.change(|rules| rules.bucket = None);
    // At the rate allowed before, the rest would take longer than this waits.
    assert!(sent.len() - endpoint.arrived_count() > 30 * ALLOWED as usize, "{log}");
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
    // One document, and so one call at a time.
    let sent = send(daemon.udp, [document(0)]);
    daemon.wait_until("a call was throttled", || endpoint.request_count() > 0);
    endpoint.change(|rules| rules.failure = None);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let at: Vec<Instant> = endpoint.ledger(|l| l.requests.iter().map(|(at, _)| *at).collect());
    let pause = at[1] - at[0];
    let asked_for = Duration::from_secs(2);
    assert!(pause >= asked_for && pause < 2 * asked_for, "{pause:?}\n{log}");
}
