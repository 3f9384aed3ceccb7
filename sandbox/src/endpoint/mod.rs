//! An embedded X-Ray endpoint for the first run and for local work.
//!
//! In: the HTTP requests of the daemon, of SDKs asking for sampling rules, of the AWS CLI and of
//! the page in a browser. Out: the answers that the service would give, the page with what it asks
//! for, and each trace as a short tree once it has been quiet. What is written to it has to be
//! signed, so that a first run proves the credentials and the signature too. Nothing leaves the
//! process.
//!
//! ```text
//! answer ─► guard ─► route ─► signature ─► api/ ─► document/ ─► store/ ─► tree ─► the terminal
//!             │        │        │         │        │           └─► summary, filter/, graph/
//!             └─ 403   └─ 404   └─ 403    └─ 400   └─ UnprocessedTraceSegments
//! ```
//!
//! Bounds: [`DOCUMENT_COUNT_MAX`], [`DOCUMENT_SIZE_BYTES_MAX`] and [`Limits`], and what
//! the server takes of a body; when full, the traces touched longest ago give way and are
//! counted. No sockets, no threads, no tasks: any thread may call, a lock is held for the store,
//! its file and the rules alone and never while something is parsed or drawn.

mod answer;
mod api;
mod asset;
pub mod demo;
pub mod filter;
pub mod graph;
mod guard;
mod route;
pub mod sampling;
pub mod signature;
pub mod summary;
mod trace_file;

pub use api::DOCUMENT_COUNT_MAX;
pub use aws_credential_types::Credentials;
pub use demo::datagrams;
pub use signature::{Refusal, verify};
pub use trace_file::TraceFile;

use crate::model::document::Document;
use crate::model::store::{Limits, Moment, Snapshot, Status, Store};
use crate::model::tree;
use answer::{Answer, Failure, respond};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use route::{Call, Operation};
use sampling::RuleSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the sandbox has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls of the API (POST) that were answered with 200.
    pub accepted_request_count: u64,
    /// Calls of the API (POST) that were answered with an error.
    pub refused_request_count: u64,
    /// Documents taken.
    pub kept_document_count: u64,
    /// Documents reported as unprocessed.
    pub unprocessed_document_count: u64,
    /// Traces given up to stay within the bounds.
    pub evicted_trace_count: u64,
    /// Documents given up to stay within the bounds, those of evicted traces included.
    pub evicted_document_count: u64,
}

/// What the page tells of the sandbox.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Where segments are received.
    pub udp_address: String,
    /// Where the sandbox answers.
    pub tcp_address: String,
    /// The region that it plays.
    pub region: String,
    /// Names and addresses without a port that it answers to beside those of loopback.
    pub own_hosts: Vec<String>,
}

/// The endpoint; see the module.
#[derive(Debug)]
pub struct Sandbox {
    credentials: Credentials,
    about: About,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    /// The file that documents are kept in, too.
    file: Option<TraceFile>,
    rules: RuleSet,
    account: Account,
}

impl State {
    /// Writes documents that are about to be held to the file, if there is one.
    fn write_documents(&mut self, documents: &[Document]) {
        let Some(file) = &mut self.file else { return };
        file.append(documents.iter().map(|document| &*document.text));
        if file.is_grown(self.store.status().size_bytes) {
            let traces = self.store.all();
            // The oldest first, so that they are also the first to give way after the next start.
            let held = traces.iter().rev().flat_map(|trace| &trace.documents);
            let held = held.map(|document| &*document.text);
            file.rewrite(held.chain(documents.iter().map(|document| &*document.text)));
        }
    }

    /// Forgets all traces, those of the file too.
    fn clear(&mut self) {
        self.store.clear();
        if let Some(file) = &mut self.file {
            file.rewrite(std::iter::empty());
        }
    }
}

impl Sandbox {
    /// A sandbox that knows one pair of credentials, with the default limits.
    pub fn new(credentials: Credentials) -> Self {
        Self::with(credentials, About::default(), Limits::default())
    }

    /// A sandbox that knows one pair of credentials and holds no more than `limits` say.
    pub fn with(credentials: Credentials, about: About, limits: Limits) -> Self {
        // Revisions go on where those of an earlier process cannot have come to: it had the time
        // since its own start to make one a microsecond. A browser counts to 2^53, until 2255.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_revision = u64::try_from(since_1970.as_micros()).unwrap_or(1);
        let state = State {
            store: Store::new(limits, first_revision),
            file: None,
            rules: RuleSet::default(),
            account: Account::default(),
        };
        Self { credentials, about, state: Mutex::new(state) }
    }

