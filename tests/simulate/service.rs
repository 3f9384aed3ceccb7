//! The simulated X-Ray service, and the source of the daemon's credentials.
//!
//! In: the requests of the uploader. Out: answers, which the production code classifies; entries in
//! the ledger of what the service took and which answers arrived. Bound: a call ends after
//! [`TIMEOUT`], as in production.

use super::calls::Calls;
use super::ledger::Verdict;
use super::world::World;
use super::{documents, spans};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep, sleep_until};
use xrayd::aws::classify;
use xrayd::aws::endpoint::{Endpoint, Variant};
use xrayd::aws::identity::{Found, Identity, Reach, Source as CredentialSource};
use xrayd::aws::{CallFuture, Outcome, RequestBody, Service, Signer, StartError};
use xrayd::base::account::{RequestFailure, Signal};
use xrayd::base::files::Stamp;
use xrayd_otlp::answer::accepted;

/// The time after which the daemon gives up a call.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest difference between the date of a signature and the true date.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The text of the panics that the simulation causes.
pub const PANIC: &str = "simulated";

/// How the service behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Works,
    /// Every answer takes this long.
    Slow {
        ms: u64,
    },
    /// This percentage of the calls is throttled.
    Throttles {
        percent: u8,
        retry_after: Option<u64>,
    },
    /// Calls above this number of documents a second are throttled.
    Limits {
        per_second: u32,
    },
    /// No call is answered.
    Hangs,
    /// Every request is refused as if a document were faulty.
    Refuses,
    /// Requests with more documents than this are too large.
    TooLarge {
        count: usize,
    },
    Fails {
        status: u16,
        retry_after: Option<u64>,
    },
    Denies,
    /// The connection breaks before the service takes the request.
    CutsBefore {
        percent: u8,
    },
    /// The connection breaks after the service has taken the request.
    CutsAfter {
        percent: u8,
    },
    /// The service takes the request, and answers after the daemon has given up.
    Late,
    /// A proxy on the way sends each request twice.
    Twice,
    /// Another server answers.
    Foreign {
        percent: u8,
    },
    /// These percentages of the documents are named as unprocessed: for good, for now, and without
    /// an id.
    Unprocessed {
        lasting: u8,
        passing: u8,
        nameless: u8,
    },
    /// The request is taken, and the answer cannot be read.
    Unreadable,
    /// This percentage of the calls panics, while it is started or later.
    Panics {
        percent: u8,
        at_start: bool,
    },
}

impl Mood {
    /// Returns the name of the mood in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Works => "service works",
            Self::Slow { .. } => "service is slow",
            Self::Throttles { .. } => "service throttles",
            Self::Limits { .. } => "service limits",
            Self::Hangs => "service hangs",
            Self::Refuses => "service refuses",
            Self::TooLarge { .. } => "requests are too large",
            Self::Fails { .. } => "service fails",
            Self::Denies => "service denies",
            Self::CutsBefore { .. } => "cut before",
            Self::CutsAfter { .. } => "cut after",
            Self::Late => "service is late",
            Self::Twice => "requests come twice",
            Self::Foreign { .. } => "another server",
            Self::Unprocessed { .. } => "unprocessed",
            Self::Unreadable => "unreadable answers",
            Self::Panics { .. } => "calls panic",
        }
    }

    /// Draws a mood.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let retry_after = random.bool().then(|| random.u64(1..40));
        let percent = [20, 50, 100][random.usize(..3)];
        match random.u32(..20) {
            0 => Self::Slow { ms: random.u64(100..12_000) },
            1 => Self::Throttles { percent, retry_after: None },
            2 => Self::Throttles { percent, retry_after },
            3 => Self::Limits { per_second: random.u32(20..400) },
            4 | 5 => Self::Hangs,
            6 => Self::Refuses,
            7 => Self::TooLarge { count: random.usize(1..30) },
            8 => Self::Fails { status: [500, 502, 503][random.usize(..3)], retry_after },
            9 => Self::Denies,
            10 => Self::CutsBefore { percent },
            11 => Self::CutsAfter { percent },
            12 => Self::Late,
            13 => Self::Twice,
            14 | 15 => Self::Foreign { percent },
            16 | 17 => {
                let mut share = || if random.bool() { random.u8(..30) } else { 0 };
                Self::Unprocessed { lasting: share(), passing: share(), nameless: share() }
            }
            18 => Self::Unreadable,
            _ => Self::Panics { percent, at_start: random.bool() },
        }
    }
}

