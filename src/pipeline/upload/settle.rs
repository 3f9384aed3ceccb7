//! Decides what to do after a call has ended.
//!
//! In: the call, its outcome, and how many requests the service has accepted and refused so far.
//! Out: a [`Decision`]: the next step for the batch, an event for the gate, and a remedy. The
//! uploader applies the decision. No I/O, no clock, no side effects.

use super::bisect::{Verdict, judge};
use super::gate::Event;
use super::pending_batch::{Call, Suspicion};
use super::unprocessed::Rest;
use crate::aws::{Failure, Outcome};
use std::time::{Duration, SystemTime};

/// The largest number of refusals in a row that faulty documents may cause. After more refusals
/// without an accepted request, the service counts as failing: the daemon then sends one request at
/// a time.
const REFUSED_IN_A_ROW_MAX: u32 = 8;

/// A batch is dropped when another server has answered this many of its requests in the place of
/// X-Ray.
pub const NOT_X_RAY_COUNT_MAX: u32 = 3;

/// The shortest pause of a batch after another server has answered in the place of X-Ray. It is as
/// long as the longest backoff. Meanwhile other batches find out whether X-Ray answers again, so
/// that a captive portal that ends within some seconds costs no batch. The pause is not shorter
/// during the drain: the spool can keep the batch, while a third answer of another server drops it.
pub const NOT_X_RAY_PAUSE: Duration = Duration::from_secs(10);

/// Counts of the requests that the service has accepted and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// The number of accepted requests.
    pub accepted_count: u64,
    /// The number of refused requests since the last accepted request.
    pub refused_in_a_row: u32,
}

impl Answered {
    /// Counts an outcome.
    pub fn note(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted { .. } => {
                self.accepted_count += 1;
                self.refused_in_a_row = 0;
            }
            Outcome::Failed { failure: Failure::Split { .. }, .. } => {
                self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
            }
            Outcome::Failed { .. } => {}
        }
    }
}

/// The decision after a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The next step for the batch.
    pub fate: Fate<'a>,
    /// The outcome as an event for the [`Gate`](super::gate::Gate), which decides when calls start.
    pub event: Event,
    /// An action that may help the next call.
    pub remedy: Remedy,
}

/// The next step for a batch after a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// The service accepted the batch, except for some documents.
    Delivered(Rest<'a>),
    /// Retry the batch after a backoff.
    Retry,
    /// Retry the batch after a backoff, and remember this suspicion.
    RetrySuspected(Suspicion),
    /// Another server answered: count this, and retry after a backoff of at least
    /// [`NOT_X_RAY_PAUSE`].
    RetryNotXRay,
    /// The service denied the call: retry as soon as the gate admits a call. The failure does not
    /// count for the backoff.
    RetryDenied,
    /// Halve the batch, and send each half alone.
    Halve,
    /// Reject the only document of the batch: it is faulty.
    Reject,
    /// Drop the batch: another server has answered in the place of X-Ray too often.
    Drop,
}

/// An action that may help the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// No action.
    None,
    /// Fetch new credentials.
    RenewCredentials,
    /// Sign calls with this time, which the service has sent, instead of the time of this host.
    SetTime(SystemTime),
}

/// Decides what to do after `call` has ended with `outcome`. `answered` already counts this
/// outcome.
pub fn decide<'a>(call: &Call, outcome: &'a Outcome, answered: &Answered) -> Decision<'a> {
    let (fate, event, remedy) = match outcome {
        Outcome::Accepted { unprocessed } => {
            let documents = &call.pending.batch.documents;
            let rest = Rest::find(unprocessed, documents);
            let event = Event::Accepted {
                document_count: documents.len() - rest.resent.len(),
                throttled_since: rest.is_throttled.then_some(call.started_at),
            };
            (Fate::Delivered(rest), event, Remedy::None)
        }
        Outcome::Failed { failure, .. } => decide_failed(call, *failure, answered),
    };
    Decision { fate, event, remedy }
}

