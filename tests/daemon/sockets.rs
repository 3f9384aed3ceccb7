//! Receivers with several sockets: their number, bursts without privileges, a port that changes
//! hands between daemons with different numbers of sockets.

use super::backend::is_backend_missing;
use super::client::page;
use super::endpoint::Endpoint;
use super::held::Held;
use super::pacing;
use super::process::{
    Daemon, HEADER, backend, command, config_file, daemon_command, wait_until, with_credentials,
};
use super::skip::{Need, skip};
use rustix::process::{Signal, geteuid};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use xrayd::pipeline::receive::Backend;

/// Bytes that the kernel charges to a queue for a datagram of 1 kB.
const DATAGRAM_BYTES: u64 = 2_304;

/// The user id of `nobody`, who has no privileges.
const NOBODY: u32 = 65_534;

/// Returns a datagram of 1 kB with a number.
fn datagram(number: usize) -> String {
    let document = format!("{{\"n\":{},\"x\":\"", 1_000_000 + number);
    let rest = 1_000 - HEADER.len() - document.len() - 2;
    format!("{HEADER}{document}{}\"}}", "x".repeat(rest))
}

/// Sends `count` datagrams of 1 kB at once, from one socket.
fn burst(target: SocketAddr, count: usize) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..count {
        sender.send_to(datagram(number).as_bytes(), target).unwrap();
    }
}

/// Stops the daemon's process until [`go_on`], so that its queues fill.
fn stand_still(daemon: &Daemon) {
    daemon.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", daemon.id());
    wait_until("the daemon stands still", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
}

fn go_on(daemon: &Daemon) {
    daemon.signal(Signal::CONT);
}

/// Returns how many sockets of a port have datagrams in their queues.
fn filled_count(port: u16) -> usize {
    let is_filled = |row: &&Vec<String>| !row[4].ends_with(":00000000");
    pacing::rows(port).iter().filter(is_filled).count()
}

/// Returns the number of sockets that a daemon with this target's backend has in this case.
fn expected_count(receiver_count: usize, socket_count: usize) -> usize {
    if backend() == Backend::Recvmmsg { receiver_count * socket_count } else { receiver_count }
}

fn config(folder: &Path, receive: &str) -> String {
    config_file(folder, &format!("Receive: {{{receive}}}"))
}

#[test]
fn a_burst_is_spread_over_all_sockets_and_every_datagram_is_accounted_for() {
    if is_backend_missing() {
        return;
    }
    const COUNT: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "Receivers: 2, Sockets: 8");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config, "-m", "64"], &[]);
    let socket_count = expected_count(2, 8);
    assert!(daemon.log().contains(&format!(", 2 receivers, {socket_count} sockets, ")));
    assert_eq!(daemon.metric("xray_sockets"), socket_count as u64);
    assert_eq!(pacing::rows(daemon.udp.port()).len(), socket_count);
    stand_still(&daemon);
    burst(daemon.udp, COUNT);
    // At a low rate the first receiver has room for the burst. With one socket each it may need the
    // second one.
    let filled_count = filled_count(daemon.udp.port());
    assert!(filled_count >= socket_count / 2, "{filled_count} of {socket_count}");
    go_on(&daemon);
    let taken = |daemon: &Daemon| {
        daemon.metric("xray_segments_received_total") + daemon.metric("xray_kernel_drops_total")
    };
    daemon.wait_until("each datagram is received or dropped", || taken(&daemon) == COUNT as u64);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let has_warning = log.contains("Receive.Sockets has no effect");
    assert_eq!(has_warning, matches!(backend(), Backend::Uring | Backend::TokioUring), "{log}");
}

