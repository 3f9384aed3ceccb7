//! The list of all metrics: name, help text, and where each value comes from.
//!
//! In: the counters and a [`Snapshot`]. Out: descriptors and values for prometheus-client. Thread:
//! main.

use super::{MetricSources, Snapshot};
use crate::base::account::{
    Account, CallCounts, CloseReason, Counter, DropReason, LimitChange, ReceiverCounts,
    RejectReason, RequestFailure, Sizes,
};
use crate::base::conditions::Condition;
use crate::base::log;
use crate::base::memory::CHUNK_BYTES;
use crate::base::panics::{self, Thread};
use crate::pipeline::receive::Backend;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Encodes all metrics for the answer to one request.
#[derive(Debug)]
pub(super) struct SnapshotCollector {
    pub sources: Arc<MetricSources>,
    pub snapshot: Snapshot,
}

/// One metric that is a counter: its name, its help text, and the function that returns the counter
/// in the account.
type CounterOf = (&'static str, &'static str, fn(&Account) -> &Counter);

const COUNTERS: &[CounterOf] = &[
    ("segments_received", "Datagrams that were not empty", |account| &account.received),
    ("segments_sent", "Segments that the service accepted", |account| &account.sent),
    ("segments_replayed", "Segments taken out of the spool", |account| &account.replayed),
    ("segments_spooled", "Segments put into the spool, or left in it", |account| &account.spooled),
    (
        "segments_resent",
        "Segments that the service had not processed and that were sent again",
        |account| &account.segments_resent,
    ),
    ("datagrams_empty", "Empty datagrams, which are ignored", |account| &account.datagrams_empty),
    ("documents_not_json", "Documents neither JSON nor spans, forwarded as they are", |account| {
        &account.documents_not_json
    }),
    (
        "documents_invalid_utf8",
        "Documents with invalid UTF-8, forwarded with U+FFFD in its place",
        |account| &account.documents_invalid_utf8,
    ),
    (
        "kernel_drops",
        "Datagrams that the kernel dropped because the socket's queue was full",
        |account| &account.kernel_drops,
    ),
    (
        "receive_buffers_exhausted",
        "Times that a receiver had no buffer; the datagram stayed in the kernel's queue",
        |account| &account.receive_buffers_exhausted,
    ),
    (
        "receive_backend_failures",
        "Times that a receive backend failed and its receiver went on with recvmmsg",
        |account| &account.receive_backend_failures,
    ),
    ("requests_sent", "Requests that the service accepted", |account| &account.requests_sent),
    ("requests_retried", "Requests that failed and are retried", |account| {
        &account.requests_retried
    }),
    ("requests_throttled", "Requests that were throttled", |account| &account.requests_throttled),
    ("requests_refused", "Requests that were refused because of a document", |account| {
        &account.requests_refused
    }),
    (
        "answers_not_x_ray",
        "Answers with a success status that came from another server than X-Ray",
        |account| &account.answers_not_x_ray,
    ),
    (
        "answers_unreadable",
        "Answers with a success status whose list of unprocessed documents could not be read",
        |account| &account.answers_unreadable,
    ),
    ("answers_too_large", "Answers to uploads that were longer than the limit", |account| {
        &account.answers_too_large
    }),
    ("tcp_requests_busy", "Requests to the TCP port that got no turn in time", |account| {
        &account.tcp_port.busy
    }),
    ("tcp_requests_slow", "Requests to the TCP port whose client was too slow", |account| {
        &account.tcp_port.slow
    }),
    ("tcp_requests_too_large", "Requests to the TCP port that were too large", |account| {
        &account.tcp_port.too_large
    }),
    ("telemetry_records_dropped", "Telemetry records that were dropped unsent", |account| {
        &account.telemetry_records_dropped
    }),
    ("proxy_answers_too_large", "Answers that were longer than the proxy forwards", |account| {
        &account.proxy.answers_too_large
    }),
    ("spool_errors", "Spool jobs that failed", |account| &account.spool.errors),
    ("spool_damaged_records", "Damaged records of the spool", |account| {
        &account.spool.damaged_records
    }),
    ("spool_damaged_bytes", "Bytes of damaged records of the spool", |account| {
        &account.spool.damaged_bytes
    }),
];

