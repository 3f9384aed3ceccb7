//! Bad datagrams are counted and logged, and no good segment is lost because of them.

use super::backend::is_backend_missing;
use super::endpoint::Endpoint;
use super::process::{Daemon, HEADER};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn daemon(arguments: &[&str]) -> (Endpoint, Daemon) {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), arguments, &[]);
    (endpoint, daemon)
}

/// Sends `datagram` and then a good datagram. Returns the log, and the documents that arrived
/// except that of the good datagram.
fn arrives(datagram: &[u8], metric: &str) -> (Vec<String>, String) {
    let (endpoint, daemon) = daemon(&["-l", "debug"]);
    daemon.send([datagram, format!("{HEADER}\"good\"").as_bytes()]);
    daemon.wait_for_metric(metric, 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let mut documents = endpoint.sorted_documents();
    let good = documents.iter().position(|document| document == "\"good\"");
    documents.remove(good.unwrap_or_else(|| panic!("the good one is lost:\n{log}")));
    (documents, log)
}

fn with_header(document: &[u8]) -> Vec<u8> {
    [HEADER.as_bytes(), document].concat()
}

#[test]
fn a_bad_header_is_rejected() {
    if is_backend_missing() {
        return;
    }
    let metric = "xray_segments_rejected_total{reason=\"header\"}";
    let (documents, log) = arrives(b"{\"format\":\"xml\",\"version\":1}\n{}", metric);
    assert!(documents.is_empty());
    assert!(log.contains("[Warn] Invalid header"), "{log}");
}

#[test]
fn a_datagram_without_a_newline_is_rejected() {
    if is_backend_missing() {
        return;
    }
    let metric = "xray_segments_rejected_total{reason=\"no_document\"}";
    let (documents, log) = arrives(HEADER.trim_end().as_bytes(), metric);
    assert!(documents.is_empty());
    assert!(log.contains("[Warn] Missing header or segment"), "{log}");
}

#[test]
fn an_empty_document_is_rejected() {
    if is_backend_missing() {
        return;
    }
    let metric = "xray_segments_rejected_total{reason=\"no_document\"}";
    let (documents, log) = arrives(HEADER.as_bytes(), metric);
    assert!(documents.is_empty());
    assert!(log.contains("[Warn] Missing header or segment"), "{log}");
}

#[test]
fn an_empty_datagram_is_ignored_and_counted() {
    if is_backend_missing() {
        return;
    }
    let (documents, log) = arrives(b"", "xray_datagrams_empty_total");
    assert!(documents.is_empty());
    assert!(log.contains("received=1 replayed=0 sent=1 rejected=0"), "{log}");
}

#[test]
fn the_largest_datagram_arrives_whole() {
    if is_backend_missing() {
        return;
    }
    let document = "x".repeat(65_507 - HEADER.len());
    let (documents, _) =
        arrives(&with_header(document.as_bytes()), "xray_documents_not_json_total");
    assert_eq!(documents, [document]);
}

#[test]
fn invalid_utf8_arrives_with_the_replacement_character() {
    if is_backend_missing() {
        return;
    }
    let (documents, log) =
        arrives(&with_header(b"{\"name\":\"a\xff\"}"), "xray_documents_invalid_utf8_total");
    assert_eq!(documents, ["{\"name\":\"a\u{fffd}\"}"]);
    assert!(log.contains("not UTF-8"), "{log}");
}

#[test]
fn a_document_that_is_not_json_arrives_as_it_is() {
    if is_backend_missing() {
        return;
    }
    let (documents, log) = arrives(&with_header(b"T2S e30="), "xray_documents_not_json_total");
    assert_eq!(documents, ["T2S e30="]);
    assert!(log.contains("is not JSON"), "{log}");
}

#[test]
fn a_document_of_an_exporter_of_opentelemetry_arrives_without_a_complaint() {
    if is_backend_missing() {
        return;
    }
    let (endpoint, daemon) = daemon(&[]);
    daemon.send([with_header(b"T1SeyJhIjoxfQ==")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    assert_eq!(daemon.metric("xray_documents_not_json_total"), 0);
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("is not JSON"), "{log}");
    assert_eq!(endpoint.sorted_documents(), ["T1SeyJhIjoxfQ=="]);
}

#[test]
fn ten_thousand_levels_of_nesting_arrive_as_they_are() {
    if is_backend_missing() {
        return;
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let document = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        let (endpoint, daemon) = daemon(&[]);
        daemon.send([with_header(document.as_bytes())]);
        daemon.wait_for_metric("xray_segments_sent_total", 1);
        assert!(daemon.stop().0.success());
        assert_eq!(endpoint.sorted_documents(), [document]);
    }
}

#[test]
fn twenty_thousand_random_datagrams_cost_none_of_five_hundred_good_ones() {
    if is_backend_missing() {
        return;
    }
    let (endpoint, daemon) = daemon(&[]);
    let mut runner = TestRunner::deterministic();
    let mut random =
        |strategy: &BoxedStrategy<Vec<u8>>| strategy.new_tree(&mut runner).unwrap().current();
    let bytes = proptest::collection::vec(any::<u8>(), 0..200).boxed();
    let with_good_header = bytes.clone().prop_map(|bytes| with_header(&bytes)).boxed();
    let mut datagrams = Vec::new();
    for index in 0..20_500 {
        datagrams.push(match index % 41 {
            0 => format!("{HEADER}{{\"good\":{}}}", 1_000 + index / 41).into_bytes(),
            1..36 => random(&bytes),
            _ => random(&with_good_header),
        });
    }
    let not_empty = datagrams.iter().filter(|datagram| !datagram.is_empty()).count() as u64;
    daemon.send(&datagrams);
    daemon.wait_for_metric("xray_segments_received_total", not_empty);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let mut good = endpoint.sorted_documents();
    good.retain(|document| document.starts_with("{\"good\":"));
    let expected: Vec<String> = (0..500).map(|n| format!("{{\"good\":{}}}", 1_000 + n)).collect();
    assert_eq!(good, expected);
    assert!(log.contains("dropped=0 spooled=0 held=0 kernel_drops=0"), "{log}");
    let account = log.lines().find(|line| line.contains("Account:")).unwrap();
    let number = |name: &str| -> u64 {
        let value = account.split(name).nth(1).unwrap().split(' ').next().unwrap();
        value.parse().unwrap()
    };
    assert_eq!(number("received="), number("sent=") + number("rejected="), "{account}");
    // The log has few lines, because each place in the code that logs has a log limit. Without the
    // limit the log would have 40,000 lines.
    assert!(log.lines().count() < 200, "{} lines", log.lines().count());
}
