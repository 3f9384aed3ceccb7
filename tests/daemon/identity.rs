//! Credentials that come late, expire or lack permissions, and a wrong clock: no segment is lost.

use super::answers::{Clock, Failure, Verdict};
use super::delivery::settle_once;
use super::endpoint::Endpoint;
use super::load::{Load, document, document_of, send};
use super::process::{Daemon, daemon_command};
use std::path::Path;
use std::time::Duration;

/// Writes a shared credentials file with one key. The new file replaces the old one in a single
/// step, as with real writers.
fn write_keys(path: &Path, key: &str) {
    let new = path.with_extension("new");
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// Writes a file with the answer that a `credential_process` gives for this key.
fn write_answer(path: &Path, key: &str) {
    let new = path.with_extension("new");
    let answer = format!(r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"secret"}}"#);
    std::fs::write(&new, answer).unwrap();
    std::fs::rename(&new, path).unwrap();
}

#[test]
fn segments_wait_for_a_credentials_file_that_is_written_later() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let mut command = daemon_command(&endpoint.url(), &["-m", "16"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &path);
    let daemon = Daemon::spawn(command);
    let load = Load::start(daemon.udp, 1_000, document);
    // The daemon searches for credentials again after pauses of 1 s, 2 s and 4 s.
    daemon.wait_until("the daemon has looked twice while segments arrived", || {
        daemon.log().matches("No credentials").count() >= 2 && load.sent_count() > 2_000
    });
    assert_eq!(endpoint.request_count(), 0);
    write_keys(&path, "AKIDEXAMPLE");
    daemon.wait_until("something arrives", || endpoint.arrived_count() > 0);
    let sent = load.stop();
    assert!(sent.len() > 2_000);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    assert!(log.contains("Credentials found") && !log.contains("secret"), "{log}");
}

/// Lets the key `AKIDOLD` expire under load, after `renew` has stored another key. Asserts that no
/// segment is lost.
fn expiry_costs_nothing(daemon: Daemon, endpoint: &Endpoint, renew: impl FnOnce()) {
    let load = Load::start(daemon.udp, 500, document);
    daemon.wait_until("the service takes segments", || endpoint.arrived_count() >= 100);
    renew();
    endpoint.change(|rules| rules.expired_key = Some("AKIDOLD"));
    daemon.wait_until("the new key is used", || {
        endpoint.ledger(|ledger| {
            let refused = ledger.requests.iter().find(|(_, v)| *v == Verdict::Failed(400));
            let refused_at = refused.map(|(at, _)| *at);
            refused_at.is_some_and(|at| ledger.first_accepted_after(at).is_some())
        })
    });
    let sent = load.stop();
    let (log, _) = settle_once(daemon, endpoint, &sent);
    assert!(log.contains("ExpiredTokenException"), "{log}");
}

#[test]
fn an_expired_token_is_replaced_by_that_of_a_credential_process_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer");
    write_answer(&answer, "AKIDOLD");
    let config = folder.path().join("config");
    let process = format!("[default]\ncredential_process = cat {}\n", answer.display());
    std::fs::write(&config, process).unwrap();
    let mut command = daemon_command(&endpoint.url(), &["-m", "16"]);
    command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let daemon = Daemon::spawn(command);
    expiry_costs_nothing(daemon, &endpoint, || write_answer(&answer, "AKIDNEW"));
}

#[test]
fn an_expired_token_is_replaced_by_that_of_the_credentials_file_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    write_keys(&path, "AKIDOLD");
    let mut command = daemon_command(&endpoint.url(), &["-m", "16"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &path);
    let daemon = Daemon::spawn(command);
    expiry_costs_nothing(daemon, &endpoint, || write_keys(&path, "AKIDNEW"));
}

#[test]
fn denied_access_is_an_error_once_a_minute_and_what_waits_arrives_once_it_is_granted() {
    // After a denied call the daemon pauses for half a minute.
    let endpoint = Endpoint::start();
    let denied = Failure::code(403, "AccessDeniedException");
    endpoint.change(|rules| rules.failure = Some(denied));
    let daemon = Daemon::start(&endpoint.url(), &["-m", "16"], &[]);
    let sent = send(daemon.udp, (0..500).map(document));
    daemon.wait_for_line("AccessDeniedException");
    // Other calls may have begun before the first call was denied. The test waits until they have
    // ended.
    let in_flight = "xray_batches_held{state=\"in_flight\"}";
    daemon.wait_until("no call is in flight", || daemon.metric(in_flight) == 0);
    endpoint.change(|rules| rules.failure = None);
    daemon.wait_until("something arrives", || endpoint.arrived_count() > 0);
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let at = |is_denied: bool| {
        let is_wanted = move |verdict| (verdict == Verdict::Failed(403)) == is_denied;
        let requests = endpoint.ledger(|ledger| ledger.requests.clone());
        requests.into_iter().filter(move |(_, it)| is_wanted(*it)).map(|(at, _)| at)
    };
    let pause = at(false).min().unwrap() - at(true).max().unwrap();
    assert!(pause >= Duration::from_secs(29), "{pause:?}\n{log}");
    let said = |level: &str| {
        let is_said = |line: &&str| line.contains("AccessDenied") && line.contains(level);
        log.lines().filter(is_said).count()
    };
    assert_eq!(said("[Error]"), 1, "{log}");
    assert!(log.contains("xray:PutTraceSegments"), "the log does not name the permission: {log}");
}

#[test]
fn a_clock_that_is_an_hour_wrong_costs_one_call_more_and_nothing_else() {
    for (offset_seconds, code) in [
        (3600, "RequestTimeTooSkewed"),
        (-3600, "RequestTimeTooSkewed"),
        (3600, "InvalidSignatureException"),
        (-3600, "SignatureDoesNotMatch"),
    ] {
        let endpoint = Endpoint::start();
        endpoint.change(|rules| rules.clock = Some(Clock { offset_seconds, code }));
        let daemon = Daemon::start(&endpoint.url(), &[], &[]);
        // Ten documents of one trace travel in one request.
        let mut sent = send(daemon.udp, (0..10).map(|index| document_of(1, index, "")));
        daemon.wait_for_metric("xray_segments_sent_total", 10);
        daemon.wait_for_line("The clock of this host is");
        assert_eq!(endpoint.request_count(), 2, "{}", daemon.log());
        // The daemon also applies the corrected time to later calls.
        sent.extend(send(daemon.udp, (10..20).map(|index| document_of(2, index, ""))));
        let (log, _) = settle_once(daemon, &endpoint, &sent);
        assert_eq!(endpoint.request_count(), 3, "{log}");
    }
}

#[test]
fn a_clock_that_is_set_right_later_is_believed_again() {
    let endpoint = Endpoint::start();
    let skewed = Clock { offset_seconds: 3600, code: "RequestTimeTooSkewed" };
    endpoint.change(|rules| rules.clock = Some(skewed));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let mut sent = send(daemon.udp, [document(0)]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let right = Clock { offset_seconds: 0, ..skewed };
    endpoint.change(|rules| rules.clock = Some(right));
    sent.extend(send(daemon.udp, [document(1)]));
    settle_once(daemon, &endpoint, &sent);
}
