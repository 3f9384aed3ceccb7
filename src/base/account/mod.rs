//! The account: what came in, what left, and why the rest did not.
//!
//! Every stage adds to it, nothing reads it on the hot path. Receivers add up a drain of the
//! socket in plain integers and publish them once, so the shared cache lines here are touched
//! once a drain and not once a datagram. At rest
//! `received + replayed = sent + rejected{reason} + dropped{reason} + spooled + held`
//! where `held` is counted by walking whatever holds segments ([`Account::imbalance`]).

mod occupancy;
mod sizes;

pub use occupancy::{Held, OccupancyQueries, OccupancyQuery};
pub use sizes::Sizes;

use crate::base::clock::{Clock, Moment};
use crate::base::conditions::Conditions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Who asks what is held waits so long for the answer.
const OCCUPANCY_TIMEOUT: Duration = Duration::from_secs(1);

/// A monotonic count of things.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; free when it is zero.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a segment was turned down for its own sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The header line is not the one that X-Ray SDKs send.
    Header,
    /// There is no newline, or nothing after it.
    NoDocument,
    /// The service took the request and named this document as unprocessed.
    Unprocessed,
    /// The service refused the request in a way that trying again cannot mend.
    Refused,
}

impl RejectReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Header, Self::NoDocument, Self::Unprocessed, Self::Refused];

    /// The value of the metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::NoDocument => "no_document",
            Self::Unprocessed => "unprocessed",
            Self::Refused => "refused",
        }
    }
}

/// Why a good segment was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It was the oldest unsent one when the memory bound was reached.
    Memory,
    /// It had not left when the time for the shutdown was over.
    Shutdown,
    /// It was among the oldest in the spool when that was full.
    SpoolFull,
    /// It had been in the spool for longer than allowed.
    SpoolAge,
    /// The spool's file is damaged where it was.
    SpoolDamage,
    /// The program was at work on it when it panicked.
    Panic,
    /// Another server answered to it in the service's place, several times.
    NotXRay,
}

impl DropReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::Shutdown,
        Self::SpoolFull,
        Self::SpoolAge,
        Self::SpoolDamage,
        Self::Panic,
        Self::NotXRay,
    ];

    /// The value of the metric's `reason` label.
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

/// In which way a request for uploading failed, in the words of the service's telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFailure {
    /// No connection, or no answer, in time.
    Timeout,
    /// Nobody listens at the service's address.
    ConnectionRefused,
    /// The answer has a status from 400 to 499, throttling among them.
    Http4xx,
    /// The answer has a status from 500 to 599.
    Http5xx,
    /// The service's name has no address.
    UnknownHost,
    /// A broken connection, a TLS failure, an answer that is not the service's, and so on.
    Other,
}

impl RequestFailure {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::Timeout,
        Self::ConnectionRefused,
        Self::Http4xx,
        Self::Http5xx,
        Self::UnknownHost,
        Self::Other,
    ];

    /// The value of the metric's `kind` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::Http4xx => "http_4xx",
            Self::Http5xx => "http_5xx",
            Self::UnknownHost => "unknown_host",
            Self::Other => "other",
        }
    }
}

/// The counts of one receiver.
#[derive(Debug, Default)]
pub struct ReceiverCounts {
    /// Datagrams taken from its socket, empty ones too.
    pub datagrams: Counter,
    /// Datagrams that the kernel dropped because its socket's queue was full.
    pub kernel_drops: Counter,
}

/// What the spool has to say.
#[derive(Debug, Default)]
pub struct SpoolCounts {
    /// Bytes of its files.
    pub size_bytes: AtomicU64,
    /// Segments in them that are not settled, as far as they were counted.
    pub segment_count: AtomicU64,
    /// When the first of those was made, in seconds since boot.
    oldest_made_at: Mutex<Option<i64>>,
    /// Appends, reads and other work of it that failed.
    pub errors: Counter,
    /// Pieces of its files that could not be read: torn off, or changed.
    pub damaged_records: Counter,
    /// The bytes of those.
    pub damaged_bytes: Counter,
}

impl SpoolCounts {
    /// Sets when the first of the segments in it was made, in seconds since boot; `None`: there is
    /// none.
    pub fn set_oldest(&self, made_at: Option<i64>) {
        *self.oldest_made_at.lock().unwrap_or_else(PoisonError::into_inner) = made_at;
    }

    /// How old the first of the segments in it is at `now`.
    pub fn oldest_age(&self, now: Moment) -> Duration {
        let made_at = *self.oldest_made_at.lock().unwrap_or_else(PoisonError::into_inner);
        made_at.map_or(Duration::ZERO, |made_at| now.since(made_at))
    }
}

/// What became of the requests that clients made to the service through the daemon.
#[derive(Debug, Default)]
pub struct ProxyCounts {
    /// The service's answer was given back, whatever it says.
    pub answered: Counter,
    /// The daemon does not pass such requests on.
    pub refused: Counter,
    /// There was no answer, or nobody to sign as.
    pub failed: Counter,
}

