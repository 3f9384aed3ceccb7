//! The start of the daemon, its exit codes and its end.

use super::answers::Failure;
use super::endpoint::Endpoint;
use super::pacing::Pacer;
use super::process::{Daemon, HEADER, command, run_to_end, wait_for_text, wait_until};
use rustix::process::Signal;
use std::net::{TcpListener, UdpSocket};

#[test]
fn a_udp_port_in_use_is_an_error_that_names_it() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = run_to_end(&["-b", &address, "-t", "127.0.0.1:0", "-n", "x"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
}

#[test]
fn without_a_tcp_port_segments_still_arrive_and_the_port_is_taken_when_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let endpoint = Endpoint::start();
    let mut command = command(&["-b", "127.0.0.1:0", "-t", &address, "-n", "us-east-1"]);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint.url());
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
    let daemon = Daemon::spawn_without_tcp(command);
    daemon.wait_for_line(&format!("TCP {address} cannot be opened"));
    drop(taken);
    let daemon = daemon.with_tcp();
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn a_tcp_address_that_is_not_host_and_port_ends_the_start() {
    for address in ["2000", "localhost", "127.0.0.1:70000", "[::1]"] {
        let (code, error) = run_to_end(&["-b", "127.0.0.1:0", "-t", address, "-n", "x"]);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains(&format!("flag -t: {address:?} is not HOST:PORT")), "{error}");
    }
}

#[test]
fn a_tcp_address_whose_name_is_not_resolved_is_tried_again() {
    // The name is too long for a name server, so none is asked.
    let address = format!("{}:2000", "x".repeat(300));
    let endpoint = Endpoint::start();
    let mut command = command(&["-b", "127.0.0.1:0", "-t", &address, "-n", "us-east-1"]);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint.url());
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret");
    let daemon = Daemon::spawn_without_tcp(command);
    daemon.wait_for_line("trying again every");
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_line("Successfully sent batch of 1 segments");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn an_ipv4_address_written_as_ipv6_receives_from_ipv4() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-b", "[::ffff:127.0.0.1]:0"], &[]);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    daemon.stop();
}

#[test]
fn the_version_is_printed_in_the_originals_words_and_no_port_is_opened() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["-v", "--version"] {
        let output = command(&["-b", &address, flag]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!("AWS X-Ray daemon version: {version} (xrayd)\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn without_a_region_the_daemon_ends_and_lists_what_it_tried() {
    let (code, error) = run_to_end(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-o"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("AWS_REGION") && error.contains("-n us-east-1"), "{error}");
}

#[test]
fn segments_wait_for_credentials() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let mut command = command(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"]);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint.url());
    let process = format!("cat {}", file.display());
    let config = folder.path().join("config");
    std::fs::write(&config, format!("[default]\ncredential_process = {process}\n")).unwrap();
    command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let daemon = Daemon::spawn(command);
    daemon.send((0..3).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.wait_for_line("No credentials");
    assert_eq!(daemon.metric("xray_segments_sent_total"), 0);
    let answer = r#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret"}"#;
    std::fs::write(&file, answer).unwrap();
    daemon.wait_for_metric("xray_segments_sent_total", 3);
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("secret"), "{log}");
}

#[test]
fn a_part_filled_batch_leaves_at_the_shutdown() {
    for signal in [Signal::TERM, Signal::INT] {
        let endpoint = Endpoint::start();
        let daemon = Daemon::start(&endpoint.url(), &[], &[]);
        daemon.send((0..75).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
        daemon.signal(signal);
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
        assert_eq!(endpoint.sorted_documents().len(), 75);
        assert!(log.contains("Got shutdown signal"), "{log}");
        assert!(
            log.contains("Account: received=75 replayed=0 sent=75 rejected=0 dropped=0"),
            "{log}"
        );
    }
}

#[test]
fn what_cannot_be_sent_in_time_is_counted() {
    let endpoint = Endpoint::failing(Failure::status(500));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cfg.yaml");
    std::fs::write(&config, "Version: 2\nShutdownSeconds: 1\n").unwrap();
    let arguments = ["-c", config.to_str().unwrap()];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    daemon.send((0..7).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.wait_for_metric("xray_segments_received_total", 7);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("received=7 replayed=0 sent=0 rejected=0 dropped=7 (shutdown=7)"),
        "{log}"
    );
    assert!(log.contains("7 segments had not been sent"), "{log}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let endpoint = Endpoint::failing(Failure::status(500));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cfg.yaml");
    std::fs::write(&config, "Version: 2\nShutdownSeconds: 3600\n").unwrap();
    let arguments = ["-c", config.to_str().unwrap()];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_received_total", 1);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal:");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("dropped=1 (shutdown=1)"), "{log}");
}

#[test]
fn the_sandbox_ends_in_order_when_nobody_reads_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("x.log");
    let (_unread, output) = std::io::pipe().unwrap();
    let words = [
        "-b",
        "127.0.0.1:0",
        "-t",
        "127.0.0.1:0",
        "-f",
        log.to_str().unwrap(),
        "sandbox",
        "--otlp-http=off",
        "--otlp-grpc=off",
    ];
    let mut child = command(&words).stdout(output).spawn().unwrap();
    wait_for_text(&log, "Listening on UDP");
    let text = std::fs::read_to_string(&log).unwrap();
    let address = text.split("Listening on UDP ").nth(1).unwrap().split(' ').next().unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut pacer = Pacer::of_queue(address.parse().unwrap());
    // 2,000 printed trees are larger than the buffers of several pipes.
    for index in 0..2_000 {
        let document = format!(
            "{HEADER}{{\"trace_id\":\"1-5759e988-{index:024x}\",\"id\":\"{index:016x}\",\
             \"name\":\"{:200}\",\"start_time\":1,\"end_time\":2}}",
            "n"
        );
        pacer.wait(document.len());
        sender.send_to(document.as_bytes(), address).unwrap();
    }
    wait_for_text(&log, "Successfully sent batch");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    wait_until("the sandbox has ended", || child.try_wait().unwrap().is_some());
    assert!(
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("dropped=0 spooled=0 held=0 kernel_drops=0")
    );
}

#[test]
fn a_hang_up_opens_the_log_file_again_and_ends_nothing() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("x.log"), folder.path().join("x.old"));
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.signal(Signal::HUP);
    daemon.wait_for_line("Got SIGHUP");
    drop(daemon);

    let mut command = command(&["-b", "127.0.0.1:0", "-n", "x", "-f", path.to_str().unwrap()]);
    let mut child = command.args(["-t", "127.0.0.1:0"]).spawn().unwrap();
    wait_for_text(&path, "Listening on TCP");
    std::fs::rename(&path, &old).unwrap();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    wait_for_text(&path, "Got SIGHUP");
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(std::fs::read_to_string(&path).unwrap().contains("Account:"));
    assert!(!std::fs::read_to_string(&old).unwrap().contains("SIGHUP"));
}
