//! The daemon sends at the rate that a throttling service allows, and no segment is lost.

use super::answers::{Bucket, Failure, Verdict};
use super::delivery::settle_once;
use super::endpoint::Endpoint;
use super::load::{Load, document, send};
use super::process::Daemon;
use std::time::{Duration, Instant};

/// The rate that the service allows, in documents a second.
const ALLOWED: u32 = 500;

/// The metric of the daemon's rate limit, in documents a second.
const RATE_LIMIT: &str = "xray_upload_rate_limit";

/// The rate has to settle within this number of windows.
const WINDOWS_MAX: usize = 8;

/// The calls of a window in which the daemon's rate and the share of throttled calls are measured.
const WINDOW: usize = 120;

/// A window of [`WINDOW`] calls.
#[derive(Debug)]
struct Window {
    throttled_count: usize,
    /// The mean of the rate limit.
    rate: u64,
}

impl Window {
    /// Whether the rate is what the service allows. The daemon aims at a share of at most 10 %
    /// throttled calls.
    fn is_settled(&self) -> bool {
        self.throttled_count * 100 / WINDOW < 15 && self.rate >= u64::from(ALLOWED) * 3 / 4
    }
}

/// Measures the next calls.
fn measure(daemon: &Daemon, endpoint: &Endpoint) -> Window {
    let start = endpoint.request_count();
    let mut rates = Vec::new();
    daemon.wait_for_count("calls", (start + WINDOW) as u64, || {
        rates.push(daemon.metric(RATE_LIMIT));
        endpoint.request_count() as u64
    });
    let throttled_count = endpoint.ledger(|ledger| {
        let measured = ledger.requests[start..start + WINDOW].iter();
        measured.filter(|(_, verdict)| *verdict == Verdict::Throttled).count()
    });
    Window { throttled_count, rate: rates.iter().sum::<u64>() / rates.len() as u64 }
}

#[test]
fn the_rate_settles_at_what_the_service_allows_and_recovers_after_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.bucket = Some(Bucket::new(ALLOWED, ALLOWED)));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "64"], &[]);
    let load = Load::start(daemon.udp, 3 * ALLOWED, document);
    // The rate settles during the first calls. On a busy machine the daemon may stand still for a
    // while, is throttled more often after it, and settles again.
    let mut windows = Vec::new();
    while !windows.last().is_some_and(Window::is_settled) {
        windows.push(measure(&daemon, &endpoint));
        assert!(windows.len() < WINDOWS_MAX, "{windows:?}\n{}", daemon.log());
    }
    // The limit rises with each call, so the load must go on.
    endpoint.change(|rules| rules.bucket = None);
    daemon.wait_for_metric_of_at_least(RATE_LIMIT, u64::from(ALLOWED) * 5 / 4);
    let sent = load.stop();
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
