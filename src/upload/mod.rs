//! From batch to outcome: signed requests, several at a time, tried again until they are settled.
//!
//! In: finished batches. Out: the account. A batch leaves only when the service took it, when it
//! refused it for good, or when [`Uploader::displace_oldest`] gives it up for want of memory; a
//! failure that passes puts it back with a growing, jittered pause. Bounds: `concurrency` calls
//! in flight; what waits is bounded by the pool's memory. Runs on the upload thread.

mod body;
mod classify;
mod client;
mod retry;
mod sign;

pub use body::RequestBody;
pub use classify::{Outcome, Unprocessed, classify};
pub use client::{Client, ClientError, Trust};
pub use sign::{SignError, Signer};

use crate::account::{Account, RejectReason};
use crate::batch::{Batch, Document};
use crate::identity::Identity;
use crate::log::RateLimit;
use retry::{Attempt, Waiting};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::{JoinError, JoinSet};
use tracing::{error, info, warn};

/// A busy daemon sends thousands of batches in a window, a quiet one ten.
static SENT: RateLimit = RateLimit::with_line_count(50);
static PART_SENT: RateLimit = RateLimit::new();
static UNPROCESSED: RateLimit = RateLimit::with_line_count(50);
static FAILED: RateLimit = RateLimit::new();
static REFUSED: RateLimit = RateLimit::new();

/// A call that has ended.
struct Call {
    attempt: Attempt,
    outcome: Outcome,
    duration: Duration,
}

/// Sends batches.
#[derive(Debug)]
pub struct Uploader {
    client: Client,
    signer: Signer,
    identity: Identity,
    concurrency: usize,
    account: Arc<Account>,
    waiting: Waiting,
    calls: JoinSet<Call>,
    calls_segment_count: usize,
    /// While the service throttles or fails, no call starts before this.
    paused_until: Option<Instant>,
    /// Rounds of failures since the last success; while there are any, one call at a time asks
    /// whether the service is back.
    failed_rounds: u32,
}

impl Uploader {
    /// An uploader that makes up to `concurrency` calls at a time and counts into `account`.
    pub fn new(
        client: Client,
        signer: Signer,
        identity: Identity,
        concurrency: usize,
        account: Arc<Account>,
    ) -> Self {
        Self {
            client,
            signer,
            identity,
            concurrency,
            account,
            waiting: Waiting::default(),
            calls: JoinSet::new(),
            calls_segment_count: 0,
            paused_until: None,
            failed_rounds: 0,
        }
    }

    /// Takes over a batch; [`start_due`](Self::start_due) sends it.
    pub fn push(&mut self, batch: Batch, now: Instant) {
        self.waiting.push(batch, now);
    }

    /// Starts the calls that are due, as far as concurrency, throttling and credentials allow.
    pub fn start_due(&mut self, now: Instant) {
        while self.may_start() && self.paused_until.is_none_or(|until| until <= now) {
            let Some(credentials) = self.identity.credentials() else { return };
            let Some(attempt) = self.waiting.pop_due(now) else { return };
            match self.signer.sign(&attempt.batch, &credentials, SystemTime::now()) {
                Ok(request) => {
                    let client = self.client.clone();
                    self.calls_segment_count += attempt.batch.documents.len();
                    self.calls.spawn(async move {
                        let started_at = Instant::now();
                        let outcome = match client.send(request).await {
                            Ok(answer) => classify(answer.status, &answer.headers, &answer.body),
                            Err(error) => Outcome::Retry { reason: error.to_string() },
                        };
                        Call { attempt, outcome, duration: started_at.elapsed() }
                    });
                }
                // Other credentials may do better; these are asked for again.
                Err(error) => {
                    self.identity.renew();
                    self.try_again(attempt, &error.to_string(), Duration::ZERO, now);
                }
            }
        }
    }

    fn may_start(&self) -> bool {
        let concurrency = if self.failed_rounds > 0 { 1 } else { self.concurrency };
        self.calls.len() < concurrency && self.identity.is_ready()
    }

    /// Whether batches wait that cannot be sent now: others gain nothing by being ended early.
    pub fn is_held_back(&self, now: Instant) -> bool {
        let is_paused = self.paused_until.is_some_and(|until| until > now);
        self.waiting.segment_count() > 0 && (is_paused || !self.may_start())
    }

    /// The service, or the way to it, fails: one pause for all batches together, so that an outage
    /// costs a few calls and not one for each batch that waits.
    fn hold_back(&mut self, now: Instant) {
        // The calls that were in flight together fail together, and count once.
        if self.paused_until.is_none_or(|until| until <= now) {
            let until = now + self.waiting.backoff(self.failed_rounds);
            self.paused_until = Some(until);
            self.failed_rounds += 1;
        }
    }

