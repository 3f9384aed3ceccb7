//! Segments come faster than they are sent, although calls are answered: receivers leave their
//! sockets alone, so that the kernel drops what has no room. In an outage the oldest are dropped.

use super::account::Account;
use super::answers::Failure;
use super::backend::is_backend_missing;
use super::client::page;
use super::endpoint::Endpoint;
use super::load::{large_document, send};
use super::process::{Daemon, HEADER, config_file};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const SHED_SECONDS: &str = "xray_receiver_shed_seconds_total{receiver=\"0\"}";
const RECEIVED: &str = "xray_segments_received_total";

/// Returns for how many milliseconds the receiver has left its socket alone.
fn shed_ms(daemon: &Daemon) -> u64 {
    let page = daemon.get("/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(SHED_SECONDS));
    let seconds: f64 = value.unwrap().trim().parse().unwrap();
    Duration::from_secs_f64(seconds).as_millis().try_into().unwrap()
}

/// A thread that sends documents of 1 kB, without regard for the daemon.
struct Flood {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Flood {
    fn start(address: SocketAddr) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let until = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let datagram = format!("{HEADER}{{\"n\":\"{}\"}}", "x".repeat(950));
            let mut count = 0;
            while !until.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    socket.send_to(datagram.as_bytes(), address).unwrap();
                }
                count += 50;
                thread::sleep(Duration::from_millis(2));
            }
            count
        });
        Self { is_over, thread }
    }

    /// Ends the thread. Returns how many documents it has sent.
    fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Starts an endpoint that answers late, and a daemon that makes one call at a time, with this many
/// megabytes of memory.
fn start(memory: &str) -> (Endpoint, Daemon) {
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.pause = Duration::from_millis(200));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(
        folder.path(),
        "Concurrency: 1\nShutdownSeconds: 100\nReceive: {Receivers: 1}\nLogging: {LogLevel: debug}",
    );
    let daemon = Daemon::start(&endpoint.url(), &["-m", memory, "-c", &config], &[]);
    (endpoint, daemon)
}

/// Floods a daemon until its receiver leaves its socket alone and the kernel drops.
fn flood_until_shed(daemon: &Daemon) -> Flood {
    let flood = Flood::start(daemon.udp);
    daemon.wait_for_line("Receivers leave their sockets alone until half of the memory");
    daemon.wait_for_line("leaves its full queue of");
    flood
}

/// Asserts that each of `sent_count` datagrams is in the account, and what was not dropped is sent.
fn check(account: &Account, sent_count: u64, log: &str) {
    let came_count = account.get("received") + account.get("kernel_drops");
    assert_eq!(came_count, sent_count, "{account}\n{log}");
    let lost_count = account.reason("dropped", "memory");
    assert_eq!(account.get("sent") + lost_count, account.get("received"), "{account}\n{log}");
}

#[test]
fn an_overload_while_calls_are_answered_is_left_to_the_kernel_and_receivers_go_on_afterwards() {
    if is_backend_missing() {
        return;
    }
    let (endpoint, daemon) = start("3");
    let flood = flood_until_shed(&daemon);
    daemon.wait_until("memory is told to be full", || {
        let (status, body) = page(&daemon, "/ready");
        status == 503 && body.to_string().contains("memory_full")
    });
    let mut sent_count = flood.end();
    // Datagrams may wait in the queue, and the receiver may leave them there for seconds.
    assert_eq!(page(&daemon, "/health").0, 200, "{}", daemon.log());
    endpoint.change(|rules| rules.pause = Duration::ZERO);
    // The queue may still be full when the first copies are sent.
    let last = large_document(7);
    daemon.wait_until("a fresh segment arrives", || {
        sent_count += 1;
        send(daemon.udp, [last.clone()]);
        endpoint.ledger(|ledger| ledger.arrivals.contains_key(&last))
    });
    daemon.wait_until("memory is free", || page(&daemon, "/ready").0 == 200);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("The processor time, or Concurrency, is too little"), "{log}");
    check(&Account::of_log(&log).unwrap(), sent_count, &log);
}

#[test]
fn a_shutdown_while_receivers_leave_their_sockets_alone_loses_nothing_that_was_accepted() {
    if is_backend_missing() {
        return;
    }
    // Half of this memory has room for the kernel's queue.
    let (endpoint, daemon) = start("8");
    let sent_count = flood_until_shed(&daemon).end();
    let dropped_count = daemon.account().get("dropped");
    endpoint.change(|rules| rules.pause = Duration::from_millis(20));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    check(&account, sent_count, &log);
    assert_eq!(account.get("dropped"), dropped_count, "{account}\n{log}");
}

#[test]
fn an_outage_ends_it_and_costs_the_oldest() {
    if is_backend_missing() {
        return;
    }
    let (endpoint, daemon) = start("3");
    let flood = flood_until_shed(&daemon);
    endpoint.change(|rules| {
        rules.failure = Some(Failure::status(503));
        rules.pause = Duration::ZERO;
    });
    daemon.wait_for_line("Sending segment batch failed with:");
    let sent_count = flood.end();
    // More than memory holds, no faster than the receiver takes it.
    let documents: Vec<String> = (0..4_000).map(large_document).collect();
    let received_count = daemon.metric(RECEIVED);
    send(daemon.udp, documents.iter().cloned());
    daemon.wait_for_metric_of_at_least(RECEIVED, received_count + documents.len() as u64);
    let before_ms = shed_ms(&daemon);
    send(daemon.udp, [large_document(4_000)]);
    daemon.wait_for_metric_of_at_least(RECEIVED, received_count + documents.len() as u64 + 1);
    assert_eq!(shed_ms(&daemon), before_ms);
    endpoint.change(|rules| rules.failure = None);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let all_count = sent_count + documents.len() as u64 + 1;
    check(&Account::of_log(&log).unwrap(), all_count, &log);
    let has = |index| {
        let document = large_document(index);
        endpoint.ledger(|ledger| ledger.arrivals.contains_key(&document))
    };
    assert!(has(4_000) && !has(0), "{log}");
}
