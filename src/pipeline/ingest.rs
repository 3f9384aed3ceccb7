//! Checks, parses, counts each datagram, and packs its segment into the receiver's ring.
//!
//! In: the datagrams of one drain, lent by the receiver. Out: segments in the ring of this
//! receiver, and a wake-up of the sender if enough segments wait; counts in the account, added once
//! per drain. Bound: the ring. When full: the oldest segments of the ring are dropped and counted.
//! Thread: `receive-N`.
//!
//! A panic loses the datagram that caused it. The other datagrams of the drain are processed, and
//! the alarm requests the daemon's shutdown.

use crate::base::account::{Account, Counter, DropReason, RejectReason};
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use crate::base::panics::{self, Alarm};
use crate::pipeline::receive::{DropCause, Queue, Sink};
use crate::pipeline::ring::{Drain, Producer};
use crate::pipeline::segment::{FirstLine, Form, HEADER, Parser, Rejection};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, error, info, trace, warn};

/// The largest number of bytes of a rejected datagram that are shown at level debug. A log line is
/// not longer.
const SHOWN_BYTES_MAX: usize = 4096;

static INVALID_HEADER: LogLimit = LogLimit::new();
static NO_DOCUMENT: LogLimit = LogLimit::new();
static SHOWN: LogLimit = LogLimit::new();
static EACH_SHOWN: LogLimit = LogLimit::per_second(100);
static EMPTY: LogLimit = LogLimit::new();
static NOT_JSON: LogLimit = LogLimit::new();
static NOT_UTF8: LogLimit = LogLimit::new();
static DROPPED: LogLimit = LogLimit::new();
static KERNEL_DROPPED: LogLimit = LogLimit::new();
static SHED: LogLimit = LogLimit::new();
static EXHAUSTED: LogLimit = LogLimit::new();

/// Turns the datagrams of one receiver into segments in its ring.
#[derive(Debug)]
pub struct Ingest {
    parser: Parser,
    producer: Producer,
    account: Arc<Account>,
    /// Number of the receiver, and its index in the account.
    receiver_index: usize,
    alarm: Alarm,
}

/// The counts of one drain. Plain integers are cheap; the account has atomics, because other
/// threads use it too.
#[derive(Debug, Default)]
struct Counts<'a> {
    received: u64,
    empty: u64,
    invalid_header: u64,
    no_document: u64,
    /// The first datagram of the drain with an invalid header, for the log.
    first_invalid: Option<&'a [u8]>,
    /// The first datagram of the drain without a document, for the log.
    first_without_document: Option<&'a [u8]>,
    not_json: u64,
    not_utf8: u64,
    dropped: u64,
}

impl Ingest {
    /// Creates the ingest of the receiver `receiver_index`. It packs into `producer`, counts into
    /// `account`, which must have an entry for the receiver, and raises `alarm` if a datagram
    /// causes a panic. The ring is closed when the ingest is dropped.
    pub fn new(
        producer: Producer,
        account: Arc<Account>,
        receiver_index: usize,
        alarm: Alarm,
    ) -> Self {
        Self { parser: Parser::default(), producer, account, receiver_index, alarm }
    }

    /// Closes the ring, so that the sender knows that no more segments follow.
    pub fn close(self) {}
}

impl Sink for Ingest {
    fn drain<'a>(&mut self, mut datagrams: impl Iterator<Item = &'a [u8]>) {
        let mut counts = Counts::default();
        let mut drain = self.producer.begin(Clock::instant());
        let mut take_all = |parser: &mut Parser| {
            for datagram in &mut datagrams {
                take(datagram, parser, &mut drain, &mut counts);
            }
        };
        while let Err(panicked) = panics::catch(|| take_all(&mut self.parser)) {
            self.alarm.raise(panicked);
            self.parser = Parser::default();
        }
        // The datagrams count as received before the sender can see the segments. So the account
        // never shows more segments sent than received.
        counts.publish(&self.account);
        self.account.receivers[self.receiver_index].datagrams.add(counts.received + counts.empty);
        drain.commit();
    }

    fn kernel_dropped(&mut self, count: u32, queue: Queue, cause: DropCause) {
        self.account.kernel_drops.add(u64::from(count));
        self.account.receivers[self.receiver_index].kernel_drops.add(u64::from(count));
        let (index, bytes) = (self.receiver_index, queue.granted_bytes);
        match cause {
            DropCause::Burst => KERNEL_DROPPED.log(|more| {
                warn!(
                    "The kernel dropped {count} datagrams: the queue of {bytes} bytes of receiver \
                     {index} was full. {}{more}",
                    queue.advice()
                );
            }),
            DropCause::Shed => SHED.log(|more| {
                warn!(
                    "The kernel dropped {count} datagrams: receiver {index} leaves its full queue \
                     of {bytes} bytes alone, because the memory limit (-m) is reached although \
                     calls are answered. The processor time, or Concurrency, is too little for \
                     this many segments{more}"
                );
            }),
        }
    }

    fn shed(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.account.receivers[self.receiver_index].shed_us.add(us);
    }

    fn is_memory_low(&self) -> bool {
        self.producer.is_memory_low()
    }

    fn buffers_exhausted(&mut self, count: u32) {
        self.account.receive_buffers_exhausted.add(u64::from(count));
        EXHAUSTED.log(|more| {
            debug!(
                "Receiver {} had no free buffer {count} times. The kernel kept the datagrams in its \
                 queue{more}",
                self.receiver_index
            );
        });
    }
}

