//! The fake service's rules for answering requests ([`Rules`]), and its record of the requests
//! ([`Ledger`]).
//!
//! In: the parts of a request. Out: an answer, and an entry in the ledger. No network, no thread.

use super::dates::{amazon_date, http_date};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// The service rejects a request that was signed more than this many seconds before or after the
/// service's time.
const SKEW_MAX_SECONDS: i64 = 5 * 60;

/// Returns the service's reply to the upload with this number.
type Script = dyn Fn(usize) -> Reply + Send + Sync;

/// How the service treats requests. A test can change the rules at any time.
#[derive(Clone, Default)]
pub struct Rules {
    /// Returns the reply to the upload with a number, counted from 0. Without a script every reply
    /// is [`Reply::Accept`]. The script is asked last, after all other rules.
    pub script: Option<Arc<Script>>,
    /// The time between a request and its answer. The service accepts the documents at the end of
    /// this time.
    pub pause: Duration,
    /// If true, the service holds its answers back until this is false again.
    pub is_held: bool,
    /// If set, every request gets this answer, and no document is accepted.
    pub failure: Option<Failure>,
    /// If set, documents beyond the rate of this bucket are throttled.
    pub bucket: Option<Bucket>,
    /// If set, a body of more bytes is rejected with status 413.
    pub body_bytes_max: Option<usize>,
    /// If set, requests that are signed with this access key are rejected as expired.
    pub expired_key: Option<&'static str>,
    /// The service's clock. `None` if it equals the clock of this machine.
    pub clock: Option<Clock>,
    /// If set, the service closes each connection after this many requests, in an orderly way (with
    /// HTTP/2: GOAWAY).
    pub requests_per_connection: Option<usize>,
    /// If set, a connection over HTTP/2 allows this number of streams at a time.
    pub stream_count_max: Option<u32>,
    /// If true, the service reads uploads and never answers them. It answers all other calls.
    pub hangs_uploads: bool,
    /// If true, answers to uploads are compressed.
    pub gzips: bool,
    /// The answer to all calls that are not uploads.
    pub call_answer: CallAnswer,
}

impl fmt::Debug for Rules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Rules").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// The reply of a script to an upload.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The service accepts the documents and answers with success.
    Accept,
    /// The service accepts the documents and answers with success and this body.
    Answer(String),
    /// The service accepts the documents, then closes the connection instead of answering.
    AcceptAndBreak,
    /// The service closes the connection and accepts nothing.
    Break,
    /// The service accepts nothing and answers with this failure.
    Fail(Failure),
}

/// The answer to a call that is not an upload.
#[derive(Debug, Clone)]
pub struct CallAnswer {
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body of the answer.
    pub body: Vec<u8>,
}

impl Default for CallAnswer {
    fn default() -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json")],
            body: b"{}".into(),
        }
    }
}

/// A call that is not an upload, byte for byte as the service received it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The HTTP method of the call.
    pub method: Method,
    /// The path and the query of the call.
    pub target: String,
    /// The headers of the call.
    pub headers: HeaderMap,
    /// The body of the call.
    pub body: Vec<u8>,
}

/// An answer of the service that accepts no document of the request.
#[derive(Debug, Clone)]
pub struct Failure {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Failure {
    /// Returns a failure with this status, without headers and without a body.
    pub fn status(status: u16) -> Self {
        Self::body(status, "")
    }

    /// Returns a failure with this status and this body.
    pub fn body(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Returns a failure with the HTML error page of a proxy between daemon and service.
    pub fn html(status: u16) -> Self {
        Self::body(status, format!("<html><body><h1>{status} Sorry</h1></body></html>"))
            .with(CONTENT_TYPE.as_str(), "text/html")
    }

    /// Returns a failure in the format of X-Ray's errors.
    pub fn code(status: u16, code: &str) -> Self {
        Self::body(status, format!(r#"{{"message":"{code} of the test"}}"#))
            .with("x-amzn-errortype", format!("{code}:http://internal.amazon.com/"))
    }

    /// Adds a header to the failure.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// A token bucket. One token is one document.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// Creates a full bucket.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let (per_second, burst) = (f64::from(per_second), f64::from(burst));
        Self { per_second, burst, tokens: burst, filled_at: Instant::now() }
    }

    fn take(&mut self, count: usize) -> bool {
        let count = f64::from(u32::try_from(count).unwrap());
        let gained = self.filled_at.elapsed().as_secs_f64() * self.per_second;
        self.filled_at = Instant::now();
        self.tokens = f64::min(self.tokens + gained, self.burst);
        let is_enough = self.tokens >= count;
        if is_enough {
            self.tokens -= count;
        }
        is_enough
    }
}

/// A clock that differs from the clock of this machine, and the error code for requests whose date
/// is too far from it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Seconds that this clock is ahead of the machine's clock. If negative, it is behind.
    pub offset_seconds: i64,
    /// The service's error code for such requests, for example `RequestTimeTooSkewed`.
    pub code: &'static str,
}

/// How the service ended an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service accepted this many documents.
    Accepted(usize),
    /// The request was throttled.
    Throttled,
    /// The service answered with this status, which is not a success.
    Failed(u16),
    /// The service closed the connection without an answer. It may have accepted the documents.
    Broken,
}

/// The number of times that the service accepted one document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// The number of times. Without a fault it is 1.
    pub count: usize,
}

