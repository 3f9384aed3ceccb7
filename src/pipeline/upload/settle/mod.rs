//! What becomes of a batch whose call has ended: settled, put back, or halved.
//!
//! In: the outcome of a call. Out: the account, and what of the batch is to be sent again; what the
//! failure says of the service goes to the hold and the rate_limit.

use super::bisect::{self, Suspicion, Verdict};
use super::waiting::Attempt;
use super::{Call, Ended, Uploader, report};
use crate::aws::{Failure, Outcome, Reading, Unprocessed};
use crate::base::clock::Clock;
use crate::base::conditions::Condition;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinError;

/// So many refusals without a success between them are no document's fault: then the service is
/// asked one call at a time.
const REFUSED_IN_A_ROW_MAX: u32 = 8;

/// A batch is dropped when so many answers to it were not the service's.
pub(super) const NOT_X_RAY_COUNT_MAX: u32 = 3;

/// After such an answer the batch waits for at least this long, which is the longest of the usual
/// pauses. Meanwhile other batches ask whether the service is back. So a captive portal that is
/// left within some seconds costs nothing. The pause stays as long when there is a deadline: the
/// spool can keep what was not sent by then, and a batch that is dropped is lost.
const NOT_X_RAY_PAUSE: Duration = Duration::from_secs(10);

impl Uploader {
    pub(super) fn settle(&mut self, ended: Result<Ended, JoinError>) {
        let Ended { call_number, reading, failure } = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(call) = self.calls.remove(&call_number) else { return };
        if let Some(kind) = failure {
            self.account.request_failures(kind).add(1);
        }
        let Reading { outcome, unread_reason, is_too_large, service_time } = reading;
        self.account.answers_too_large.add(u64::from(is_too_large));
        if let Some(service_time) = service_time {
            self.account.clock.confirm_date(service_time);
        }
        let now = Clock::instant();
        let (sizes, seconds) = (&self.account.sizes, (now - call.started_at).as_secs_f64());
        match outcome {
            Outcome::Accepted { .. } => sizes.accepted_request_seconds.observe(seconds),
            Outcome::Failed { .. } => sizes.failed_request_seconds.observe(seconds),
        }
        match outcome {
            Outcome::Accepted { unprocessed } => {
                let batch = &call.attempt.batch;
                let has_more = unprocessed.len() > batch.documents.len();
                let more = has_more.then(|| "it names more documents than were sent".to_owned());
                if let Some(why) = unread_reason.or(more) {
                    report::unread(batch, &why, &self.account);
                }
                self.settle_accepted(call, &unprocessed, now);
            }
            Outcome::Failed { failure, reason } => {
                self.settle_failed(call, failure, &reason, now);
                if self.breaker.is_failing() {
                    self.account.conditions.begin(Condition::UploadsFailing, reason);
                }
            }
        }
        self.account.set_rate_limit(self.rate_limit.rate());
    }

    fn settle_accepted(&mut self, call: Call, unprocessed: &[Unprocessed], now: Instant) {
        let Call { attempt, started_at, .. } = call;
        self.accepted_count += 1;
        self.account.conditions.end(Condition::UploadsFailing);
        self.refused_in_a_row = 0;
        self.resume();
        let report = report::accepted(&attempt.batch, unprocessed, now - started_at, &self.account);
        self.rate_limit.accepted(attempt.batch.documents.len() - report.passing.len(), now);
        if report.is_throttled {
            self.rate_limit.throttled(started_at, now);
        }
        match report.passing.first() {
            None => self.settle_record(attempt),
            Some(&first) => {
                let part = attempt.batch.part(report.passing.iter().copied());
                let mut part = attempt.part(part, first);
                part.failure_count = attempt.failure_count;
                self.waiting.push_failed(part, now, Duration::ZERO);
            }
        }
    }

    fn settle_failed(&mut self, call: Call, failure: Failure, reason: &str, now: Instant) {
        let Call { attempt, started_at, accepted_count } = call;
        match failure {
            Failure::Retry { retry_after } => {
                // When others were accepted meanwhile it is not the service as a whole.
                if self.accepted_count == accepted_count || retry_after.is_some() {
                    self.hold_back(retry_after.unwrap_or_default(), now);
                }
                self.try_again(attempt, reason, Duration::ZERO, now);
            }
            Failure::Throttle { retry_after } => {
                self.account.requests_throttled.add(1);
                self.rate_limit.throttled(started_at, now);
                if let Some(pause) = retry_after {
                    self.breaker.pause(pause, now);
                }
                self.try_again(attempt, reason, Duration::ZERO, now);
            }
            Failure::Expired => {
                self.renew_credentials();
                self.hold_back(Duration::ZERO, now);
                self.try_again(attempt, reason, Duration::ZERO, now);
            }
            Failure::Denied => {
                self.renew_credentials();
                self.breaker.deny(now);
                self.account.requests_retried.add(1);
                report::denied(reason, &self.breaker, now);
                self.waiting.push_due(attempt);
            }
            Failure::Skew { service_time } => {
                if let Some(route) = &self.route {
                    route.signer.set_time(service_time, Clock::host_date());
                }
                self.try_again(attempt, reason, Duration::ZERO, now);
            }
            Failure::Split { is_too_large } => {
                self.settle_refused(attempt, accepted_count, is_too_large, reason, now);
            }
            Failure::NotXRay => self.settle_not_x_ray(attempt, accepted_count, reason, now),
        }
    }

