//! The log of the real binary: its formats, its file, and the secrets that must not be in it.

use super::answers::{Failure, Reply};
use super::endpoint::Endpoint;
use super::fake::Fake;
use super::process::{
    Daemon, HEADER, command, config_file, daemon_command, run_to_end, wait_for_text,
    with_credentials,
};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The size at which a log file is rotated.
const LOG_FILE_BYTES_MAX: u64 = 50 * 1024 * 1024;

#[test]
fn json_lines_are_objects_with_time_level_and_message() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Logging: {Format: json}");
    let mut command = daemon_command(&endpoint.url(), &["-c", &config, "-l", "dev"]);
    with_credentials(&mut command);
    let daemon = Daemon::spawn(command);
    daemon.send(["no \"header\"\x1b[31m\n{}".to_owned(), format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let mut levels = Vec::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        let (time, message) = (object["time"].as_str().unwrap(), object["message"].as_str());
        assert!(time.len() == "2026-01-31T12:00:00Z".len() && time.ends_with('Z'), "{line}");
        assert!(message.is_some_and(|message| !message.is_empty()), "{line}");
        levels.push(object["level"].as_str().unwrap().to_owned());
    }
    for text in ["Initializing AWS X-Ray daemon", "Invalid header", "Got shutdown signal"] {
        assert!(log.contains(text), "{text} is not in\n{log}");
    }
    assert!(["info", "warn"].iter().all(|level| levels.iter().any(|it| it == level)), "{log}");
}

#[test]
fn an_invalid_header_is_shown_and_what_may_be_a_document_only_at_debug_level() {
    let header = format!("{{\"format\":\"xml\",\"x\":\"\u{202e}\x1b{}\"}}", "y".repeat(200));
    let document = r#"{"trace_id":"1-581cf771-a006649127e371903a2de979","name":"secret"}"#;
    let long = format!("{document}{}end of it", " ".repeat(300));
    for level in ["info", "debug"] {
        let endpoint = Endpoint::start();
        let daemon = Daemon::start(&endpoint.url(), &["-l", level], &[]);
        // One after the other, because bad datagrams that arrive together share one log line.
        for (count, first_line) in [(1, &header), (2, &long)] {
            daemon.send([format!("{first_line}\n{{}}")]);
            daemon.wait_for_metric("xray_segments_rejected_total{reason=\"header\"}", count);
        }
        daemon.send([&long]);
        daemon.wait_for_metric("xray_segments_rejected_total{reason=\"no_document\"}", 1);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        let shown = format!(r#"{{"format":"xml","x":"\u{{202e}}\u{{1b}}{}…"#, "y".repeat(77));
        let length = format!("a first line of {} bytes, which is not shown", long.len());
        for line in [
            format!("[Warn] Invalid header: {shown}. The first line must be {}", HEADER.trim_end()),
            format!("[Warn] Invalid header: {length}"),
            format!("[Warn] Missing header or segment: {length}"),
        ] {
            assert!(log.contains(&line), "{line} is not in\n{log}");
        }
        for text in ["secret", "end of it", &"y".repeat(200)] {
            assert_eq!(log.contains(text), level == "debug", "{text}: {log}");
        }
    }
}

#[test]
fn the_last_lines_say_how_many_others_were_held_back() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    // The test sends one datagram at a time, because bad datagrams that arrive together share one
    // log line.
    for count in 1..=12 {
        daemon.send(["no header\n{}".to_owned()]);
        daemon.wait_for_metric("xray_segments_rejected_total{reason=\"header\"}", count);
    }
    let (_, log) = daemon.stop();
    let logged_count = log.lines().filter(|line| line.contains("Invalid header")).count();
    let told: usize = log
        .lines()
        .filter_map(|line| line.split_once(" lines were not logged")?.0.rsplit(' ').next())
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert_eq!((logged_count + told, told > 0), (12, true), "{log}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named_and_the_log_goes_to_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    // The name of a folder is that of a file.
    let below_a_file = folder.path().join("taken").join("x.log");
    std::fs::write(folder.path().join("taken"), "").unwrap();
    for path in [below_a_file.as_path(), folder.path()] {
        let path = path.to_str().unwrap();
        let config = config_file(folder.path(), &format!("Logging: {{LogPath: {path}}}"));
        for (flag, name) in [(["-f", path], "-f: "), (["-c", &config], "Logging.LogPath: ")] {
            let endpoint = Endpoint::start();
            let mut command = daemon_command(&endpoint.url(), &flag);
            with_credentials(&mut command);
            let daemon = Daemon::spawn(command);
            daemon.send([format!("{HEADER}{{}}")]);
            daemon.wait_for_metric("xray_segments_sent_total", 1);
            assert_eq!(daemon.metric("xray_log_file_failures_total"), 1);
            let (status, log) = daemon.stop();
            assert!(status.success(), "{log}");
            let named = format!("[Warn] {name}the log file {path} cannot be opened: ");
            assert_eq!(log.matches(&named).count(), 1, "{log}");
            let table = command_output(&[&flag[..], &["config"]].concat());
            let warning =
                format!("warning: Logging.LogPath: the log file {path} cannot be written");
            assert!(table.contains(&warning), "{table}");
        }
    }
}

/// Runs the program to its end. Returns its standard output.
fn command_output(arguments: &[&str]) -> String {
    String::from_utf8(command(arguments).output().unwrap().stdout).unwrap()
}

#[test]
fn a_log_file_that_can_be_opened_later_is_opened_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let path = taken.join("x.log");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-f", path.to_str().unwrap()], &[]);
    std::fs::remove_file(&taken).unwrap();
    daemon.signal(Signal::HUP);
    wait_for_text(&path, "Got SIGHUP");
    daemon.signal(Signal::TERM);
    wait_for_text(&path, "Account: ");
    assert!(daemon.wait().0.success());
}