/// How the source of credentials behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Credentials that expire after this time.
    Gives {
        seconds: u64,
    },
    Denies,
    Late {
        ms: u64,
    },
}

impl Source {
    /// Draws a behaviour.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u32(..3) {
            0 => Self::Gives { seconds: random.u64(2..900) },
            1 => Self::Denies,
            _ => Self::Late { ms: random.u64(1_000..40_000) },
        }
    }
}

/// The state of the service and of the source of credentials.
#[derive(Debug)]
pub struct ServiceState {
    pub mood: Mood,
    pub source: Source,
    /// The fate of the calls of the present life.
    pub calls: Calls,
    random: fastrand::Rng,
    call_count: u64,
    key_count: u64,
    /// Documents that the limit still allows, and the time of that number in milliseconds.
    credit: (f64, u64),
}

/// An answer on its way to the daemon.
enum Answer {
    Http(StatusCode, HeaderMap, Vec<u8>),
    Broken,
    Panic,
}

impl ServiceState {
    /// A service that works.
    pub fn new(random: fastrand::Rng) -> Self {
        let (mood, source) = (Mood::Works, Source::Gives { seconds: 3_600 });
        let calls = Calls::default();
        Self { mood, source, calls, random, call_count: 0, key_count: 0, credit: (0.0, 0) }
    }

    fn is_drawn(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }
}

/// The seam to the service, for one life of the daemon.
#[derive(Debug)]
pub struct SimulatedService {
    pub world: World,
    pub life: usize,
    pub identity: Identity,
    signer: Signer,
}

impl SimulatedService {
    /// The service as the life number `life` reaches it.
    pub fn new(world: World, life: usize) -> Self {
        let identity = Identity::start_from(Provider(world.clone()));
        let endpoint = Endpoint::resolve(None, "us-east-1", Variant::default()).unwrap();
        let signer = Signer::new(&endpoint, "us-east-1", None);
        Self { world, life, identity, signer }
    }
}

impl Service for SimulatedService {
    fn address(&self) -> String {
        "the simulated service".to_owned()
    }

