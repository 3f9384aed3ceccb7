//! The uploader: sends batches to the service with several calls at a time, and retries them until
//! they are settled.
//!
//! In: finished batches, and batches from the spool. Out: counts in the account, and the records of
//! the spool that are no longer needed. A batch leaves the uploader only when the service accepted
//! it, when its only document is faulty, when another server has answered three times in the place
//! of X-Ray, or when [`Uploader::evict_oldest`] returns it because memory is short. After any other
//! failure the batch is retried, with a growing and jittered pause.
//!
//! ```text
//!  push ──► waiting ──► gate ──► call ──► decide ──► delivered, rejected, dropped ──► account
//!              ▲                             │
//!              └── retried batches, halves ──┘
//! ```
//!
//! Bound: the concurrency limit; fewer documents a second while the service throttles. The pool's
//! memory bounds the batches that wait. Thread: `upload`.

mod backoff;
mod bisect;
mod circuit_breaker;
mod conclude;
mod concurrency;
mod gate;
mod outages;
mod pending_batch;
mod rate_limit;
mod report;
mod settle;
#[cfg(test)]
mod tests;
mod unprocessed;
mod waiting;

pub use gate::Admit;
pub use pending_batch::PendingBatch;

use crate::aws::{Failure, Outcome, Reading, RequestBody, Service, StartError};
use crate::base::account::{Account, Held, RequestFailure};
use crate::base::clock::Clock;
use crate::base::panics;
use crate::pipeline::batch::Batch;
use crate::pipeline::call_limit::CallLimit;
use crate::pipeline::spool::RecordId;
use concurrency::InFlight;
use gate::{CallEnd, Change, Event, Gate, Readiness};
use outages::Outages;
use pending_batch::Call;
use report::Facts;
use settle::Answered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use waiting::Waiting;

/// A call that has ended.
#[derive(Debug)]
struct Ended {
    call_number: u64,
    reading: Reading,
    /// The kind of failure to count in the account; `None` to count no failure.
    failure: Option<RequestFailure>,
}

/// Sends batches to the service.
#[derive(Debug)]
pub struct Uploader {
    service: Option<Box<dyn Service>>,
    /// Brings the service once region and credentials are known. `None` after the service has
    /// arrived, or when it never will.
    arrival: Option<oneshot::Receiver<Box<dyn Service>>>,
    account: Arc<Account>,
    waiting: Waiting,
    gate: Gate,
    calls: BTreeMap<u64, Call>,
    /// The memory of the batches in `calls`, in bytes.
    in_flight_bytes: usize,
    next_call_number: u64,
    tasks: JoinSet<Ended>,
    answered: Answered,
    outages: Outages,
    /// Records of the spool that are no longer needed, because all of their documents are settled.
    settled_records: Vec<RecordId>,
}

impl Uploader {
    /// Returns an uploader that keeps batches until `arrival` brings the service, makes as many
    /// calls at a time as `call_limit` says, and counts into `account`.
    pub fn new(
        arrival: oneshot::Receiver<Box<dyn Service>>,
        call_limit: CallLimit,
        account: Arc<Account>,
    ) -> Self {
        let gate = Gate::new(call_limit, Clock::instant());
        account.calls.set_limit(gate.call_limit());
        Self {
            service: None,
            arrival: Some(arrival),
            account,
            waiting: Waiting::default(),
            gate,
            calls: BTreeMap::new(),
            in_flight_bytes: 0,
            next_call_number: 0,
            tasks: JoinSet::new(),
            answered: Answered::default(),
            outages: Outages::default(),
            settled_records: Vec::new(),
        }
    }

    /// Adds a fresh batch; [`start_due`](Self::start_due) sends it.
    pub fn push(&mut self, batch: Batch) {
        self.waiting.push(batch, None);
    }

    /// Adds a batch that was read from the spool.
    /// [`settled_records`](Self::settled_records) returns `record` once the batch is settled.
    pub fn push_spooled(&mut self, batch: Batch, record: RecordId) {
        self.waiting.push(batch, Some(record));
    }