/// All counts of one daemon.
#[derive(Debug, Default)]
pub struct Account {
    /// By the receiver's number.
    pub receivers: Box<[ReceiverCounts]>,
    /// Datagrams taken from the socket that were not empty: each stands for one segment.
    pub received: Counter,
    /// Segments that the service accepted.
    pub sent: Counter,
    /// Segments taken out of the spool, to be sent or to be given up.
    pub replayed: Counter,
    /// Segments put into the spool, or left in it for later.
    pub spooled: Counter,
    /// Segments sent again because the service had not processed them for a passing reason.
    pub segments_resent: Counter,
    /// Empty datagrams: ignored, and no part of the balance.
    pub datagrams_empty: Counter,
    /// Documents that are not JSON: forwarded as they are.
    pub documents_not_json: Counter,
    /// Documents with invalid UTF-8: forwarded with U+FFFD in its place.
    pub documents_invalid_utf8: Counter,
    /// Datagrams that the kernel dropped before the daemon could read them.
    pub kernel_drops: Counter,
    /// How often a receiver had no buffer for a datagram; the kernel has kept it meanwhile.
    pub receive_buffers_exhausted: Counter,
    /// Requests that the service answered with success.
    pub requests_sent: Counter,
    /// Requests that failed and are tried again.
    pub requests_retried: Counter,
    /// Requests that the service throttled; they are tried again.
    pub requests_throttled: Counter,
    /// Requests that the service refused for their documents' sake.
    pub requests_refused: Counter,
    /// Answers of success that were not the service's.
    pub answers_not_x_ray: Counter,
    /// Answers of success of the service that did not say, or not for all documents, which it has
    /// processed.
    pub answers_unreadable: Counter,
    /// Answers that were longer than is read, of whatever status.
    pub answers_too_large: Counter,
    /// The spool as it is.
    pub spool: SpoolCounts,
    /// Clients' requests, which are no part of the balance.
    pub proxy: ProxyCounts,
    /// What keeps segments from being delivered.
    pub conditions: Conditions,
    /// What ages and dates are by; the service's answers set it.
    pub clock: Clock,
    /// How long requests take, and how full batches are.
    pub sizes: Sizes,
    rate_limit: AtomicU64,
    occupancy: OnceLock<mpsc::UnboundedSender<OccupancyQuery>>,
    rejected: [Counter; RejectReason::ALL.len()],
    dropped: [Counter; DropReason::ALL.len()],
    request_failures: [Counter; RequestFailure::ALL.len()],
}

impl Account {
    /// An account of a daemon with so many receivers.
    pub fn new(receiver_count: usize) -> Self {
        let receivers = (0..receiver_count).map(|_| ReceiverCounts::default()).collect();
        Self { receivers, ..Self::default() }
    }

    /// Segments turned down for `reason`.
    pub fn rejected(&self, reason: RejectReason) -> &Counter {
        &self.rejected[reason as usize]
    }

    /// Segments given up for `reason`.
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped[reason as usize]
    }

    /// Requests for uploading that failed in this way.
    pub fn request_failures(&self, kind: RequestFailure) -> &Counter {
        &self.request_failures[kind as usize]
    }

    /// Segments turned down for whatever reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(Counter::get).sum()
    }

    /// Segments given up for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum()
    }
}

impl Account {
    /// Where questions for what is held come to from now on.
    pub fn occupancy_queries(&self) -> OccupancyQueries {
        let (sender, receiver) = mpsc::unbounded_channel();
        // A second taker would get no questions; there is one sender thread.
        let _ = self.occupancy.set(sender);
        OccupancyQueries(receiver)
    }

    /// What is held at the moment, counted by walking what holds it; `None` when nobody can tell
    /// yet, or soon enough.
    pub async fn held(&self) -> Option<Held> {
        let (query, answer) = OccupancyQuery::new();
        self.occupancy.get()?.send(query).ok()?;
        tokio::time::timeout(OCCUPANCY_TIMEOUT, answer).await.ok()?.ok()
    }

    /// Sets how many documents a second are sent at most; `None`: no limit.
    pub fn set_rate_limit(&self, documents_per_second: Option<f64>) {
        self.rate_limit
            .store(documents_per_second.unwrap_or_default().to_bits(), Ordering::Relaxed);
    }

    /// Documents a second that are sent at most; 0: no limit.
    pub fn rate_limit(&self) -> f64 {
        f64::from_bits(self.rate_limit.load(Ordering::Relaxed))
    }

    /// Segments that came in and that nobody can account for, when `held_count` are held. At rest
    /// there are none; below zero, some were counted twice.
    pub fn imbalance(&self, held_count: usize) -> i128 {
        let sum = |counters: &[Counter]| counters.iter().map(|c| i128::from(c.get())).sum::<i128>();
        let came = i128::from(self.received.get()) + i128::from(self.replayed.get());
        let left = i128::from(self.sent.get()) + i128::from(self.spooled.get());
        came - left - sum(&self.rejected) - sum(&self.dropped) - held_count as i128
    }

    /// The line of the end, when `held_count` segments are held.
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
        let (spooled, kernel_drops) = (self.spooled.get(), self.kernel_drops.get());
        line + &format!(" spooled={spooled} held={held_count} kernel_drops={kernel_drops}")
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
    fn whatever_comes_in_has_to_be_somewhere() {
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
    fn the_oldest_segment_of_a_spool_ages_and_of_none_there_is_no_age() {
        let (counts, account) = (SpoolCounts::default(), Account::default());
        let now = account.clock.now();
        assert_eq!(counts.oldest_age(now), Duration::ZERO);
        counts.set_oldest(Some(now.uptime_seconds - 60));
        assert_eq!(counts.oldest_age(now), Duration::from_secs(60));
        counts.set_oldest(Some(i64::MIN));
        assert_eq!(counts.oldest_age(now).as_secs(), i64::MAX as u64);
        counts.set_oldest(Some(i64::MAX));
        assert_eq!(counts.oldest_age(now), Duration::ZERO);
    }

    #[test]
    fn reasons_index_their_own_counters() {
        for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, kind) in RequestFailure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