    /// The service is back: everything that waits is due.
    fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.failed_rounds) > 0 {
            self.paused_until = None;
            self.waiting.make_due(now);
        }
    }

    /// When [`start_due`](Self::start_due) has something to do; `None` while it takes an
    /// [`event`](Self::event) first.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self.waiting.next_due().filter(|_| self.may_start())?;
        Some(self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// Waits until a call has ended, which is then settled, or the credentials have changed.
    ///
    /// Nothing is lost when the wait is given up.
    pub async fn event(&mut self) {
        tokio::select! {
            Some(ended) = self.calls.join_next() => self.settle(ended),
            () = self.identity.changed() => {}
        }
    }

    /// Settles the calls that have ended, without a wait.
    pub fn settle_ended(&mut self) {
        while let Some(ended) = self.calls.try_join_next() {
            self.settle(ended);
        }
    }

    fn settle(&mut self, ended: Result<Call, JoinError>) {
        // Calls are only cancelled when the uploader is dropped; so this is a panic, to pass on.
        let Call { attempt, outcome, duration } =
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let segment_count = attempt.batch.documents.len();
        self.calls_segment_count -= segment_count;
        let now = Instant::now();
        match outcome {
            Outcome::Accepted { unprocessed } => {
                self.resume(now);
                self.settle_accepted(&attempt.batch, &unprocessed, duration);
            }
            Outcome::Retry { reason } => {
                self.hold_back(now);
                self.try_again(attempt, &reason, Duration::ZERO, now);
            }
            Outcome::Throttle { reason, retry_after } => {
                self.account.requests_throttled.add(1);
                let pause = self.try_again(attempt, &reason, retry_after.unwrap_or_default(), now);
                let until = now + pause;
                self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
            }
            Outcome::Credentials { reason } => {
                self.identity.renew();
                self.hold_back(now);
                self.try_again(attempt, &reason, Duration::ZERO, now);
            }
            Outcome::Refused { reason } => {
                self.account.requests_refused.add(1);
                self.account.rejected(RejectReason::Refused).add(segment_count as u64);
                REFUSED.log(|more| {
                    error!(
                        "Sending segment batch failed with: {reason}. Trying again cannot help: \
                         {segment_count} segments are given up{more}"
                    );
                });
            }
        }
    }

    fn settle_accepted(&self, batch: &Batch, unprocessed: &[Unprocessed], duration: Duration) {
        let segment_count = batch.documents.len();
        // An answer can name no more documents than the request had.
        let unprocessed = &unprocessed[..unprocessed.len().min(segment_count)];
        self.account.requests_sent.add(1);
        self.account.sent.add((segment_count - unprocessed.len()) as u64);
        self.account.rejected(RejectReason::Unprocessed).add(unprocessed.len() as u64);
        if unprocessed.is_empty() {
            SENT.log(|more| {
                info!(
                    "Successfully sent batch of {segment_count} segments ({:.3} seconds){more}",
                    duration.as_secs_f64()
                );
            });
            return;
        }
        PART_SENT.log(|more| {
            info!(
                "Sent batch of {segment_count} segments but had {} Unprocessed segments \
                 ({:.3} seconds){more}",
                unprocessed.len(),
                duration.as_secs_f64()
            );
        });
        for answer in unprocessed {
            UNPROCESSED.log(|more| log_unprocessed(answer, &batch.documents, more));
        }
    }

    /// Puts a batch back; returns the pause before it is sent again.
    fn try_again(
        &mut self,
        attempt: Attempt,
        reason: &str,
        pause_min: Duration,
        now: Instant,
    ) -> Duration {
        self.account.requests_retried.add(1);
        let segment_count = attempt.batch.documents.len();
        let failure_count = attempt.failure_count + 1;
        let pause = self.waiting.push_failed(attempt, now, pause_min);
        let held_back = self.paused_until.map(|until| until.saturating_duration_since(now));
        let next_attempt = pause.max(held_back.unwrap_or_default());
        FAILED.log(|more| {
            warn!(
                "Sending segment batch failed with: {reason}. Its {segment_count} segments are \
                 kept; attempt {} in {:.1} s or later{more}",
                failure_count + 1,
                next_attempt.as_secs_f64()
            );
        });
        pause
    }

    /// Gives up the oldest batch that is not in flight; returns how many segments it held, or
    /// `None` when all that is left is in flight.
    #[must_use = "segments that gave way have to be counted"]
    pub fn displace_oldest(&mut self) -> Option<usize> {
        self.waiting.pop_oldest().map(|batch| batch.documents.len())
    }

    /// Makes every batch that waits for its next attempt due at once, and keeps pauses short from
    /// now on: there is a deadline. A throttling service still has its pause.
    pub fn hurry(&mut self, now: Instant) {
        self.waiting.hurry(now);
        if std::mem::take(&mut self.failed_rounds) > 0 {
            self.paused_until = None;
        }
    }

    /// Segments that wait or are in flight.
    pub fn segment_count(&self) -> usize {
        self.waiting.segment_count() + self.calls_segment_count
    }
}

fn log_unprocessed(answer: &Unprocessed, documents: &[Document], more: crate::log::Suppressed) {
    let id = answer.id.as_deref().unwrap_or_default();
    let known = documents.iter().find(|document| !id.is_empty() && document.id.as_str() == id);
    let trace_id = known.map_or("unknown", |document| document.trace_id.as_str());
    error!(
        "Unprocessed trace ID, {trace_id}, segment {}, {}: {}{more}",
        if id.is_empty() { "unknown" } else { id },
        answer.error_code.as_deref().unwrap_or("no error code"),
        answer.message.as_deref().unwrap_or("no message"),
    );
}