    /// Adds an evicted pending batch again, because the spool could not store it.
    pub fn put_back(&mut self, pending: PendingBatch) {
        self.waiting.push_due(pending);
    }

    /// Starts calls with the pending batches that are due, for as long as the gate admits calls.
    pub fn start_due(&mut self, now: Instant) {
        while self.admit(now) == Admit::Now {
            let Some(pending) = self.waiting.pop_due(now) else { break };
            if bisect::is_halved_before_retry(&pending, self.answered.accepted_count) {
                self.halve(pending);
            } else if !self.start(pending, now) {
                break;
            }
        }
        let has_due = self.waiting.next_due(now).is_some_and(|due| due <= now);
        self.gate.note_due(has_due, self.in_flight(), now);
    }

    /// Starts a call. Returns `false` if there are no credentials any more.
    fn start(&mut self, mut pending: PendingBatch, now: Instant) -> bool {
        pending.attempt_count = pending.attempt_count.saturating_add(1);
        let accepted_count = self.answered.accepted_count;
        let call = Call { pending, started_at: now, accepted_count };
        let batch = &call.pending.batch;
        let started = panics::catch(|| {
            panics::inject("sign");
            let service = self.service.as_ref().ok_or(StartError::NoCredentials)?;
            let body = RequestBody::new(batch.body.clone(), batch.body_length_bytes);
            let body = body.of(batch.media());
            service.call(body, &batch.body_sha256)
        });
        let started = started.map_err(|panicked| report::panicked(&panicked));
        let answer = match started {
            Ok(Ok(answer)) => answer,
            Ok(Err(StartError::NoCredentials)) => {
                let attempt_count = call.pending.attempt_count - 1;
                self.waiting.push_due(PendingBatch { attempt_count, ..call.pending });
                return false;
            }
            // The call cannot be signed. New credentials may help, so the call counts as one with
            // expired credentials.
            Ok(Err(error)) => {
                self.account.request_failures(RequestFailure::Unsigned).add(1);
                self.settle_failed(call, Failure::Expired, error.to_string(), now);
                return true;
            }
            Err(reason) => {
                self.settle_failed(call, Failure::Expired, reason, now);
                return true;
            }
        };
        report::started(&call.pending);
        let document_count = batch.documents.len();
        let in_flight_count = self.calls.len();
        self.gate.observe(Event::Started { document_count, in_flight_count }, now);
        self.in_flight_bytes += call.pending.memory_bytes();
        self.account.calls.set_in_flight(in_flight_count + 1);
        let call_number = self.next_call_number;
        self.next_call_number += 1;
        self.calls.insert(call_number, call);
        self.tasks.spawn(async move {
            let answer = panics::caught(async {
                panics::inject("upload_call");
                answer.await
            });
            let (reading, failure) = answer.await.unwrap_or_else(|panicked| {
                let outcome = Outcome::retry(report::panicked(&panicked));
                (outcome.into(), Some(RequestFailure::Other))
            });
            Ended { call_number, reading, failure }
        });
        true
    }

    /// Returns whether a call may start now, or else when.
    pub fn admit(&self, now: Instant) -> Admit {
        self.gate.admit(self.readiness(), self.in_flight(), now)
    }

    fn in_flight(&self) -> InFlight {
        InFlight { count: self.calls.len(), bytes: self.in_flight_bytes }
    }

    /// Returns whether the service fails, or there are no credentials.
    pub fn is_failing(&self) -> bool {
        self.gate.is_failing() || self.readiness() != Readiness::Ready
    }

    /// Returns whether calls are answered: the service is known, does not fail, throttle or hang.
    pub fn is_answered(&self, now: Instant) -> bool {
        self.gate.is_answered(self.readiness(), self.in_flight(), now)
    }

    /// Returns whether the concurrency limit may soon allow enough calls for all batches.
    pub fn is_searching(&self) -> bool {
        self.gate.is_searching()
    }

    /// Returns whether batches wait and none can be sent now. No batch need be finished early then.
    pub fn is_held_back(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && self.admit(now) != Admit::Now
    }

