//! Receiving segments: addresses, the kernel's queue, a shared port, bounded memory.

use super::answers::Failure;
use super::backend::is_backend_missing;
use super::client::{healthcheck, page};
use super::endpoint::Endpoint;
use super::held::Held;
use super::pacing::{self, Pacer};
use super::process::{Daemon, HEADER, backend, config_file, wait_until};
use rustix::process::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Writes a configuration file with these keys in its `Receive` section.
fn config(folder: &tempfile::TempDir, receive: &str) -> PathBuf {
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, format!("Version: 2\nReceive: {{{receive}}}\n")).unwrap();
    path
}

#[test]
fn segments_are_received_on_ipv4_ipv6_both_and_by_name() {
    if is_backend_missing() {
        return;
    }
    for (address, hosts) in [
        ("127.0.0.1:0", &["127.0.0.1"][..]),
        ("[::1]:0", &["[::1]"]),
        ("[::]:0", &["[::1]", "127.0.0.1"]),
        ("0.0.0.0:0", &["[::1]", "127.0.0.1"]),
        ("localhost:0", &["localhost"]),
    ] {
        let endpoint = Endpoint::start();
        let daemon = Daemon::start(&endpoint.url(), &["-b", address], &[]);
        for host in hosts {
            let target = format!("{host}:{}", daemon.udp.port());
            let any = if host.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
            let sender = UdpSocket::bind(any).unwrap();
            sender.send_to(format!("{HEADER}{{}}").as_bytes(), target).unwrap();
        }
        daemon.wait_for_metric("xray_segments_received_total", hosts.len() as u64);
        assert!(daemon.stop().0.success());
    }
}

#[test]
fn the_metrics_name_the_backend_and_count_by_receiver() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "Receivers: 3, Pin: true");
    let endpoint = Endpoint::start();
    let arguments = ["-c", config.to_str().unwrap(), "-m", "64"];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    daemon.send((0..500).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.wait_for_metric("xray_segments_received_total", 500);
    let name = format!("xray_receive_backend_info{{backend=\"{}\"}}", backend());
    assert_eq!(daemon.metric(&name), 1);
    let by_receiver =
        |index| daemon.metric(&format!("xray_receiver_datagrams_total{{receiver=\"{index}\"}}"));
    assert_eq!((0..3).map(by_receiver).sum::<u64>(), 500);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains(", 3 receivers, "), "{log}");
    assert!(
        log.contains(
            "received=500 replayed=0 sent=500 rejected=0 dropped=0 spooled=0 held=0 kernel_drops=0"
        ),
        "{log}"
    );
}

