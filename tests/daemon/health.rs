//! Health checks: whether an orchestrator should restart the daemon.

use super::client::{Client, call, calls, healthcheck, page, page_of_host, start};
use super::endpoint::{Endpoint, Way};
use super::held::Held;
use super::load::document;
use super::process::{
    Daemon, HEADER, PATIENCE, command, config_file, daemon_command, in_own_mounts, run_to_end_with,
    with_credentials,
};
use super::skip::{Need, skip};
use rustix::process::Signal;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Returns the codes of the conditions in `/ready`.
fn reasons(daemon: &Daemon) -> Vec<String> {
    let (status, body) = page(daemon, "/ready");
    let reasons = body["reasons"].as_array().unwrap();
    assert_eq!(
        (status == 200, body["status"] == "ready"),
        (reasons.is_empty(), reasons.is_empty())
    );
    reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

/// Returns the body of `/ready` for a program on this host.
fn local(daemon: &Daemon) -> serde_json::Value {
    page_of_host(daemon, "Host: localhost\r\n", "/ready").1
}

#[test]
fn an_outage_of_the_service_is_told_by_readiness_and_never_by_liveness() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.wait_until("the daemon is ready", || reasons(&daemon).is_empty());
    let output = healthcheck(&daemon, &["--ready"]);
    assert!(output.status.success() && output.stdout == b"ready\n", "{output:?}");
    for way in [Way::Down, Way::Reset] {
        endpoint.set_way(way);
        daemon.send((0..10).map(|index| format!("{HEADER}{}", document(index))));
        daemon
            .wait_until("`/ready` reports the failure", || reasons(&daemon) == ["uploads_failing"]);
        let (status, body) = page(&daemon, "/health");
        assert_eq!((status, &body["status"]), (200, &"alive".into()));
        assert!(healthcheck(&daemon, &[]).status.success());
        let output = healthcheck(&daemon, &["--ready"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("not_ready: uploads_failing for "), "{said}");
        endpoint.set_way(Way::Open);
        daemon.wait_until("the daemon is ready again", || reasons(&daemon).is_empty());
    }
}

#[test]
fn without_credentials_it_lives_and_is_not_ready() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(daemon_command(&endpoint.url(), &[]));
    daemon.wait_until("`/ready` reports it", || reasons(&daemon) == ["no_credentials"]);
    assert_eq!(page(&daemon, "/health").0, 200);
    assert!(healthcheck(&daemon, &[]).status.success());
}

#[test]
fn why_there_are_no_credentials_is_told_without_what_a_program_has_printed() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let program = "[default]\ncredential_process = sh -c \"echo of-nobody >&2; exit 1\"\n";
    std::fs::write(&config, program).unwrap();
    let mut command = daemon_command(&endpoint.url(), &[]);
    command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let daemon = Daemon::spawn(command);
    let reason = || local(&daemon)["reasons"][0]["reason"].to_string();
    daemon.wait_until("`/ready` reports it", || reason().contains("the credential_process fails"));
    assert!(!reason().contains("of-nobody"), "{}", reason());
}

#[test]
fn credentials_that_cannot_sign_are_told_before_a_segment_comes_and_counted_by_kind() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &["-n", "us-east\u{1}"]);
    with_credentials(&mut command);
    let daemon = Daemon::spawn(command);
    daemon.wait_until("`/ready` reports it", || reasons(&daemon) == ["cannot_sign"]);
    assert!(local(&daemon).to_string().contains("control character"), "{}", local(&daemon));
    assert_eq!(daemon.metric("xray_trouble{code=\"cannot_sign\"}"), 1);
    daemon.send([format!("{HEADER}{{}}")]);
    let unsigned = "xray_request_failures_total{kind=\"unsigned\"}";
    daemon.wait_for_metric_of_at_least(unsigned, 1);
    assert!(!daemon.log().contains("secret"));
}

