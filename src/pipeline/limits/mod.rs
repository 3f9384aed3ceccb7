//! The limits of all memory that segments and the TCP port may take.
//!
//! In: the size that the operator allows (`-m`, `TotalBufferSizeMB`); without it, the memory of the
//! machine and of its cgroup. Out: [`Limits`], with one number for each holder of memory; `xray
//! limits` shows these numbers. Bound: the sum of all holders is that size at most. Thread: the
//! main thread, once, at the start. No other code decides how much memory is held.

use crate::base::host::{Host, SOCKET_QUEUE_BYTES_MIN};
use crate::base::memory::CHUNK_BYTES;
use crate::pipeline::batch::{OPEN_BATCH_COUNT_MAX, escape};
use crate::pipeline::call_limit::{CALL_BYTES, CallLimit};
use crate::pipeline::receive::RECEIVE_SLOT_BYTES;
use crate::pipeline::sockets::{SocketWish, Sockets};
use crate::pipeline::spans::door::{DoorLimits, Ports};
use crate::pipeline::spool;
use std::fmt;

/// The smallest and the largest memory of the TCP port, in bytes.
const TCP_PORT_BYTES_MIN: usize = 256 * 1024;
const TCP_PORT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The smallest and the largest number of connections to the TCP port. Memory may allow fewer at a
/// time.
const TCP_CONNECTION_COUNT_MIN: usize = 8;
const TCP_CONNECTION_COUNT_MAX: usize = 256;

/// One megabyte, as in `-m`: 1,048,576 bytes.
pub const MEGABYTE: u64 = 1024 * 1024;

/// The smallest total size that the daemon works with, and the default on the smallest machines.
pub const TOTAL_BYTES_MIN: u64 = 3 * MEGABYTE;

/// The smallest total size of a daemon that takes spans: half of it is for segments.
const SPANS_TOTAL_BYTES_MIN: u64 = 2 * TOTAL_BYTES_MIN;

/// The largest number of datagrams that one system call receives.
const RECEIVE_SLOT_COUNT_MAX: usize = 64;

/// The smallest number of receive slots of a receiver.
const RECEIVE_SLOT_COUNT_MIN: usize = 4;

/// The largest number of receivers if the operator sets no number.
const RECEIVER_COUNT_AUTO_MAX: usize = 16;

/// The largest number of full ring entries in a ring. 1,024 ring entries have about 15,000
/// segments: a ring hands segments over and does not store them.
const RING_ENTRY_COUNT_MAX: usize = 1024;

/// The size in bytes of a place in a ring, which holds one entry.
const RING_PLACE_BYTES: u64 = 128;

/// The largest number of chunks of an escaped document. The document can fill a whole datagram, and
/// escaping makes it up to [`escape::EXPANSION_MAX`] times as long.
const ESCAPED_DOCUMENT_CHUNK_COUNT_MAX: usize =
    (RECEIVE_SLOT_BYTES * escape::EXPANSION_MAX).div_ceil(CHUNK_BYTES - 17);

/// The memory of one receiver's parser, in bytes: a copy of the document, simd-json's own copy, the
/// places of its structural characters, and the tape that is kept for the next document.
const PARSER_BYTES: u64 = 512 * 1024;

/// The size of a chunk's entry in the free list of the pool, in bytes.
const CHUNK_OVERHEAD_BYTES: u64 = 64;

/// The size of a chunk and of its entry in the free list, in bytes.
const CHUNK_AND_PLACE_BYTES: u64 = CHUNK_BYTES as u64 + CHUNK_OVERHEAD_BYTES;

/// The least number of chunks in the pool.
const CHUNK_COUNT_MIN: usize = 64;

/// The operator's settings that affect the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The total size of all memory for segments in megabytes (`-m`); 0 for the default.
    pub buffer_size_mb: u64,
    /// The number of receivers; 0 for the default.
    pub receiver_count: usize,
    /// The number of sockets of each receiver.
    pub sockets: SocketWish,
    /// Whether there is a spool.
    pub has_spool: bool,
    /// Whether the daemon takes spans of OpenTelemetry.
    pub takes_spans: bool,
    /// The ports that take spans.
    pub span_ports: Ports,
    /// The number of calls in flight; 0 if it adapts.
    pub concurrency: usize,
    /// The largest number of calls in flight if it adapts.
    pub concurrency_max: usize,
}

