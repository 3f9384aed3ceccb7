//! A local X-Ray endpoint with a page, for a first run and for development.
//!
//! In: HTTP requests of the daemon, of SDKs (sampling rules), of the AWS CLI and of the page in a
//! browser. Out: answers like those of the service, the files and the data of the page, and each
//! quiet trace as a short tree. Write calls of the service's API must be signed. So a first run
//! also tests the signature. Spans of OpenTelemetry come unsigned, over HTTP and gRPC. Nothing
//! leaves the process.
//!
//! ```text
//! answer ─► guard ─► route ─► signature ─► api/ ─► document/ ─► store/ ─► tree ─► the terminal
//!             │        │        │         │        │           └─► summary, filter/, search/,
//!             │        │        │         │        │               graph/
//!             └─ 403   └─ 404   └─ 403    └─ 400   └─ UnprocessedTraceSegments, refused
//! ```
//!
//! Bound: [`DOCUMENT_COUNT_MAX`], [`DOCUMENT_SIZE_BYTES_MAX`], [`Limits`] and those of `refused`;
//! the HTTP server bounds the body of a request. When full: the endpoint evicts and counts the
//! traces that have received no document for the longest time. Thread: any; the endpoint has no
//! sockets, threads or tasks. One lock protects the store, the trace file and the sampling rules.
//! The endpoint parses the body of a segment request and draws trees without the lock.

mod answer;
mod api;
mod asset;
pub mod demo;
pub mod filter;
pub mod graph;
mod guard;
mod refused;
mod route;
pub mod sampling;
mod search;
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
use crate::model::tree::{self, Colours};
use answer::{Answer, Failure, respond};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use refused::Refused;
use route::{Call, Operation};
use sampling::{RuleSet, Sampling};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The counters of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Number of POST requests that were answered with 200.
    pub accepted_request_count: u64,
    /// Number of POST requests that were answered with an error.
    pub refused_request_count: u64,
    /// Number of documents that were added to the store.
    pub kept_document_count: u64,
    /// Number of documents that were reported as unprocessed.
    pub unprocessed_document_count: u64,
    /// Number of traces that were evicted.
    pub evicted_trace_count: u64,
    /// Number of documents that were evicted, including the documents of evicted traces.
    pub evicted_document_count: u64,
    /// Number of spans of OpenTelemetry that were not taken.
    pub rejected_span_count: u64,
    /// Number of documents with metrics of OpenTelemetry. They are accepted and not stored.
    pub metrics_document_count: u64,
}

/// Addresses and names of the sandbox, for the page and for the check of the `Host` header.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// UDP address that receives segments.
    pub udp_address: String,
    /// TCP address of the sandbox.
    pub tcp_address: String,
    /// TCP address for OTLP over HTTP. `None` if it could not be opened.
    pub otlp_http_address: Option<String>,
    /// TCP address for OTLP over gRPC. `None` if it could not be opened.
    pub otlp_grpc_address: Option<String>,
    /// AWS region that the page shows. Signatures for any region are accepted.
    pub region: String,
    /// Values of the `Host` header that are allowed besides `localhost` and loopback addresses,
    /// without a port.
    pub own_hosts: Vec<String>,
}

impl About {
    /// Returns the value of `AWS_XRAY_DAEMON_ADDRESS`. It has one part if both ports are equal:
    /// AWS's distributions of OpenTelemetry for Lambda cannot read the form with two parts.
    pub fn daemon_address(&self) -> String {
        let (tcp, udp) = (&self.tcp_address, &self.udp_address);
        if tcp == udp { udp.clone() } else { format!("\"tcp:{tcp} udp:{udp}\"") }
    }

    /// Returns the value of `OTEL_EXPORTER_OTLP_ENDPOINT` for OTLP over HTTP.
    pub fn otlp_endpoint(&self) -> String {
        format!("http://{}", self.otlp_http_address.as_ref().unwrap_or(&self.tcp_address))
    }
}

