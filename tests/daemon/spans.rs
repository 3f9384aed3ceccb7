//! The flow of spans behind the ports: merged and compressed requests, outages, the spool, and the
//! answers of the service.

use super::account::Account;
use super::answers::CallAnswer;
use super::client::{calls, page, start};
use super::endpoint::{Endpoint, Way};
use super::exporter::{PORTS, answer_spans, arrived, endpoint, export, port, spans};
use super::process::{Daemon, config_file};
use super::tls::Authority;
use std::collections::BTreeSet;
use std::path::Path;
use xrayd_otlp::grpc::Refusal;
use xrayd_otlp::{Encoding, answer};

/// The label of all metrics of spans.
const SPANS: &str = "{signal=\"spans\"}";

/// Sends `count` requests with one span each, and returns their names, sorted.
fn send(daemon: &Daemon, prefix: &str, count: usize) -> Vec<String> {
    let http = port(daemon, "HTTP");
    let names: Vec<String> = (0..count).map(|number| format!("{prefix} {number:03}")).collect();
    for name in &names {
        assert_eq!(export(http, &spans(name)).status, 200, "{}", daemon.log());
    }
    names
}

fn answer_with(endpoint: &Endpoint, status: u16, body: Vec<u8>) {
    let headers = vec![("content-type", "application/x-protobuf"), ("x-amzn-requestid", "1-2")];
    endpoint.change(|rules| rules.call_answer = CallAnswer { status, headers, body });
}

#[test]
fn requests_of_clients_are_merged_and_each_span_arrives_once_with_and_without_compression() {
    for (compression, coding) in [("gzip", Some("gzip")), ("none", None)] {
        let endpoint = endpoint();
        let ports = PORTS.replace("Otlp: {", &format!("Otlp: {{Compression: {compression}, "));
        let daemon = start(&endpoint, &ports);
        let names = send(&daemon, "span", 60);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        assert_eq!(arrived(&endpoint), names, "{log}");
        let calls = calls(&endpoint);
        assert!(calls.len() < 60, "{} calls\n{log}", calls.len());
        for call in &calls {
            let header = |name| call.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("content-encoding"), coding);
            assert_eq!(header("content-type"), Some("application/x-protobuf"));
            assert!(header("authorization").unwrap().contains("/xray/aws4_request"));
        }
        assert!(log.contains("Account of spans: received=60 replayed=0 sent=60 "), "{log}");
    }
}

#[test]
fn spans_take_http1_where_the_server_offers_http2_too() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2", b"http/1.1"]));
    answer_spans(&endpoint, 200);
    let config = config_file(folder.path(), PORTS);
    let bundle = [("AWS_CA_BUNDLE", authority.path.to_str().unwrap())];
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &bundle);
    let names = send(&daemon, "span", 3);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(arrived(&endpoint), names, "{log}");
    // A request over HTTP/2 has the pseudo-header `:authority` instead.
    assert!(calls(&endpoint).iter().all(|call| call.headers.contains_key("host")), "{log}");
}

#[test]
fn spans_of_an_outage_go_to_the_spool_and_the_next_daemon_sends_them_once() {
    let endpoint = endpoint();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let keys = format!("{PORTS}ShutdownSeconds: 2\nSpool: {{Path: {}}}\n", path.display());
    let daemon = start(&endpoint, &keys);
    let names = send(&daemon, "span", 20);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("Account of spans: received=20 replayed=0 sent=0 "), "{log}");
    assert!(log.contains(" spooled=20 held=0"), "{log}");
    assert!(path.join("otlp/0000000001.spans").exists(), "{log}");
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, &keys);
    daemon.wait_until("all spans arrive", || arrived(&endpoint).len() >= 20);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(arrived(&endpoint), names, "{log}");
    assert!(log.contains("Account of spans: received=0 replayed=20 sent=20 "), "{log}");
}

#[test]
fn throttled_spans_are_sent_again_and_a_partial_success_is_not() {
    let endpoint = endpoint();
    let no = answer::refused(Encoding::Protobuf, &Refusal::new(8, "slow down"));
    answer_with(&endpoint, 429, no.to_vec());
    let daemon = start(&endpoint, PORTS);
    send(&daemon, "throttled", 3);
    daemon.wait_until("a request is throttled", || !calls(&endpoint).is_empty());
    answer_with(&endpoint, 200, answer::accepted(Encoding::Protobuf, 2, "too old").to_vec());
    let text =
        "The service has rejected 2 of 3 spans of a request, and has taken the others: too old";
    daemon.wait_for_line(text);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = "Account of spans: received=3 replayed=0 sent=1 rejected=2 (unprocessed=2) ";
    assert!(log.contains(account), "{log}");
}

