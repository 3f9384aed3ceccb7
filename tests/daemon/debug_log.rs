//! At levels debug and dev the log shows each batch, call and connection, the source of the
//! credentials, and rejected datagrams. It shows no secret, and documents only there.

use super::answers::{Failure, Reply};
use super::client;
use super::endpoint::{Endpoint, Way};
use super::fake::Fake;
use super::process::{Daemon, HEADER, config_file, daemon_command, with_credentials};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Starts a daemon that logs JSON at `level`.
fn start(endpoint: &Endpoint, folder: &Path, level: &str) -> Daemon {
    let config = config_file(folder, "Logging: {Format: json}");
    let mut command = daemon_command(&endpoint.url(), &["-c", &config, "-l", level]);
    with_credentials(&mut command);
    Daemon::spawn(command)
}

/// Returns the lines of a JSON log whose message contains `text`.
fn lines(log: &str, text: &str) -> Vec<Value> {
    let objects = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects.filter(|it| it["message"].as_str().unwrap().contains(text)).collect()
}

#[test]
fn each_batch_has_lines_with_fields_for_its_call_and_its_answer() {
    let endpoint = Endpoint::scripted(|index| match index {
        0 => Reply::Fail(Failure::status(500)),
        1 => Reply::Break,
        _ => Reply::Accept,
    });
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(&endpoint, folder.path(), "debug");
    let document = r#"{"trace_id":"1-5759e988-bd862e3fe1be46a994272793","id":"0000000000000001"}"#;
    daemon.send([format!("{HEADER}{document}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let log = daemon.stop().1;
    let [taken] = &lines(&log, "Batch 1 is taken")[..] else { panic!("{log}") };
    let bytes = taken["bytes"].as_u64().unwrap();
    assert!((taken["segments"].as_u64(), bytes > 80) == (Some(1), true), "{taken}");
    let begun = lines(&log, "Batch 1: attempt");
    let begun: Vec<&Value> = begun.iter().filter(|it| it["status"].is_null()).collect();
    assert!(begun.iter().all(|it| it["bytes"] == bytes && it["segments"] == 1), "{log}");
    let attempts = |text: &str| -> Vec<Value> {
        lines(&log, text).into_iter().map(|it| it["attempt"].clone()).collect()
    };
    assert_eq!(attempts("with 1 segments begins"), [1, 2, 3], "{log}");
    assert_eq!(attempts("has no answer after"), [2], "{log}");
    let answers = lines(&log, "has the answer");
    let [failed, accepted] = &answers[..] else { panic!("{log}") };
    assert_eq!((&failed["status"], &failed["attempt"]), (&json!(500), &json!(1)));
    let id = accepted["request_id"].as_str().unwrap();
    assert!(!id.is_empty() && accepted["message"].as_str().unwrap().ends_with(id), "{accepted}");
    assert_eq!((&accepted["status"], &accepted["attempt"]), (&json!(200), &json!(3)));
    assert!(accepted["seconds"].is_f64(), "{accepted}");
    // The lines that operators know have the same fields.
    let [sent] = &lines(&log, "Successfully sent batch of 1 segments")[..] else { panic!("{log}") };
    for field in ["segments", "bytes", "attempt", "status", "request_id"] {
        assert_eq!(sent[field], accepted[field], "{sent}");
    }
    let failures = lines(&log, "Sending segment batch failed with: ");
    let statuses: Vec<&Value> = failures.iter().map(|it| &it["status"]).collect();
    assert_eq!(statuses, [&json!(500), &Value::Null], "{log}");
    assert!(!log.contains("bd862e3fe1be46a994272793"), "a document is in\n{log}");
}

#[test]
fn connections_credentials_and_sampling_calls_are_shown_and_no_secret_is() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let service = Fake::start(|_| {
        let text = r#"{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"TOPSECRET",
            "Token":"TOPSECRET","Expiration":"2099-01-01T00:00:00Z"}"#;
        Some(("200 OK", text.to_owned()))
    });
    let config = config_file(folder.path(), "Logging: {Format: json}");
    let mut command = daemon_command(&endpoint.url(), &["-c", &config, "-l", "debug"]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/x", service.url()));
    let daemon = Daemon::spawn(command);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let answer = client::call(&daemon, "POST /GetSamplingRules?secret=TOPSECRET", "", b"{}");
    assert_eq!(answer.status, 200);
    endpoint.set_way(Way::Down);
    let host = endpoint.address.to_string();
    daemon.wait_for_line(&format!("A connection to {host} is closed"));
    let log = daemon.stop().1;
    assert!(!log.contains("TOPSECRET") && !log.contains("AKIDEXAMPLE"), "{log}");
    let [found] = &lines(&log, "The credentials are from ")[..] else { panic!("{log}") };
    assert_eq!(found["expiry"], "2099-01-01T00:00:00Z", "{found}");
    assert!(found["message"].as_str().unwrap().contains("ends in \"MPLE\""), "{found}");
    assert_eq!(found["source"], "container", "{found}");
    let [call] = &lines(&log, "POST \"/GetSamplingRules\" of a client has the answer")[..] else {
        panic!("{log}")
    };
    assert_eq!((&call["status"], &call["bytes"]), (&json!(200), &json!(2)), "{call}");
    let opened = lines(&log, "is open after");
    assert!(opened.iter().any(|it| it["host"] == host && it["seconds"].is_f64()), "{log}");
}

#[test]
fn at_level_info_none_of_these_lines_is_written() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.send([format!("{HEADER}{{}}"), "no header".to_owned()]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    client::call(&daemon, "POST /GetSamplingRules", "", b"{}");
    let log = daemon.stop().1;
    for text in ["[Debug]", "[Trace]", "Batch 1", "A connection to", "The credentials are from"] {
        assert!(!log.contains(text), "{text} is in\n{log}");
    }
}

#[test]
fn at_level_dev_each_rejected_datagram_is_shown_up_to_a_hundred_in_a_second() {
    const COUNT: u64 = 3_000;
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-l", "dev"], &[]);
    daemon.send((0..COUNT).map(|index| format!("datagram {index} of the test\n{{}}")));
    daemon.wait_for_metric("xray_segments_rejected_total{reason=\"header\"}", COUNT);
    let log = daemon.stop().1;
    let shown = log.lines().filter(|line| line.contains("[Trace]") && line.contains("of the test"));
    let mut by_second = BTreeMap::<&str, u64>::new();
    for line in shown {
        *by_second.entry(line.split(' ').next().unwrap()).or_default() += 1;
    }
    let shown_count: u64 = by_second.values().sum();
    assert!(shown_count >= 100, "{log}");
    // The seconds of the limit begin between those of the date, so two of them share one.
    assert!(by_second.values().all(|count| *count <= 200), "{by_second:?}");
    assert!(shown_count <= 100 * (by_second.len() as u64 + 1), "{by_second:?}");
    assert!(log.contains(" lines were not logged") || log.contains(" more like this"), "{log}");
}
