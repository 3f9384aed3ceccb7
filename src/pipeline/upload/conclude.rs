//! Acts on the outcome of a call: counts it, logs it, and retries, halves, rejects or drops its
//! batch.
//!
//! In: a call that has ended, and its outcome. Out: the batch back in the queue, or settled; counts
//! and log lines. `settle.rs` decides, this file does what was decided. Thread: `upload`.

use super::pending_batch::{Call, PendingBatch};
use super::report::Facts;
use super::settle::{Decision, Fate, NOT_X_RAY_PAUSE, Remedy, decide};
use super::unprocessed::Rest;
use super::{Uploader, bisect, report};
use crate::aws::{Failure, Media, Outcome};
use crate::base::conditions::Condition;
use std::time::{Duration, Instant};

/// The advice for the operator when the service denies a call.
const DENIED_ADVICE: &str = "The service denies the request: check that the credentials are right \
                             and allow xray:PutTraceSegments";

/// The same for a call with spans.
const SPANS_DENIED_ADVICE: &str = "The service denies the request: check that the credentials are \
                                   right and allow xray:PutSpans";

/// The advice for the operator when Transaction Search is off.
const SEARCH_OFF_ADVICE: &str = "Transaction Search is off: switch it on in CloudWatch, or with \
                                 UpdateTraceSegmentDestination";

impl Uploader {
    /// Decides what to do after a call, and does it.
    pub(super) fn apply(&mut self, call: Call, outcome: Outcome, facts: &Facts, now: Instant) {
        self.answered.note(&outcome);
        let Decision { fate, event, remedy } = decide(&call, &outcome, &self.answered);
        self.observe(event, now);
        if let Some(service) = &self.service {
            match remedy {
                Remedy::None => {}
                Remedy::RenewCredentials => service.renew_credentials(),
                Remedy::SetTime(service_time) => service.set_time(service_time),
            }
        }
        let (failure, reason) = match &outcome {
            Outcome::Accepted { .. } => (Failure::Retry { retry_after: None }, ""),
            Outcome::Failed { failure, reason } => (*failure, reason.as_str()),
        };
        match fate {
            Fate::Delivered(rest) => {
                report::accepted(&call.pending.batch, &rest, facts, &self.account);
                self.note_accepted(&call, &rest, now);
                self.settle_delivered(call.pending, &rest, now);
            }
            fate => self.apply_failed(call, fate, (failure, reason), facts, now),
        }
        match outcome {
            Outcome::Accepted { .. } => {
                self.account.conditions.end(Condition::UploadsFailing);
                self.account.conditions.end(Condition::TransactionSearchOff);
            }
            Outcome::Failed { failure: Failure::TransactionSearchOff, reason } => {
                self.account.conditions.begin(Condition::TransactionSearchOff, reason);
            }
            Outcome::Failed { reason, .. } if self.gate.is_failing() => {
                self.account.conditions.begin(Condition::UploadsFailing, reason);
            }
            Outcome::Failed { .. } => {}
        }
        self.account.set_rate_limit(self.gate.rate());
        if let Some(reason) = self.gate.take_limit_change() {
            self.account.calls.changed(self.gate.call_limit(), reason);
            report::limit_changed(self.gate.call_limit(), reason);
        }
    }