    fn is_ready(&self) -> bool {
        self.identity.is_ready()
    }

    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.identity.changed())
    }

    fn call(&self, body: RequestBody, _sha256: &[u8; 32]) -> Result<CallFuture, StartError> {
        let credentials = self.identity.credentials().ok_or(StartError::NoCredentials)?;
        let signed_at = self.signer.time(self.world.host_date());
        let mut service = self.world.service();
        service.call_count += 1;
        let (call, way_ms) = (service.call_count, service.random.u64(2..40));
        if let Mood::Panics { percent, at_start: true } = service.mood
            && service.is_drawn(percent)
        {
            let now_ms = self.world.history.now_ms();
            service.calls.failed(now_ms, now_ms);
            drop(service);
            self.world.history.note("call panics", call, 0);
            panic!("{PANIC}");
        }
        drop(service);
        let (world, life) = (self.world.clone(), self.life);
        world.history.note("call", call, life as u64);
        let in_flight = InFlight::start(&world, life);
        Ok(Box::pin(async move {
            let give_up_at = Instant::now() + TIMEOUT;
            sleep(Duration::from_millis(way_ms)).await;
            let bytes = body.collect().await.unwrap().to_bytes();
            let request = Request { life, call, credentials, signed_at };
            let (answer, verdict, pause) = arrive(&world, &request, &bytes);
            let answer_at = Instant::now() + pause;
            if answer_at >= give_up_at {
                sleep_until(give_up_at).await;
                world.history.note("call times out", call, 0);
                in_flight.note(Calls::failed);
                let reason = "no answer within 15 s".to_owned();
                return (Outcome::retry(reason).into(), Some(RequestFailure::Timeout));
            }
            sleep_until(answer_at).await;
            match answer {
                Answer::Http(status, headers, body) => {
                    world.history.note("answer", call, status.as_u16().into());
                    world.ledger().answered(life, &verdict);
                    let read =
                        if world.gets_documents() { classify::read } else { classify::read_spans };
                    let reading = read(status, &headers, Some(&body), signed_at);
                    in_flight.note_answer(&reading.outcome, status, &headers);
                    let failure = match &reading.outcome {
                        Outcome::Accepted { .. } => None,
                        Outcome::Failed { .. } if status.is_client_error() => {
                            Some(RequestFailure::Http4xx)
                        }
                        Outcome::Failed { .. } => Some(RequestFailure::Http5xx),
                    };
                    (reading, failure)
                }
                Answer::Broken => {
                    in_flight.note(Calls::failed);
                    world.history.note("call breaks", call, 0);
                    let reason = "connection reset by peer".to_owned();
                    (Outcome::retry(reason).into(), Some(RequestFailure::Other))
                }
                Answer::Panic => {
                    in_flight.note(Calls::failed);
                    world.history.note("call panics", call, 1);
                    panic!("{PANIC}")
                }
            }
        }))
    }

    fn renew_credentials(&self) {
        self.identity.renew();
    }

    fn set_time(&self, service_time: SystemTime) {
        self.signer.set_time(service_time, self.world.host_date());
    }

    fn forget_connections(&mut self) {
        self.world.history.note("connections dropped", 0, 0);
    }
}

/// A call in flight. It ends when this value is dropped.
struct InFlight {
    world: World,
    life: usize,
    started_ms: u64,
}

impl InFlight {
    /// Notes an answer.
    fn note_answer(&self, outcome: &Outcome, status: StatusCode, headers: &HeaderMap) {
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.note(Calls::accepted);
        } else if status.is_server_error() {
            self.note(Calls::failed);
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            let pause = headers.get("retry-after");
            let pause = pause.map(|it| it.to_str().unwrap().parse().unwrap());
            self.note(|calls, _, now_ms| calls.throttled(now_ms, pause));
        }
    }

    fn start(world: &World, life: usize) -> Self {
        let this = Self { world: world.clone(), life, started_ms: world.history.now_ms() };
        this.note(|calls, started_ms, _| calls.started(started_ms));
        this
    }

    /// Notes an event of this call, with the times of its start and of now. A call of an earlier
    /// life says nothing.
    fn note(&self, event: impl FnOnce(&mut Calls, u64, u64)) {
        let (now_ms, mut service) = (self.world.history.now_ms(), self.world.service());
        if service.calls.life == self.life {
            event(&mut service.calls, self.started_ms, now_ms);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.note(|calls, _, now_ms| calls.ended(now_ms));
    }
}

/// A request, without its body.
struct Request {
    life: usize,
    call: u64,
    credentials: Credentials,
    signed_at: SystemTime,
}