/// The limit of each holder of memory. All together are `total_bytes` at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The total size of all memory for segments, in bytes.
    pub total_bytes: u64,
    /// The number of receivers. Each has sockets, receive slots, a parser and a ring.
    pub receiver_count: usize,
    /// The number of receive slots of each receiver.
    pub receive_slot_count: usize,
    /// The sockets of each receiver, and their queues.
    pub sockets: Sockets,
    /// The number of chunks in the pool. Rings, open batches, waiting batches and calls share them.
    pub chunk_count_max: usize,
    /// The number of chunks that receivers cannot take, so that batches get them.
    pub batch_reserve_count: usize,
    /// The number of chunks that must be free before a ring entry is taken out of a ring, so that
    /// batches have room for all of its segments.
    pub entry_room_count: usize,
    /// The largest number of full ring entries in a ring.
    pub ring_entry_count_max: usize,
    /// The largest request body in bytes. A document that is larger is sent alone.
    pub body_bytes_max: usize,
    /// The largest number of open batches.
    pub open_batch_count_max: usize,
    /// The size of the buffer for reading records of the spool, in bytes; 0 without a spool.
    pub spool_buffer_bytes: u64,
    /// The memory of the TCP port in bytes: connections, headers, bodies and answers.
    pub tcp_port_bytes: usize,
    /// The largest number of connections to the TCP port.
    pub tcp_connection_count_max: usize,
    /// The number of calls in flight: fixed, or the largest number.
    pub call_limit: CallLimit,
    /// The limits of the spans of OpenTelemetry; `None` if the daemon takes none.
    pub spans: Option<SpanLimits>,
}

impl Limits {
    /// Derives every limit from the settings of the operator and the size of the host.
    pub fn derive(wanted: Wanted, host: Host) -> Self {
        let Wanted { buffer_size_mb, receiver_count, has_spool, .. } = wanted;
        let total_bytes = match buffer_size_mb {
            0 => default_total_bytes(host),
            megabytes => megabytes.saturating_mul(MEGABYTE).max(TOTAL_BYTES_MIN),
        };
        let spans = wanted.takes_spans.then(|| SpanLimits::derive(total_bytes, wanted, host));
        let total_bytes = total_bytes.max(spans.map_or(0, |_| SPANS_TOTAL_BYTES_MIN));
        // All below is for segments.
        let bytes = total_bytes - spans.map_or(0, |spans| spans.bytes);
        let receiver_count = receiver_count_within(bytes, receiver_count, host);
        let receivers = receiver_count as u64;

        // The receive slots get a sixteenth of the memory, but at most 64 slots for each receiver:
        // a system call that takes more datagrams saves nothing more.
        let slots = bytes / 16 / RECEIVE_SLOT_BYTES as u64 / receivers;
        let receive_slot_count = clamp(slots, RECEIVE_SLOT_COUNT_MIN, RECEIVE_SLOT_COUNT_MAX);
        // The kernel charges the queues to the cgroup, so they get no larger part of its limit than
        // of `-m`.
        let bounded_bytes = bytes.min(host.cgroup_limit_bytes.unwrap_or(u64::MAX));
        let queues = Sockets::share_bytes(bounded_bytes, host.queues);
        let sockets = Sockets::derive(wanted.sockets, queues / receivers, receivers, host);
        // Each ring entry has a chunk or more, so a ring needs no more entries than there are
        // chunks.
        let ring_entry_count_max = clamp(bytes / CHUNK_BYTES as u64, 1, RING_ENTRY_COUNT_MAX);

        let receiver_bytes = ((receive_slot_count * RECEIVE_SLOT_BYTES) as u64)
            + sockets.count as u64 * sockets.granted_bytes
            + ring_entry_count_max as u64 * RING_PLACE_BYTES
            + PARSER_BYTES;
        // A usual body of 50 documents has 60 kB, so it fits even into the least bound of 128 KiB.
        // The bound of a sixteenth keeps one large body from filling all memory.
        let body_bytes_max = clamp(bytes / 16, 128 * 1024, 1024 * 1024);
        let spool_buffer_bytes = if has_spool { spool::BUFFER_BYTES as u64 } else { 0 };
        // The bodies of applications and their answers are small. The largest bodies, of 5 MB, fit
        // into the upper bound.
        let tcp_port_bytes = clamp(bytes / 8, TCP_PORT_BYTES_MIN, TCP_PORT_BYTES_MAX);
        // A call of an application needs a connection to the service too, and the rest of the
        // daemon needs descriptors of its own.
        let tcp_connection_count_max = clamp(
            host.descriptor_count_max / 4,
            TCP_CONNECTION_COUNT_MIN,
            TCP_CONNECTION_COUNT_MAX,
        );
        // The rest of the memory is for chunks, at most 64 GiB: the free list has an entry for each
        // chunk.
        let rest = bytes
            .saturating_sub(receivers * receiver_bytes + spool_buffer_bytes)
            .saturating_sub(tcp_port_bytes as u64);
        let (chunk_count_max, call_limit) = chunks_and_calls(rest, wanted, host);

        let open_batch_count_max = (chunk_count_max / 16).clamp(1, OPEN_BATCH_COUNT_MAX);
        // The segments of one ring entry can make every open batch begin a new chunk.
        let entry_room_count = ESCAPED_DOCUMENT_CHUNK_COUNT_MAX + open_batch_count_max;

        Self {
            total_bytes,
            receiver_count,
            receive_slot_count,
            sockets,
            chunk_count_max,
            // The reserve is small, because its chunks hold no segments during an outage. But it is
            // more than the room for one ring entry, so that calls can begin while the rings are
            // full. `receiver_count` is added because two receivers that look at the pool at the
            // same time may both take the last chunk that is not reserved.
            batch_reserve_count: (chunk_count_max / 32).min(256).max(entry_room_count)
                + receiver_count,
            entry_room_count,
            ring_entry_count_max,
            body_bytes_max,
            open_batch_count_max,
            spool_buffer_bytes,
            tcp_port_bytes,
            tcp_connection_count_max,
            call_limit,
            spans,
        }
    }