fn decide_failed(
    call: &Call,
    failure: Failure,
    answered: &Answered,
) -> (Fate<'static>, Event, Remedy) {
    let failed = Event::Failed { pause_min: Duration::ZERO };
    // When the service accepted another request since the start of this call, the failure does not
    // concern the service as a whole.
    let others_are_accepted = answered.accepted_count > call.accepted_count;
    let failed_unless_accepted = if others_are_accepted { Event::NoSignal } else { failed };
    match failure {
        Failure::Retry { retry_after: Some(pause_min) } => {
            (Fate::Retry, Event::Failed { pause_min }, Remedy::None)
        }
        Failure::Retry { retry_after: None } => (Fate::Retry, failed_unless_accepted, Remedy::None),
        Failure::Throttle { retry_after } => {
            let event = Event::Throttled { started_at: call.started_at, retry_after };
            (Fate::Retry, event, Remedy::None)
        }
        Failure::Expired => (Fate::Retry, failed, Remedy::RenewCredentials),
        Failure::Denied => (Fate::RetryDenied, Event::Denied, Remedy::RenewCredentials),
        Failure::TransactionSearchOff => (Fate::RetryDenied, Event::Denied, Remedy::None),
        Failure::Skew { service_time } => {
            (Fate::Retry, Event::NoSignal, Remedy::SetTime(service_time))
        }
        Failure::Split { is_too_large } => {
            let (fate, event) = decide_refused(call, is_too_large, answered);
            (fate, event, Remedy::None)
        }
        Failure::NotXRay => {
            let is_last = call.pending.not_x_ray_count + 1 >= NOT_X_RAY_COUNT_MAX;
            let fate = if is_last { Fate::Drop } else { Fate::RetryNotXRay };
            (fate, failed_unless_accepted, Remedy::None)
        }
    }
}

