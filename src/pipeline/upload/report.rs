//! What the account and the log learn of outcomes.

use super::circuit_breaker::{CircuitBreaker, DENIED_PAUSE};
use super::settle::NOT_X_RAY_COUNT_MAX;
use crate::aws::Unprocessed;
use crate::base::account::{Account, DropReason, RejectReason};
use crate::base::log::{LogLimit, Suppressed};
use crate::pipeline::batch::{Batch, Document};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// A busy daemon sends thousands of batches in a window, a quiet one ten.
static SENT: LogLimit = LogLimit::with_line_count(50);
static PART_SENT: LogLimit = LogLimit::new();
static UNPROCESSED: LogLimit = LogLimit::with_line_count(50);
static PASSING: LogLimit = LogLimit::new();
static FAILED: LogLimit = LogLimit::new();
static UNREAD: LogLimit = LogLimit::new();
static NOT_X_RAY_YET: LogLimit = LogLimit::new();
static NOT_X_RAY: LogLimit = LogLimit::new();
static DENIED: LogLimit = LogLimit::once_a_minute();
static GIVEN_UP: LogLimit = LogLimit::with_line_count(50);
static SHOWN: LogLimit = LogLimit::new();

/// What is left of a batch that the service took.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Places of the documents that it may process when they come again, in ascending order.
    pub passing: Vec<usize>,
    /// Whether it has not processed some because there are too many.
    pub is_throttled: bool,
}

/// The service took a batch, but for some of its documents.
pub(super) fn accepted(
    batch: &Batch,
    unprocessed: &[Unprocessed],
    duration: Duration,
    account: &Account,
) -> Rest {
    let segment_count = batch.documents.len();
    let seconds = duration.as_secs_f64();
    account.requests_sent.add(1);
    // The caller has said where it names more documents than the request had.
    let unprocessed = &unprocessed[..unprocessed.len().min(segment_count)];
    if unprocessed.is_empty() {
        account.sent.add(segment_count as u64);
        SENT.log(|more| {
            info!(
                "Successfully sent batch of {segment_count} segments ({seconds:.3} seconds){more}"
            );
        });
        return Rest::default();
    }
    let unprocessed_count = unprocessed.len();
    PART_SENT.log(|more| {
        info!(
            "Sent batch of {segment_count} segments but had {unprocessed_count} Unprocessed \
             segments ({seconds:.3} seconds){more}"
        );
    });
    let mut rest = Rest::default();
    let mut is_named = vec![false; segment_count];
    for answer in unprocessed {
        let place = place_of(answer, &batch.documents, &mut is_named);
        rest.is_throttled |= answer.is_throttled();
        match place.filter(|_| answer.is_transient()) {
            Some(place) => {
                rest.passing.push(place);
                PASSING.log(|more| log_passing(answer, &batch.documents[place], more));
            }
            None => {
                let document = place.map(|place| &batch.documents[place]);
                account.rejected(RejectReason::Unprocessed).add(1);
                UNPROCESSED.log(|more| log_unprocessed(answer, document, more));
                show(batch, document);
            }
        }
    }
    rest.passing.sort_unstable();
    account.sent.add((segment_count - unprocessed_count) as u64);
    account.segments_resent.add(rest.passing.len() as u64);
    rest
}

