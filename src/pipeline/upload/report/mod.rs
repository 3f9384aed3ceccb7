//! Counts outcomes in the account, and logs them.
//!
//! In: batches, and the outcomes of their calls. Out: counters, and log lines; each kind of line
//! has a log limit. Thread: `upload`.

use super::pending_batch::{BatchName, Call, PendingBatch};
use super::settle::NOT_X_RAY_COUNT_MAX;
use super::unprocessed::Rest;
use crate::aws::{Failure, Outcome, PartialSuccess, Reading, Unprocessed};
use crate::base::account::{
    Account, DropReason, LimitChange, PerSignal, RejectReason, RequestFailure, Signal,
};
use crate::base::log::{LogLimit, Suppressed};
use crate::base::panics::Panicked;
use crate::pipeline::batch::{Batch, Document};
use http::HeaderValue;
use std::time::{Duration, Instant};
use tracing::{Level, debug, error, info, warn};

/// A line about one signal does not replace the same line about the other.
type Limits = PerSignal<LogLimit>;

const fn few() -> Limits {
    PerSignal::new(LogLimit::new(), LogLimit::new())
}

const fn many() -> Limits {
    PerSignal::new(LogLimit::with_line_count(50), LogLimit::with_line_count(50))
}

/// At most 50 lines in 10 s. So a quiet daemon logs every batch. A busy daemon sends thousands of
/// batches in 10 s.
static SENT: Limits = many();
static PART_SENT: LogLimit = LogLimit::new();
static SPANS_REJECTED: LogLimit = LogLimit::new();
static SPANS_WARNED: LogLimit = LogLimit::new();
static UNPROCESSED: Limits = many();
static RESENT: LogLimit = LogLimit::new();
static FAILED: Limits = few();
static UNREAD: Limits = few();
static NOT_X_RAY_YET: Limits = few();
static NOT_X_RAY: Limits = few();
static REFUSED: Limits = few();
static REJECTED: Limits = many();
static SHOWN: LogLimit = LogLimit::new();
static PANICKED: LogLimit = LogLimit::new();
static LIMIT_CHANGED: LogLimit = LogLimit::new();
static TAKEN: LogLimit = LogLimit::per_second(DEBUG_LINES_PER_SECOND);
static STARTED: LogLimit = LogLimit::per_second(DEBUG_LINES_PER_SECOND);
static ANSWERED: LogLimit = LogLimit::per_second(DEBUG_LINES_PER_SECOND);

/// Largest number of lines about single batches in a second, of each kind. At level debug, every
/// batch of a daemon with up to 5,000 segments a second has its lines.
const DEBUG_LINES_PER_SECOND: u64 = 100;

/// Facts about a call and its answer that the log shows.
#[derive(Debug)]
pub struct Facts {
    /// The number of the batch.
    pub batch: BatchName,
    /// The signal of the batch.
    pub signal: Signal,
    /// Number of segments or spans of the batch.
    pub segments: usize,
    /// Length of the request body in bytes.
    pub bytes: usize,
    /// The number of the call with this batch, from 1.
    pub attempt: u32,
    /// Time from the start of the call to its end.
    pub duration: Duration,
    /// HTTP status of the answer, if there is one.
    pub status: Option<u16>,
    /// Request id of the answer, if it has one.
    pub request_id: Option<HeaderValue>,
    /// The words of the service about rejected spans.
    pub partial: Option<PartialSuccess>,
}

impl Facts {
    /// Returns the facts about a call that has no answer yet.
    pub fn of(call: &Call, now: Instant) -> Self {
        let Call { pending, started_at, .. } = call;
        Self {
            batch: pending.name(),
            signal: pending.batch.signal(),
            segments: pending.batch.item_count(),
            bytes: pending.batch.body_length_bytes,
            attempt: pending.attempt_count,
            duration: now.saturating_duration_since(*started_at),
            status: None,
            request_id: None,
            partial: None,
        }
    }

    /// Returns the facts about a call of which nothing is known.
    #[cfg(test)]
    fn none() -> Self {
        let pending = PendingBatch::new(crate::pipeline::batch::test_batch([]), None, (0, 0));
        let now = Instant::now();
        Self::of(&Call { pending, started_at: now, accepted_count: 0 }, now)
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref()?.to_str().ok()
    }
}

