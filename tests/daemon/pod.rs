//! A pod with 64 MiB of memory, as samples for Kubernetes limit it: an outage, a flood of
//! datagrams, and many clients at once.
//!
//! The daemon runs in a memory cgroup of its own, of version 1 or 2. A cgroup that charges the
//! memory of sockets has the limit for everything. Otherwise the test adds up what the daemon's
//! sockets hold.

use super::client::{Client, RULES, request};
use super::endpoint::Endpoint;
use super::load::large_document;
use super::pacing;
use super::process::{Daemon, HEADER, behind_shell, daemon_command, with_credentials};
use super::skip::{Need, skip};
use super::tcp_memory::head_of;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const LIMIT_BYTES: u64 = 64 << 20;

/// A memory cgroup with a limit. It is removed when it is dropped; its processes have ended then.
struct Cgroup {
    folder: PathBuf,
    is_version_2: bool,
}

impl Cgroup {
    fn new() -> io::Result<Self> {
        let is_version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if is_version_2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        let folder = Path::new(root).join(format!("xrayd-test-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let cgroup = Self { folder, is_version_2 };
        let limit = if is_version_2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(cgroup.folder.join(limit), LIMIT_BYTES.to_string())?;
        Ok(cgroup)
    }

    /// Returns a number in a file of the cgroup, in a line of its own or behind `name`.
    fn number(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn oom_count(&self) -> u64 {
        let file = if self.is_version_2 { "memory.events" } else { "memory.oom_control" };
        self.number(file, "oom_kill ").unwrap()
    }

    fn peak_bytes(&self) -> u64 {
        let file = if self.is_version_2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        self.number(file, "").unwrap_or_default()
    }

    /// Returns whether the limit applies to the memory of sockets too. In version 1 it never does.
    fn charges_sockets(&self) -> bool {
        self.is_version_2 && self.number("memory.stat", "sock ").is_some_and(|bytes| bytes > 0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment to forget a process.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the bytes in the queues of the daemon's sockets: both of each connection, and those of
/// the UDP sockets with the kernel's overhead.
fn socket_bytes(daemon: &Daemon) -> u64 {
    let queue = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
    let port = format!(":{:04X}", daemon.tcp.port());
    let connections = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| {
        let table = fs::read_to_string(path).unwrap_or_default();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = rows.filter(|row| row.len() > 4 && row[1].ends_with(&port) && row[3] != "0A");
        let bytes = own.filter_map(|row| row[4].split_once(':').map(|(t, r)| queue(t) + queue(r)));
        bytes.sum::<u64>()
    });
    let datagrams = pacing::rows(daemon.udp.port());
    let datagrams = datagrams.iter().filter_map(|row| row[4].split_once(':'));
    // The kernel's overhead of a connection's queue is at most the size of its content.
    2 * connections.iter().sum::<u64>() + datagrams.map(|(_, taken)| queue(taken)).sum::<u64>()
}

/// Sends datagrams as fast as the kernel takes them, until `is_over`.
fn flood(daemon: &Daemon, is_over: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(daemon.udp).unwrap();
    for index in 0.. {
        let _ = socket.send(format!("{HEADER}{}", large_document(index)).as_bytes());
        if is_over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Opens connections with headers that are too long or long, and with bodies that do not end. Opens
/// new ones in the place of the oldest, until `is_over`.
fn crowd(daemon: &Daemon, is_over: &AtomicBool) {
    let mut clients: Vec<Option<Client>> = (0..256).map(|_| None).collect();
    for index in 0.. {
        let mut client = Client::connect(daemon.tcp);
        client.try_write(head_of([64_000, 15_000, 1_000][index % 3]).as_bytes());
        client.try_write(&[b'x'; 30_000]);
        clients[index % 256] = Some(client);
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        if index >= 256 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Makes a sampling call until it is answered, as SDKs do. The crowd may have the connection closed
/// first.
fn sample(daemon: &Daemon) {
    daemon.wait_until("a sampling call is answered", || {
        let mut client = Client::connect(daemon.tcp);
        client.try_write(&request(RULES, "", b"{}"));
        client.answer_unless_closed().is_some_and(|answer| answer.status == 200)
    });
}

/// Ends the other threads of a test when it is dropped, also after a failure.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_pod_of_64_mb_survives_an_outage_a_flood_and_a_crowd_and_answers_sampling() {
    let cgroup = match Cgroup::new() {
        Ok(cgroup) => cgroup,
        Err(error) => return skip(Need::Root, format!("no memory cgroup can be made: {error}")),
    };
    let endpoint = Endpoint::start();
    endpoint.change(|rules| rules.hangs_uploads = true);
    let mut command = daemon_command(&endpoint.url(), &["-m", "6"]);
    with_credentials(&mut command);
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.folder.display());
    let daemon = Daemon::spawn(behind_shell(&command, &enter));
    let (is_over, peak_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _ending = Ending(&is_over);
        scope.spawn(|| flood(&daemon, &is_over));
        scope.spawn(|| crowd(&daemon, &is_over));
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peak_bytes.fetch_max(socket_bytes(&daemon), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let lost = "xray_segments_dropped_total{reason=\"memory\"}";
        // The crowd may have this connection closed too: then the next answer tells the number.
        let count = || daemon.metrics().value(lost).unwrap_or_default();
        daemon.wait_for_count(lost, 10_000, count);
        for _ in 0..20 {
            sample(&daemon);
        }
    });
    let sockets_bytes = if cgroup.charges_sockets() { 0 } else { peak_bytes.into_inner() };
    let used_bytes = cgroup.peak_bytes().max(daemon.peak_memory_bytes()) + sockets_bytes;
    assert_eq!(cgroup.oom_count(), 0);
    assert!(used_bytes < LIMIT_BYTES, "{used_bytes}, of them {sockets_bytes} in sockets");
    // The account of the daemon is checked at its end.
    endpoint.change(|rules| rules.hangs_uploads = false);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
