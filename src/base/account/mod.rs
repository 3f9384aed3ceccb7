//! The account: all counters of the daemon. The counters of segments balance.
//!
//! In: all parts of the daemon add to the counters. Out: their values, for the metrics, telemetry,
//! the log and `/health`. While no thread is in the middle of handling segments,
//! `received + replayed = sent + rejected{reason} + dropped{reason} + spooled + held`.
//! `held` is not a counter. It is the number of segments in memory at this moment, which the
//! sender counts on request ([`Account::held`], [`Account::imbalance`]). Bound: a fixed set of
//! counters. Thread: any; all counters are atomic.
//!
//! Counting is cheap. A receiver counts in local integers while it empties its socket, and adds
//! them to the account once at the end. So it writes to the memory that all threads share once per
//! wake-up, and not once per datagram.

mod calls;
mod occupancy;
mod otlp;
mod port;
mod receivers;
mod signal;
mod sizes;
mod spool;

pub use calls::{CallCounts, LimitChange};
pub use occupancy::{Held, OccupancyQueries, OccupancyQuery};
pub use otlp::{Export, OtlpCounts, SpanRefusal};
pub use port::{CloseReason, PortCounts, ProxyCounts};
pub use receivers::ReceiverCounts;
pub use signal::{PerSignal, Signal};
pub use sizes::Sizes;
pub use spool::SpoolCounts;

use crate::base::clock::Clock;
use crate::base::conditions::Conditions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long an occupancy query ([`Account::held`]) waits for the sender's answer.
const OCCUPANCY_TIMEOUT: Duration = Duration::from_secs(1);

/// A counter. Its value only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count` to the counter. For zero, the memory is not written.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Returns the current value of the counter.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a datagram or a document was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The first line of the datagram is not a header of the X-Ray daemon's protocol.
    Header,
    /// The datagram has no newline, or no document after the newline.
    NoDocument,
    /// The service accepted the request, but named this document as unprocessed.
    Unprocessed,
    /// The service refused the whole request because of this document. A retry cannot succeed.
    Refused,
}

impl RejectReason {
    /// All reasons why something is rejected, in the order of the enum.
    pub const ALL: [Self; 4] = [Self::Header, Self::NoDocument, Self::Unprocessed, Self::Refused];

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::NoDocument => "no_document",
            Self::Unprocessed => "unprocessed",
            Self::Refused => "refused",
        }
    }
}

/// Why a segment was dropped, although the segment itself is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The memory for segments was full, and the segment was among the oldest unsent segments.
    Memory,
    /// The segment was still unsent when the time for the shutdown was over.
    Shutdown,
    /// The spool was full, and the segment was among the oldest segments in the spool.
    SpoolFull,
    /// The segment was older than the spool keeps segments.
    SpoolAge,
    /// The segment was in a damaged record of the spool.
    SpoolDamage,
    /// A thread panicked while it worked on the segment.
    Panic,
    /// A server other than X-Ray answered every attempt to send the segment.
    NotXRay,
}

impl DropReason {
    /// All reasons why a segment is dropped, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::Shutdown,
        Self::SpoolFull,
        Self::SpoolAge,
        Self::SpoolDamage,
        Self::Panic,
        Self::NotXRay,
    ];

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Shutdown => "shutdown",
            Self::SpoolFull => "spool_full",
            Self::SpoolAge => "spool_age",
            Self::SpoolDamage => "spool_damage",
            Self::Panic => "panic",
            Self::NotXRay => "not_x_ray",
        }
    }
}

/// The kind of failure of a call. The service's API defines these kinds in
/// `BackendConnectionErrors`, except [`Unsigned`](Self::Unsigned), which counts there as `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFailure {
    /// The connection was not opened in time, or the answer was not complete in time.
    Timeout,
    /// The TCP connection to the service was refused.
    ConnectionRefused,
    /// The answer has a status from 400 to 499; this includes throttling.
    Http4xx,
    /// The answer has a status from 500 to 599.
    Http5xx,
    /// The host name of the service cannot be resolved.
    UnknownHost,
    /// The request could not be signed with the credentials, so it was not sent.
    Unsigned,
    /// Any other failure: a broken connection, a TLS error, or an answer that is not from X-Ray.
    Other,
}

impl RequestFailure {
    /// All kinds of failure, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::ConnectionRefused,
        Self::Http4xx,
        Self::Http5xx,
        Self::UnknownHost,
        Self::Unsigned,
        Self::Other,
    ];

    /// Returns the value of the label `kind` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::UnknownHost => "unknown_host",
            Self::Unsigned => "unsigned",
            Self::Other => "other",
        }
    }
}

