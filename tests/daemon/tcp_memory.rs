//! The memory of the TCP port, and its file descriptors: clients that hold both do not keep others
//! from being answered.

use super::client::{Client, RULES, call, calls, healthcheck, start};
use super::endpoint::{Endpoint, Way};
use super::process::{Daemon, behind_shell, daemon_command, with_credentials};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::net::TcpStream;

/// The header of a request with a body of 60 kB and a header of about `header_bytes`.
pub fn head_of(header_bytes: usize) -> String {
    format!(
        "POST /SamplingTargets HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\nA: {}\r\n\r\n",
        "x".repeat(header_bytes)
    )
}

#[test]
fn bodies_that_are_not_finished_take_no_turn_from_sampling() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let mut unfinished: Vec<Client> = (0..200).map(|_| Client::connect(daemon.tcp)).collect();
    for (index, client) in unfinished.iter_mut().enumerate() {
        let head = match index % 2 {
            0 => "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
            _ => {
                "POST /GetSamplingRules HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
            }
        };
        client.write(head.as_bytes());
    }
    for _ in 0..7 {
        assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    }
    // None of the unfinished bodies has run into its timeout yet, so none of them made room.
    let told = unfinished.iter_mut().map(Client::answer_now).filter(Option::is_some).count();
    assert_eq!(told, 0);
    assert_eq!(calls(&endpoint).len(), 7);
}

#[test]
fn a_header_has_16_kb_at_most() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    let header = |bytes: usize| format!("A: {}\r\n", "x".repeat(bytes));
    assert_eq!(call(&daemon, RULES, &header(15 * 1024), b"{}").status, 200);
    let mut client = Client::connect(daemon.tcp);
    client.try_write(format!("{RULES} HTTP/1.1\r\n{}\r\n", header(17 * 1024)).as_bytes());
    let text = client.rest();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text:?}");
}

#[test]
fn connections_with_long_headers_and_open_bodies_stay_within_the_memory_of_the_port() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "6"], &[]);
    // The memory that the first requests need is not part of the comparison.
    assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    assert_eq!(call(&daemon, "GET /metrics", "", b"").status, 200);
    let before_bytes = daemon.peak_memory_bytes();
    let mut clients = Vec::new();
    for header_bytes in [64_000, 15_000, 3_000] {
        for _ in 0..256 {
            let mut client = Client::connect(daemon.tcp);
            client.try_write(head_of(header_bytes).as_bytes());
            client.try_write(&[b'x'; 50_000]);
            clients.push(client);
        }
        assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    }
    let grown_bytes = daemon.peak_memory_bytes() - before_bytes;
    // An eighth of -m is 768 kB. The rest is what the allocator keeps.
    assert!(grown_bytes < 3 * 1024 * 1024, "{grown_bytes}");
    let holder = "xray_memory_holder_bytes{holder=\"tcp_port\"}";
    assert!(daemon.metric(holder) <= 768 * 1024, "{}", daemon.metric(holder));
    assert!(daemon.metric("xray_tcp_connections_closed_total{reason=\"memory\"}") > 0);
    daemon.wait_for_line("because their memory is used up (an eighth of -m)");
}

#[test]
fn a_body_that_does_not_fit_into_the_memory_of_the_port_is_refused_with_the_size_that_does() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "6"], &[]);
    assert_eq!(call(&daemon, "POST /v1/traces", "", &[b'x'; 400_000]).status, 200);
    let refused = call(&daemon, "POST /v1/traces", "", &[b'x'; 600_000]);
    assert_eq!(refused.status, 413);
    assert!(refused.message().contains("a larger -m"), "{refused:?}");
    let table = super::process::command(&["limits", "-m", "6"]).output().unwrap().stdout;
    let table = String::from_utf8(table).unwrap();
    let line = table.lines().find(|line| line.starts_with("TCP port: ")).unwrap();
    assert!(line.ends_with(" 0.75"), "{table}");
}

#[test]
fn connections_follow_the_limit_of_descriptors() {
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command);
    let daemon = Daemon::spawn(behind_shell(&command, "ulimit -n 64 && exec \"$@\""));
    let _silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(daemon.tcp).unwrap()).collect();
    for _ in 0..3 {
        let output = healthcheck(&daemon, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    }
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());
    assert!(daemon.metric("xray_tcp_connections_closed_total{reason=\"count\"}") > 80);
}

#[test]
fn calls_that_hang_leave_connections_for_health_checks_also_with_few_descriptors() {
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::BlackHole);
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command);
    let daemon = Daemon::spawn(behind_shell(&command, "ulimit -n 64 && exec \"$@\""));
    let mut hanging: Vec<Client> = (0..30).map(|_| Client::connect(daemon.tcp)).collect();
    for (index, client) in hanging.iter_mut().enumerate() {
        let path = ["/GetSamplingRules", "/v1/traces"][index % 2];
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
        client.try_write(head.as_bytes());
    }
    for _ in 0..3 {
        let output = healthcheck(&daemon, &[]);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn without_a_descriptor_for_a_connection_idle_ones_are_closed() {
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, "");
    assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    let used_count = std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count();
    let limit = Some(used_count as u64 + 6);
    let id = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(id, Resource::Nofile, Rlimit { current: limit, maximum }).unwrap();
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(daemon.tcp)).collect();
    daemon.wait_for_line("The TCP port cannot accept a connection: Too many open files");
    // The newest connection is not closed: its request may be on the way.
    assert_eq!(silent.last_mut().unwrap().call(RULES, "", b"{}").status, 200);
    for _ in 0..3 {
        let output = healthcheck(&daemon, &[]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(call(&daemon, RULES, "", b"{}").status, 200);
    }
    assert!(daemon.metric("xray_tcp_connections_closed_total{reason=\"descriptors\"}") > 0);
}