    /// Acts on a call that failed for `reason`, and notes the failure for the outages.
    fn apply_failed(
        &mut self,
        call: Call,
        fate: Fate<'_>,
        (failure, reason): (Failure, &str),
        facts: &Facts,
        now: Instant,
    ) {
        let Call { mut pending, started_at, .. } = call;
        match fate {
            Fate::Retry if matches!(failure, Failure::Throttle { .. }) => {
                let is_said = self.outages.throttled(reason, now);
                self.retry(pending, reason, is_said, facts, now);
            }
            Fate::Retry | Fate::Delivered(_) => {
                let is_said = self.outages.failed(started_at, reason, now);
                self.retry(pending, reason, is_said, facts, now);
            }
            Fate::RetrySuspected(suspicion) => {
                let is_refused_again = pending.suspicion.is_some_and(|it| it.was_refused);
                pending.suspicion = Some(suspicion);
                if is_refused_again {
                    let is_said = self.outages.failed(started_at, reason, now);
                    return self.retry(pending, reason, is_said, facts, now);
                }
                report::refused(reason, self.outages.address(), facts);
                self.outages.failed_and_said(started_at, reason, now);
                self.retry(pending, reason, true, facts, now);
            }
            Fate::RetryNotXRay => {
                self.outages.failed_and_said(started_at, reason, now);
                self.retry_not_x_ray(pending, reason, facts, now);
            }
            Fate::RetryDenied => {
                self.account.requests_retried.add(1);
                let advice = match failure {
                    Failure::TransactionSearchOff => SEARCH_OFF_ADVICE,
                    _ if pending.batch.media() != Media::Json => SPANS_DENIED_ADVICE,
                    _ => DENIED_ADVICE,
                };
                let reason = format!("{reason}. {advice}");
                if !self.outages.failed(started_at, &reason, now) {
                    let pause = self.gate.pause(now);
                    report::retried(&reason, self.outages.address(), facts, pause);
                }
                self.waiting.push_due(pending);
            }
            Fate::Halve => {
                report::refused(reason, self.outages.address(), facts);
                self.halve(pending);
            }
            Fate::Reject => {
                report::rejected(&pending.batch, reason, &self.account);
                self.settle_record(pending);
            }
            Fate::Drop => {
                self.outages.failed_and_said(started_at, reason, now);
                report::not_x_ray(&pending.batch, reason, &self.account);
                self.settle_record(pending);
            }
        }
    }

    /// Retries the documents of an accepted batch that the service could not process for now. If
    /// there are none, settles the batch.
    fn settle_delivered(&mut self, pending: PendingBatch, rest: &Rest<'_>, now: Instant) {
        let Some(&(first, _)) = rest.resent.first() else {
            return self.settle_record(pending);
        };
        let part = pending.batch.part(rest.resent.iter().map(|(place, _)| *place));
        let mut part = pending.part(part, first);
        part.failure_count = pending.failure_count;
        self.waiting.push_failed(part, now, Duration::ZERO);
    }

    /// Notes for the outages that the service accepted a batch, except for the documents in `rest`.
    /// If it processed none of them for now, nothing has been delivered.
    fn note_accepted(&mut self, call: &Call, rest: &Rest<'_>, now: Instant) {
        let document_count = call.pending.batch.documents.len();
        if rest.resent.len() < document_count {
            self.outages.delivered(self.waiting.is_empty() && rest.resent.is_empty(), now);
        }
        let Some((_, answer)) = rest.resent.first() else { return };
        let code = answer.error_code.as_deref().unwrap_or("no error code");
        let reason = format!("{code} for {} documents of the batch", rest.resent.len());
        if rest.is_throttled {
            self.outages.throttled(&reason, now);
        } else if rest.resent.len() == document_count {
            self.outages.failed(call.started_at, &reason, now);
        }
    }

    /// Retries a batch after its backoff. `is_said` is whether the log has the failure already.
    fn retry(
        &mut self,
        pending: PendingBatch,
        reason: &str,
        is_said: bool,
        facts: &Facts,
        now: Instant,
    ) {
        self.account.requests_retried.add(1);
        let pause = self.waiting.push_failed(pending, now, Duration::ZERO);
        if !is_said {
            let pause = pause.max(self.gate.pause(now));
            report::retried(reason, self.outages.address(), facts, pause);
        }
    }

    /// Retries a batch that another server has answered in the place of X-Ray.
    fn retry_not_x_ray(
        &mut self,
        mut pending: PendingBatch,
        reason: &str,
        facts: &Facts,
        now: Instant,
    ) {
        self.account.requests_retried.add(1);
        pending.not_x_ray_count += 1;
        let count = pending.not_x_ray_count;
        let pause = self.waiting.push_failed(pending, now, NOT_X_RAY_PAUSE);
        report::not_x_ray_yet(reason, self.outages.address(), facts, count, pause);
    }

    pub(super) fn halve(&mut self, pending: PendingBatch) {
        let Some(halves) = bisect::halve(&pending, self.answered.accepted_count) else {
            report::rejected(&pending.batch, "it cannot be divided", &self.account);
            return self.settle_record(pending);
        };
        halves.into_iter().for_each(|half| self.waiting.push_due(half));
    }
}