/// The local endpoint. See the module.
#[derive(Debug)]
pub struct Sandbox {
    credentials: Credentials,
    about: About,
    /// Whether trees are drawn in colour.
    colours: Colours,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    /// The trace file of the option `--keep`. `None` without this option.
    file: Option<TraceFile>,
    rules: RuleSet,
    refused: Refused,
    account: Account,
    /// Why the last rejected span of OpenTelemetry was not taken.
    last_rejection: String,
}

impl State {
    /// Writes documents to the trace file before they are added to the store. Does nothing without
    /// a file.
    fn write_documents(&mut self, documents: &[Document]) {
        let Some(file) = &mut self.file else { return };
        file.append(sources(documents.iter()));
        if file.is_grown(self.store.status().size_bytes) {
            let traces = self.store.all();
            // The oldest traces are written first, so that the next run evicts them first too.
            let held = traces.iter().rev().flat_map(|trace| &trace.documents);
            file.rewrite(sources(held.map(Arc::as_ref).chain(documents)));
        }
    }

    /// Writes documents to the trace file and adds them to the store.
    fn keep(&mut self, documents: Vec<Document>, now: Moment) {
        self.account.kept_document_count += documents.len() as u64;
        self.write_documents(&documents);
        for document in documents {
            self.store.insert(document, now);
        }
    }

    /// Counts spans of OpenTelemetry that were not taken.
    fn reject_spans(&mut self, count: u64, why: String, now: Moment) {
        self.account.rejected_span_count += count;
        self.refused.add_spans(count, &why, now.wall_seconds);
        self.last_rejection = why;
    }

    /// Removes all traces from the store and from the trace file, and forgets the requests that
    /// were not sampled and the documents that were refused.
    fn clear(&mut self) {
        self.store.clear();
        self.refused.clear();
        self.rules.forget_reported();
        if let Some(file) = &mut self.file {
            file.rewrite(std::iter::empty());
        }
    }
}

impl Sandbox {
    /// Returns a sandbox that accepts one pair of credentials, with the default limits.
    pub fn new(credentials: Credentials) -> Self {
        Self::with(credentials, About::default(), Limits::default())
    }

    /// Returns a sandbox that accepts one pair of credentials, with the given limits.
    pub fn with(credentials: Credentials, about: About, limits: Limits) -> Self {
        // The first revision is the time in microseconds since 1970. Revisions of an earlier
        // process are smaller, because a process adds less than one revision per microsecond.
        // JavaScript numbers are exact up to 2^53. The revision reaches 2^53 in the year 2255.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_revision = u64::try_from(since_1970.as_micros()).unwrap_or(1);
        let state = State {
            store: Store::new(limits, first_revision),
            file: None,
            rules: RuleSet::new(Sampling::default()),
            refused: Refused::default(),
            account: Account::default(),
            last_rejection: String::new(),
        };
        Self { credentials, about, colours: Colours::Off, state: Mutex::new(state) }
    }

    /// Reads the traces of a file into the sandbox, and writes new documents to this file from now
    /// on.
    #[must_use]
    pub fn with_file(self, mut file: TraceFile) -> Self {
        let now = Moment::now();
        let mut state = self.lock();
        file.read(|text| {
            let documents = api::read_stored(text);
            let is_good = !documents.is_empty();
            for document in documents {
                state.store.insert(document, now);
            }
            is_good
        });
        // The earlier run has already drawn these traces.
        state.store.take_all();
        state.file = Some(file);
        drop(state);
        self
    }

    /// Draws trees with these colours from now on.
    #[must_use]
    pub fn with_colours(self, colours: Colours) -> Self {
        Self { colours, ..self }
    }

    /// Returns the sandbox with the given rates of the default rule.
    #[must_use]
    pub fn with_sampling(self, sampling: Sampling) -> Self {
        self.lock().rules = RuleSet::new(sampling);
        self
    }