/// Checks, parses, packs and counts one datagram.
fn take<'a>(
    datagram: &'a [u8],
    parser: &mut Parser,
    drain: &mut Drain<'_>,
    counts: &mut Counts<'a>,
) {
    if datagram.is_empty() {
        counts.empty += 1;
        return;
    }
    counts.received += 1;
    panics::inject("datagram");
    match parser.parse(datagram) {
        Ok(segment) => {
            match segment.fields.form {
                Form::Json | Form::Spans => {}
                Form::Text => counts.not_json += 1,
                Form::Bytes => counts.not_utf8 += 1,
            }
            counts.dropped += drain.push(&segment).dropped_count;
        }
        Err(Rejection::Header) => {
            counts.invalid_header += 1;
            counts.first_invalid.get_or_insert(datagram);
            show(Rejection::Header, datagram);
        }
        Err(Rejection::NoDocument) => {
            counts.no_document += 1;
            counts.first_without_document.get_or_insert(datagram);
            show(Rejection::NoDocument, datagram);
        }
    }
}

/// Logs a rejected datagram: at level debug a few of them, at level dev 100 in a second.
fn show(rejection: Rejection, datagram: &[u8]) {
    let bytes = datagram.len();
    let start = || String::from_utf8_lossy(&datagram[..bytes.min(SHOWN_BYTES_MAX)]);
    if tracing::enabled!(tracing::Level::TRACE) {
        EACH_SHOWN.log(|more| trace!(bytes, "{rejection}: {:?}{more}", start()));
    } else if tracing::enabled!(tracing::Level::DEBUG) {
        SHOWN.log(|more| debug!(bytes, "{rejection}: {:?}{more}", start()));
    }
}

impl Counts<'_> {
    /// Adds the counts to the account, and logs each count of bad, empty or dropped input.
    fn publish(&self, account: &Account) {
        account.received.add(self.received);
        let add = |counter: &Counter, count: u64| {
            counter.add(count);
            count > 0
        };
        if add(&account.datagrams_empty, self.empty) {
            EMPTY.log(|more| info!("An empty datagram is ignored{more}"));
        }
        if add(account.rejected(RejectReason::Header), self.invalid_header) {
            INVALID_HEADER.log(|more| {
                let first_line = FirstLine(self.first_invalid.unwrap_or_default());
                warn!("Invalid header: {first_line}. The first line must be {HEADER}{more}");
            });
        }
        if add(account.rejected(RejectReason::NoDocument), self.no_document) {
            NO_DOCUMENT.log(|more| {
                let first_line = FirstLine(self.first_without_document.unwrap_or_default());
                warn!(
                    "Missing header or segment: {first_line}. A datagram is a header line, a \
                     newline and a document{more}"
                );
            });
        }
        if add(&account.documents_not_json, self.not_json) {
            NOT_JSON.log(|more| {
                info!(
                    "A document is not JSON. It is forwarded unchanged, and the service accepts or \
                     refuses it{more}"
                );
            });
        }
        if add(&account.documents_invalid_utf8, self.not_utf8) {
            NOT_UTF8.log(|more| {
                warn!("A document is not UTF-8. Its invalid bytes are replaced by U+FFFD{more}");
            });
        }
        if add(account.dropped(DropReason::Memory), self.dropped) {
            DROPPED.log(|more| {
                error!(
                    "Segment dropped. Consider increasing memory limit (-m): \
                     {} segments were dropped, the oldest ones first{more}",
                    self.dropped
                );
            });
        }
    }
}
