//! The list of all metrics of spans: name, help text, and where each value comes from.
//!
//! In: the account and the pool of spans, and the answer to an occupancy query. Out: descriptors
//! and values for prometheus-client; all names begin with `xray_otlp_`. Thread: main.

use super::encode::{chunk_bytes, encode_calls, encode_durations, encode_family, encode_labels};
use super::encode_ports::encode_ports;
use crate::base::account::{Account, Counter, DropReason, Held, RejectReason, RequestFailure};
use crate::base::memory::ChunkPool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Encodes all metrics of spans for the answer to one request.
#[derive(Debug)]
pub(super) struct SpanCollector {
    pub account: Arc<Account>,
    pub pool: Arc<ChunkPool>,
    /// The spans that are held; `None` if the sender did not answer the query.
    pub held: Option<Held>,
}

type CounterOf = (&'static str, &'static str, fn(&Account) -> &Counter);

const COUNTERS: &[CounterOf] = &[
    ("spans_received", "Spans whose exporters got a success", |account| &account.received),
    ("spans_sent", "Spans that the service accepted", |account| &account.sent),
    ("spans_replayed", "Spans taken out of their spool", |account| &account.replayed),
    ("spans_spooled", "Spans put into their spool, or left in it", |account| &account.spooled),
    ("requests_sent", "Requests with spans that the service accepted", |account| {
        &account.requests_sent
    }),
    ("requests_retried", "Requests with spans that failed and are retried", |account| {
        &account.requests_retried
    }),
    ("requests_throttled", "Requests with spans that were throttled", |account| {
        &account.requests_throttled
    }),
    ("requests_refused", "Requests with spans that were refused for their content", |account| {
        &account.requests_refused
    }),
    (
        "answers_not_x_ray",
        "Answers with a success status that came from another server than X-Ray",
        |account| &account.answers_not_x_ray,
    ),
    (
        "answers_unreadable",
        "Answers with a success status whose partial success could not be read",
        |account| &account.answers_unreadable,
    ),
    ("answers_too_large", "Answers that were longer than the limit", |account| {
        &account.answers_too_large
    }),
    ("spool_errors", "Jobs of the spool of spans that failed", |account| &account.spool.errors),
    ("spool_damaged_records", "Damaged records of the spool of spans", |account| {
        &account.spool.damaged_records
    }),
    ("spool_damaged_bytes", "Bytes of damaged records of the spool of spans", |account| {
        &account.spool.damaged_bytes
    }),
];

impl SpanCollector {
    fn encode_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { account, pool, .. } = self;
        let spool = &account.spool;
        for (name, help, value) in [
            ("memory_used_bytes", "Memory that spans take up", chunk_bytes(pool.used())),
            (
                "memory_limit_bytes",
                "Memory that spans may take up",
                chunk_bytes(pool.chunk_count_max()),
            ),
            (
                "spool_size_bytes",
                "Bytes of the files of the spool of spans",
                spool.size_bytes.load(Ordering::Relaxed),
            ),
            (
                "spool_spans",
                "Spans in their spool that are known",
                spool.segment_count.load(Ordering::Relaxed),
            ),
            (
                "spool_oldest_age_seconds",
                "Age in seconds of the oldest span in the spool",
                spool.oldest_age(account.clock.now()).as_secs(),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help =
            "Rate limit in requests of clients a second while the service throttles; 0: none";
        let kind = MetricType::Gauge;
        let descriptor = encoder.encode_descriptor("upload_rate_limit", help, None, kind)?;
        ConstGauge::new(account.rate_limit()).encode(descriptor)
    }

    /// Encodes the spans and the memory that are held, if the sender's thread has answered.
    fn encode_held(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(held) = &self.held else { return Ok(()) };
        let gauge = ConstGauge::new(held.segment_count as u64);
        let help = "Spans in the queue, in batches and calls";
        gauge.encode(encoder.encode_descriptor("spans_held", help, None, MetricType::Gauge)?)?;
        let states = [
            ("waiting", held.waiting_batch_count as u64),
            ("in_flight", held.in_flight_batch_count as u64),
        ];
        let help = "Batches of spans that wait for a call, or are in one";
        encode_family(encoder, ("batches_held", "state"), help, &states)?;
        let holders = [
            ("queue", held.ring_bytes as u64),
            ("open_batches", held.open_batch_bytes as u64),
            ("waiting", held.waiting_bytes as u64),
            ("in_flight", held.in_flight_bytes as u64),
            ("spool", held.spool_bytes as u64),
        ];
        encode_family(encoder, ("memory_holder_bytes", "holder"), "Memory by holder", &holders)
    }
}

impl Collector for SpanCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let account = &*self.account;
        for (name, help, counter) in COUNTERS {
            let counter = ConstCounter::new(counter(account).get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), account.rejected(reason)));
        let help = "Spans rejected by the service";
        encode_labels(&mut encoder, ("spans_rejected", "reason"), help, &rejected)?;
        let dropped = DropReason::ALL.map(|reason| (reason.label(), account.dropped(reason)));
        let help = "Accepted spans that were dropped, by reason";
        encode_labels(&mut encoder, ("spans_dropped", "reason"), help, &dropped)?;
        let failures =
            RequestFailure::ALL.map(|kind| (kind.label(), account.request_failures(kind)));
        let help = "Failed requests with spans, by kind of failure";
        encode_labels(&mut encoder, ("request_failures", "kind"), help, &failures)?;
        encode_durations(&mut encoder, &account.sizes)?;
        for (name, help, histogram) in [
            ("batch_spans", "Spans of a batch", &account.sizes.batch_documents),
            ("batch_bytes", "Bytes of a batch before compression", &account.sizes.batch_bytes),
        ] {
            let kind = MetricType::Histogram;
            histogram.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        self.encode_gauges(&mut encoder)?;
        encode_calls(&mut encoder, &account.calls)?;
        encode_ports(&mut encoder, &account.otlp)?;
        self.encode_held(&mut encoder)
    }
}