/// Logs a line about a call, with the facts as fields of the JSON log.
macro_rules! log_call {
    ($level:ident, $facts:expr, $($text:tt)+) => {
        $level!(
            segments = $facts.segments,
            bytes = $facts.bytes,
            attempt = $facts.attempt,
            status = $facts.status,
            request_id = $facts.request_id(),
            seconds = $facts.duration.as_secs_f64(),
            $($text)+
        )
    };
}

/// Logs, at level debug, that a batch is now in the queue.
pub fn taken(pending: &PendingBatch) {
    if tracing::enabled!(Level::DEBUG) {
        let (batch, segments) = (pending.name(), pending.batch.item_count());
        let signal = pending.batch.signal();
        let bytes = pending.batch.body_length_bytes;
        TAKEN.log(|more| {
            debug!(segments, bytes, "{batch} is taken: {segments} {signal}, {bytes} bytes{more}");
        });
    }
}

/// Logs, at level debug, that a call starts.
pub fn started(pending: &PendingBatch) {
    if tracing::enabled!(Level::DEBUG) {
        let (batch, segments) = (pending.name(), pending.batch.item_count());
        let signal = pending.batch.signal();
        let (bytes, attempt) = (pending.batch.body_length_bytes, pending.attempt_count);
        STARTED.log(|more| {
            debug!(
                segments,
                bytes, attempt, "{batch}: attempt {attempt} with {segments} {signal} begins{more}"
            );
        });
    }
}

/// Logs, at level debug, that the concurrency limit has changed.
pub fn limit_changed(limit: usize, reason: LimitChange) {
    if tracing::enabled!(Level::DEBUG) {
        LIMIT_CHANGED.log(|more| {
            let reason = reason.label();
            debug!(limit, reason, "Up to {limit} calls at a time now ({reason}){more}");
        });
    }
}

/// Logs, at level debug, how a call has ended.
pub fn answered(facts: &Facts, outcome: &Outcome) {
    if !tracing::enabled!(Level::DEBUG) {
        return;
    }
    let (batch, attempt, seconds) = (facts.batch, facts.attempt, facts.duration.as_secs_f64());
    ANSWERED.log(|more| match (facts.status, outcome) {
        (Some(status), _) => {
            let id = facts.request_id().unwrap_or("none");
            log_call!(
                debug,
                facts,
                "{batch}: attempt {attempt} has the answer {status} after {seconds:.3} s, request \
                 id {id}{more}"
            );
        }
        (None, Outcome::Failed { reason, .. }) => log_call!(
            debug,
            facts,
            "{batch}: attempt {attempt} has no answer after {seconds:.3} s: {reason}{more}"
        ),
        (None, Outcome::Accepted { .. }) => {}
    });
}

/// Counts a call that has ended, by its outcome. `failure` is the kind of failure to count, if any.
pub fn ended(
    reading: &Reading,
    failure: Option<RequestFailure>,
    duration: Duration,
    account: &Account,
) {
    if let Some(kind) = failure {
        account.request_failures(kind).add(1);
    }
    account.answers_too_large.add(u64::from(reading.is_too_large));
    let (sizes, seconds) = (&account.sizes, duration.as_secs_f64());
    match reading.outcome {
        Outcome::Accepted { .. } => {
            account.requests_sent.add(1);
            sizes.accepted_request_seconds.observe(seconds);
        }
        Outcome::Failed { failure, .. } => {
            sizes.failed_request_seconds.observe(seconds);
            match failure {
                Failure::Throttle { .. } => account.requests_throttled.add(1),
                Failure::Split { .. } => account.requests_refused.add(1),
                Failure::NotXRay => account.answers_not_x_ray.add(1),
                _ => {}
            }
        }
    }
}