fn decide_refused(call: &Call, is_too_large: bool, answered: &Answered) -> (Fate<'static>, Event) {
    match judge(&call.pending, is_too_large, answered.accepted_count) {
        Verdict::Halve => (Fate::Halve, Event::NoSignal),
        Verdict::Reject => (Fate::Reject, Event::NoSignal),
        Verdict::Keep => {
            // A new suspicion begins at the start of this call: a request that the service accepts
            // after that shows that the service works.
            let since = call.pending.suspicion.map_or(call.accepted_count, |it| it.accepted_count);
            let suspicion = Suspicion { accepted_count: since, was_refused: true };
            let event = match answered.refused_in_a_row > REFUSED_IN_A_ROW_MAX {
                true => Event::Failed { pause_min: Duration::ZERO },
                false => Event::NoSignal,
            };
            (Fate::RetrySuspected(suspicion), event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pending_batch::PendingBatch;
    use super::*;
    use crate::aws::Unprocessed;
    use crate::pipeline::batch::test_batch;
    use std::time::Instant;

    const FAILED: Event = Event::Failed { pause_min: Duration::ZERO };
    const SECOND: Duration = Duration::from_secs(1);

    /// A call with `document_count` documents, started after 10 accepted requests.
    fn call(document_count: usize) -> Call {
        let batch = test_batch((0..document_count).map(|place| place.to_string()));
        let pending = PendingBatch::new(batch, None, (0, 0));
        Call { pending, started_at: Instant::now(), accepted_count: 10 }
    }

    fn answered(accepted_count: u64) -> Answered {
        Answered { accepted_count, refused_in_a_row: 1 }
    }

    fn failed(failure: Failure) -> Outcome {
        Outcome::Failed { failure, reason: String::new() }
    }

    #[test]
    fn failures_of_the_service_are_retried() {
        let call = call(3);
        let started_at = call.started_at;
        let now = SystemTime::now();
        let retry = |retry_after| Failure::Retry { retry_after };
        let throttle = |retry_after| Failure::Throttle { retry_after };
        let throttled = |retry_after| Event::Throttled { started_at, retry_after };
        let asked = Event::Failed { pause_min: SECOND };
        let renew = Remedy::RenewCredentials;
        let skew = Failure::Skew { service_time: now };
        for (failure, accepted_count, fate, event, remedy) in [
            (retry(None), 10, Fate::Retry, FAILED, Remedy::None),
            (retry(None), 11, Fate::Retry, Event::NoSignal, Remedy::None),
            (retry(Some(SECOND)), 10, Fate::Retry, asked, Remedy::None),
            (retry(Some(SECOND)), 11, Fate::Retry, asked, Remedy::None),
            (throttle(None), 10, Fate::Retry, throttled(None), Remedy::None),
            (throttle(Some(SECOND)), 11, Fate::Retry, throttled(Some(SECOND)), Remedy::None),
            (Failure::Expired, 11, Fate::Retry, FAILED, renew),
            (Failure::Denied, 11, Fate::RetryDenied, Event::Denied, renew),
            (Failure::TransactionSearchOff, 11, Fate::RetryDenied, Event::Denied, Remedy::None),
            (skew, 10, Fate::Retry, Event::NoSignal, Remedy::SetTime(now)),
            (Failure::NotXRay, 10, Fate::RetryNotXRay, FAILED, Remedy::None),
            (Failure::NotXRay, 11, Fate::RetryNotXRay, Event::NoSignal, Remedy::None),
        ] {
            let outcome = failed(failure);
            let decision = decide(&call, &outcome, &answered(accepted_count));
            assert_eq!(decision, Decision { fate, event, remedy }, "{failure:?}, {accepted_count}");
        }
    }

    #[test]
    fn the_third_answer_of_another_server_drops_the_batch() {
        for (count, fate) in [(1, Fate::RetryNotXRay), (2, Fate::Drop), (3, Fate::Drop)] {
            let mut call = call(3);
            call.pending.not_x_ray_count = count;
            let outcome = failed(Failure::NotXRay);
            assert_eq!(decide(&call, &outcome, &answered(10)).fate, fate, "{count}");
        }
    }

    #[test]
    fn a_refused_batch_is_halved_and_a_refused_document_is_rejected_once_others_are_accepted() {
        let suspected = |accepted_count| Some(Suspicion { accepted_count, was_refused: false });
        let kept =
            |accepted_count| Fate::RetrySuspected(Suspicion { accepted_count, was_refused: true });
        for (document_count, suspicion, is_too_large, accepted_count, fate) in [
            (50, None, false, 10, Fate::Halve),
            (50, suspected(10), false, 10, kept(10)),
            (50, suspected(10), true, 10, Fate::Halve),
            (50, suspected(10), false, 11, Fate::Halve),
            (1, None, false, 10, kept(10)),
            (1, None, true, 10, kept(10)),
            // The suspicion begins at the start of the call.
            (1, None, false, 12, kept(10)),
            (1, suspected(4), false, 4, kept(4)),
            (1, suspected(10), false, 11, Fate::Reject),
        ] {
            let mut call = call(document_count);
            call.pending.suspicion = suspicion;
            let outcome = failed(Failure::Split { is_too_large });
            let decision = decide(&call, &outcome, &answered(accepted_count));
            let expected = Decision { fate, event: Event::NoSignal, remedy: Remedy::None };
            assert_eq!(decision, expected, "{document_count}, {suspicion:?}, {accepted_count}");
        }
    }

    #[test]
    fn nine_refusals_in_a_row_are_a_failure_of_the_service() {
        let (call, outcome) = (call(1), failed(Failure::Split { is_too_large: false }));
        let mut answered = answered(10);
        let mut events = Vec::new();
        for _ in 0..9 {
            events.push(decide(&call, &outcome, &answered).event);
            answered.note(&outcome);
        }
        assert_eq!(events[..8], [Event::NoSignal; 8]);
        assert_eq!(events[8], FAILED);
        answered.note(&Outcome::Accepted { unprocessed: vec![] });
        assert_eq!(answered, Answered { accepted_count: 11, refused_in_a_row: 0 });
    }

    #[test]
    fn an_accepted_batch_is_delivered_except_for_documents_to_send_again() {
        let call = call(3);
        let throttled = Unprocessed {
            id: Some("1".to_owned()),
            error_code: Some("ThrottledException".to_owned()),
            message: None,
        };
        for (unprocessed, document_count, throttled_since) in
            [(vec![], 3, None), (vec![throttled], 2, Some(call.started_at))]
        {
            let outcome = Outcome::Accepted { unprocessed };
            let Decision { fate, event, remedy } = decide(&call, &outcome, &answered(11));
            assert_eq!(event, Event::Accepted { document_count, throttled_since });
            assert_eq!(remedy, Remedy::None);
            let Fate::Delivered(rest) = fate else { panic!("{fate:?}") };
            let places: Vec<usize> = rest.resent.iter().map(|(place, _)| *place).collect();
            assert_eq!(places.len(), 3 - document_count);
            assert!(places.iter().all(|&place| place == 1));
        }
    }
}