/// Decides what happens to a request that arrives. Returns the answer, the part of it that the
/// ledger needs, and the pause until the answer is back.
fn arrive(world: &World, request: &Request, body: &[u8]) -> (Answer, Verdict, Duration) {
    let size_of = |number: u32| world.ledger().size_of(number);
    let numbers = match world.signal {
        Signal::Segments => documents::numbers(body, size_of),
        Signal::Spans => spans::numbers(body, size_of),
    };
    let numbers = match numbers {
        Ok(numbers) => numbers,
        Err(text) => {
            world.ledger().fail(format!("call {}: {text}", request.call));
            Vec::new()
        }
    };
    world.history.note("request", request.call, numbers.len() as u64);
    let mut service = world.service();
    let mut pause = Duration::from_millis(service.random.u64(2..40));
    let mood = service.mood;
    match mood {
        Mood::Slow { ms } => pause += Duration::from_millis(ms),
        Mood::Hangs => return (Answer::Broken, Verdict::default(), TIMEOUT),
        _ => {}
    }
    let failed = refuse_signature(world, request)
        .or_else(|| fail(world, &mut service, numbers.len()))
        .map(|answer| (answer, Verdict::default()))
        .or_else(|| refuse_documents(world, &mut service, &numbers));
    if let Some((answer, verdict)) = failed {
        return (answer, verdict, pause);
    }
    let (verdict, list) = match world.signal {
        Signal::Segments => take(&mut service, mood, numbers),
        Signal::Spans => (take_spans(world, &mut service, mood, numbers), Vec::new()),
    };
    let copy_count = if mood == Mood::Twice { 2 } else { 1 };
    world.ledger().taken(request.life, request.call, &verdict, copy_count);
    let (mut headers, mut answer) = (headers(world), Vec::new());
    if world.gets_documents() {
        answer = format!("{{\"UnprocessedTraceSegments\":[{}]}}", list.join(",")).into_bytes();
    } else {
        let encoding = spans::encoding_of(body);
        headers.insert("content-type", encoding.content_type().parse().unwrap());
        answer.extend(accepted(encoding, verdict.rejected.len(), "no"));
    }
    match mood {
        Mood::CutsAfter { percent } if service.is_drawn(percent) => {
            return (Answer::Broken, verdict, pause);
        }
        Mood::Late => pause = TIMEOUT,
        Mood::Unreadable => {
            headers.insert("content-encoding", "gzip".parse().unwrap());
            answer = b"this is not gzip".to_vec();
        }
        _ => {}
    }
    (Answer::Http(StatusCode::OK, headers, answer), verdict, pause)
}

/// Returns the answer to a request whose credentials or signature the service does not accept.
fn refuse_signature(world: &World, request: &Request) -> Option<Answer> {
    let now = world.true_date();
    let distance = now.duration_since(request.signed_at).unwrap_or_else(|error| error.duration());
    if request.credentials.expiry().is_some_and(|expiry| expiry < now) {
        Some(error(world, 403, "ExpiredTokenException", None))
    } else if distance > SKEW_MAX {
        Some(error(world, 403, "InvalidSignatureException", None))
    } else {
        None
    }
}

/// Returns the answer to a request that fails for a reason that is not in its documents.
fn fail(world: &World, service: &mut ServiceState, count: usize) -> Option<Answer> {
    let throttled = |retry_after| Some(error(world, 429, "ThrottlingException", retry_after));
    let mood = service.mood;
    match mood {
        Mood::Throttles { percent, retry_after } if service.is_drawn(percent) => {
            throttled(retry_after)
        }
        Mood::Limits { per_second } => {
            let (credit, at_ms) = service.credit;
            let now_ms = world.history.now_ms();
            let grown = (now_ms - at_ms) as f64 * f64::from(per_second) / 1_000.0;
            let credit = (credit + grown).min(f64::from(per_second)) - count as f64;
            if credit < -50.0 {
                return throttled(None);
            }
            service.credit = (credit, now_ms);
            None
        }
        Mood::TooLarge { count: most } if count > most => Some(error(world, 413, "", None)),
        Mood::Fails { status, retry_after } => Some(error(world, status, "", retry_after)),
        Mood::Denies => Some(error(world, 403, "AccessDeniedException", None)),
        Mood::CutsBefore { percent } if service.is_drawn(percent) => Some(Answer::Broken),
        Mood::Panics { percent, at_start: false } if service.is_drawn(percent) => {
            Some(Answer::Panic)
        }
        _ => None,
    }
}