/// Runs a daemon that logs into `path`, and stops it.
fn run_with_log(path: &Path) {
    let ports = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"];
    let mut child = command(&ports).args(["-f", path.to_str().unwrap()]).spawn().unwrap();
    wait_for_text(path, "Listening on TCP");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_log_of_fifty_megabytes_is_set_aside_and_one_old_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("x.log"), folder.path().join("x.log.1"));
    let length_bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
    std::fs::write(&old, "older").unwrap();
    // The file is sparse: it has the size of a full log file and uses no disk space.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(LOG_FILE_BYTES_MAX - 10).unwrap();
    run_with_log(&path);
    assert_eq!(length_bytes(&old), LOG_FILE_BYTES_MAX - 10);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("Initializing AWS X-Ray daemon") && text.contains("Account:"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    // With rotation switched off the file grows.
    let configs = tempfile::tempdir().unwrap();
    let config = config_file(configs.path(), "Logging: {LogRotation: false}");
    std::fs::remove_file(&old).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(60 << 20).unwrap();
    let large_bytes = length_bytes(&path);
    let ports = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1", "-c", &config];
    let mut child = command(&ports).args(["-f", path.to_str().unwrap()]).spawn().unwrap();
    super::process::wait_until("the log grows", || length_bytes(&path) > large_bytes + 200);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!old.exists());
}

#[test]
fn a_closed_standard_output_ends_nothing() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &["-l", "dev"]);
    with_credentials(&mut command).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("Listening on UDP ")).unwrap();
    let line = line.unwrap();
    let address = line.split("Listening on UDP ").nth(1).unwrap().split(' ').next().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    // The reader has closed the pipe: each following line fails with EPIPE, and would raise SIGPIPE
    // if the Rust runtime did not ignore that signal.
    drop(lines);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 1..=5 {
        sender.send_to(format!("{HEADER}{{\"n\":{round}}}").as_bytes(), address).unwrap();
        sender.send_to(b"bad datagram", address).unwrap();
        super::process::wait_until("the segment arrives", || endpoint.arrived_count() == round);
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Every secret in these tests contains this text.
const SECRET: &str = "TOPSECRET";

/// Starts a service that answers requests for credentials with these answers in turn. It repeats
/// the last answer.
fn credentials_service(answers: &'static [(&'static str, &'static str)]) -> Fake {
    let count = AtomicUsize::new(0);
    Fake::start(move |_| {
        let index = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        let (status, body) = answers[index];
        Some((status, body.to_owned()))
    })
}

/// The service's answer to a signature that it considers wrong. The answer shows the expected
/// canonical request, which contains the session token.
const WRONG_SIGNATURE: &str = r#"{"message":"Wrong signature. The Canonical String for this request
 should have been 'POST\n/TraceSegments\n\nhost:x\nX-Amz-Security-Token:token-TOPSECRET\n"}"#;

/// Starts a service that first answers with failures, then with success.
fn misbehaving() -> Endpoint {
    let page = "<html>X-AMZ-SECURITY-TOKEN: token-TOPSECRET";
    Endpoint::scripted(move |index| match index {
        0 => Reply::Fail(Failure::body(403, WRONG_SIGNATURE.replace('\n', ""))),
        1 => Reply::Fail(Failure::body(500, page)),
        2 => Reply::Break,
        3 => Reply::Fail(Failure::status(429)),
        _ => Reply::Accept,
    })
}

/// Sends good and bad segments until `text` is in the log, stops the daemon, and asserts that
/// neither its log nor its metrics show a secret.
fn says_no_secret(daemon: Daemon, text: &str) {
    daemon.send([format!("{HEADER}{{\"a\":1}}"), "no header".to_owned(), "{}".to_owned()]);
    daemon.wait_for_line(text);
    let pages = daemon.get("/metrics");
    let (_, log) = daemon.stop();
    assert!(!log.contains(SECRET) && !pages.contains(SECRET), "{log}");
}

fn at_dev(endpoint: &Endpoint, folder: &Path, variables: &[(&str, &str)]) -> Daemon {
    let config = config_file(folder, "ShutdownSeconds: 1");
    let mut command = daemon_command(&endpoint.url(), &["-l", "dev", "-c", &config]);
    command.envs(variables.iter().copied()).env("PATH", "/usr/bin:/bin");
    Daemon::spawn(command)
}

#[test]
fn secrets_of_the_environment_are_in_no_line_whatever_fails() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "key-TOPSECRET"),
        ("AWS_SESSION_TOKEN", "token-TOPSECRET"),
        ("HTTPS_PROXY", "http://user:TOPSECRET@127.0.0.1:9"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let endpoint = misbehaving();
    // After the first failure the daemon pauses for half a minute, so a second daemon gets the
    // following failures.
    says_no_secret(at_dev(&endpoint, folder.path(), &keys), "Wrong signature");
    says_no_secret(at_dev(&endpoint, folder.path(), &keys), "Successfully sent batch");
    let cannot_be_signed = [keys[0], keys[1], ("AWS_SESSION_TOKEN", "a\nb-TOPSECRET")];
    let daemon = at_dev(&endpoint, folder.path(), &cannot_be_signed);
    says_no_secret(daemon, "the session token has a line break");
}

