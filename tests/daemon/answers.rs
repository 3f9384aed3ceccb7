//! What the fake service says to a request ([`Rules`]), and what it has taken ([`Ledger`]).
//!
//! In: the parts of a request. Out: an answer, and a note in the ledger. No network, no thread.

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

/// A request that was signed this far from the service's clock is refused.
const SKEW_MAX_SECONDS: i64 = 5 * 60;

/// What the service does with an upload of a number.
type Script = dyn Fn(usize) -> Reply + Send + Sync;

/// What the service does with requests; a test changes it at any time.
#[derive(Clone, Default)]
pub struct Rules {
    /// What happens to the upload of each number, from 0; without one [`Reply::Accept`]. The other
    /// rules come first.
    pub script: Option<Arc<Script>>,
    /// How long an answer takes. The documents are taken at its end.
    pub pause: Duration,
    /// No request is answered until this ends.
    pub is_held: bool,
    /// Every request is answered with this, and nothing is taken.
    pub failure: Option<Failure>,
    /// More documents than this bucket gives are throttled.
    pub bucket: Option<Bucket>,
    /// A larger body is refused with 413.
    pub body_bytes_max: Option<usize>,
    /// Requests that are signed with this access key have expired.
    pub expired_key: Option<&'static str>,
    /// The service's clock, where it is not ours.
    pub clock: Option<Clock>,
    /// A connection ends in order after so many requests: HTTP/2 GOAWAY.
    pub requests_per_connection: Option<usize>,
    /// Uploads are read and never answered; other calls are.
    pub hangs_uploads: bool,
    /// Answers to uploads are compressed.
    pub gzips: bool,
    /// What other calls than uploads are answered with.
    pub call_answer: CallAnswer,
}

impl fmt::Debug for Rules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Rules").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// What a script does with an upload.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Takes the documents and says so.
    Accept,
    /// Takes the documents and answers with success and this body.
    Answer(String),
    /// Takes the documents, then breaks the connection instead of answering.
    AcceptAndBreak,
    /// Breaks the connection and takes nothing.
    Break,
    /// Takes nothing and answers with this.
    Fail(Failure),
}

/// The answer to a call that is no upload.
#[derive(Debug, Clone)]
pub struct CallAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(&'static str, &'static str)>,
    /// Its body, as bytes.
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

/// A call that is no upload, as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// An answer to a request of which nothing is taken.
#[derive(Debug, Clone)]
pub struct Failure {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Failure {
    /// A status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::body(status, "")
    }

    /// A status and a body.
    pub fn body(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The page of a proxy on the way.
    pub fn html(status: u16) -> Self {
        Self::body(status, format!("<html><body><h1>{status} Sorry</h1></body></html>"))
            .with(CONTENT_TYPE.as_str(), "text/html")
    }

    /// An error in the service's own words.
    pub fn code(status: u16, code: &str) -> Self {
        Self::body(status, format!(r#"{{"message":"{code} of the test"}}"#))
            .with("x-amzn-errortype", format!("{code}:http://internal.amazon.com/"))
    }

    /// The same, with one header more.
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// A token bucket of documents.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one.
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

/// A clock that is not ours, and how the service refuses requests of another time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Ahead of ours, or behind it below zero.
    pub offset_seconds: i64,
    /// `RequestTimeTooSkewed` or `InvalidSignatureException`.
    pub code: &'static str,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// So many documents were taken.
    Accepted(usize),
    /// It was throttled.
    Throttled,
    /// It was answered with another status than success.
    Failed(u16),
    /// Its connection was broken, after the documents were taken or instead of it.
    Broken,
}

/// How often a document was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// 1 where nothing went wrong.
    pub count: usize,
}

/// What the endpoint has seen.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The documents that were taken.
    pub arrivals: BTreeMap<String, Arrival>,
    /// The bodies of telemetry, which is always taken and counted nowhere else.
    pub telemetry: Vec<serde_json::Value>,
    /// Every upload that was answered or broken off.
    pub requests: Vec<(Instant, Verdict)>,
    /// The version of HTTP of each.
    pub versions: Vec<Version>,
    /// The largest number of uploads that were open at a time.
    pub open_count_max: usize,
    /// What no daemon may send.
    pub violations: Vec<String>,
    /// Calls that are no uploads.
    pub calls: Vec<Call>,
    /// Documents that were unprocessed once.
    put_off: HashSet<String>,
    begun_count: usize,
}

/// An upload as it came.
#[derive(Debug)]
pub struct Upload<'a> {
    /// The version of HTTP.
    pub version: Version,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// How an upload ends.
#[derive(Debug)]
pub enum Outcome {
    /// With an answer.
    Answered(Response<Vec<u8>>),
    /// With its connection.
    Broken,
}

impl Ledger {
    /// When the first document was taken after `mark`.
    pub fn first_accepted_after(&self, mark: Instant) -> Option<Instant> {
        let accepted = self.requests.iter().filter(|(_, v)| matches!(v, Verdict::Accepted(_)));
        accepted.map(|(at, _)| *at).find(|at| *at >= mark)
    }

    /// Notes a call that is no upload, and answers it.
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

    /// Notes that an upload has come. One that is never answered stays open.
    pub fn begin_upload(&mut self) {
        self.begun_count += 1;
        self.open_count_max = self.open_count_max.max(self.begun_count - self.requests.len());
    }

    /// Decides about an upload and notes what is taken.
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

    /// Does what the script says, if there is one.
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

    /// The documents of a request that is as it has to be.
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

/// Whether a request looks like a signed one; what is wrong, if not.
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

/// Why nothing of a request is taken, if so.
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

/// The same text, compressed.
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