    /// Another server has answered in the service's place.
    fn settle_not_x_ray(
        &mut self,
        mut attempt: Attempt,
        accepted_count: u64,
        reason: &str,
        now: Instant,
    ) {
        self.account.answers_not_x_ray.add(1);
        if self.accepted_count == accepted_count {
            self.hold_back(Duration::ZERO, now);
        }
        attempt.not_x_ray_count += 1;
        if attempt.not_x_ray_count >= NOT_X_RAY_COUNT_MAX {
            report::not_x_ray(&attempt.batch, reason, &self.account);
            self.settle_record(attempt);
            return;
        }
        self.account.requests_retried.add(1);
        let segment_count = attempt.batch.documents.len();
        let attempt_count = attempt.not_x_ray_count + 1;
        let pause = self.waiting.push_failed(attempt, now, NOT_X_RAY_PAUSE);
        report::not_x_ray_yet(reason, segment_count, attempt_count, pause);
    }

    fn settle_refused(
        &mut self,
        mut attempt: Attempt,
        accepted_count: u64,
        is_too_large: bool,
        reason: &str,
        now: Instant,
    ) {
        self.account.requests_refused.add(1);
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        match bisect::judge(&attempt, is_too_large, self.accepted_count) {
            Verdict::Keep => {
                // Whoever is accepted from the start of this call on vouches for the service.
                let doubt = attempt
                    .suspicion
                    .get_or_insert(Suspicion { accepted_count, was_refused: false });
                doubt.was_refused = true;
                if self.refused_in_a_row > REFUSED_IN_A_ROW_MAX {
                    self.hold_back(Duration::ZERO, now);
                }
                self.try_again(attempt, reason, Duration::ZERO, now);
            }
            Verdict::Halve => self.halve(&attempt),
            Verdict::GiveUp => {
                report::given_up(&attempt.batch, reason, &self.account);
                self.settle_record(attempt);
            }
        }
    }

    /// Halves an attempt that was refused before, when the service has taken others since;
    /// otherwise it is to be sent. A single document is sent again before it is given up: what
    /// was wrong when it was refused may be over.
    pub(super) fn isolate(&mut self, attempt: Attempt) -> Option<Attempt> {
        let was_refused = attempt.suspicion.is_some_and(|doubt| doubt.was_refused);
        if was_refused && bisect::judge(&attempt, false, self.accepted_count) == Verdict::Halve {
            self.halve(&attempt);
            return None;
        }
        Some(attempt)
    }

    fn halve(&mut self, attempt: &Attempt) {
        for half in bisect::halve(attempt, self.accepted_count) {
            self.waiting.push_due(half);
        }
    }

    /// The service, or the way to it, fails.
    pub(super) fn hold_back(&mut self, pause_min: Duration, now: Instant) {
        let pause = self.waiting.backoff(self.breaker.failed_rounds()).max(pause_min);
        let is_news = self.breaker.fail(pause, now);
        if !pause_min.is_zero() {
            // The service's own word counts also while a shorter pause is on.
            self.breaker.pause(pause_min, now);
        }
        if is_news {
            // Names are looked up anew, and no connection to what has gone is used again.
            if let Some(route) = &mut self.route {
                route.client.forget_connections();
            }
        }
    }

    fn renew_credentials(&self) {
        if let Some(route) = &self.route {
            route.identity.renew();
        }
    }

    /// The service is back, or there are other credentials: everything that waits is due.
    pub(super) fn resume(&mut self) {
        if self.breaker.clear() {
            self.waiting.make_due();
        }
    }

    /// Puts a batch back, to be sent again after a pause.
    pub(super) fn try_again(
        &mut self,
        attempt: Attempt,
        reason: &str,
        pause_min: Duration,
        now: Instant,
    ) {
        self.account.requests_retried.add(1);
        let segment_count = attempt.batch.documents.len();
        let attempt_count = attempt.failure_count.saturating_add(1);
        let pause = self.waiting.push_failed(attempt, now, pause_min);
        let until = self.paused_until(now).map(|until| until - now);
        report::failed(reason, segment_count, attempt_count, pause.max(until.unwrap_or_default()));
    }

    /// What lies in the spool is needed there no more, once all its parts are settled.
    fn settle_record(&mut self, attempt: Attempt) {
        let last = attempt.record.and_then(Arc::into_inner);
        self.settled_records.extend(last);
    }
}

#[cfg(test)]
mod tests;