/// Returns the answer to a request that is refused as a whole, or that another server answers.
fn refuse_documents(
    world: &World,
    service: &mut ServiceState,
    numbers: &[u32],
) -> Option<(Answer, Verdict)> {
    if let Mood::Foreign { percent } = service.mood
        && service.is_drawn(percent)
    {
        let page = b"<html>Please log in</html>".to_vec();
        let verdict = Verdict { foreign: numbers.to_vec(), ..Verdict::default() };
        return Some((Answer::Http(StatusCode::OK, HeaderMap::new(), page), verdict));
    }
    let is_refused = service.mood == Mood::Refuses || world.ledger().has_refused(numbers);
    is_refused.then(|| {
        let verdict = Verdict { refused: numbers.to_vec(), ..Verdict::default() };
        (error(world, 400, "InvalidRequestException", None), verdict)
    })
}

/// Divides the documents of a request: those that the service processes and those that it names as
/// unprocessed. Returns the entries of the answer too.
fn take(service: &mut ServiceState, mood: Mood, numbers: Vec<u32>) -> (Verdict, Vec<String>) {
    let Mood::Unprocessed { lasting, passing, nameless } = mood else {
        return (Verdict { processed: numbers, ..Verdict::default() }, Vec::new());
    };
    let (mut verdict, mut list) = (Verdict::default(), Vec::new());
    for number in numbers {
        let id = format!("\"Id\":\"{number:016x}\",");
        if service.is_drawn(lasting) {
            list.push(format!("{{{id}\"ErrorCode\":\"InvalidSegment\"}}"));
            verdict.rejected.push(number);
        } else if service.is_drawn(passing) {
            list.push(format!("{{{id}\"ErrorCode\":\"ThrottledException\"}}"));
            verdict.later.push(number);
        } else if service.is_drawn(nameless) {
            list.push("{\"ErrorCode\":\"ThrottledException\"}".to_owned());
            verdict.rejected.push(number);
        } else {
            verdict.processed.push(number);
        }
    }
    (verdict, list)
}

/// Divides the spans of a request: those that the service takes and those that it rejects. An
/// answer to `PutTraceSegments` cannot name spans.
fn take_spans(world: &World, service: &mut ServiceState, mood: Mood, numbers: Vec<u32>) -> Verdict {
    let percent = match mood {
        Mood::Unprocessed { lasting, .. } if !world.gets_documents() => lasting,
        _ => 0,
    };
    let (rejected, processed) = numbers.into_iter().partition(|_| service.is_drawn(percent));
    Verdict { rejected, processed, ..Verdict::default() }
}

fn headers(world: &World) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-amzn-requestid", "1-2-3".parse().unwrap());
    headers.insert("date", httpdate::fmt_http_date(world.true_date()).parse().unwrap());
    headers
}

fn error(world: &World, status: u16, code: &str, retry_after: Option<u64>) -> Answer {
    let mut headers = headers(world);
    if let Some(seconds) = retry_after {
        headers.insert("retry-after", seconds.to_string().parse().unwrap());
    }
    let body = match code {
        "" => Vec::new(),
        code => format!("{{\"__type\":\"{code}\",\"message\":\"no\"}}").into_bytes(),
    };
    Answer::Http(StatusCode::from_u16(status).unwrap(), headers, body)
}

/// The simulated source of credentials.
struct Provider(World);

impl CredentialSource for Provider {
    async fn ask(&self, _reach: Reach) -> Result<Found, CredentialsError> {
        let Self(world) = self;
        let (source, key) = {
            let mut service = world.service();
            service.key_count += 1;
            (service.source, service.key_count)
        };
        world.history.note("credentials asked", key, 0);
        let seconds = match source {
            Source::Gives { seconds } => seconds,
            Source::Denies => return Err(CredentialsError::not_loaded("no source has any")),
            Source::Late { ms } => {
                sleep(Duration::from_millis(ms)).await;
                3_600
            }
        };
        world.history.note("credentials", key, seconds);
        world.service().calls.begin_anew();
        let expiry = world.true_date() + Duration::from_secs(seconds);
        let key = format!("AKID{key}");
        let credentials = Credentials::new(key, "secret", None, Some(expiry), "simulation");
        Ok(Found { credentials, source: "simulation".to_owned() })
    }

    fn files(&self) -> Vec<Stamp> {
        Vec::new()
    }

    fn host_date(&self) -> SystemTime {
        self.0.host_date()
    }
}
