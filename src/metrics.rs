//! The account as Prometheus reads it (`GET /metrics`).
//!
//! In: the account and the pool, read when somebody asks. Out: OpenMetrics text, encoded by
//! prometheus-client. The flow keeps no metric of its own, so a scrape costs it nothing.

use crate::account::{Account, Counter, DropReason, ReceiverCounts, RejectReason};
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

/// What [`Metrics::text`] is, for the answer's header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that `GET /metrics` shows.
#[derive(Debug)]
pub struct Metrics(Registry);

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
        registry.register_collector(Box::new(Source { account, pool }));
        Self(registry)
    }

    /// The metrics in OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(8 * 1024);
        encode(&mut text, &self.0).expect("writing to a string does not fail");
        text
    }
}

#[derive(Debug)]
struct Source {
    account: Arc<Account>,
    pool: Arc<Pool>,
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let account = &*self.account;
        for (name, help, counter) in [
            ("segments_received", "Datagrams that were not empty", &account.received),
            ("segments_sent", "Segments that the service accepted", &account.sent),
            ("datagrams_empty", "Empty datagrams, which are ignored", &account.datagrams_empty),
            (
                "documents_not_json",
                "Documents that are not JSON, forwarded as they are",
                &account.documents_not_json,
            ),
            (
                "documents_invalid_utf8",
                "Documents with invalid UTF-8, forwarded with U+FFFD in its place",
                &account.documents_invalid_utf8,
            ),
            (
                "kernel_drops",
                "Datagrams that the kernel dropped because the socket's queue was full",
                &account.kernel_drops,
            ),
            (
                "receive_buffers_exhausted",
                "Times that a receiver had no buffer for a datagram, which the kernel kept",
                &account.receive_buffers_exhausted,
            ),
            ("requests_sent", "Requests that the service accepted", &account.requests_sent),
            ("requests_retried", "Requests that failed and go again", &account.requests_retried),
            ("requests_throttled", "Requests that were throttled", &account.requests_throttled),
            ("requests_refused", "Requests refused for good", &account.requests_refused),
        ] {
            let counter = ConstCounter::new(counter.get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), account.rejected(reason)));
        let help = "Segments turned down for their own sake, by the daemon or by the service";
        encode_reasons(&mut encoder, "segments_rejected", help, &rejected)?;
        let dropped = DropReason::ALL.map(|reason| (reason.label(), account.dropped(reason)));
        let help = "Good segments given up for want of memory or time";
        encode_reasons(&mut encoder, "segments_dropped", help, &dropped)?;
        let datagrams: fn(&ReceiverCounts) -> &Counter = |counts| &counts.datagrams;
        for (name, help, counter) in [
            ("receiver_datagrams", "Datagrams by the receiver that took them", datagrams),
            ("receiver_kernel_drops", "Kernel drops by receiver", |counts| &counts.kernel_drops),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (index, counts) in account.receivers.iter().enumerate() {
                let labels = [("receiver", index)];
                let counter = ConstCounter::new(counter(counts).get());
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, chunk_count) in [
            ("memory_used_bytes", "Memory that segments take up", self.pool.used()),
            ("memory_limit_bytes", "Memory that segments may take up", self.pool.chunk_count_max()),
        ] {
            let gauge = ConstGauge::new((chunk_count * CHUNK_BYTES) as u64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

/// Every reason has its line from the start, so that an alarm on it has a zero to start from.
fn encode_reasons(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    reasons: &[(&'static str, &Counter)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (label, counter) in reasons {
        let labels = [("reason", *label)];
        ConstCounter::new(counter.get()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_shown_from_the_start_and_counts() {
        let account = Arc::new(Account::new(2));
        let metrics = Metrics::new(Arc::clone(&account), Pool::new(8, 2), "recvmmsg");
        let text = metrics.text();
        for line in [
            "xray_receive_backend_info{backend=\"recvmmsg\"} 1",
            "xray_segments_received_total 0",
            "xray_segments_rejected_total{reason=\"header\"} 0",
            "xray_segments_dropped_total{reason=\"memory\"} 0",
            "xray_receiver_datagrams_total{receiver=\"1\"} 0",
            "xray_receiver_kernel_drops_total{receiver=\"0\"} 0",
            "xray_memory_limit_bytes 131072",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        account.received.add(7);
        account.dropped(DropReason::Shutdown).add(3);
        let text = metrics.text();
        assert!(text.contains("xray_segments_received_total 7\n"), "{text}");
        assert!(text.contains("xray_segments_dropped_total{reason=\"shutdown\"} 3\n"), "{text}");
    }
}