/// Counts and logs a batch that the service accepted, except for the documents in `rest`.
pub fn accepted(batch: &Batch, rest: &Rest<'_>, facts: &Facts, account: &Account) {
    if batch.signal() == Signal::Spans {
        return accepted_spans(batch, rest, facts, account);
    }
    let segment_count = batch.documents.len();
    let seconds = facts.duration.as_secs_f64();
    let unprocessed_count = rest.document_count();
    account.sent.add((segment_count - unprocessed_count) as u64);
    if unprocessed_count == 0 {
        SENT.of(facts.signal).log(|more| {
            log_call!(
                info,
                facts,
                "Successfully sent batch of {segment_count} segments ({seconds:.3} seconds){more}"
            );
        });
        return;
    }
    PART_SENT.log(|more| {
        log_call!(
            info,
            facts,
            "Sent batch of {segment_count} segments but had {unprocessed_count} Unprocessed \
             segments ({seconds:.3} seconds){more}"
        );
    });
    account.segments_resent.add(rest.resent.len() as u64);
    for (place, answer) in &rest.resent {
        RESENT.log(|more| log_resent(answer, &batch.documents[*place], more));
    }
    account.rejected(RejectReason::Unprocessed).add(rest.rejected.len() as u64);
    for (place, answer) in &rest.rejected {
        let document = place.map(|place| &batch.documents[place]);
        UNPROCESSED.of(facts.signal).log(|more| log_unprocessed(answer, document, more));
        show(batch, document);
    }
}

/// Counts and logs a batch of spans that the service accepted, as a whole or in part. The
/// rejected spans are not sent again, as the protocol says.
fn accepted_spans(batch: &Batch, rest: &Rest<'_>, facts: &Facts, account: &Account) {
    let (span_count, seconds) = (batch.item_count() as u64, facts.duration.as_secs_f64());
    // An unprocessed document with spans has no id: the first ones stand for them.
    let counts = batch.spans.iter().flat_map(|spans| &spans.counts);
    let unprocessed: u64 = counts.take(rest.document_count()).map(|it| u64::from(*it)).sum();
    let rejected_count = facts.partial.as_ref().map_or(unprocessed, |it| it.rejected_count);
    let rejected_count = rejected_count.min(span_count);
    for (_, answer) in &rest.rejected {
        UNPROCESSED.of(facts.signal).log(|more| log_unprocessed(answer, None, more));
    }
    account.sent.add(span_count - rejected_count);
    account.rejected(RejectReason::Unprocessed).add(rejected_count);
    SENT.of(facts.signal).log(|more| {
        log_call!(
            info,
            facts,
            "Successfully sent batch of {span_count} spans ({seconds:.3} seconds){more}"
        );
    });
    match &facts.partial {
        Some(PartialSuccess { message, .. }) if rejected_count > 0 => SPANS_REJECTED.log(|more| {
            log_call!(
                error,
                facts,
                "The service has rejected {rejected_count} of {span_count} spans of a request, and \
                 has taken the others: {message}{more}"
            );
        }),
        Some(PartialSuccess { message, .. }) => SPANS_WARNED.log(|more| {
            log_call!(
                warn,
                facts,
                "The service has taken {span_count} spans with a warning: {message}{more}"
            );
        }),
        None => {}
    }
}

fn log_unprocessed(answer: &Unprocessed, document: Option<&Document>, more: Suppressed) {
    error!(
        "Unprocessed trace ID, {}, segment {}, {}: {}{more}",
        document.map_or("unknown", |document| document.trace_id.as_str()),
        answer.id.as_deref().filter(|id| !id.is_empty()).unwrap_or("unknown"),
        answer.error_code.as_deref().unwrap_or("no error code"),
        answer.message.as_deref().unwrap_or("no message"),
    );
}

fn log_resent(answer: &Unprocessed, document: &Document, more: Suppressed) {
    warn!(
        "The service has not processed segment {} of trace {} for now, {}: {}. It is sent again{more}",
        document.id.as_str(),
        document.trace_id.as_str(),
        answer.error_code.as_deref().unwrap_or("no error code"),
        answer.message.as_deref().unwrap_or("no message"),
    );
}

/// Counts and logs an answer that accepts a batch, but does not name all unprocessed documents in a
/// form that can be read.
pub fn unread(batch: &Batch, reason: &str, account: &Account) {
    account.answers_unreadable.add(1);
    let (segment_count, signal) = (batch.item_count(), batch.signal());
    UNREAD.of(signal).log(|more| {
        warn!(
            "X-Ray has accepted a batch of {segment_count} {signal}, but its answer could not be \
             read to the end: {reason}. All that the answer does not name counts as sent{more}"
        );
    });
}

