//! The account: what came in, what left, and why the rest did not.
//!
//! Every stage adds to it, nothing reads it on the hot path. Receivers add up a drain of the
//! socket in plain integers and publish them once, so the shared cache lines here are touched
//! once a drain and not once a datagram. At rest, with nothing waiting anywhere,
//! `received = sent + rejected{reason} + dropped{reason}`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl DropReason {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Shutdown];

    /// The value of the metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Shutdown => "shutdown",
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

/// All counts of one daemon.
#[derive(Debug, Default)]
pub struct Account {
    /// By the receiver's number.
    pub receivers: Box<[ReceiverCounts]>,
    /// Datagrams taken from the socket that were not empty: each stands for one segment.
    pub received: Counter,
    /// Segments that the service accepted.
    pub sent: Counter,
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
    /// Requests given up because trying again cannot help.
    pub requests_refused: Counter,
    rejected: [Counter; RejectReason::ALL.len()],
    dropped: [Counter; DropReason::ALL.len()],
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
}

/// One line: `received=520 sent=500 rejected=20 (header=15 no_document=5) dropped=0 kernel_drops=0`.
impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "received={} sent={}", self.received.get(), self.sent.get())?;
        let rejected = RejectReason::ALL.map(|reason| (reason.label(), self.rejected(reason)));
        write_reasons(out, "rejected", &rejected)?;
        let dropped = DropReason::ALL.map(|reason| (reason.label(), self.dropped(reason)));
        write_reasons(out, "dropped", &dropped)?;
        write!(out, " kernel_drops={}", self.kernel_drops.get())
    }
}

fn write_reasons(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    reasons: &[(&str, &Counter)],
) -> fmt::Result {
    let total: u64 = reasons.iter().map(|(_, counter)| counter.get()).sum();
    write!(out, " {name}={total}")?;
    let mut separator = " (";
    for (label, counter) in reasons.iter().filter(|(_, counter)| counter.get() > 0) {
        write!(out, "{separator}{label}={}", counter.get())?;
        separator = " ";
    }
    if total > 0 { out.write_str(")") } else { Ok(()) }
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
            account.to_string(),
            "received=520 sent=500 rejected=20 (header=15 no_document=5) dropped=0 kernel_drops=0"
        );
    }

    #[test]
    fn reasons_index_their_own_counters() {
        for (index, reason) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
