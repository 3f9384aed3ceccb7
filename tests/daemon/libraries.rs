//! Conditions under which a library panics or has panicked: unknown settings, keys that no HTTP
//! header can carry, and full outputs.

use super::endpoint::Endpoint;
use super::process::{
    Daemon, HEADER, behind_shell, command, daemon_command, run_to_end_with, wait_for_text,
    wait_until, with_credentials,
};
use rustix::process::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;

const ROLE: &str = "arn:aws:iam::123456789012:role/xray";

/// Asserts that the daemon delivers a document, shuts down in order and does not panic. Returns the
/// log.
fn delivers(daemon: Daemon, endpoint: &Endpoint) -> String {
    daemon.send([format!("{HEADER}{{\"id\":\"1\"}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("panic"), "{log}");
    assert_eq!(endpoint.sorted_documents().len(), 1);
    log
}

#[test]
fn retry_settings_of_the_sdks_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    std::fs::write(&profile, "[default]\nretry_mode = legacy\nmax_attempts = none\n").unwrap();
    for (name, value) in [
        ("AWS_MAX_ATTEMPTS", ""),
        ("AWS_MAX_ATTEMPTS", "0"),
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_DEFAULTS_MODE", "nonsense"),
        ("AWS_CONFIG_FILE", profile.to_str().unwrap()),
    ] {
        let endpoint = Endpoint::start();
        delivers(Daemon::start(&endpoint.url(), &[], &[(name, value)]), &endpoint);
    }
}

#[test]
fn an_access_key_with_a_line_break_and_a_role_are_an_error_that_names_the_key() {
    let endpoint = Endpoint::start();
    let url = endpoint.url();
    let bad_key = [("AWS_ACCESS_KEY_ID", "AK\nID"), ("AWS_ENDPOINT_URL_STS", url.as_str())];
    let daemon = Daemon::start(&url, &["-r", ROLE], &bad_key);
    let line = daemon.wait_for_line("the access key has a line break");
    assert!(line.contains("Trying again in"), "{line}");
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("panic"), "{log}");

    let mut verify = command(&["verify", "-n", "us-east-1", "-r", ROLE, "-t", "127.0.0.1:1"]);
    with_credentials(&mut verify).envs(bad_key).env("AWS_ENDPOINT_URL_XRAY", &url);
    let (code, log) = run_to_end_with(verify);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("FAIL  credentials: ") && !log.contains("panic"), "{log}");
    assert!(log.contains("the access key has a line break"), "{log}");
}

#[test]
fn a_log_file_and_a_standard_error_that_are_full_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xray.log");
    let endpoint = Endpoint::start();
    let mut usual = daemon_command(&endpoint.url(), &["-f", path.to_str().unwrap()]);
    with_credentials(&mut usual);
    let mut child = behind_shell(&usual, r#"exec "$@" 2>/dev/full"#).spawn().unwrap();
    wait_for_text(&path, "Listening on TCP");
    let text = std::fs::read_to_string(&path).unwrap();
    let address = text.split("Listening on UDP ").nth(1).unwrap().split(' ').next().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    std::fs::remove_file(&path).unwrap();
    symlink("/dev/full", &path).unwrap();
    let id = rustix::process::Pid::from_child(&child);
    // After SIGHUP the daemon opens the log file again for its next line. The file is now
    // `/dev/full`, so that line cannot be written.
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 1..=3 {
        sender.send_to(format!("{HEADER}{{\"n\":{round}}}").as_bytes(), address).unwrap();
        wait_until("the segment arrives", || endpoint.arrived_count() == round);
    }
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}