    /// Returns the addresses and names of the sandbox.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Checks the head of a request before its body is read. Returns the answer if the request is
    /// refused.
    pub fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        let refused = guard::check(head, &self.about.own_hosts).err()?;
        Some(respond(Err(for_client(refused, head))))
    }

    /// Answers a request.
    pub fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.answer_at(request, SystemTime::now(), Instant::now())
    }

    /// Answers a request at a given time. The check of signatures uses `now`. The traces become
    /// quiet by `arrival`.
    pub fn answer_at(
        &self,
        request: Request<Bytes>,
        now: SystemTime,
        arrival: Instant,
    ) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let outcome = self.outcome(&head, &body, now, arrival);
        let outcome = outcome.map_err(|failure| for_client(failure, &head));
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
            Call::Export => self.export(head, body, moment),
            Call::OtherSignal(signal) => Err(Self::refuse_signal(signal)),
            Call::Asset(name) => asset::find(name),
            Call::List => Ok(self.list()),
            Call::Show(trace_id) => self.show(trace_id),
            Call::PageTraces => self.page_traces(head.uri.query()),
            Call::PageClear => guard::check_write(head).map(|()| self.page_clear()),
            Call::PageSearch => self.page_search(head.uri.query()),
            Call::PageRefused => Ok(self.page_refused()),
            Call::PageForgetRefused => {
                guard::check_write(head).map(|()| self.page_forget_refused())
            }
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

    /// Returns the trees of quiet traces, the oldest trace first.
    ///
    /// A trace is quiet if it received no document for `quiet_time`. The result has at most
    /// `count_max` trees. A trace that was drawn is drawn again as a whole after another document
    /// has arrived for it.
    pub fn take_quiet(&self, now: Instant, quiet_time: Duration, count_max: usize) -> Vec<String> {
        let taken = self.lock().store.take_quiet(now, quiet_time, count_max);
        self.draw(&taken)
    }

    /// Returns the trees of all traces that have a document since they were drawn last.
    pub fn take_all(&self) -> Vec<String> {
        let taken = self.lock().store.take_all();
        self.draw(&taken)
    }

    fn draw(&self, traces: &[Snapshot]) -> Vec<String> {
        let tree = |it: &Snapshot| tree::render(&it.id, &it.documents, self.colours);
        traces.iter().map(tree).collect()
    }

    /// Returns the time at which the next trace becomes quiet if no other document arrives for it.
    pub fn next_quiet(&self, quiet_time: Duration) -> Option<Instant> {
        self.lock().store.next_quiet(quiet_time)
    }

    /// Returns the counters of the sandbox.
    pub fn account(&self) -> Account {
        let state = self.lock();
        let status = state.store.status();
        Account {
            evicted_trace_count: status.evicted_trace_count,
            evicted_document_count: status.evicted_document_count,
            ..state.account
        }
    }

    /// Returns why the last rejected span of OpenTelemetry was not taken. The account has their
    /// number.
    pub fn last_rejection(&self) -> String {
        self.lock().last_rejection.clone()
    }

    /// Returns the counts of the store.
    pub fn status(&self) -> Status {
        self.lock().store.status()
    }

    /// Locks the state. A lock that was poisoned by a panic is used anyway: the traces and counters
    /// are still useful.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the texts from which documents can be read again. The documents of one span have the
/// same text, which is returned once.
fn sources<'a>(documents: impl Iterator<Item = &'a Document>) -> impl Iterator<Item = &'a str> {
    let mut last: Option<&Arc<str>> = None;
    documents.filter_map(move |document| {
        let otlp = document.otlp.as_ref();
        let is_same = otlp.zip(last).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        last = otlp;
        (!is_same).then(|| document.source())
    })
}

/// Gives a failure the form that an exporter of OpenTelemetry understands, if it asked.
fn for_client(failure: Failure, head: &Parts) -> Failure {
    match api::encoding_of(head).filter(|_| route::is_of_otlp(head.uri.path())) {
        Some(encoding) => failure.in_otlp(encoding),
        None => failure,
    }
}

#[cfg(test)]
mod tests;