#[test]
fn credentials_that_have_expired_are_told_before_a_segment_comes() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let keys = folder.path().join("keys");
    let expiry = std::time::SystemTime::now() + Duration::from_secs(3);
    let expiry = time::OffsetDateTime::from(expiry);
    let format = &time::format_description::well_known::Rfc3339;
    let expiry = expiry.format(format).unwrap();
    let printed = format!(
        r#"{{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"s","Expiration":"{expiry}"}}"#
    );
    std::fs::write(&keys, printed).unwrap();
    // The program has keys once.
    let program =
        format!("[default]\ncredential_process = sh -c \"cat {0} && rm {0}\"\n", keys.display());
    std::fs::write(&config, program).unwrap();
    let mut command = daemon_command(&endpoint.url(), &[]);
    command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let daemon = Daemon::spawn(command);
    daemon.wait_for_line("Credentials found");
    daemon.wait_until("`/ready` reports it", || reasons(&daemon) == ["cannot_sign"]);
    assert!(local(&daemon).to_string().contains("have expired"), "{}", local(&daemon));
}

#[test]
fn strangers_are_told_the_code_only() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(daemon_command(&endpoint.url(), &[]));
    daemon.wait_until("`/ready` reports it", || reasons(&daemon) == ["no_credentials"]);
    let only_code = serde_json::json!([{"code": "no_credentials"}]);
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1:2000", ""] {
        let (status, body) = page_of_host(&daemon, &format!("Host: {host}\r\n"), "/ready");
        assert_eq!((status, &body["reasons"]), (503, &only_code), "{host}");
    }
    for host in ["localhost", "LOCALHOST:2000", "127.0.0.1:2000", "127.1.2.3", "[::1]:2000"] {
        let (status, body) = page_of_host(&daemon, &format!("Host: {host}\r\n"), "/ready");
        let reason = &body["reasons"][0];
        assert!(status == 503 && reason["reason"].is_string(), "{host}: {body}");
        assert!(reason["seconds"].is_u64(), "{host}: {body}");
    }
}

#[test]
fn a_full_memory_is_told_until_there_is_room_again() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = Daemon::start(&endpoint.url(), &["-m", "3"], &[]);
    let datagram =
        |index| format!("{HEADER}{{\"id\":\"{index:016x}\",\"a\":\"{}\"}}", "x".repeat(9_000));
    // The condition ends when half of the memory is free. So the test sends until it has seen both.
    let mut indexes = 0_u64..;
    daemon.wait_until("`/ready` reports both", || {
        daemon.send(indexes.by_ref().take(20).map(datagram));
        reasons(&daemon) == ["uploads_failing", "memory_full"]
    });
    assert_eq!(page(&daemon, "/health").0, 200);
    endpoint.set_way(Way::Open);
    daemon.wait_until("the daemon is ready again", || reasons(&daemon).is_empty());
}

#[test]
fn an_upload_thread_that_is_stuck_is_told_by_liveness() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    let Some(held) = Held::thread_of(&daemon, "upload") else { return };
    let (status, body) = page(&daemon, "/health");
    assert_eq!(status, 503);
    assert!(body["reasons"][0].as_str().unwrap().starts_with("the upload thread "), "{body}");
    drop(held);
    daemon.wait_until("the daemon is alive again", || page(&daemon, "/health").0 == 200);
}

#[test]
fn clients_that_hang_do_not_keep_its_own_pages_from_being_seen() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::BlackHole);
    let daemon = start(&endpoint, "ProxyServer: {TimeoutSeconds: 60}");
    // 200 calls exceed the limit on calls that run at the same time. Together with the 200 silent
    // connections below they exceed the limit on connections.
    let mut hanging: Vec<Client> = (0..200).map(|_| Client::connect(daemon.tcp)).collect();
    for client in &mut hanging {
        client.write(b"POST /SamplingTargets HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    }
    let _silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(daemon.tcp).unwrap()).collect();
    for _ in 0..3 {
        // The health check must succeed while the silent connections are open: it waits for at most
        // 5 s, and the daemon closes silent connections after 10 s.
        let output = healthcheck(&daemon, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(page(&daemon, "/health").0, 200);
        assert!(daemon.get("/metrics").contains("xray_alive 1"));
    }
}

#[test]
fn its_own_pages_can_only_be_read() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    for path in ["/health", "/ready", "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = call(&daemon, &format!("{method} {path}"), "", b"{}");
            let told = (answer.status, answer.header("allow"));
            assert_eq!(told, (405, Some("GET, HEAD")), "{method} {path}: {answer:?}");
            assert_eq!(answer.message(), "only GET is allowed here");
        }
    }
    assert!(calls(&endpoint).is_empty(), "none of them is forwarded");
}