    /// The same sandbox with the traces of a file, which is written to from now on.
    #[must_use]
    pub fn with_file(self, mut file: TraceFile) -> Self {
        let now = Moment::now();
        let mut state = self.lock();
        file.read(|text| match Document::parse(text) {
            Ok(document) => {
                state.store.insert(document, now);
                true
            }
            Err(_) => false,
        });
        // They were shown when they came.
        state.store.take_all();
        state.file = Some(file);
        drop(state);
        self
    }

    /// Refuses a request for its head's sake: then there is no need to read its body.
    pub fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        let refused = guard::check(head, &self.about.own_hosts).err()?;
        Some(respond(Err(refused)))
    }

    /// Answers a request.
    pub fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.answer_at(request, SystemTime::now(), Instant::now())
    }

    /// Answers a request that arrived at `now` (signatures) and `arrival` (quiet traces).
    pub fn answer_at(
        &self,
        request: Request<Bytes>,
        now: SystemTime,
        arrival: Instant,
    ) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let outcome = self.outcome(&head, &body, now, arrival);
        if head.method == Method::POST {
            let account = &mut self.lock().account;
            match &outcome {
                Ok(_) => account.accepted_request_count += 1,
                Err(_) => account.refused_request_count += 1,
            }
        }
        respond(outcome)
    }

    fn outcome(
        &self,
        head: &Parts,
        body: &Bytes,
        now: SystemTime,
        arrival: Instant,
    ) -> Result<Answer, Failure> {
        guard::check(head, &self.about.own_hosts)?;
        let call = Call::find(&head.method, head.uri.path())?;
        let wall_seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let moment = Moment { arrival, wall_seconds };
        match call {
            Call::Service(operation) => {
                if operation.is_write() {
                    verify(&self.credentials, head, body, now)?;
                }
                self.operate(operation, body, moment)
            }
            Call::Asset(name) => asset::find(name),
            Call::List => Ok(self.list()),
            Call::Show(trace_id) => self.show(trace_id),
            Call::PageTraces => self.page_traces(head.uri.query()),
            Call::PageClear => guard::check_write(head).map(|()| self.page_clear()),
            Call::PageTrace(trace_id) => self.page_trace(trace_id),
            Call::PageServiceGraph => self.page_service_graph(head.uri.query()),
            Call::PageRules => Ok(self.page_rules()),
            Call::PageSetRules => {
                guard::check_write(head)?;
                self.page_set_rules(body, wall_seconds)
            }
            Call::PageInfo => Ok(self.page_info()),
        }
    }

    fn operate(&self, operation: Operation, body: &[u8], now: Moment) -> Result<Answer, Failure> {
        let now_seconds = now.wall_seconds;
        match operation {
            Operation::PutTraceSegments => self.put_trace_segments(body, now),
            Operation::PutTelemetryRecords => Self::put_telemetry_records(body),
            Operation::GetTraceSummaries => self.get_trace_summaries(body, now_seconds),
            Operation::BatchGetTraces => self.batch_get_traces(body),
            Operation::GetServiceGraph => self.get_service_graph(body),
            Operation::GetTraceGraph => self.get_trace_graph(body),
            Operation::GetSamplingRules => Ok(self.get_sampling_rules()),
            Operation::GetSamplingTargets => self.get_sampling_targets(body, now_seconds),
            Operation::CreateSamplingRule => self.create_sampling_rule(body, now_seconds),
            Operation::UpdateSamplingRule => self.update_sampling_rule(body, now_seconds),
            Operation::DeleteSamplingRule => self.delete_sampling_rule(body, now_seconds),
        }
    }

    /// The trees of the traces that got no document for `quiet_time` and were not drawn since,
    /// the oldest first, `count_max` at most. A trace that gets another document later is drawn
    /// again as a whole.
    pub fn take_quiet(&self, now: Instant, quiet_time: Duration, count_max: usize) -> Vec<String> {
        let taken = self.lock().store.take_quiet(now, quiet_time, count_max);
        draw(&taken)
    }

    /// The trees of all traces that were not drawn since their last document.
    pub fn take_all(&self) -> Vec<String> {
        let taken = self.lock().store.take_all();
        draw(&taken)
    }

    /// When the next tree is due, if nothing more arrives.
    pub fn next_quiet(&self, quiet_time: Duration) -> Option<Instant> {
        self.lock().store.next_quiet(quiet_time)
    }

    /// What was done so far.
    pub fn account(&self) -> Account {
        let state = self.lock();
        let status = state.store.status();
        Account {
            evicted_trace_count: status.evicted_trace_count,
            evicted_document_count: status.evicted_document_count,
            ..state.account
        }
    }

    /// How full the store is.
    pub fn status(&self) -> Status {
        self.lock().store.status()
    }

    /// A panic elsewhere leaves counts and traces that are still good enough to look at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(traces: &[Snapshot]) -> Vec<String> {
    traces.iter().map(|trace| tree::render(&trace.id, &trace.documents)).collect()
}

#[cfg(test)]
mod tests;