    /// Returns the holders of memory: the name, the number, and the bytes of one.
    pub fn holders(&self) -> Vec<(&'static str, u64, u64)> {
        let receivers = self.receiver_count as u64;
        let mut holders = vec![
            (
                "receive slots",
                receivers * self.receive_slot_count as u64,
                RECEIVE_SLOT_BYTES as u64,
            ),
            (
                "socket queues, with the kernel's overhead",
                receivers * self.sockets.count as u64,
                self.sockets.granted_bytes,
            ),
            ("parsers", receivers, PARSER_BYTES),
            ("places in rings", receivers * self.ring_entry_count_max as u64, RING_PLACE_BYTES),
            ("buffer of the spool", 1, self.spool_buffer_bytes),
            ("TCP port: connections, bodies, answers", 1, self.tcp_port_bytes as u64),
            ("connections of calls beyond the first 8", self.call_limit.counted(), CALL_BYTES),
            (
                "chunks, in rings, batches and bodies",
                self.chunk_count_max as u64,
                CHUNK_AND_PLACE_BYTES,
            ),
        ];
        holders.extend(self.spans.iter().flat_map(SpanLimits::holders));
        holders
    }
}

/// The limits of the spans of OpenTelemetry: half of all memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLimits {
    /// The size of all memory for spans, in bytes.
    pub bytes: u64,
    /// The number of chunks in the pool of spans. The queue, batches and calls share them.
    pub chunk_count_max: usize,
    /// The number of chunks that the queue cannot take, so that batches get them.
    pub batch_reserve_count: usize,
    /// The largest body of merged requests of clients, in bytes. A request that is larger is sent
    /// alone.
    pub body_bytes_max: usize,
    /// The size of the buffer for reading records of the spool of spans, in bytes; 0 without one.
    pub spool_buffer_bytes: u64,
    /// The number of calls with spans in flight: fixed, or the largest number.
    pub call_limit: CallLimit,
    /// The limits of the ports that take spans.
    pub door: DoorLimits,
}

impl SpanLimits {
    /// Derives the limits of spans from the size of all memory.
    fn derive(total_bytes: u64, wanted: Wanted, host: Host) -> Self {
        let bytes = total_bytes.max(SPANS_TOTAL_BYTES_MIN) / 2;
        let spool_buffer_bytes = if wanted.has_spool { spool::BUFFER_BYTES as u64 } else { 0 };
        let door = DoorLimits::within(bytes, host.descriptor_count_max, wanted.span_ports);
        let rest = bytes - spool_buffer_bytes - door.total_bytes() as u64;
        let (chunk_count_max, call_limit) = chunks_and_calls(rest, wanted, host);
        Self {
            bytes,
            chunk_count_max,
            batch_reserve_count: (chunk_count_max / 32).clamp(1, 256),
            body_bytes_max: clamp(bytes / 16, 128 * 1024, 1024 * 1024),
            spool_buffer_bytes,
            call_limit,
            door,
        }
    }