/// A record of all requests that the endpoint has received.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The accepted documents, each with the number of times that it was accepted.
    pub arrivals: BTreeMap<String, Arrival>,
    /// The bodies of telemetry calls. The service accepts all of them. They appear in no other
    /// field.
    pub telemetry: Vec<serde_json::Value>,
    /// The time and the verdict of every upload that has ended: with an answer or with a closed
    /// connection.
    pub requests: Vec<(Instant, Verdict)>,
    /// The HTTP version of each upload in `requests`.
    pub versions: Vec<Version>,
    /// The largest number of uploads that were open (not yet answered) at the same time.
    pub open_count_max: usize,
    /// Descriptions of the malformed requests that the daemon sent. A test fails if there are any.
    pub violations: Vec<String>,
    /// Calls that are not uploads.
    pub calls: Vec<Call>,
    /// Documents that the service has rejected once with `ThrottledException`. It accepts them the
    /// next time.
    put_off: HashSet<String>,
    begun_count: usize,
}

/// An upload as the service received it.
#[derive(Debug)]
pub struct Upload<'a> {
    /// The HTTP version of the request.
    pub version: Version,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The body of the request.
    pub body: &'a [u8],
}

/// The end of an upload.
#[derive(Debug)]
pub enum Outcome {
    /// The service sends this answer.
    Answered(Response<Vec<u8>>),
    /// The service closes the connection.
    Broken,
}

impl Ledger {
    /// Returns the time at which the first document after `mark` was accepted.
    pub fn first_accepted_after(&self, mark: Instant) -> Option<Instant> {
        let accepted = self.requests.iter().filter(|(_, v)| matches!(v, Verdict::Accepted(_)));
        accepted.map(|(at, _)| *at).find(|at| *at >= mark)
    }