#[test]
fn without_privileges_a_burst_of_a_thousand_fits_into_the_queues_of_ten_megabytes() {
    if is_backend_missing() {
        return;
    }
    if !geteuid().is_root() {
        return skip(Need::Root, "another user cannot be chosen");
    }
    const COUNT: u64 = 1_000;
    let endpoint = Endpoint::start();
    // The program is copied to where another user can execute it.
    let folder = tempfile::Builder::new().permissions(open_to_all()).tempdir().unwrap();
    let program = folder.path().join("xray");
    std::fs::copy(command(&[]).get_program(), &program).unwrap();
    let usual = command(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1", "-m", "10"]);
    let mut confined = std::process::Command::new(&program);
    confined.args(usual.get_args()).env_clear().current_dir("/");
    confined.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    confined.env("AWS_ENDPOINT_URL_XRAY", endpoint.url()).uid(NOBODY).gid(NOBODY);
    let daemon = Daemon::spawn({
        with_credentials(&mut confined);
        confined
    });
    assert_eq!(daemon.status_field("CapEff:"), "0000000000000000");
    let granted_bytes = daemon.metric("xray_socket_queues_limit_bytes");
    assert!(granted_bytes >= COUNT * DATAGRAM_BYTES, "{granted_bytes}: {}", daemon.log());
    assert!(granted_bytes <= (10 << 20) / 4, "{granted_bytes}: {}", daemon.log());
    let most_bytes = 2 * rmem_max();
    let socket_count = daemon.metric("xray_sockets");
    assert!(granted_bytes <= socket_count * most_bytes, "{socket_count} of {most_bytes}");
    let has_many = daemon.log().contains("so each receiver has ");
    assert_eq!(has_many, granted_bytes > 2 * most_bytes.max(granted_bytes / 2), "{}", daemon.log());
    burst(daemon.udp, 1_000);
    let taken =
        || daemon.metric("xray_segments_received_total") + daemon.metric("xray_kernel_drops_total");
    daemon.wait_until("each datagram is received or dropped", || taken() == COUNT);
    // The queues are beside the resident memory, in the kernel.
    assert!(daemon.peak_memory_bytes() + granted_bytes < 64 << 20);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

fn open_to_all() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

fn rmem_max() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn a_burst_after_a_hand_over_is_whole_with_other_numbers_of_sockets_on_both_sides() {
    if is_backend_missing() {
        return;
    }
    const COUNT: usize = 1_000;
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let start = |receivers: usize, sockets: usize, address: &str| {
        let keys = format!("Receivers: {receivers}, Sockets: {sockets}, SharePort: true");
        let config = config(folder.path(), &keys);
        // 64 MB allow so many sockets of one receiver the room of three bursts.
        let arguments = ["-b", address, "-c", &config, "-m", "64"];
        Daemon::start(&endpoint.url(), &arguments, &[])
    };
    let mut daemon = start(1, 6, "127.0.0.1:0");
    let address = daemon.udp;
    for (receiver_count, socket_count) in [(2, 3), (1, 1), (2, 4)] {
        let next = start(receiver_count, socket_count, &address.to_string());
        next.wait_for_line("Another daemon listens on the port too");
        daemon.signal(Signal::TERM);
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
        daemon = next;
        let expected_count = expected_count(receiver_count, socket_count);
        let line = format!("datagrams are spread over all {expected_count} sockets");
        daemon.wait_for_line(&line);
        stand_still(&daemon);
        burst(address, COUNT);
        // All of these sockets are in use: none of a thousand datagrams of one application comes
        // only with a probability of 2^-400.
        assert_eq!(filled_count(address.port()), expected_count);
        go_on(&daemon);
        daemon.wait_for_metric("xray_segments_received_total", COUNT as u64);
        assert_eq!(daemon.metric("xray_kernel_drops_total"), 0);
    }
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("kernel_drops=0"), "{log}");
}

#[test]
fn a_daemon_that_leaves_takes_what_all_of_its_queues_hold() {
    if is_backend_missing() {
        return;
    }
    const COUNT: usize = 500;
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "Receivers: 2, Sockets: 5, SharePort: true");
    let arguments = ["-c", config.as_str(), "-m", "64"];
    let leaving = Daemon::start(&endpoint.url(), &arguments, &[]);
    let address = leaving.udp.to_string();
    stand_still(&leaving);
    burst(leaving.udp, COUNT);
    let staying =
        Daemon::start(&endpoint.url(), &[&["-b", &address], &arguments[..]].concat(), &[]);
    leaving.signal(Signal::TERM);
    go_on(&leaving);
    let (status, log) = leaving.wait();
    assert!(status.success() && log.contains(&format!("received={COUNT} ")), "{log}");
    assert!(log.contains("kernel_drops=0"), "{log}");
    let count = expected_count(2, 5);
    staying.wait_for_line(&format!("datagrams are spread over all {count} sockets"));
    let (status, log) = staying.stop();
    assert!(status.success() && log.contains("received=0 "), "{log}");
}

#[test]
fn copies_of_a_segment_in_progress_and_complete_are_delivered_in_either_order() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "Receivers: 2, Sockets: 4");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config, "-m", "64"], &[]);
    let mut sent = Vec::new();
    for number in 0..100 {
        let ids = format!(
            "\"trace_id\":\"1-5759e988-{number:024x}\",\"id\":\"{number:016x}\",\"name\":\"x\",\
             \"start_time\":1.5"
        );
        let begun = format!("{{{ids},\"in_progress\":true}}");
        let complete = format!("{{{ids},\"end_time\":2.5}}");
        // The kernel may hand both over in either order, and so may the application.
        let copies = if number % 2 == 0 { [begun, complete] } else { [complete, begun] };
        sent.extend(copies);
    }
    daemon.send(sent.iter().map(|document| format!("{HEADER}{document}")));
    daemon.wait_for_metric("xray_segments_sent_total", sent.len() as u64);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("rejected=0 dropped=0"), "{log}");
    sent.sort();
    assert_eq!(endpoint.sorted_documents(), sent);
}

#[test]
fn a_socket_that_is_not_read_is_told_by_liveness() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "Receivers: 1, Sockets: 3");
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config, "-m", "64"], &[]);
    let Some(held) = Held::thread_of(&daemon, "receive-0") else { return };
    let socket_count = expected_count(1, 3);
    burst(daemon.udp, 100);
    assert_eq!(filled_count(daemon.udp.port()), socket_count);
    let (status, body) = page(&daemon, "/health");
    assert_eq!((status, &body["status"]), (503, &"wedged".into()));
    let end =
        format!(" bytes in the queues of {socket_count} of its {socket_count} sockets for 3 s");
    let reason = body["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("receiver 0 has left ") && reason.ends_with(&end), "{body}");
    drop(held);
    daemon.wait_for_metric("xray_segments_sent_total", 100);
    assert_eq!(page(&daemon, "/health").0, 200);
}

#[test]
fn more_sockets_than_fit_are_a_warning_and_fewer_sockets() {
    if backend() != Backend::Recvmmsg {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "Receivers: 1, Sockets: 256");
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &["-c", &config, "-m", "3"]);
    let daemon = Daemon::spawn(std::mem::replace(with_credentials(&mut command), {
        std::process::Command::new("true")
    }));
    daemon.wait_for_line("sockets are opened for each receiver instead of 256 (Receive.Sockets)");
    // A quarter of 3 MB has room for six of the smallest queues.
    assert_eq!(daemon.metric("xray_sockets"), 6);
    assert!(daemon.stop().0.success());
}