/// All counters of a daemon for one signal. A daemon that takes spans has a second account for
/// them.
#[derive(Debug, Default)]
pub struct Account {
    /// The signal that this account counts. The names of the counters are those of segments.
    pub signal: Signal,
    /// Counters of the receivers. The index is the number of the receiver.
    pub receivers: Box<[ReceiverCounts]>,
    /// Received datagrams that were not empty. Each datagram counts as one segment.
    pub received: Counter,
    /// Segments that the service accepted.
    pub sent: Counter,
    /// Segments taken out of the spool to send or to drop them.
    pub replayed: Counter,
    /// Segments written to the spool. Segments that were read back but left in the spool are
    /// counted again.
    pub spooled: Counter,
    /// Segments sent again because the service had not processed them for a transient reason.
    pub segments_resent: Counter,
    /// Empty datagrams. They are ignored, and they are not counted in `received`.
    pub datagrams_empty: Counter,
    /// Documents that are not JSON. They are forwarded unchanged.
    pub documents_not_json: Counter,
    /// Documents with invalid UTF-8. They are forwarded with U+FFFD in place of the invalid bytes.
    pub documents_invalid_utf8: Counter,
    /// Datagrams that the kernel dropped before the daemon could read them.
    pub kernel_drops: Counter,
    /// How often a receiver had no free buffer, so that a datagram stayed in the kernel's queue.
    pub receive_buffers_exhausted: Counter,
    /// How often the backend of a receiver failed, so that the receiver went on with `recvmmsg`.
    pub receive_backend_failures: Counter,
    /// Requests that the service accepted.
    pub requests_sent: Counter,
    /// Requests that failed and were put into the queue for a retry.
    pub requests_retried: Counter,
    /// Requests that the service refused because of throttling. They are retried.
    pub requests_throttled: Counter,
    /// Requests that the service refused because of a document in them.
    pub requests_refused: Counter,
    /// Answers with a success status that did not come from X-Ray.
    pub answers_not_x_ray: Counter,
    /// Answers of X-Ray with a success status and a body that could not be read. It is unknown
    /// which documents of these requests X-Ray did not process.
    pub answers_unreadable: Counter,
    /// Answers, with any status, that were too long for the daemon to read.
    pub answers_too_large: Counter,
    /// Counters of the spool.
    pub spool: SpoolCounts,
    /// Counters of the signing proxy. They count no segments, so the balance is without them.
    pub proxy: ProxyCounts,
    /// Counters of the TCP port.
    pub tcp_port: Arc<PortCounts>,
    /// Counters of the ports for OpenTelemetry's spans. Only the account of the spans uses them.
    pub otlp: OtlpCounts,
    /// Telemetry records that were dropped without having been sent.
    pub telemetry_records_dropped: Counter,
    /// The conditions that currently keep segments from being delivered.
    pub conditions: Conditions,
    /// The clock for ages and dates. Its date is set from answers of the service.
    pub clock: Clock,
    /// Histograms of request times and batch sizes.
    pub sizes: Sizes,
    /// The calls in flight and their limit.
    pub calls: CallCounts,
    rate_limit: AtomicU64,
    occupancy: OnceLock<mpsc::UnboundedSender<OccupancyQuery>>,
    rejected: [Counter; RejectReason::ALL.len()],
    dropped: [Counter; DropReason::ALL.len()],
    request_failures: [Counter; RequestFailure::ALL.len()],
}

impl Account {
    /// Returns an account for a daemon with `receiver_count` receivers.
    pub fn new(receiver_count: usize) -> Self {
        let receivers = (0..receiver_count).map(|_| ReceiverCounts::default()).collect();
        Self { receivers, ..Self::default() }
    }

    /// Returns an account of spans. It has no receivers.
    pub fn for_spans() -> Self {
        Self { signal: Signal::Spans, sizes: Sizes::for_spans(), ..Self::default() }
    }

    /// Returns the counter of segments rejected for `reason`.
    pub fn rejected(&self, reason: RejectReason) -> &Counter {
        &self.rejected[reason as usize]
    }

    /// Returns the counter of segments dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped[reason as usize]
    }

    /// Returns the counter of calls with the kind of failure `kind`.
    pub fn request_failures(&self, kind: RequestFailure) -> &Counter {
        &self.request_failures[kind as usize]
    }

    /// Returns how many segments were rejected, for all reasons together.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(Counter::get).sum()
    }

    /// Returns how many segments were dropped, for all reasons together.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum()
    }
}