#[test]
fn followers_are_disconnected_for_a_health_check() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Tail: true");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    let mut followers: Vec<Client> = (0..8).map(|_| Client::connect(daemon.tcp)).collect();
    for client in &mut followers {
        client.write(b"GET /tail?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    // 8 followers and 249 silent connections are one connection more than the limit. The followers
    // are the oldest connections.
    let _silent: Vec<TcpStream> =
        (0..249).map(|_| TcpStream::connect(daemon.tcp).unwrap()).collect();
    let output = healthcheck(&daemon, &[]);
    assert!(output.status.success(), "{output:?}");
    let answer = followers[0].answer();
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_alive_and_stopping() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let (sender, received) = mpsc::channel();
    // This thread reads every message, as a service manager does. It ends with the test process.
    thread::spawn(move || {
        let mut text = [0; 100];
        while let Ok(length) = manager.recv(&mut text) {
            let _ = sender.send(String::from_utf8_lossy(&text[..length]).trim().to_owned());
        }
    });
    let said = || received.recv_timeout(PATIENCE).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let daemon = Daemon::start(&endpoint.url(), &[], &variables);
    let told: Vec<_> = (0..4).map(|_| said()).collect();
    assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
    if let Some(held) = Held::thread_of(&daemon, "upload") {
        daemon.wait_for_line("The daemon sends no keep-alive to the watchdog: the upload thread ");
        drop(held);
    }
    daemon.signal(Signal::TERM);
    while said() != "STOPPING=1" {}
    assert!(daemon.wait().0.success());
}

#[test]
fn the_service_manager_is_told_of_it_when_clients_are_accepted_and_no_sooner() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(&path).unwrap();
    filler.set_nonblocking(true).unwrap();
    // The socket of the service manager is full and is not read, so a message of the daemon to it
    // blocks.
    while filler.send(b"FULL=1").is_ok() {}
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    // `start` waits for the log line that says that the TCP port is open.
    let _daemon = Daemon::start(&endpoint.url(), &[], &variables);
    drop(manager);
}

#[test]
fn a_health_check_without_a_daemon_names_the_address() {
    let output = command(&["healthcheck", "-t", "127.0.0.1:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("127.0.0.1:1") && said.contains("-t or -c"), "{said}");
}

/// Runs a health check that gets no complete answer. Asserts that it fails with a timeout.
fn times_out(healthcheck: Command) {
    let (code, said) = run_to_end_with(healthcheck);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("timed out"), "{said}");
}

#[test]
fn a_health_check_gives_up_on_what_takes_connections_and_says_nothing_whole() {
    for answer in ["", "HTTP/1.1 200 OK\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // The thread ends with the test process. It sends one byte at a time, for longer than any
        // client waits.
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in answer.bytes().cycle().take(6_000) {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
            thread::park();
        });
        times_out(command(&["healthcheck", "-t", &address]));
    }
}

#[test]
fn a_health_check_gives_up_on_a_name_server_that_does_not_answer() {
    let silent = UdpSocket::bind("127.0.83.1:53");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.83.1\noptions timeout:30 attempts:5\n").unwrap();
    let mount = format!("mount --bind {} /etc/resolv.conf", path.display());
    let trial = in_own_mounts(&Command::new("true"), &mount).output();
    if silent.is_err() {
        return skip(Need::Root, "only root may open port 53");
    }
    if !trial.is_ok_and(|output| output.status.success()) {
        return skip(Need::Mount, "mounting is not allowed here");
    }
    let healthcheck = command(&["healthcheck", "-t", "xray-daemon.example:2000"]);
    times_out(in_own_mounts(&healthcheck, &format!("{mount} && exec \"$@\"")));
}
