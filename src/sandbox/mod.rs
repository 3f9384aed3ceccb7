//! An embedded X-Ray endpoint for the first run and for local work.
//!
//! In: the HTTP requests of the daemon, of SDKs asking for sampling rules, and of people asking
//! for traces. Out: the answers that the service would give, JSON listings, and each trace as a
//! short tree once it has been quiet. What is written to it has to be signed, so that a first run
//! proves the credentials and the signature too. Nothing leaves the process.
//!
//! ```text
//! answer ──► verify ──► document ──► store ──► tree ──► the terminal
//!              │           │           └─────► GET /traces
//!              └─ 403      └─ UnprocessedTraceSegments
//! ```
//!
//! Bounds: [`BODY_SIZE_BYTES_MAX`], [`DOCUMENT_COUNT_MAX`], [`DOCUMENT_SIZE_BYTES_MAX`] and
//! [`Limits`]; when full, the traces touched longest ago give way and are counted. No sockets, no
//! threads, no tasks: any thread may call, a lock is held for the store alone and never while
//! something is parsed or drawn.

pub mod demo;
pub mod document;
pub mod sampling;
pub mod store;
mod text;
pub mod tree;
pub mod verify;

pub use aws_credential_types::Credentials;
pub use demo::datagrams;
pub use document::DOCUMENT_SIZE_BYTES_MAX;
pub use store::Limits;
pub use verify::{Refusal, verify};

use bytes::Bytes;
use document::Document;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use store::{Documents, Store, Summary};

/// Documents taken in one request; the service's limit.
pub const DOCUMENT_COUNT_MAX: usize = 50;

/// Largest request body: fifty of the largest documents with every byte escaped as two.
pub const BODY_SIZE_BYTES_MAX: usize = 2 * DOCUMENT_COUNT_MAX * DOCUMENT_SIZE_BYTES_MAX;

/// How long a trace gets no document before it is taken for complete and drawn.
pub const QUIET_TIME: Duration = Duration::from_millis(700);

/// Traces in one listing.
const LISTED_TRACE_COUNT_MAX: usize = 100;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

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

/// The endpoint; see the module.
#[derive(Debug)]
pub struct Sandbox {
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    account: Account,
}

/// An answer that is not a 200.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    error_type: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { status, error_type, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestException", message)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(StatusCode::FORBIDDEN, refusal.error_type(), refusal.to_string())
    }
}

#[derive(Deserialize)]
struct PutTraceSegments<'a> {
    #[serde(borrow, rename = "TraceSegmentDocuments")]
    documents: Vec<Text<'a>>,
}