/// Logs that a call to the service at `address` failed. The batch is retried after `pause` at the
/// earliest.
pub fn retried(reason: &str, address: &str, facts: &Facts, pause: Duration) {
    FAILED.of(facts.signal).log(|more| {
        log_call!(
            warn,
            facts,
            "Sending segment batch failed with: {reason}. Endpoint: {address}. Its {} {} are \
             kept; attempt {} in {:.1} s or later{more}",
            facts.segments,
            facts.signal,
            facts.attempt.saturating_add(1),
            pause.as_secs_f64()
        );
    });
}

/// Logs that the service refused a batch because of a document.
pub fn refused(reason: &str, address: &str, facts: &Facts) {
    REFUSED.of(facts.signal).log(|more| {
        log_call!(
            error,
            facts,
            "Sending segment batch failed with: {reason}. Endpoint: {address}. The service refuses \
             this batch of {} {}. They are kept, and sent in smaller batches or again, until \
             the document that it refuses stands alone{more}",
            facts.segments,
            facts.signal
        );
    });
}

/// Logs that another server answered in the place of X-Ray. The batch is retried after `pause` at
/// the earliest.
pub fn not_x_ray_yet(reason: &str, address: &str, facts: &Facts, count: u32, pause: Duration) {
    NOT_X_RAY_YET.of(facts.signal).log(|more| {
        log_call!(
            error,
            facts,
            "Sending segment batch failed with: {reason}. Endpoint: {address}. Another server \
             answers in the place of X-Ray: a captive portal, a proxy, or a server at a wrong \
             endpoint. Check the endpoint and the way to it (xray verify). Its {} {} are \
             kept; attempt {} of {NOT_X_RAY_COUNT_MAX} in {:.0} s or later{more}",
            facts.segments,
            facts.signal,
            count + 1,
            pause.as_secs_f64()
        );
    });
}

/// Counts and logs a dropped batch: another server has answered in the place of X-Ray too often.
pub fn not_x_ray(batch: &Batch, reason: &str, account: &Account) {
    let (segment_count, signal) = (batch.item_count(), batch.signal());
    account.dropped(DropReason::NotXRay).add(segment_count as u64);
    NOT_X_RAY.of(signal).log(|more| {
        error!(
            "{segment_count} {signal} are dropped: another server has answered in the place of \
             X-Ray {NOT_X_RAY_COUNT_MAX} times, the last time with: {reason}. Check the endpoint \
             and the way to it (xray verify); until then more are dropped{more}"
        );
    });
}

/// Counts and logs the rejected document of a batch that has only this document.
pub fn rejected(batch: &Batch, reason: &str, account: &Account) {
    let item_count = batch.item_count();
    account.rejected(RejectReason::Refused).add(item_count as u64);
    if batch.signal() == Signal::Spans {
        REJECTED.of(batch.signal()).log(|more| {
            error!(
                "{item_count} spans of a request are rejected: the service refuses them alone and \
                 accepts others: {reason}{more}"
            );
        });
        return;
    }
    for document in &batch.documents {
        REJECTED.of(batch.signal()).log(|more| {
            error!(
                "Segment {} of trace {} is rejected: the service refuses it alone and accepts \
                 others: {reason}{more}",
                document.id.as_str(),
                document.trace_id.as_str()
            );
        });
        show(batch, Some(document));
    }
}

/// Logs a panic during a call. Returns the text of the panic, as the reason why the call failed.
pub fn panicked(panicked: &Panicked) -> String {
    PANICKED.log(|more| error!("A call for uploading met {panicked}; the batch is retried{more}"));
    panicked.to_string()
}

/// Writes the start of a rejected document to the debug log.
fn show(batch: &Batch, document: Option<&Document>) {
    let Some(document) = document.filter(|_| tracing::enabled!(tracing::Level::DEBUG)) else {
        return;
    };
    SHOWN.log(|more| {
        let body = batch.body.concat();
        let end = document.offset + document.length.min(1000);
        let start = String::from_utf8_lossy(&body[document.offset..end]).into_owned();
        debug!("The document: {start:?}{more}");
    });
}

#[cfg(test)]
mod tests;