    fn readiness(&self) -> Readiness {
        match (&self.service, &self.arrival) {
            (Some(service), _) if service.is_ready() => Readiness::Ready,
            (None, None) => Readiness::Never,
            _ => Readiness::NotYet,
        }
    }

    /// Returns the time at which [`start_due`](Self::start_due) can start a call; `None` if an
    /// [`event`](Self::event) must come first.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.waiting.next_due(now);
        match self.admit(now) {
            Admit::Now => due,
            Admit::At(at) => due.map(|due| due.max(at)),
            Admit::AfterEvent | Admit::Never => None,
        }
    }

    /// Logs that nothing has been delivered for some time, if this has to be logged now. Batches
    /// that wait for region or credentials are not delivered either.
    pub fn report_outages(&mut self, now: Instant) {
        if self.is_idle() {
            return;
        }
        let is_due = self.outages.next_due().is_none_or(|due| due <= now);
        if self.readiness() == Readiness::NotYet && is_due {
            let reason = self.account.conditions.missing_reason();
            self.outages.failed(now, &reason, now);
        } else {
            self.outages.report(now);
        }
    }

    /// Returns when [`report_outages`](Self::report_outages) has to be called next. `None` if there
    /// is no outage, or if there is nothing to deliver.
    pub fn next_report(&self) -> Option<Instant> {
        self.outages.next_due().filter(|_| !self.is_idle())
    }

    /// Waits until a call has ended and settles it, or until the service has arrived, or until the
    /// credentials have changed. The future may be dropped at any time: no outcome is lost.
    pub async fn event(&mut self) {
        match (&mut self.service, &mut self.arrival) {
            (Some(service), _) => tokio::select! {
                // The rare event stands first. The sender settles all calls that have ended after
                // each event.
                biased;
                () = service.credentials_changed() => {
                    self.observe(Event::CredentialsChanged, Clock::instant());
                }
                Some(ended) = self.tasks.join_next() => self.settle(ended),
            },
            (None, Some(arrival)) => {
                self.service = arrival.await.ok();
                self.arrival = None;
                if let Some(service) = &self.service {
                    self.outages.set_address(service.address());
                }
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Settles the calls that have ended, without waiting.
    pub fn settle_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.settle(ended);
        }
    }

    fn settle(&mut self, ended: Result<Ended, JoinError>) {
        let Ended { call_number, reading, failure } = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(call) = self.calls.remove(&call_number) else { return };
        let now = Clock::instant();
        self.note_ended(&call, &reading, failure, now);
        let (status, request_id) = (reading.status, reading.request_id.clone());
        let partial = reading.partial.clone();
        let facts = Facts { status, request_id, partial, ..Facts::of(&call, now) };
        report::ended(&reading, failure, facts.duration, &self.account);
        report::answered(&facts, &reading.outcome);
        if let Some(service_time) = reading.service_time {
            self.account.clock.confirm_date(service_time);
        }
        if let Outcome::Accepted { unprocessed } = &reading.outcome {
            let batch = &call.pending.batch;
            let has_more = unprocessed.len() > batch.documents.len();
            let more = has_more.then(|| "it names more documents than were sent".to_owned());
            if let Some(reason) = reading.unread_reason.or(more) {
                report::unread(batch, &reason, &self.account);
            }
        }
        self.apply(call, reading.outcome, &facts, now);
    }

    /// Passes the end of a call on to the concurrency limit.
    fn note_ended(
        &mut self,
        call: &Call,
        reading: &Reading,
        failure: Option<RequestFailure>,
        now: Instant,
    ) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(call.pending.memory_bytes());
        self.account.calls.set_in_flight(self.calls.len());
        let started_at = call.started_at;
        let end = match (&reading.outcome, failure) {
            (Outcome::Accepted { .. }, _) => {
                let time = now.saturating_duration_since(started_at);
                CallEnd::Accepted(time.saturating_sub(reading.waited))
            }
            (_, Some(RequestFailure::Timeout)) => CallEnd::Timeout,
            _ => CallEnd::Other,
        };
        let in_flight_count = self.calls.len();
        self.gate.observe(Event::Ended { started_at, in_flight_count, end }, now);
    }

    /// Settles a call that failed before it was sent.
    fn settle_failed(&mut self, call: Call, failure: Failure, reason: String, now: Instant) {
        let facts = Facts::of(&call, now);
        self.apply(call, Outcome::Failed { failure, reason }, &facts, now);
    }

    /// Passes an event to the gate, and acts on a change of the circuit breaker.
    fn observe(&mut self, event: Event, now: Instant) {
        match self.gate.observe(event, now) {
            Change::None => {}
            // The address of the service may have changed. A new connection looks the address up
            // again.
            Change::Opened => {
                if let Some(service) = &mut self.service {
                    service.forget_connections();
                }
            }
            Change::Closed => self.waiting.make_due(),
        }
    }

    /// Notes that the spool's record of a settled pending batch is no longer needed, once all parts
    /// of the batch are settled.
    fn settle_record(&mut self, pending: PendingBatch) {
        let last = pending.record.and_then(Arc::into_inner);
        self.settled_records.extend(last);
    }

    /// Takes the list of the spool's records that are no longer needed.
    pub fn settled_records(&mut self) -> Vec<RecordId> {
        std::mem::take(&mut self.settled_records)
    }

    /// Takes the oldest pending batch that is not in flight; `None` if no pending batch waits.
    #[must_use = "evicted segments have to be counted"]
    pub fn evict_oldest(&mut self) -> Option<PendingBatch> {
        self.waiting.pop_oldest()
    }

    /// Takes the oldest pending batch that is not in flight, like
    /// [`evict_oldest`](Self::evict_oldest), but no part of a batch from the spool. The spool keeps
    /// the whole batch until all parts are settled. So a part cannot be dropped alone: the whole
    /// batch would come out of the spool again.
    #[must_use = "evicted segments have to be counted"]
    pub fn evict_oldest_unshared(&mut self) -> Option<PendingBatch> {
        self.waiting.pop_oldest_unshared()
    }

    /// Takes the oldest pending batch that is not in flight and was not read from the spool; `None`
    /// if no such pending batch waits.
    #[must_use = "evicted segments have to be counted"]
    pub fn evict_oldest_unspooled(&mut self) -> Option<PendingBatch> {
        self.waiting.pop_oldest_unspooled()
    }

    /// Aborts all calls, and takes every pending batch that waits or was in flight, the oldest
    /// first.
    #[must_use = "the segments have to be counted"]
    pub fn take_all(&mut self) -> Vec<PendingBatch> {
        self.tasks.abort_all();
        for (_, call) in std::mem::take(&mut self.calls) {
            self.waiting.push_due(call.pending);
        }
        self.in_flight_bytes = 0;
        self.account.calls.set_in_flight(0);
        std::iter::from_fn(|| self.waiting.pop_oldest()).collect()
    }

    /// Makes every pending batch due at once, and keeps later pauses short, because the shutdown
    /// has a deadline. The pause that a throttling service asks for stays as it is.
    pub fn begin_drain(&mut self) {
        self.waiting.begin_drain();
        self.observe(Event::DrainBegins, Clock::instant());
    }

    /// Returns whether no pending batch waits and no call is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.calls.is_empty()
    }

    /// Adds the content of all pending batches that wait or are in flight to `held`.
    pub fn count(&self, held: &mut Held) {
        for pending in self.waiting.iter() {
            held.segment_count += pending.batch.item_count();
            held.waiting_batch_count += 1;
            held.waiting_bytes += pending.memory_bytes();
        }
        for Call { pending, .. } in self.calls.values() {
            held.segment_count += pending.batch.item_count();
            held.in_flight_batch_count += 1;
            held.in_flight_bytes += pending.memory_bytes();
        }
    }

    /// Returns the number of batches from the spool that wait or are in flight.
    pub fn spooled_batch_count(&self) -> usize {
        let calls = self.calls.values().filter(|call| call.pending.record.is_some());
        self.waiting.spooled_count() + calls.count()
    }
}