/// A string that is borrowed where it holds no escapes; serde borrows a bare `Cow` never.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Sandbox {
    /// A sandbox that knows one pair of credentials, with the default limits.
    pub fn new(credentials: Credentials) -> Self {
        Self::with_limits(credentials, Limits::default())
    }

    /// A sandbox that knows one pair of credentials and holds no more than `limits` say.
    pub fn with_limits(credentials: Credentials, limits: Limits) -> Self {
        let state = State { store: Store::new(limits), account: Account::default() };
        Self { credentials, state: Mutex::new(state) }
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
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let allowed = match path {
            "/TraceSegments" | "/TelemetryRecords" | "/GetSamplingRules" | "/SamplingTargets" => {
                Some(Method::POST)
            }
            "/traces" => Some(Method::GET),
            _ => path.starts_with("/traces/").then_some(Method::GET),
        };
        let outcome = match &allowed {
            None => Err(Failure::new(
                StatusCode::NOT_FOUND,
                "UnknownOperationException",
                "There is no such path; try GET /traces",
            )),
            Some(method) if *method != parts.method => Err(Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowedException",
                format!("This path takes {method} only"),
            )),
            Some(_) => self.route(&parts, &body, now, arrival),
        };
        if parts.method == Method::POST {
            let account = &mut self.lock().account;
            match &outcome {
                Ok(_) => account.accepted_request_count += 1,
                Err(_) => account.refused_request_count += 1,
            }
        }
        respond(outcome, allowed.as_ref())
    }

    fn route(
        &self,
        parts: &http::request::Parts,
        body: &Bytes,
        now: SystemTime,
        arrival: Instant,
    ) -> Result<String, Failure> {
        if body.len() > BODY_SIZE_BYTES_MAX {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLargeException",
                format!("{} bytes, at most {BODY_SIZE_BYTES_MAX}", body.len()),
            ));
        }
        match parts.uri.path() {
            "/TraceSegments" => {
                verify(&self.credentials, parts, body, now)?;
                self.put_trace_segments(body, arrival)
            }
            "/TelemetryRecords" => {
                verify(&self.credentials, parts, body, now)?;
                Ok("{}".to_owned())
            }
            // SDKs call these unsigned, the daemon's proxy signs them; either is fine.
            "/GetSamplingRules" => Ok(sampling::rules().to_string()),
            "/SamplingTargets" => {
                let targets = sampling::targets(body, now).map_err(Failure::invalid)?;
                Ok(targets.to_string())
            }
            "/traces" => Ok(self.listing()),
            path => self.trace(path.strip_prefix("/traces/").unwrap_or_default()),
        }
    }

    fn put_trace_segments(&self, body: &[u8], arrival: Instant) -> Result<String, Failure> {
        let request: PutTraceSegments<'_> = serde_json::from_slice(body)
            .map_err(|error| Failure::invalid(format!("Could not parse: {error}")))?;
        let count = request.documents.len();
        if count > DOCUMENT_COUNT_MAX {
            let message = format!("{count} trace segment documents, at most {DOCUMENT_COUNT_MAX}");
            return Err(Failure::invalid(message));
        }
        let (mut kept, mut unprocessed) = (Vec::new(), Vec::new());
        for Text(text) in &request.documents {
            match Document::parse(text) {
                Ok(document) => kept.push(document),
                Err(fault) => unprocessed.push(unprocessed_json(&fault)),
            }
        }
        let mut state = self.lock();
        state.account.kept_document_count += kept.len() as u64;
        state.account.unprocessed_document_count += unprocessed.len() as u64;
        for document in kept {
            state.store.insert(document, arrival);
        }
        Ok(json!({"UnprocessedTraceSegments": unprocessed}).to_string())
    }

    fn listing(&self) -> String {
        let newest = self.lock().store.newest(LISTED_TRACE_COUNT_MAX);
        Value::Array(newest.iter().map(summary_json).collect()).to_string()
    }

    fn trace(&self, trace_id: &str) -> Result<String, Failure> {
        let documents = self.lock().store.documents(trace_id).ok_or_else(|| {
            Failure::new(
                StatusCode::NOT_FOUND,
                "ResourceNotFoundException",
                "There is no such trace, or no longer",
            )
        })?;
        // Each was parsed as JSON when it came, so they go out as they are.
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        Ok(format!("{{\"id\":{},\"documents\":[{}]}}", json!(trace_id), texts.join(",")))
    }

    /// The trees of the traces that got no document for `quiet_time` and were not drawn since,
    /// the oldest first. A trace that gets another document later is drawn again as a whole.
    pub fn take_quiet(&self, now: Instant, quiet_time: Duration) -> Vec<String> {
        let taken = self.lock().store.take_quiet(now, quiet_time);
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
        Account {
            evicted_trace_count: state.store.evicted_trace_count(),
            evicted_document_count: state.store.evicted_document_count(),
            ..state.account
        }
    }

    /// A panic elsewhere leaves counts and traces that are still good enough to look at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draw(traces: &[(String, Documents)]) -> Vec<String> {
    traces.iter().map(|(id, documents)| tree::render(id, documents)).collect()
}

fn unprocessed_json(fault: &document::Fault) -> Value {
    let mut entry = json!({"ErrorCode": fault.code, "Message": fault.to_string()});
    if let Some(id) = &fault.id {
        entry["Id"] = json!(id);
    }
    entry
}

fn summary_json(summary: &Summary) -> Value {
    json!({
        "id": summary.id,
        "start_time": summary.start_time,
        "duration_seconds": summary.duration_seconds,
        "segment_count": summary.segment_count,
        "services": summary.services,
        "in_progress": summary.in_progress,
        "fault": summary.flags.fault,
        "error": summary.flags.error,
        "throttle": summary.flags.throttle,
    })
}

fn respond(outcome: Result<String, Failure>, allowed: Option<&Method>) -> Response<Bytes> {
    let (status, body, error_type) = match outcome {
        Ok(body) => (StatusCode::OK, body, None),
        Err(failure) => {
            let body = json!({"__type": failure.error_type, "message": failure.message});
            (failure.status, body.to_string(), Some(failure.error_type))
        }
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(error_type) = error_type {
        headers.insert(ERROR_TYPE, HeaderValue::from_static(error_type));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let method = if allowed == Some(&Method::GET) { "GET" } else { "POST" };
        headers.insert(ALLOW, HeaderValue::from_static(method));
    }
    response
}

#[cfg(test)]
mod tests;
