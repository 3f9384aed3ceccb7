//! An X-Ray endpoint that recognises each document by its number. It answers at once, or after a
//! while, and accepts all calls or some.
//!
//! Thread: one. The endpoint searches each piece of a body for marks as soon as the piece arrives.
//! It stores and parses nothing, so that it uses little of the processors that it shares with the
//! daemon. Of a request with spans it reads the ids of the spans when the whole body is there. In
//! all counts a span is a document. Signatures are not verified. A document counts when its request
//! is answered with success. Delays and faults are drawn at random for each request. Requests wait
//! beside each other: each is a task of its own, on an HTTP/2 stream too. The timer of the runtime
//! has steps of 1 ms, so an answer is up to 1 ms late.

mod service;
mod spans;
mod tls;

pub use service::{Delays, Faults};
pub use tls::Http;

use super::clock;
use super::document::{Mark, Scanner};
use super::tally::Tally;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use service::{Service, Verdict};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// HTTP/2 windows that are large enough to never delay the client on a loopback interface.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// The number of calls at once on an HTTP/2 connection if no other is given: hyper's default.
const STREAM_COUNT_MAX: u32 = 200;

/// The answer to a client that asks for sampling rules: one rule.
const SAMPLING_RULES: &str = r#"{"SamplingRuleRecords":[{"SamplingRule":{"RuleName":"Default",
"RuleARN":"arn:aws:xray:us-east-1:111122223333:sampling-rule/Default","Priority":10000,"Version":1,
"FixedRate":0.05,"ReservoirSize":1,"ServiceName":"*","ServiceType":"*","Host":"*","HTTPMethod":"*",
"URLPath":"*","ResourceARN":"*","Attributes":{}},"CreatedAt":0,"ModifiedAt":0}],"NextToken":null}"#;

/// The answer to a call whose documents are all accepted.
const ALL_PROCESSED: &str = r#"{"UnprocessedTraceSegments":[]}"#;

/// The options of an endpoint.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on. Port 0 chooses a free port.
    pub address: SocketAddr,
    /// HTTP version over TLS. `None` means without TLS; the client then chooses the HTTP version.
    pub tls: Option<Http>,
    /// Seed for drawing delays and faults.
    pub seed: u64,
    /// The largest number of calls at once on an HTTP/2 connection.
    pub stream_count_max: u32,
    /// Delays and faults of the endpoint.
    pub faults: Faults,
}

impl Default for Options {
    /// An endpoint over TLS with HTTP/1.1 that accepts everything at once.
    fn default() -> Self {
        Self {
            address: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            tls: Some(Http::One),
            seed: 1,
            stream_count_max: STREAM_COUNT_MAX,
            faults: Faults::default(),
        }
    }
}

/// The counters of the endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Documents that were accepted for the first time.
    pub delivered_count: u64,
    /// Documents that were accepted again.
    pub duplicate_count: u64,
    /// Number of marks and of ids of spans that the kit's senders cannot have written.
    pub foreign_count: u64,
    /// Requests that were answered with success.
    pub request_count: u64,
    /// Requests that were throttled.
    pub throttled_count: u64,
    /// Requests that failed with 503.
    pub failed_count: u64,
    /// Requests with spans that could not be read.
    pub unreadable_count: u64,
    /// Calls of `PutTelemetryRecords`.
    pub telemetry_count: u64,
    /// Connections that the endpoint accepted.
    pub connection_count: u64,
    /// Calls with documents that wait for their answer now.
    pub waiting_count: u64,
    /// The largest number of calls with documents that waited for their answer at once.
    pub waiting_count_max: u64,
    /// Total size of all request bodies, in bytes.
    pub body_bytes: u64,
}

#[derive(Debug)]
struct State {
    tally: Tally,
    counts: Counts,
    service: Service,
}

/// A running endpoint. It ends when this value is dropped.
#[derive(Debug)]
pub struct Endpoint {
    /// Address that the endpoint listens on.
    pub address: SocketAddr,
    /// Certificate of the endpoint's authority as PEM, if the endpoint uses TLS.
    pub authority: Option<String>,
    state: Arc<Mutex<State>>,
    _running: tokio::sync::oneshot::Sender<()>,
}

