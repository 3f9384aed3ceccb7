//! The account as Prometheus reads it (`GET /metrics`).
//!
//! In: the account and the pool, read when somebody asks. Out: OpenMetrics text, encoded by
//! prometheus-client. The flow keeps no metric of its own, so a scrape costs it nothing.

use crate::account::{Account, Counter, DropReason, ReceiverCounts, RejectReason, RequestFailure};
use crate::memory::{CHUNK_BYTES, Pool};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Metrics::text`] is, for the answer's header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Nobody can tell how many segments are held.
const UNKNOWN: u64 = u64::MAX;

/// Everything that `GET /metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    account: Arc<Account>,
    /// [`UNKNOWN`], or how many segments are held.
    held_count: Arc<AtomicU64>,
}

impl Metrics {
    /// Shows `account`, `pool` and the name of the receive backend in force.
    pub fn new(account: Arc<Account>, pool: Arc<Pool>, receive_backend: &'static str) -> Self {
        let mut registry = Registry::with_prefix("xray");
        registry.register(
            "build",
            "The daemon's version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "receive_backend",
            "How datagrams are received",
            Info::new([("backend", receive_backend)]),
        );
        let held_count = Arc::new(AtomicU64::new(UNKNOWN));
        registry.register_collector(Box::new(Source {
            account: Arc::clone(&account),
            pool,
            held_count: Arc::clone(&held_count),
        }));
        Self { registry, account, held_count }
    }

    /// The metrics in OpenMetrics text format.
    pub async fn text(&self) -> String {
        let held_count = self.account.held_count().await.map_or(UNKNOWN, |count| count as u64);
        self.held_count.store(held_count, Ordering::Relaxed);
        let mut text = String::with_capacity(8 * 1024);
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

#[derive(Debug)]
struct Source {
    account: Arc<Account>,
    pool: Arc<Pool>,
    held_count: Arc<AtomicU64>,
}

/// A counter's name, what it counts, and where it is.
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
    ("documents_not_json", "Documents that are not JSON, forwarded as they are", |account| {
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
        "Times that a receiver had no buffer for a datagram, which the kernel kept",
        |account| &account.receive_buffers_exhausted,
    ),
    ("requests_sent", "Requests that the service accepted", |account| &account.requests_sent),
    ("requests_retried", "Requests that failed and go again", |account| &account.requests_retried),
    ("requests_throttled", "Requests that were throttled", |account| &account.requests_throttled),
    ("requests_refused", "Requests that were refused for their documents' sake", |account| {
        &account.requests_refused
    }),
    ("spool_errors", "Work of the spool that failed", |account| &account.spool.errors),
    ("spool_damaged_records", "Pieces of the spool that were torn off or changed", |account| {
        &account.spool.damaged_records
    }),
    ("spool_damaged_bytes", "The bytes of those", |account| &account.spool.damaged_bytes),
];

impl Source {
    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let spool_size_bytes = self.account.spool.size_bytes.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("memory_used_bytes", "Memory that segments take up", chunk_bytes(self.pool.used())),
            (
                "memory_limit_bytes",
                "Memory that segments may take up",
                chunk_bytes(self.pool.chunk_count_max()),
            ),
            ("spool_size_bytes", "Bytes of the spool's files", spool_size_bytes),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Documents a second that are sent at most since the service throttles; 0: any";
        let descriptor =
            encoder.encode_descriptor("upload_rate_limit", help, None, MetricType::Gauge)?;
        ConstGauge::new(self.account.rate_limit()).encode(descriptor)?;
        let held_count = self.held_count.load(Ordering::Relaxed);
        if held_count == UNKNOWN {
            return Ok(());
        }
        let help = "Segments in rings, batches and calls, counted one by one";
        let descriptor =
            encoder.encode_descriptor("segments_held", help, None, MetricType::Gauge)?;
        ConstGauge::new(held_count).encode(descriptor)
    }

    fn encode_receivers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let datagrams: fn(&ReceiverCounts) -> &Counter = |counts| &counts.datagrams;
        for (name, help, counter) in [
            ("receiver_datagrams", "Datagrams by the receiver that took them", datagrams),
            ("receiver_kernel_drops", "Kernel drops by receiver", |counts| &counts.kernel_drops),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (index, counts) in self.account.receivers.iter().enumerate() {
                let labels = [("receiver", index)];
                let counter = ConstCounter::new(counter(counts).get());
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let account = &*self.account;
        for (name, help, counter) in COUNTERS {
            let counter = ConstCounter::new(counter(account).get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), account.rejected(reason)));
        let help = "Segments turned down for their own sake, by the daemon or by the service";
        encode_labels(&mut encoder, ("segments_rejected", "reason"), help, &rejected)?;
        let dropped = DropReason::ALL.map(|reason| (reason.label(), account.dropped(reason)));
        let help = "Good segments given up for want of memory, disk or time";
        encode_labels(&mut encoder, ("segments_dropped", "reason"), help, &dropped)?;
        let proxy = &account.proxy;
        let outcomes =
            [("answered", &proxy.answered), ("refused", &proxy.refused), ("failed", &proxy.failed)];
        let help = "Requests of clients to the service, by what became of them";
        encode_labels(&mut encoder, ("proxy_requests", "outcome"), help, &outcomes)?;
        let failures =
            RequestFailure::ALL.map(|kind| (kind.label(), account.request_failures(kind)));
        let help = "Requests that got no answer of success, by what came instead";
        encode_labels(&mut encoder, ("request_failures", "kind"), help, &failures)?;
        self.encode_receivers(&mut encoder)?;
        self.encode_gauges(&mut encoder)
    }
}

fn chunk_bytes(chunk_count: usize) -> u64 {
    (chunk_count * CHUNK_BYTES) as u64
}

/// Every label has its line from the start, so that an alarm on it has a zero to start from.
fn encode_labels(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_asked_for_and_left_out_where_nobody_knows() {
        let account = Arc::new(Account::new(1));
        let metrics = Metrics::new(Arc::clone(&account), Pool::new(8, 2), "recvmmsg");
        assert!(!metrics.text().await.contains("xray_segments_held"));
        let mut taker = account.census_taker();
        let (text, ()) = tokio::join!(metrics.text(), async { taker.asked().await.answer(17) });
        assert!(text.contains("xray_segments_held 17\n"), "{text}");
    }

    #[tokio::test]
    async fn every_reason_is_shown_from_the_start_and_counts() {
        let account = Arc::new(Account::new(2));
        let metrics = Metrics::new(Arc::clone(&account), Pool::new(8, 2), "recvmmsg");
        let text = metrics.text().await;
        for line in [
            "xray_receive_backend_info{backend=\"recvmmsg\"} 1",
            "xray_segments_received_total 0",
            "xray_segments_rejected_total{reason=\"header\"} 0",
            "xray_segments_dropped_total{reason=\"memory\"} 0",
            "xray_request_failures_total{kind=\"unknown_host\"} 0",
            "xray_segments_spooled_total 0",
            "xray_proxy_requests_total{outcome=\"refused\"} 0",
            "xray_spool_size_bytes 0",
            "xray_upload_rate_limit 0.0",
            "xray_receiver_datagrams_total{receiver=\"1\"} 0",
            "xray_receiver_kernel_drops_total{receiver=\"0\"} 0",
            "xray_memory_limit_bytes 131072",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        account.received.add(7);
        account.dropped(DropReason::Shutdown).add(3);
        let text = metrics.text().await;
        assert!(text.contains("xray_segments_received_total 7\n"), "{text}");
        assert!(text.contains("xray_segments_dropped_total{reason=\"shutdown\"} 3\n"), "{text}");
    }
}