impl Account {
    /// Returns the queue of occupancy queries. The sender owns the queue and answers the queries.
    pub fn occupancy_queries(&self) -> OccupancyQueries {
        let (sender, receiver) = mpsc::unbounded_channel();
        // If this function is called twice, only the first queue gets queries. The only caller is
        // the sender, and it calls this function once.
        let _ = self.occupancy.set(sender);
        OccupancyQueries(receiver)
    }

    /// Returns the segments and the memory that the daemon holds at this moment; the sender counts
    /// them. Returns `None` if the sender has not started or has ended, or does not answer within
    /// one second.
    pub async fn held(&self) -> Option<Held> {
        let (query, answer) = OccupancyQuery::new();
        self.occupancy.get()?.send(query).ok()?;
        tokio::time::timeout(OCCUPANCY_TIMEOUT, answer).await.ok()?.ok()
    }

    /// Sets the current rate limit for sending, in documents a second. `None` means no limit.
    pub fn set_rate_limit(&self, documents_per_second: Option<f64>) {
        self.rate_limit
            .store(documents_per_second.unwrap_or_default().to_bits(), Ordering::Relaxed);
    }

    /// Returns the current rate limit for sending, in documents a second. 0 means no limit.
    pub fn rate_limit(&self) -> f64 {
        f64::from_bits(self.rate_limit.load(Ordering::Relaxed))
    }

    /// Returns by how many segments the account is out of balance, if the daemon holds `held_count`
    /// segments. 0: the account balances. Positive: this many segments are missing. Negative: this
    /// many segments were counted twice.
    pub fn imbalance(&self, held_count: usize) -> i128 {
        let sum = |counters: &[Counter]| counters.iter().map(|c| i128::from(c.get())).sum::<i128>();
        let came = i128::from(self.received.get()) + i128::from(self.replayed.get());
        let left = i128::from(self.sent.get()) + i128::from(self.spooled.get());
        came - left - sum(&self.rejected) - sum(&self.dropped) - held_count as i128
    }

    /// Returns all counts as one line, for the log at the end of the shutdown.
    pub fn summary(&self, held_count: usize) -> String {
        let mut line = format!(
            "received={} replayed={} sent={}",
            self.received.get(),
            self.replayed.get(),
            self.sent.get()
        );
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), self.rejected(reason)));
        write_reasons(&mut line, "rejected", &rejected);
        let dropped = DropReason::ALL.map(|reason| (reason.label(), self.dropped(reason)));
        write_reasons(&mut line, "dropped", &dropped);
        line += &format!(" spooled={} held={held_count}", self.spooled.get());
        match self.signal {
            Signal::Segments => line + &format!(" kernel_drops={}", self.kernel_drops.get()),
            Signal::Spans => line,
        }
    }
}

fn write_reasons(line: &mut String, name: &str, reasons: &[(&str, &Counter)]) {
    let total: u64 = reasons.iter().map(|(_, counter)| counter.get()).sum();
    let occurred = reasons.iter().filter(|(_, counter)| counter.get() > 0);
    let parts: Vec<_> = occurred.map(|(label, count)| format!("{label}={}", count.get())).collect();
    line.push_str(&format!(" {name}={total}"));
    if !parts.is_empty() {
        line.push_str(&format!(" ({})", parts.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_only_the_reasons_that_occurred() {
        let account = Account::default();
        account.received.add(520);
        account.sent.add(500);
        account.rejected(RejectReason::Header).add(15);
        account.rejected(RejectReason::NoDocument).add(5);
        assert_eq!(
            account.summary(0),
            "received=520 replayed=0 sent=500 rejected=20 (header=15 no_document=5) dropped=0 \
             spooled=0 held=0 kernel_drops=0"
        );
    }

    #[test]
    fn every_received_segment_is_accounted_for() {
        let account = Account::default();
        account.received.add(100);
        account.replayed.add(10);
        assert_eq!(account.imbalance(0), 110);
        account.sent.add(50);
        account.rejected(RejectReason::Refused).add(3);
        account.dropped(DropReason::SpoolAge).add(2);
        account.spooled.add(15);
        assert_eq!(account.imbalance(40), 0);
        assert_eq!(account.imbalance(39), 1);
        assert_eq!(account.imbalance(41), -1);
    }

    #[test]
    fn reasons_index_their_own_counters() {
        for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, kind) in RequestFailure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