impl SnapshotCollector {
    fn encode_sizes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sizes = &self.sources.account.sizes;
        encode_durations(encoder, sizes)?;
        let documents: (_, _, &Histogram) =
            ("batch_documents", "Documents of a batch", &sizes.batch_documents);
        let bytes = ("batch_bytes", "Bytes of a batch's body", &sizes.batch_bytes);
        for (name, help, histogram) in [documents, bytes] {
            let kind = MetricType::Histogram;
            histogram.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }

    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { sources, snapshot } = self;
        let spool = &sources.account.spool;
        let is_ready = !snapshot.conditions.contains(&true);
        for (name, help, value) in [
            ("alive", "1 if all threads make progress", u64::from(snapshot.is_alive)),
            ("ready", "1 if no condition keeps segments from being sent", u64::from(is_ready)),
            ("memory_used_bytes", "Memory that segments take up", chunk_bytes(sources.pool.used())),
            (
                "memory_limit_bytes",
                "Memory that segments may take up",
                chunk_bytes(sources.pool.chunk_count_max()),
            ),
            (
                "socket_queues_limit_bytes",
                "Size of all socket queues together, with the kernel's overhead",
                snapshot.queues_limit_bytes,
            ),
            ("sockets", "UDP sockets of all receivers together", snapshot.socket_count),
            (
                "spool_size_bytes",
                "Bytes of the spool's files",
                spool.size_bytes.load(Ordering::Relaxed),
            ),
            (
                "spool_segments",
                "Segments in the spool that are known",
                spool.segment_count.load(Ordering::Relaxed),
            ),
            (
                "spool_oldest_age_seconds",
                "Age in seconds of the oldest segment in the spool",
                spool.oldest_age(sources.account.clock.now()).as_secs(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Rate limit in documents a second while the service throttles; 0: no limit";
        let descriptor =
            encoder.encode_descriptor("upload_rate_limit", help, None, MetricType::Gauge)?;
        ConstGauge::new(sources.account.rate_limit()).encode(descriptor)?;
        let conditions = Condition::ALL.map(|condition| {
            (condition.code(), u64::from(snapshot.conditions[condition as usize]))
        });
        let help = "1 while this condition keeps segments from being sent, as in GET /ready";
        encode_family(encoder, ("trouble", "code"), help, &conditions)
    }

    /// Encodes how much memory each part of the daemon holds. If the sender's thread did not answer
    /// the occupancy query, its values are left out.
    fn encode_holders(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { sources, snapshot } = self;
        let mut holders = vec![
            ("socket_queues", snapshot.queued_bytes),
            ("receive_slots", sources.receive_slots_bytes as u64),
            ("tcp_port", snapshot.tcp_port_bytes),
        ];
        if let Some(held) = &snapshot.held {
            holders.extend([
                ("rings", held.ring_bytes as u64),
                ("open_batches", held.open_batch_bytes as u64),
                ("waiting", held.waiting_bytes as u64),
                ("in_flight", held.in_flight_bytes as u64),
                ("spool", held.spool_bytes as u64),
            ]);
            let help = "Segments in rings, batches and calls";
            let gauge = ConstGauge::new(held.segment_count as u64);
            let kind = MetricType::Gauge;
            gauge.encode(encoder.encode_descriptor("segments_held", help, None, kind)?)?;
            let states = [
                ("waiting", held.waiting_batch_count as u64),
                ("in_flight", held.in_flight_batch_count as u64),
            ];
            let help = "Batches that wait for a call, or are in one";
            encode_family(encoder, ("batches_held", "state"), help, &states)?;
        }
        let help = "Memory by holder";
        encode_family(encoder, ("memory_holder_bytes", "holder"), help, &holders)
    }

    /// Encodes which backends are in use, and by which receiver. A receiver whose backend has
    /// failed has another one than before.
    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let in_use: Vec<_> = self.sources.backends.iter().map(|backend| backend.get()).collect();
        let help = "How datagrams are received";
        let mut family =
            encoder.encode_descriptor("receive_backend", help, None, MetricType::Info)?;
        for backend in Backend::ALL.into_iter().filter(|backend| in_use.contains(backend)) {
            family.encode_info(&[("backend", backend.name())])?;
        }
        let help = "How each receiver receives datagrams";
        let mut family =
            encoder.encode_descriptor("receiver_backend", help, None, MetricType::Info)?;
        for (index, backend) in in_use.iter().enumerate() {
            let labels = [("receiver", index.to_string()), ("backend", backend.name().to_owned())];
            family.encode_info(&labels)?;
        }
        Ok(())
    }

    fn encode_receivers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let datagrams: fn(&ReceiverCounts) -> &Counter = |counts| &counts.datagrams;
        for (name, help, counter) in [
            ("receiver_datagrams", "Datagrams by the receiver that took them", datagrams),
            ("receiver_kernel_drops", "Kernel drops by receiver", |counts| &counts.kernel_drops),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (index, counts) in self.sources.account.receivers.iter().enumerate() {
                let labels = [("receiver", index)];
                let counter = ConstCounter::new(counter(counts).get());
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Seconds in which a receiver left its socket alone, because segments came faster \
                    than they were sent";
        let mut family =
            encoder.encode_descriptor("receiver_shed_seconds", help, None, MetricType::Counter)?;
        for (index, counts) in self.sources.account.receivers.iter().enumerate() {
            let counter = ConstCounter::new(counts.shed_us.get() as f64 / 1e6);
            counter.encode(family.encode_family(&[("receiver", index)])?)?;
        }
        Ok(())
    }
}

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let account = &*self.sources.account;
        for (name, help, counter) in COUNTERS {
            let counter = ConstCounter::new(counter(account).get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), account.rejected(reason)));
        let help = "Segments rejected by the daemon or by the service";
        encode_labels(&mut encoder, ("segments_rejected", "reason"), help, &rejected)?;
        let dropped = DropReason::ALL.map(|reason| (reason.label(), account.dropped(reason)));
        let help = "Good segments that were dropped, by reason";
        encode_labels(&mut encoder, ("segments_dropped", "reason"), help, &dropped)?;
        let proxy = &account.proxy;
        let outcomes =
            [("answered", &proxy.answered), ("refused", &proxy.refused), ("failed", &proxy.failed)];
        let help = "Requests of clients to the signing proxy, by outcome";
        encode_labels(&mut encoder, ("proxy_requests", "outcome"), help, &outcomes)?;
        let closed =
            CloseReason::ALL.map(|reason| (reason.label(), account.tcp_port.closed(reason)));
        let help = "Connections that the TCP port closed to make room, by what was missing";
        encode_labels(&mut encoder, ("tcp_connections_closed", "reason"), help, &closed)?;
        let failures =
            RequestFailure::ALL.map(|kind| (kind.label(), account.request_failures(kind)));
        let help = "Failed uploads, by kind of failure";
        encode_labels(&mut encoder, ("request_failures", "kind"), help, &failures)?;
        encode_panics(&mut encoder)?;
        encode_log(&mut encoder)?;
        self.encode_backends(&mut encoder)?;
        self.encode_receivers(&mut encoder)?;
        self.encode_sizes(&mut encoder)?;
        self.encode_gauges(&mut encoder)?;
        encode_calls(&mut encoder, &account.calls)?;
        self.encode_holders(&mut encoder)
    }
}