#[test]
fn while_transaction_search_is_off_spans_are_kept_and_ready_says_so() {
    let endpoint = endpoint();
    let off = "The OTLP API is supported with CloudWatch Logs as a Trace Segment Destination.";
    answer_with(
        &endpoint,
        400,
        answer::refused(Encoding::Protobuf, &Refusal::new(3, off)).to_vec(),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let keys = format!("{PORTS}ShutdownSeconds: 1\nSpool: {{Path: {}}}\n", path.display());
    let daemon = start(&endpoint, &keys);
    send(&daemon, "kept", 2);
    daemon.wait_until("the condition is shown", || {
        let (status, body) = page(&daemon, "/ready");
        let reasons = body["reasons"].as_array().cloned().unwrap_or_default();
        let is_it = |reason: &serde_json::Value| {
            reason["code"] == "transaction_search_off" && reason["signal"] == "spans"
        };
        status == 503 && reasons.iter().any(is_it)
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains(" spooled=2 held=0"), "{log}");
}

#[test]
fn spans_for_put_trace_segments_arrive_as_documents() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, &PORTS.replace("Otlp: {", "Otlp: {To: segments, "));
    send(&daemon, "span", 3);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let documents = endpoint.sorted_documents();
    assert_eq!(documents.len(), 3, "{documents:?}\n{log}");
    assert!(documents.iter().all(|document| document.starts_with("T1S")), "{documents:?}");
    assert!(log.contains("This is experimental"), "{log}");
    assert!(log.contains("Account of spans: received=3 replayed=0 sent=3 "), "{log}");
}

/// A daemon with 6 MB of memory, of which spans have half, and a spool.
fn start_with_spool(endpoint: &Endpoint, folder: &Path) -> Daemon {
    let path = folder.join("spool");
    let keys = format!(
        "{PORTS}TotalBufferSizeMB: 6\nShutdownSeconds: 2\nSpool: {{Path: {}}}\n",
        path.display()
    );
    start(endpoint, &keys)
}

/// Returns the value of a counter of spans.
fn count(daemon: &Daemon, name: &str) -> u64 {
    daemon.metric(&format!("xray_otlp_spans_{name}_total{SPANS}"))
}

/// Sends large spans until a daemon has put at least this many spans into its spool. Returns the
/// accepted names.
fn fill(daemon: &Daemon, prefix: &str, spooled_count: u64) -> BTreeSet<String> {
    let (http, mut accepted) = (port(daemon, "HTTP"), BTreeSet::new());
    let mut numbers = 0..;
    daemon.wait_until("spans are in the spool", || {
        let number: usize = numbers.next().unwrap();
        let name = format!("{prefix} {number:04} {}", "n".repeat(100_000));
        if export(http, &spans(&name)).status == 200 {
            accepted.insert(name);
        }
        count(daemon, "spooled") >= spooled_count
    });
    accepted
}

#[test]
fn spans_in_the_spool_of_a_killed_daemon_and_all_of_one_that_ends_arrive_later_and_once() {
    let endpoint = endpoint();
    endpoint.set_way(Way::Down);
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_with_spool(&endpoint, folder.path());
    let before_kill = fill(&daemon, "killed", 30);
    // A record that was replayed, in order to probe the service, stays in the spool until it is
    // sent. It may have been spooled twice.
    let spooled_count = count(&daemon, "spooled");
    let kept_count = usize::try_from(spooled_count - count(&daemon, "replayed")).unwrap();
    assert!(kept_count > 0, "{spooled_count}\n{}", daemon.log());
    let killed_log = daemon.kill();
    // The outage goes on. This daemon has what the killed one left, and spans of its own.
    let daemon = start_with_spool(&endpoint, folder.path());
    let before_end = fill(&daemon, "ended", 10);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains(" dropped=0 ") && log.contains(" held=0"), "{log}");
    endpoint.set_way(Way::Open);
    let daemon = start_with_spool(&endpoint, folder.path());
    daemon.wait_until("the spool is empty", || {
        arrived(&endpoint).len() >= kept_count + before_end.len()
            && daemon.metric(&format!("xray_otlp_spool_size_bytes{SPANS}")) == 0
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let names = arrived(&endpoint);
    let found: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(found.len(), names.len(), "a span arrived twice\n{log}");
    assert!(before_end.is_subset(&found), "spans of the daemon that ended are missing\n{log}");
    let of_killed = found.difference(&before_end).count();
    assert!(found.is_subset(&(&before_kill | &before_end)), "spans that nobody sent\n{log}");
    assert!(of_killed >= kept_count, "{of_killed} of {kept_count}\n{killed_log}\n{log}");
    let account = Account::of_spans(&log).unwrap();
    let counts = ["received", "replayed", "sent"].map(|term| account.get(term));
    assert_eq!((counts, account.imbalance()), ([0, names.len() as u64, names.len() as u64], 0));
}

#[test]
fn both_spools_are_open_at_once_and_each_says_it_if_it_cannot_be_used() {
    let endpoint = endpoint();
    let folder = tempfile::tempdir().unwrap();
    let daemon = start_with_spool(&endpoint, folder.path());
    let path = folder.path().join("spool");
    let line = |path: &Path, text: &str| format!("The spool {} {text}", path.display());
    // The threads of the spools create the same folder.
    for path in [&path, &path.join("otlp")] {
        daemon.wait_for_line(&line(path, "is open"));
    }
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("cannot be used"), "{log}");
    let missing = folder.path().join("missing");
    let daemon = start_with_spool(&endpoint, &missing);
    for path in [missing.join("spool"), missing.join("spool/otlp")] {
        daemon.wait_for_line(&line(&path, "cannot be used: "));
    }
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