/// The document that an answer names: the first of its id that was not named yet.
fn place_of(answer: &Unprocessed, documents: &[Document], is_named: &mut [bool]) -> Option<usize> {
    let id = answer.id.as_deref().filter(|id| !id.is_empty())?;
    let named = &*is_named;
    let mut places = documents.iter().enumerate();
    let (place, _) =
        places.find(|(place, document)| !named[*place] && document.id.as_str() == id)?;
    is_named[place] = true;
    Some(place)
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

fn log_passing(answer: &Unprocessed, document: &Document, more: Suppressed) {
    warn!(
        "The service has not processed segment {} of trace {} for now, {}: {}. It is sent again{more}",
        document.id.as_str(),
        document.trace_id.as_str(),
        answer.error_code.as_deref().unwrap_or("no error code"),
        answer.message.as_deref().unwrap_or("no message"),
    );
}

/// A batch failed, and is tried again after about so long.
pub(super) fn failed(reason: &str, segment_count: usize, attempt_count: u32, pause: Duration) {
    FAILED.log(|more| {
        warn!(
            "Sending segment batch failed with: {reason}. Its {segment_count} segments are kept; \
             attempt {} in {:.1} s or later{more}",
            attempt_count.saturating_add(1),
            pause.as_secs_f64()
        );
    });
}

/// The service took a batch, and which of the documents it has not processed is not known.
pub(super) fn unread(batch: &Batch, why: &str, account: &Account) {
    account.answers_unreadable.add(1);
    let segment_count = batch.documents.len();
    UNREAD.log(|more| {
        warn!(
            "X-Ray has accepted a batch of {segment_count} segments, and its answer could not be \
             read, or not to its end: {why}. What it does not name counts as sent{more}"
        );
    });
}

/// Another server has answered in the service's place; the batch is sent again after a pause.
pub(super) fn not_x_ray_yet(
    reason: &str,
    segment_count: usize,
    attempt_count: u32,
    pause: Duration,
) {
    NOT_X_RAY_YET.log(|more| {
        error!(
            "Sending segment batch failed with: {reason}. Another server answers in the place of \
             X-Ray: a captive portal, a proxy, or what listens at a wrong endpoint. Check the \
             endpoint and the way to it (xray verify). Its {segment_count} segments are kept; \
             attempt {attempt_count} of {NOT_X_RAY_COUNT_MAX} in {:.0} s or later{more}",
            pause.as_secs_f64()
        );
    });
}

/// Another server has answered in the service's place too often: `batch` is dropped.
pub(super) fn not_x_ray(batch: &Batch, reason: &str, account: &Account) {
    let segment_count = batch.documents.len();
    account.dropped(DropReason::NotXRay).add(segment_count as u64);
    NOT_X_RAY.log(|more| {
        error!(
            "{segment_count} segments are dropped: another server has answered in the place of \
             X-Ray {NOT_X_RAY_COUNT_MAX} times, the last time with: {reason}. Check the endpoint \
             and the way to it (xray verify); until then others are lost, too{more}"
        );
    });
}

/// The service does not allow us to send.
pub(super) fn denied(reason: &str, hold: &CircuitBreaker, now: Instant) {
    let pause = hold.until(now).map_or(DENIED_PAUSE, |until| until - now);
    DENIED.log(|more| {
        error!(
            "Sending segment batch failed with: {reason}. The service denies it: check that the \
             credentials are the right ones and are allowed xray:PutTraceSegments. Segments are \
             kept; the next attempt is in {} s{more}",
            pause.as_secs()
        );
    });
}

/// The only document of `batch` is at fault.
pub(super) fn given_up(batch: &Batch, reason: &str, account: &Account) {
    account.rejected(RejectReason::Refused).add(batch.documents.len() as u64);
    for document in &batch.documents {
        GIVEN_UP.log(|more| {
            error!(
                "Segment {} of trace {} is given up: the service refuses it alone, and takes \
                 others: {reason}{more}",
                document.id.as_str(),
                document.trace_id.as_str()
            );
        });
        show(batch, Some(document));
    }
}

/// Shows the start of a document that is lost, in the debug log only.
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
mod tests {
    use super::*;
    use crate::pipeline::batch::test_batch;

    fn answer(id: Option<&str>, code: &str) -> Unprocessed {
        let text = |text: &str| Some(text.to_owned());
        Unprocessed { id: id.and_then(text), error_code: text(code), message: None }
    }

    fn batch() -> Batch {
        test_batch(["a", "b", "a", "c"].into_iter().map(str::to_owned))
    }

    #[test]
    fn documents_with_the_same_id_are_named_one_after_the_other() {
        let account = Account::default();
        let throttled = [answer(Some("a"), "ThrottledException"), answer(Some("a"), "Throttling")];
        let rest = accepted(&batch(), &throttled, Duration::ZERO, &account);
        assert_eq!(rest.passing, [0, 2]);
        assert!(rest.is_throttled);
        assert_eq!((account.sent.get(), account.segments_resent.get()), (2, 2));
        assert_eq!(account.rejected(RejectReason::Unprocessed).get(), 0);
    }

    #[test]
    fn what_cannot_be_found_or_does_not_pass_is_rejected() {
        let account = Account::default();
        let unprocessed = [
            answer(None, "ThrottledException"),
            answer(Some("nobody"), "ThrottledException"),
            answer(Some("c"), "InvalidTraceId"),
        ];
        let rest = accepted(&batch(), &unprocessed, Duration::ZERO, &account);
        assert_eq!(rest.passing, [0; 0]);
        assert_eq!(account.sent.get(), 1);
        assert_eq!(account.rejected(RejectReason::Unprocessed).get(), 3);
    }

    #[test]
    fn an_answer_that_names_more_than_there_was_counts_each_document_once() {
        let account = Account::default();
        let unprocessed: Vec<_> = (0..9).map(|_| answer(Some("a"), "InvalidTraceId")).collect();
        let _ = accepted(&batch(), &unprocessed, Duration::ZERO, &account);
        assert_eq!(account.sent.get() + account.rejected(RejectReason::Unprocessed).get(), 4);
    }
}