    /// Records a call that is not an upload, and returns the answer.
    pub fn take_call(&mut self, rules: &Rules, call: Call) -> Response<Vec<u8>> {
        if let Err(violation) = signature(&call.headers) {
            self.violations.push(violation);
        }
        self.calls.push(call);
        let CallAnswer { status, headers, body } = rules.call_answer.clone();
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            answer.headers_mut().append(name, value.parse().unwrap());
        }
        answer
    }

    /// Records the start of an upload. An upload without an answer counts as open until the end.
    pub fn begin_upload(&mut self) {
        self.begun_count += 1;
        self.open_count_max = self.open_count_max.max(self.open_count());
    }

    /// Returns the number of uploads that have no answer yet.
    pub fn open_count(&self) -> usize {
        self.begun_count - self.requests.len()
    }

    /// Decides how the service answers an upload, and records the accepted documents.
    pub fn decide(&mut self, rules: &mut Rules, upload: &Upload<'_>) -> Outcome {
        let (verdict, answer) = match self.documents(upload.headers, upload.body) {
            Err(violation) => {
                self.violations.push(violation);
                (Verdict::Failed(400), Some(fail(Failure::status(400))))
            }
            Ok(documents) => match refuse(rules, upload.headers, upload.body.len(), &documents) {
                Some((verdict, failure)) => (verdict, Some(fail(failure))),
                None => self.reply(rules, documents),
            },
        };
        self.requests.push((Instant::now(), verdict));
        self.versions.push(upload.version);
        let Some(mut answer) = answer else { return Outcome::Broken };
        let now = OffsetDateTime::now_utc() + offset(rules.clock);
        answer.headers_mut().insert(DATE, http_date(now));
        if rules.gzips {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer = answer.map(|body| gzip(&body));
        }
        Outcome::Answered(answer)
    }

    /// Replies to an upload as the script says. Without a script, accepts the documents.
    fn reply(
        &mut self,
        rules: &Rules,
        documents: Vec<String>,
    ) -> (Verdict, Option<Response<Vec<u8>>>) {
        let number = self.requests.len();
        match rules.script.as_ref().map_or(Reply::Accept, |script| script(number)) {
            Reply::Accept => {
                let (verdict, answer) = self.take(documents);
                (verdict, Some(answer))
            }
            Reply::Answer(body) => {
                let (verdict, answer) = self.take(documents);
                (verdict, Some(answer.map(|_| body.into())))
            }
            Reply::AcceptAndBreak => {
                self.take(documents);
                (Verdict::Broken, None)
            }
            Reply::Break => (Verdict::Broken, None),
            Reply::Fail(failure) => (Verdict::Failed(failure.status), Some(fail(failure))),
        }
    }

    /// Returns the documents of an upload. If the request is malformed, the error says why.
    fn documents(&self, headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, String> {
        signature(headers)?;
        let body: serde_json::Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let documents: Vec<String> = serde_json::from_value(body["TraceSegmentDocuments"].clone())
            .map_err(|error| error.to_string())?;
        match documents.len() {
            1..=50 => Ok(documents),
            count => Err(format!("a request has {count} documents")),
        }
    }

    fn take(&mut self, documents: Vec<String>) -> (Verdict, Response<Vec<u8>>) {
        let (mut taken_count, mut entries) = (0, Vec::new());
        for document in documents {
            let code = if document.contains("unprocessed:invalid") {
                "InvalidTraceId"
            } else if document.contains("unprocessed:throttled")
                && self.put_off.insert(document.clone())
            {
                "ThrottledException"
            } else {
                self.arrivals.entry(document).or_default().count += 1;
                taken_count += 1;
                continue;
            };
            let id = document.split(r#""id":""#).nth(1).and_then(|rest| rest.split('"').next());
            entries
                .push(serde_json::json!({"Id": id, "ErrorCode": code, "Message": "of the test"}));
        }
        let body = serde_json::json!({"UnprocessedTraceSegments": entries}).to_string();
        let mut answer = Response::new(body.into());
        let id = HeaderValue::from_static("1-6925a2b2-0123456789abcdef01234567");
        answer.headers_mut().insert("x-amzn-requestid", id);
        (Verdict::Accepted(taken_count), answer)
    }
}

/// Checks that a request has the headers of a signed request. If not, the error names the missing
/// part.
fn signature(headers: &HeaderMap) -> Result<(), String> {
    let authorization = text(headers, "authorization");
    for part in ["AWS4-HMAC-SHA256 Credential=AKID", "/xray/aws4_request", "Signature="] {
        if !authorization.contains(part) {
            return Err(format!("a request is not signed: {part} is not in {authorization:?}"));
        }
    }
    if text(headers, "x-amz-date").len() != "20261125T072106Z".len() {
        return Err("a request has no date".to_owned());
    }
    Ok(())
}

/// Returns the verdict and the answer if a rule rejects the whole request, or `None` if no rule
/// does.
fn refuse(
    rules: &mut Rules,
    headers: &HeaderMap,
    body_bytes: usize,
    documents: &[String],
) -> Option<(Verdict, Failure)> {
    let failed = |status, failure| Some((Verdict::Failed(status), failure));
    if let Some(failure) = &rules.failure {
        return failed(failure.status, failure.clone());
    }
    if let Some(clock) = rules.clock {
        let service = OffsetDateTime::now_utc() + offset(rules.clock);
        let skew = service - amazon_date(text(headers, "x-amz-date"));
        if skew.whole_seconds().abs() > SKEW_MAX_SECONDS {
            return failed(403, Failure::code(403, clock.code));
        }
    }
    let key = rules.expired_key.map(|key| format!("Credential={key}/"));
    if key.is_some_and(|key| text(headers, "authorization").contains(&key)) {
        return failed(400, Failure::code(400, "ExpiredTokenException"));
    }
    if rules.bucket.as_mut().is_some_and(|bucket| !bucket.take(documents.len())) {
        return Some((Verdict::Throttled, Failure::code(429, "ThrottledException")));
    }
    if rules.body_bytes_max.is_some_and(|limit| body_bytes > limit) {
        return failed(413, Failure::status(413));
    }
    if documents.iter().any(|document| document.contains("poison")) {
        return failed(400, Failure::code(400, "InvalidRequestException"));
    }
    None
}

/// Compresses text with gzip.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn fail(failure: Failure) -> Response<Vec<u8>> {
    let mut answer = Response::new(failure.body);
    *answer.status_mut() = StatusCode::from_u16(failure.status).unwrap();
    for (name, value) in failure.headers {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    answer
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn offset(clock: Option<Clock>) -> time::Duration {
    time::Duration::seconds(clock.map_or(0, |clock| clock.offset_seconds))
}
