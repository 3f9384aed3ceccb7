//! From batch to outcome: signed requests, several at a time, tried again until they are settled.
//!
//! In: finished batches. Out: the account. A batch leaves only when the service took it, when a
//! document of it alone is at fault, when another server has answered in the service's place three
//! times, or when [`Uploader::evict_oldest`] takes it back for want of memory; any other failure
//! puts it back with a growing, jittered pause.
//!
//! ```text
//!  push ──► waiting ──► (hold, rate_limit) ──► call ──► classify ──► accepted ──► account
//!              ▲                                     │
//!              └── pause, halves, passing documents ─┘
//! ```
//!
//! Bounds: `concurrency` calls in flight, fewer documents a second where the service throttles;
//! what waits is bounded by the pool's memory. Runs on the sender thread.

mod bisect;
mod circuit_breaker;
mod rate_limit;
mod report;
mod settle;
mod waiting;

pub use waiting::Attempt;

use crate::aws::{self, Outcome, Reading, RequestBody, Route};
use crate::base::account::{Account, Held, RequestFailure};
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use crate::base::panics::{self, Panicked};
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::RecordId;
use circuit_breaker::CircuitBreaker;
use rate_limit::RateLimit;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::error;
use waiting::Waiting;

static PANICKED: LogLimit = LogLimit::new();

/// A call on its way.
#[derive(Debug)]
struct Call {
    attempt: Attempt,
    started_at: Instant,
    /// Requests that the service had accepted at the start.
    accepted_count: u64,
}

/// A call that has ended.
#[derive(Debug)]
struct Ended {
    call_number: u64,
    reading: Reading,
    /// How it failed, for the account.
    failure: Option<RequestFailure>,
}

/// Sends batches.
#[derive(Debug)]
pub struct Uploader {
    route: Option<Route>,
    /// Where the route comes from; `None` when it has come, or never will.
    arrival: Option<oneshot::Receiver<Route>>,
    concurrency: usize,
    account: Arc<Account>,
    waiting: Waiting,
    breaker: CircuitBreaker,
    rate_limit: RateLimit,
    calls: BTreeMap<u64, Call>,
    next_call_number: u64,
    tasks: JoinSet<Ended>,
    accepted_count: u64,
    /// Requests refused since the last one was accepted.
    refused_in_a_row: u32,
    /// Records of the spool that are delivered, or given up for good.
    settled_records: Vec<RecordId>,
}

impl Uploader {
    /// An uploader that keeps batches until `arrival` tells where to send them, makes up to
    /// `concurrency` calls at a time, and counts into `account`.
    pub fn new(
        arrival: oneshot::Receiver<Route>,
        concurrency: usize,
        account: Arc<Account>,
    ) -> Self {
        Self {
            route: None,
            arrival: Some(arrival),
            concurrency,
            account,
            waiting: Waiting::default(),
            breaker: CircuitBreaker::default(),
            rate_limit: RateLimit::new(Clock::instant()),
            calls: BTreeMap::new(),
            next_call_number: 0,
            tasks: JoinSet::new(),
            accepted_count: 0,
            refused_in_a_row: 0,
            settled_records: Vec::new(),
        }
    }

    /// Takes over a batch; [`start_due`](Self::start_due) sends it.
    pub fn push(&mut self, batch: Batch) {
        self.waiting.push(batch, None);
    }

    /// Takes over a batch out of the spool; [`settled_records`](Self::settled_records) says when
    /// it is needed there no more.
    pub fn push_spooled(&mut self, batch: Batch, record: RecordId) {
        self.waiting.push(batch, Some(record));
    }

    /// Takes back what [`evict_oldest`](Self::evict_oldest) gave and nobody could keep.
    pub fn put_back(&mut self, attempt: Attempt) {
        self.waiting.push_due(attempt);
    }

    /// Starts the calls that are due, as far as concurrency, throttling and credentials allow.
    pub fn start_due(&mut self, now: Instant) {
        while self.may_start() && self.paused_until(now).is_none() {
            let Some(attempt) = self.waiting.pop_due(now) else { return };
            match self.isolate(attempt) {
                None => {}
                Some(attempt) => self.start(attempt, now),
            }
        }
    }

    fn start(&mut self, attempt: Attempt, now: Instant) {
        let credentials = self.route.as_ref().and_then(|route| route.identity.credentials());
        let Some((route, credentials)) = self.route.as_ref().zip(credentials) else {
            self.waiting.push_due(attempt);
            return;
        };
        let signed_at = route.signer.time(Clock::host_date());
        let signed = panics::catch(|| {
            panics::inject("sign");
            let batch = &attempt.batch;
            let body = RequestBody::new(batch.body.clone(), batch.body_length_bytes);
            route.signer.sign(body, &batch.body_sha256, &credentials, signed_at)
        });
        let signed = signed.map_err(|panicked| said(&panicked));
        let request = match signed.and_then(|signed| signed.map_err(|error| error.to_string())) {
            Ok(request) => request,
            // Other credentials may do better; these are asked for again.
            Err(reason) => {
                route.identity.renew();
                self.hold_back(Duration::ZERO, now);
                self.try_again(attempt, &reason, Duration::ZERO, now);
                return;
            }
        };
        self.rate_limit.started(attempt.batch.documents.len(), now);
        let call_number = self.next_call_number;
        self.next_call_number += 1;
        let accepted_count = self.accepted_count;
        self.calls.insert(call_number, Call { attempt, started_at: now, accepted_count });
        let client = route.client.clone();
        self.tasks.spawn(async move {
            let call = panics::caught(async {
                panics::inject("upload_call");
                aws::call(&client, request, signed_at).await
            });
            let (reading, failure) = call.await.unwrap_or_else(|panicked| {
                (Outcome::retry(said(&panicked)).into(), Some(RequestFailure::Other))
            });
            Ended { call_number, reading, failure }
        });
    }

