//! Sends no faster than a daemon takes, however busy the machine is.
//!
//! In: the length of each datagram before it is sent. Out: a wait, where too much waits for the
//! daemon: in the queue of its socket, which the kernel shows in `/proc/net/udp`, or in its memory,
//! which its metrics show. Bound: [`WINDOW_BYTES`] are sent without a look; with what may wait
//! then, that is less than the smallest queue of a daemon, 128 KiB.

use super::process::{Daemon, wait_and_look};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use xrayd::base::host::Host;
use xrayd::base::memory::{CHUNK_BYTES, Pool};
use xrayd::pipeline::limits::{Limits, Wanted};

/// What the kernel charges to a queue between two looks at it.
const WINDOW_BYTES: usize = 48 * 1024;

/// More is sent when no more than this waits in the queue.
const QUEUED_BYTES_MAX: u64 = 16 * 1024;

/// Between two looks, where there was no room.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Payload between two looks at the memory: a third of what is left when memory gets low.
const PAYLOAD_BYTES_PER_LOOK: usize = 32 * 1024;

/// Holds a sender back.
pub struct Pacer {
    port: u16,
    unseen_bytes: usize,
    /// Says whether the daemon's memory has room for more.
    has_memory: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    unseen_payload_bytes: usize,
}

impl Pacer {
    /// No datagram is lost in the queue of the daemon's socket. Its memory may be too small.
    pub fn of_queue(daemon: SocketAddr) -> Self {
        Self { port: daemon.port(), unseen_bytes: 0, has_memory: None, unseen_payload_bytes: 0 }
    }

    /// No segment is lost for want of memory either, as long as the service or the spool takes
    /// segments. The daemon has to be started with `-m`.
    pub fn of_memory(daemon: &Daemon) -> Self {
        let low_bytes = memory_low_bytes(daemon);
        let metrics = daemon.metrics();
        // A daemon that has ended is not waited for.
        let has_memory = move || {
            metrics
                .value("xray_memory_used_bytes")
                .map_or(true, |used_bytes| used_bytes <= low_bytes)
        };
        Self { has_memory: Some(Arc::new(has_memory)), ..Self::of_queue(daemon.udp) }
    }

    /// Waits until there is room for a datagram of this length.
    pub fn wait(&mut self, length_bytes: usize) {
        // The kernel rounds up to a power of two and adds its own structures.
        let charged_bytes = 2 * length_bytes + 1024;
        self.unseen_bytes += charged_bytes;
        if self.unseen_bytes > WINDOW_BYTES {
            wait_and_look(LOOK_INTERVAL, "the queue of the socket has room", || {
                queued_bytes(self.port) <= QUEUED_BYTES_MAX
            });
            self.unseen_bytes = charged_bytes;
        }
        self.unseen_payload_bytes += length_bytes;
        if let Some(has_memory) = &self.has_memory
            && self.unseen_payload_bytes > PAYLOAD_BYTES_PER_LOOK
        {
            wait_and_look(LOOK_INTERVAL, "the daemon's memory has room", || has_memory());
            self.unseen_payload_bytes = length_bytes;
        }
    }
}

/// What a daemon may use before its memory counts as low, and the oldest segments are given up.
pub fn memory_low_bytes(daemon: &Daemon) -> u64 {
    let limit_bytes = daemon.metric("xray_memory_limit_bytes");
    let limits = [false, true].map(|has_spool| {
        let wanted = Wanted { buffer_size_mb: daemon.buffer_size_mb, receiver_count: 0, has_spool };
        Limits::derive(wanted, Host::read())
    });
    let limits = limits
        .into_iter()
        .find(|limits| (limits.chunk_count_max * CHUNK_BYTES) as u64 == limit_bytes);
    let limits = limits.expect("the daemon is started with -m, and has the usual receivers");
    let pool = Pool::new(limits.chunk_count_max, limits.batch_reserve_count);
    let mut taken = Vec::new();
    while !pool.is_low() {
        taken.push(pool.take_for_batch());
    }
    ((taken.len() - 1) * CHUNK_BYTES) as u64
}

/// Bytes that wait in the fullest queue of the sockets with this port.
fn queued_bytes(port: u16) -> u64 {
    let queued = |row: &Vec<String>| u64::from_str_radix(row[4].split(':').nth(1)?, 16).ok();
    rows(port).iter().filter_map(queued).max().unwrap_or_default()
}

/// The rows of `/proc/net/udp` for a port, word by word.
pub fn rows(port: u16) -> Vec<Vec<String>> {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local_port = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    let is_own = |row: &Vec<String>| row.get(1).is_some_and(|local| local.ends_with(&local_port));
    rows.filter(is_own).collect()
}