#[test]
fn secrets_of_container_credentials_are_in_no_line_whatever_fails() {
    let folder = tempfile::tempdir().unwrap();
    let service = credentials_service(&[
        ("403 Forbidden", r#"{"message":"not authorization-TOPSECRET"}"#),
        ("200 OK", r#"{"AccessKeyId":"AKID","SecretAccessKey":"key-TOPSECRET","Token":"#),
        (
            "200 OK",
            r#"{"AccessKeyId":"AKID","SecretAccessKey":"key-TOPSECRET",
                "Token":"token-TOPSECRET","Expiration":"soon"}"#,
        ),
        (
            "200 OK",
            r#"{"AccessKeyId":"AKID","SecretAccessKey":"key-TOPSECRET",
                "Token":"token-TOPSECRET","Expiration":"2099-01-01T00:00:00Z"}"#,
        ),
    ]);
    let url = format!("{}/credentials", service.url());
    let variables = |token| {
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token),
        ]
    };
    let endpoint = misbehaving();
    let broken = at_dev(&endpoint, folder.path(), &variables("a\nb-TOPSECRET"));
    says_no_secret(broken, "No credentials");
    let daemon = at_dev(&endpoint, folder.path(), &variables("authorization-TOPSECRET"));
    says_no_secret(daemon, "Sending segment batch failed");
}

#[test]
fn what_a_credential_process_prints_is_in_no_line_whatever_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (output, config) = (folder.path().join("output"), folder.path().join("config"));
    let process = format!("[default]\ncredential_process = cat {}\n", output.display());
    std::fs::write(&config, process).unwrap();
    let variables = [("AWS_CONFIG_FILE", config.to_str().unwrap())];
    let endpoint = misbehaving();
    for (printed, text) in [
        ("key-TOPSECRET", "No credentials"),
        (r#"{"Version":1,"SecretAccessKey":"key-TOPSECRET"#, "No credentials"),
        (r#"{"Version":2,"SecretAccessKey":"key-TOPSECRET"}"#, "No credentials"),
        (
            r#"{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"key-TOPSECRET",
                "SessionToken":"token-TOPSECRET","Expiration":"later"}"#,
            "No credentials",
        ),
        (
            r#"{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"key-TOPSECRET",
                "SessionToken":"token-TOPSECRET"}"#,
            "Sending segment batch failed",
        ),
    ] {
        std::fs::write(&output, printed).unwrap();
        says_no_secret(at_dev(&endpoint, folder.path(), &variables), text);
    }
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    let ports = ["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1", "-l", "dev"];
    let folder = tempfile::tempdir().unwrap();
    for address in ["http://user:TOPSECRET@127.0.0.1:9", "http://127.0.0.1:9/?token=TOPSECRET"] {
        let config = config_file(folder.path(), &format!("Endpoint: \"{address}\""));
        let (code, error) = run_to_end(&[&ports[..], &["-c", &config]].concat());
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("Endpoint") && !error.contains(SECRET), "{error}");
    }
}