    fn holders(&self) -> [(&'static str, u64, u64); 4] {
        [
            ("spans: ports, connections and bodies", 1, self.door.total_bytes() as u64),
            ("spans: buffer of the spool", 1, self.spool_buffer_bytes),
            ("spans: connections of calls beyond 8", self.call_limit.counted(), CALL_BYTES),
            ("spans: chunks", self.chunk_count_max as u64, CHUNK_AND_PLACE_BYTES),
        ]
    }
}

/// Returns the number of chunks in `rest` bytes, at most 64 GiB, and the limit of calls. Calls
/// beyond the first ones get an eighth of the rest, for their connections.
fn chunks_and_calls(rest: u64, wanted: Wanted, host: Host) -> (usize, CallLimit) {
    let bytes_min = CHUNK_COUNT_MIN as u64 * CHUNK_AND_PLACE_BYTES;
    let (fixed, wished) = (wanted.concurrency, wanted.concurrency_max);
    let more_calls = match fixed {
        0 => CallLimit::more_calls(wished, rest, bytes_min, host.descriptor_count_max),
        _ => 0,
    };
    let chunks = (rest - more_calls as u64 * CALL_BYTES) / CHUNK_AND_PLACE_BYTES;
    let chunk_count_max = clamp(chunks, CHUNK_COUNT_MIN, 1 << 22);
    let call_limit = match fixed {
        0 => CallLimit::adaptive(wished, more_calls, chunk_count_max),
        count => CallLimit::Fixed(count),
    };
    (chunk_count_max, call_limit)
}

/// Formats the table of `xray limits`.
impl fmt::Display for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<44}{:>8}{:>12}{:>12}", "holder of memory", "count", "kB each", "MB")?;
        let mut sum = 0;
        for (name, count, bytes) in self.holders() {
            sum += count * bytes;
            let (each, all) = (kilobytes(bytes), megabytes(count * bytes));
            writeln!(out, "{name:<44}{count:>8}{each:>12}{all:>12}")?;
        }
        for (name, bytes) in [("all together", sum), ("allowed (-m)", self.total_bytes)] {
            writeln!(out, "{name:<44}{:>8}{:>12}{:>12}", "", "", megabytes(bytes))?;
        }
        writeln!(out)?;
        for (name, number) in [
            ("receivers", self.receiver_count),
            ("sockets of each receiver", self.sockets.count),
            ("chunks that receivers leave to batches", self.batch_reserve_count),
            ("open batches at most", self.open_batch_count_max),
            ("kB of a request's body at most", self.body_bytes_max / 1024),
            ("connections to the TCP port at most", self.tcp_connection_count_max),
        ] {
            writeln!(out, "{name:<44}{number:>8}")?;
        }
        self.call_limit.fmt(out)
    }
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1024.0)
}

/// Returns a size in megabytes of [`MEGABYTE`] bytes.
fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / MEGABYTE as f64)
}

/// Returns 1 % of the machine's memory, or 10 % of the cgroup's limit if that is less.
fn default_total_bytes(host: Host) -> u64 {
    let of_machine = host.memory_bytes / 100;
    let of_cgroup = host.cgroup_limit_bytes.map_or(u64::MAX, |limit| limit / 10);
    of_machine.min(of_cgroup).max(TOTAL_BYTES_MIN)
}

/// Returns the number of receivers: the number that was asked for, or one for each processor.
/// Returns fewer if they would need more than half of the memory.
fn receiver_count_within(total_bytes: u64, asked_count: usize, host: Host) -> usize {
    let receiver_bytes_min = (RECEIVE_SLOT_COUNT_MIN * RECEIVE_SLOT_BYTES) as u64
        + 2 * SOCKET_QUEUE_BYTES_MIN as u64
        + RING_ENTRY_COUNT_MAX as u64 * RING_PLACE_BYTES
        + PARSER_BYTES;
    let count_max = clamp(total_bytes / 2 / receiver_bytes_min, 1, usize::MAX);
    let wanted_count = match asked_count {
        0 => host.processor_count.min(RECEIVER_COUNT_AUTO_MAX),
        asked_count => asked_count,
    };
    wanted_count.clamp(1, count_max)
}

fn clamp(value: u64, low: usize, high: usize) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX).clamp(low, high)
}

#[cfg(test)]
mod tests;