impl Endpoint {
    /// Starts the endpoint on a thread named `endpoint`.
    ///
    /// # Errors
    ///
    /// Fails if the port is in use or no key can be created.
    pub fn start(options: Options) -> io::Result<Self> {
        let (acceptor, authority) = match options.tls {
            None => (None, None),
            Some(http) => {
                let (config, authority) = tls::server(http).map_err(io::Error::other)?;
                (Some(TlsAcceptor::from(Arc::new(config))), Some(authority))
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(options.address))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            tally: Tally::default(),
            counts: Counts::default(),
            service: Service::new(options.faults, fastrand::Rng::with_seed(options.seed)),
        }));
        let shared = Arc::clone(&state);
        let (running, ended) = tokio::sync::oneshot::channel();
        thread::Builder::new().name("endpoint".into()).spawn(move || {
            clock::wake_exactly();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, acceptor, options.stream_count_max, shared) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { address, authority, state, _running: running })
    }

    /// Returns the URL of the endpoint, for the configuration of a daemon.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns the counters since the start or the last [`reset`](Self::reset).
    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        Counts {
            delivered_count: state.tally.delivered_count,
            duplicate_count: state.tally.duplicate_count,
            foreign_count: state.tally.foreign_count + state.counts.foreign_count,
            ..state.counts
        }
    }

    /// Returns percentiles of latencies; see [`Tally::percentiles_us`].
    pub fn percentiles_us(&self, from: u64, to: u64, shares: &[f64]) -> Vec<f64> {
        // This copies all latencies, so it is called after the measurement.
        lock(&self.state).tally.percentiles_us(from, to, shares)
    }

    /// Resets the counters and sets the delays and faults. Calls that wait keep their answers.
    pub fn reset(&self, faults: Faults) {
        let mut state = lock(&self.state);
        let waiting_count = state.counts.waiting_count;
        state.tally = Tally::default();
        state.counts =
            Counts { waiting_count, waiting_count_max: waiting_count, ..Counts::default() };
        state.service.reset(faults);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    stream_count_max: u32,
    state: Arc<Mutex<State>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        lock(&state).counts.connection_count += 1;
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, stream_count_max, state).await,
                Some(acceptor) => {
                    // This fails if the client does not trust the certificate.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, stream_count_max, state).await;
                    }
                }
            }
        });
    }
}

/// Serves a connection until the client closes it.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stream_count_max: u32,
    state: Arc<Mutex<State>>,
) {
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(stream_count_max);
    // This fails if the client breaks the connection or does not speak HTTP.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == spans::PATH {
        return Ok(spans::answer(request, &state).await);
    }
    let mut body = request.into_body();
    let (mut scanner, mut marks, mut body_bytes) = (Scanner::default(), Vec::with_capacity(50), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(text(StatusCode::BAD_REQUEST, "{}")) };
        if let Some(piece) = frame.data_ref() {
            body_bytes += piece.len() as u64;
            scanner.scan(piece, &mut marks);
        }
    }
    match path.as_str() {
        "/TraceSegments" => {
            let refusal = take(&state, &marks, body_bytes).await;
            Ok(refusal.unwrap_or_else(|| text(StatusCode::OK, ALL_PROCESSED)))
        }
        "/TelemetryRecords" => {
            lock(&state).counts.telemetry_count += 1;
            Ok(text(StatusCode::OK, "{}"))
        }
        "/GetSamplingRules" => Ok(text(StatusCode::OK, SAMPLING_RULES)),
        "/SamplingTargets" => Ok(text(
            StatusCode::OK,
            r#"{"SamplingTargetDocuments":[],"UnprocessedStatistics":[],"LastRuleModification":0}"#,
        )),
        _ => Ok(text(StatusCode::NOT_FOUND, r#"{"message":"no such call"}"#)),
    }
}

/// A call that waits for its answer. It counts as waiting until it is dropped, also if the client
/// breaks the connection.
struct Waiting<'a>(&'a Mutex<State>);

impl<'a> Waiting<'a> {
    fn begin(state: &'a Mutex<State>, counts: &mut Counts) -> Self {
        counts.waiting_count += 1;
        counts.waiting_count_max = counts.waiting_count_max.max(counts.waiting_count);
        Self(state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.0).counts.waiting_count -= 1;
    }
}

/// Accepts the documents or spans of a request. If the request is to fail, returns the answer.
async fn take(
    state: &Mutex<State>,
    marks: &[Mark],
    body_bytes: u64,
) -> Option<Response<Full<Bytes>>> {
    let now_ns = clock::now_ns();
    let arrived_at = tokio::time::Instant::now();
    let (waiting, verdict, delay) = {
        let mut state_now = lock(state);
        let (verdict, delay) = state_now.service.take(marks.len(), now_ns);
        (Waiting::begin(state, &mut state_now.counts), verdict, delay)
    };
    if !delay.is_zero() {
        tokio::time::sleep_until(arrived_at + delay).await;
    }
    drop(waiting);
    let mut state = lock(state);
    match verdict {
        Verdict::Throttled => {
            state.counts.throttled_count += 1;
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, r#"{"message":"Rate exceeded"}"#);
            let kind = http::HeaderValue::from_static("ThrottledException");
            answer.headers_mut().insert("x-amzn-errortype", kind);
            return Some(answer);
        }
        Verdict::Failed => {
            state.counts.failed_count += 1;
            return Some(text(StatusCode::SERVICE_UNAVAILABLE, r#"{"message":"unavailable"}"#));
        }
        Verdict::Accepted => {}
    }
    let now_ns = clock::now_ns();
    for &mark in marks {
        state.tally.add(mark, now_ns);
    }
    state.counts.request_count += 1;
    state.counts.body_bytes += body_bytes;
    None
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}