/// Returns the sum of the `drops` column of `/proc/net/udp` for a port.
fn kernel_drops(port: u16) -> u64 {
    pacing::rows(port).iter().map(|row| row.last().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn what_the_kernel_drops_is_counted_exactly_as_the_kernel_counts_it() {
    if is_backend_missing() {
        return;
    }
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &["-m", "3"], &[]);
    daemon.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", daemon.id());
    wait_until("the daemon stands still", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    const COUNT: u64 = 3_000;
    for index in 0..COUNT {
        let datagram = format!("{HEADER}{{\"n\":{index:01000}}}");
        sender.send_to(datagram.as_bytes(), daemon.udp).unwrap();
    }
    let dropped_count = kernel_drops(daemon.udp.port());
    assert!(dropped_count > COUNT / 2, "{dropped_count}");
    daemon.signal(Signal::CONT);
    daemon.wait_for_metric("xray_kernel_drops_total", dropped_count);
    daemon.wait_for_metric("xray_segments_received_total", COUNT - dropped_count);
    let by_receiver = "xray_receiver_kernel_drops_total{receiver=\"0\"}";
    assert_eq!(daemon.metric(by_receiver), dropped_count);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("The kernel dropped") && log.contains("A larger"), "{log}");
    assert!(log.contains(&format!("kernel_drops={dropped_count}")), "{log}");
}

/// Returns whether the daemon has ended and is a zombie, because the test has not yet waited for
/// it.
fn has_ended(daemon: &Daemon) -> bool {
    daemon.status_field("State:") == "Z"
}

#[test]
fn a_shared_port_is_handed_over_without_a_gap() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "Receivers: 2, SharePort: true");
    let config = config.to_str().unwrap();
    let endpoint = Endpoint::start();
    let mut daemon = Daemon::start(&endpoint.url(), &["-c", config, "-m", "16"], &[]);
    let address: SocketAddr = daemon.udp;
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut sent_count, mut pacer) = (0, Pacer::of_queue(address));
    let mut send_until = |is_over: &mut dyn FnMut() -> bool| {
        while !is_over() {
            let datagram = format!("{HEADER}{{\"n\":{}}}", 1_000_000 + sent_count);
            pacer.wait(datagram.len());
            sender.send_to(datagram.as_bytes(), address).unwrap();
            sent_count += 1;
            std::thread::sleep(Duration::from_micros(300));
        }
    };
    for _ in 0..3 {
        let arguments = ["-b", &address.to_string(), "-c", config, "-m", "16"];
        let next = Daemon::start(&endpoint.url(), &arguments, &[]);
        daemon.signal(Signal::TERM);
        send_until(&mut || has_ended(&daemon));
        let (status, log) = daemon.wait();
        assert!(status.success(), "{log}");
        assert!(log.contains("kernel_drops=0") && log.contains("dropped=0"), "{log}");
        daemon = next;
    }
    let start = Instant::now();
    send_until(&mut || start.elapsed() > Duration::from_millis(100));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("Another daemon listens on the port too"), "{log}");
    let documents = endpoint.sorted_documents();
    let expected: Vec<String> =
        (0..sent_count).map(|index| format!("{{\"n\":{}}}", 1_000_000 + index)).collect();
    assert_eq!(documents.len(), expected.len(), "{log}");
    assert_eq!(documents, expected);
}

#[test]
fn a_flood_of_large_documents_stays_within_the_memory_allowed() {
    if is_backend_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "Receivers: 64");
    // The service fails each call, so that the daemon keeps the segments as long as it has memory.
    let endpoint = Endpoint::failing(Failure::status(500));
    for (megabytes, receiver_count) in [("3", 1), ("6", 2)] {
        let arguments = ["-c", config.to_str().unwrap(), "-m", megabytes];
        let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
        daemon.wait_for_line(&format!("{receiver_count} receivers are started instead of 64"));
        let idle_bytes = daemon.peak_memory_bytes();
        let document = format!("{HEADER}{{\"n\":\"{}\"}}", "\"".repeat(60_000));
        daemon.send((0..300).map(|_| &document));
        daemon.wait_for_line("Spilling over");
        let grown_bytes = daemon.peak_memory_bytes() - idle_bytes;
        let allowed_bytes = megabytes.parse::<u64>().unwrap() << 20;
        // Besides its segments the daemon may use 4 MiB for connections, the runtime and the
        // allocator.
        assert!(grown_bytes < allowed_bytes + (4 << 20), "{grown_bytes} bytes with {megabytes} MB");
        assert!(daemon.peak_memory_bytes() < 64 << 20);
    }
}

#[test]
fn a_receiver_that_is_stuck_with_datagrams_before_it_is_told_by_liveness() {
    if is_backend_missing() {
        return;
    }
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Receive: {Receivers: 1}");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    let Some(held) = Held::thread_of(&daemon, "receive-0") else { return };
    // While no datagram waits, the daemon cannot detect that a receiver is stuck. It loses no
    // datagram then.
    assert_eq!(page(&daemon, "/health").0, 200);
    daemon.send([format!("{HEADER}{{}}")]);
    let (status, body) = page(&daemon, "/health");
    assert_eq!((status, &body["status"]), (503, &"wedged".into()));
    assert!(body["reasons"][0].as_str().unwrap().starts_with("receiver 0 has left "), "{body}");
    let output = healthcheck(&daemon, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("wedged: receiver 0 has left "), "{said}");
    drop(held);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    assert_eq!(page(&daemon, "/health").0, 200);
}