    fn may_start(&self) -> bool {
        let concurrency = if self.breaker.is_failing() { 1 } else { self.concurrency };
        self.calls.len() < concurrency && self.is_ready()
    }

    /// Whether there is somebody to send to, and to sign as.
    pub fn is_ready(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.identity.is_ready())
    }

    /// Whether nothing can ever be sent: nobody will tell where to.
    pub fn is_hopeless(&self) -> bool {
        self.route.is_none() && self.arrival.is_none()
    }

    /// Until when no call may start, because of failures or throttling.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.until(now).max(self.rate_limit.ready_at(now))
    }

    /// Whether the service fails, or there is nobody to sign as.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_failing() || !self.is_ready()
    }

    /// Whether batches wait that cannot be sent now: others gain nothing by being ended early.
    pub fn is_held_back(&self, now: Instant) -> bool {
        !self.waiting.is_empty() && (self.paused_until(now).is_some() || !self.may_start())
    }

    /// When [`start_due`](Self::start_due) has something to do; `None` while it takes an
    /// [`event`](Self::event) first.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.waiting.next_due(now).filter(|_| self.may_start())?;
        Some(self.paused_until(now).map_or(due, |until| due.max(until)))
    }

    /// Waits until a call has ended, which is then settled, or the route or the credentials have
    /// changed.
    ///
    /// Nothing is lost when the wait is given up.
    pub async fn event(&mut self) {
        match (&mut self.route, &mut self.arrival) {
            (Some(route), _) => tokio::select! {
                Some(ended) = self.tasks.join_next() => self.settle(ended),
                () = route.identity.changed() => self.resume(),
            },
            (None, Some(arrival)) => {
                self.route = arrival.await.ok();
                self.arrival = None;
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// Settles the calls that have ended, without a wait.
    pub fn settle_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            self.settle(ended);
        }
    }

    /// Takes the records of the spool that are delivered, or given up for good.
    pub fn settled_records(&mut self) -> Vec<RecordId> {
        std::mem::take(&mut self.settled_records)
    }

    /// Gives up the oldest batch that is not in flight; `None` when all that is left is in flight.
    #[must_use = "segments that gave way have to be counted"]
    pub fn evict_oldest(&mut self) -> Option<Attempt> {
        self.waiting.pop_oldest()
    }

    /// The same, but of those that are not out of the spool.
    #[must_use = "segments that gave way have to be counted"]
    pub fn evict_oldest_unspooled(&mut self) -> Option<Attempt> {
        self.waiting.pop_oldest_unspooled()
    }

    /// Whether no call may start now, because of failures or throttling.
    pub fn is_paused(&self, now: Instant) -> bool {
        self.paused_until(now).is_some()
    }

    /// Ends all calls, and gives up everything that waits or was in flight, the oldest first.
    #[must_use = "segments that gave way have to be counted"]
    pub fn give_up_all(&mut self) -> Vec<Attempt> {
        self.tasks.abort_all();
        for (_, call) in std::mem::take(&mut self.calls) {
            self.waiting.push_due(call.attempt);
        }
        std::iter::from_fn(|| self.waiting.pop_oldest()).collect()
    }

    /// Makes every batch that waits for its next attempt due at once, and keeps pauses short from
    /// now on: there is a deadline. A throttling service still has its pause.
    pub fn begin_drain(&mut self) {
        self.waiting.begin_drain();
        self.breaker.begin_drain();
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.calls.is_empty()
    }

    /// Adds what waits or is in flight to `held`, counted one by one.
    pub fn count(&self, held: &mut Held) {
        for attempt in self.waiting.iter() {
            held.segment_count += attempt.batch.documents.len();
            held.waiting_batch_count += 1;
            held.waiting_bytes += attempt.memory_bytes();
        }
        for Call { attempt, .. } in self.calls.values() {
            held.segment_count += attempt.batch.documents.len();
            held.in_flight_batch_count += 1;
            held.in_flight_bytes += attempt.memory_bytes();
        }
    }

    /// Batches out of the spool that wait or are in flight.
    pub fn spooled_batch_count(&self) -> usize {
        let calls = self.calls.values().filter(|call| call.attempt.record.is_some());
        self.waiting.spooled_count() + calls.count()
    }
}

/// Logs a panic during a call; returns it as the reason for which the call failed.
fn said(panicked: &Panicked) -> String {
    PANICKED.log(|more| error!("A call for uploading met {panicked}; it is tried again{more}"));
    panicked.to_string()
}
