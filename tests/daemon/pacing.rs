//! Delays a test so that it sends no faster than a daemon receives, even on a busy machine.
//!
//! In: the length of each datagram before it is sent. Out: a wait while too many bytes are queued,
//! either in the queue of the daemon's socket (shown in `/proc/net/udp`) or in the daemon's memory
//! (shown by its metrics). Bound: at most [`WINDOW_BYTES`] are sent between two checks. Together
//! with [`QUEUED_BYTES_MAX`] that is less than the smallest queue of a daemon, 128 KiB.

use super::process::{Daemon, wait_and_look};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use xrayd::base::host::Host;
use xrayd::base::memory::{CHUNK_BYTES, ChunkPool};
use xrayd::config::Config;
use xrayd::pipeline::limits::{Limits, Wanted};

/// The bytes that the kernel may charge to a queue between two checks of that queue.
const WINDOW_BYTES: usize = 48 * 1024;

/// Sending continues when at most this many bytes are queued.
const QUEUED_BYTES_MAX: u64 = 16 * 1024;

/// The time between two checks while there is no room.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The payload bytes that are sent between two checks of the memory. This is a third of the memory
/// that is still free when the daemon starts to evict segments.
const PAYLOAD_BYTES_PER_LOOK: usize = 32 * 1024;

/// Delays a program that sends to a daemon.
pub struct Pacer {
    port: u16,
    unseen_bytes: usize,
    /// Returns whether the daemon's memory has room for more segments.
    has_memory: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    unseen_payload_bytes: usize,
}

impl Pacer {
    /// Creates a pacer that prevents losses in the queue of the daemon's socket. The daemon's
    /// memory may still be too small.
    pub fn of_queue(daemon: SocketAddr) -> Self {
        Self { port: daemon.port(), unseen_bytes: 0, has_memory: None, unseen_payload_bytes: 0 }
    }

    /// Creates a pacer that also prevents losses in the daemon's memory, as long as the service or
    /// the spool accepts segments. The daemon must be started with `-m`.
    pub fn of_memory(daemon: &Daemon) -> Self {
        let low_bytes = memory_low_bytes(daemon);
        let metrics = daemon.metrics();
        // If the daemon has ended, the pacer does not wait.
        let has_memory = move || {
            metrics
                .value("xray_memory_used_bytes")
                .map_or(true, |used_bytes| used_bytes <= low_bytes)
        };
        Self { has_memory: Some(Arc::new(has_memory)), ..Self::of_queue(daemon.udp) }
    }

    /// Waits until there is room for a datagram of this length.
    pub fn wait(&mut self, length_bytes: usize) {
        // The kernel rounds the length up to a power of two and adds its own structures.
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

/// Returns the number of bytes that a daemon may use before it evicts the oldest segments.
pub fn memory_low_bytes(daemon: &Daemon) -> u64 {
    let limit_bytes = daemon.metric("xray_memory_limit_bytes");
    let limits = [false, true].map(|has_spool| {
        let buffer_size_mb = daemon.buffer_size_mb;
        let wanted = Wanted { buffer_size_mb, has_spool, ..Wanted::from(&Config::default()) };
        Limits::derive(wanted, Host::read())
    });
    let limits = limits
        .into_iter()
        .find(|limits| (limits.chunk_count_max * CHUNK_BYTES) as u64 == limit_bytes);
    let limits = limits.expect("the daemon is started with -m, and has the usual receivers");
    let pool = ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count);
    let mut taken = Vec::new();
    while !pool.is_low() {
        taken.push(pool.take_for_batch());
    }
    ((taken.len() - 1) * CHUNK_BYTES) as u64
}

/// Returns the number of bytes in the queue of the socket with this port. If several sockets share
/// the port, returns the largest number.
fn queued_bytes(port: u16) -> u64 {
    let queued = |row: &Vec<String>| u64::from_str_radix(row[4].split(':').nth(1)?, 16).ok();
    rows(port).iter().filter_map(queued).max().unwrap_or_default()
}

/// Returns the rows of `/proc/net/udp` for a port, split into words.
pub fn rows(port: u16) -> Vec<Vec<String>> {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local_port = format!(":{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    let is_own = |row: &Vec<String>| row.get(1).is_some_and(|local| local.ends_with(&local_port));
    rows.filter(is_own).collect()
}