pub(super) fn chunk_bytes(chunk_count: usize) -> u64 {
    (chunk_count * CHUNK_BYTES) as u64
}

/// Encodes how many calls are in flight, how many may be, and why that last changed.
pub(super) fn encode_calls(encoder: &mut DescriptorEncoder<'_>, calls: &CallCounts) -> fmt::Result {
    let limit = "Largest number of calls in flight at this moment";
    for (name, help, value) in [
        ("upload_calls_in_flight", "Calls in flight", calls.in_flight()),
        ("upload_concurrency_limit", limit, calls.limit()),
    ] {
        let gauge = ConstGauge::new(value as u64);
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    let changes = LimitChange::ALL.map(|reason| (reason.label(), calls.changes(reason)));
    let help = "Changes of the largest number of calls in flight, by reason";
    encode_labels(encoder, ("upload_concurrency_changes", "reason"), help, &changes)?;
    let last = LimitChange::ALL
        .map(|reason| (reason.label(), u64::from(calls.last_change() == Some(reason))));
    let help = "1 for the reason of the last change of the largest number of calls in flight";
    encode_family(encoder, ("upload_concurrency_last_change", "reason"), help, &last)
}

pub(super) fn encode_durations(encoder: &mut DescriptorEncoder<'_>, sizes: &Sizes) -> fmt::Result {
    let help = "Seconds from the start of a request to the end of its answer, or to its failure";
    let name = "request_duration_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (outcome, histogram) in
        [("accepted", &sizes.accepted_request_seconds), ("failed", &sizes.failed_request_seconds)]
    {
        histogram.encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

fn encode_panics(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Panics, by thread; each is a fault in the program";
    let mut family = encoder.encode_descriptor("panics", help, None, MetricType::Counter)?;
    for thread in Thread::ALL {
        let labels = [("thread", thread.label())];
        ConstCounter::new(panics::count(thread)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_log(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, count) in [
        (
            "log_lines_dropped",
            "Log lines that were dropped, because too many waited to be written",
            log::dropped_line_count(),
        ),
        (
            "log_file_failures",
            "Times that the log file could not be opened or written",
            log::file_failure_count(),
        ),
    ] {
        let counter = ConstCounter::new(count);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}

/// Encodes a counter with one line for each value of its label. Counts of zero are included, so
/// that an alert on the increase of a counter also sees its first increase.
pub(super) fn encode_labels(
    encoder: &mut DescriptorEncoder<'_>,
    (name, label_name): (&str, &'static str),
    help: &str,
    counters: &[(&'static str, &Counter)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (label, counter) in counters {
        let labels = [(label_name, *label)];
        ConstCounter::new(counter.get()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Encodes a gauge with one line for each value of its label.
pub(super) fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    (name, label_name): (&str, &'static str),
    help: &str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (label, value) in values {
        let labels = [(label_name, *label)];
        ConstGauge::new(*value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
