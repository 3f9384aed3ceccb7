//! Decides how the endpoint answers a request under the current fault.

use super::document::{Template, segment_id};
use super::faults::{Fault, Window};
use super::tally::Tally;
use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Size of the throttle's token bucket: this many seconds of the load that is sent.
const BUCKET_SECONDS: f64 = 0.1;

/// Decides how each request is answered, and records the decision.
pub struct Script {
    /// The current window: the fault, its share of requests and its duration.
    pub window: Window,
    /// Rate of the load, in documents a second.
    pub rate: f64,
    /// Record of the accepted documents.
    pub tally: Tally,
    template: Template,
    random: fastrand::Rng,
    /// The token bucket of the throttle: the number of documents that it held when it was last
    /// computed, and the time of that computation.
    bucket: (f64, Instant),
}

/// The decision about a request.
#[derive(Debug)]
pub enum Reply {
    /// The documents `numbers` are accepted. After `pause` the answer is sent, completely or not.
    Accept { numbers: Vec<u32>, pause: Duration, answer: Answer },
    /// No document is accepted, and this answer is sent.
    Other(Answer),
    /// No document is accepted, and no answer is ever sent.
    Never,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// A complete answer.
    Whole { status: u16, retry_after: Option<&'static str>, text: String },
    /// Only the first bytes of an answer are sent.
    Half,
    /// The connection is closed without an answer.
    Cut,
    /// The connection is reset without an answer.
    Reset,
}

/// The error that makes hyper break a connection on purpose.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub struct Broken;

impl Answer {
    /// Returns a complete answer with this status and text.
    pub fn status(status: u16, text: &str) -> Self {
        Self::Whole { status, retry_after: None, text: text.to_owned() }
    }

    /// Returns whether the daemon learns the result of its request.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole { .. })
    }

    /// Converts the answer into a response of hyper. `socket` is the socket of the connection.
    pub fn into_response(self, socket: &socket2::Socket) -> Result<Response<AnswerBody>, Broken> {
        let body = match self {
            Self::Whole { status, retry_after, text } => {
                let mut response = Response::new(AnswerBody::whole(text));
                *response.status_mut() = status.try_into().expect("the number is a status");
                if let Some(seconds) = retry_after {
                    let value = http::HeaderValue::from_static(seconds);
                    response.headers_mut().insert(http::header::RETRY_AFTER, value);
                }
                return Ok(response);
            }
            Self::Half => AnswerBody::half(),
            Self::Reset => {
                let _ = socket.set_linger(Some(Duration::ZERO));
                return Err(Broken);
            }
            Self::Cut => return Err(Broken),
        };
        Ok(Response::new(body))
    }
}

const TAKEN: &str = r#"{"UnprocessedTraceSegments":[]}"#;

impl Script {
    /// Creates a script. The decisions are drawn from `random`. The documents are made from `seed`;
    /// there are at most `document_count` documents.
    pub fn new(seed: u64, random: fastrand::Rng, rate: f64, document_count: usize) -> Self {
        Self {
            window: Window::OUTAGE,
            rate,
            tally: Tally::new(document_count),
            template: Template::escaped(seed),
            random,
            bucket: (0.0, Instant::now()),
        }
    }

    /// Begins a new window of faults and fills the throttle's token bucket.
    pub fn enter(&mut self, window: Window) {
        self.window = window;
        self.bucket = (self.rate * BUCKET_SECONDS, Instant::now());
    }

    /// Decides how a request with this body is answered.
    pub fn reply(&mut self, body: &[u8]) -> Reply {
        let Some(numbers) = self.template.numbers_in(body) else {
            self.tally.malformed_request_count += 1;
            self.tally.malformed_example =
                String::from_utf8_lossy(&body[..body.len().min(2_000)]).into_owned();
            return Reply::Other(Answer::status(500, ""));
        };
        let is_met = self.random.f64() < self.window.share;
        let fault = if is_met { self.window.fault } else { Fault::None };
        if let Some((outcome, reply)) = self.refuse(fault, &numbers, body.len()) {
            self.tally.request(outcome);
            return reply;
        }
        let (outcome, reply) = self.accept(fault, numbers);
        self.tally.request(outcome);
        reply
    }

    /// Returns a refusal if this request is refused: because of the fault, or because of poison.
    fn refuse(
        &mut self,
        fault: Fault,
        numbers: &[u32],
        body_bytes: usize,
    ) -> Option<(&'static str, Reply)> {
        let refusal = match fault {
            Fault::ServerError if self.random.u32(..4) == 0 => {
                let retry_after = Some("1");
                let answer = Answer::Whole { status: 503, retry_after, text: String::new() };
                ("503 with Retry-After", Reply::Other(answer))
            }
            Fault::ServerError => {
                ("500", Reply::Other(Answer::status(500, r#"{"message":"Internal failure"}"#)))
            }
            Fault::HtmlPage => {
                let page = "<html><body>502 Bad Gateway</body></html>";
                ("502 in HTML", Reply::Other(Answer::status(502, page)))
            }
            Fault::Throttle { documents_per_second } => {
                if self.lets_through(numbers.len(), documents_per_second) {
                    return None;
                }
                let text = r#"{"__type":"ThrottledException","message":"Rate exceeded"}"#;
                ("429", Reply::Other(Answer::status(429, text)))
            }
            Fault::TooLarge { body_bytes_max } if body_bytes > body_bytes_max => {
                ("413", Reply::Other(Answer::status(413, "")))
            }
            Fault::Reset => ("reset", Reply::Other(Answer::Reset)),
            Fault::BlackHole => ("not answered", Reply::Never),
            _ => {
                if !numbers.iter().any(|&number| self.template.is_poison(u64::from(number))) {
                    return None;
                }
                if let [number] = numbers {
                    self.tally.poison_refused.insert(*number);
                }
                let text = r#"{"__type":"InvalidRequestException","message":"poison"}"#;
                ("400 for poison", Reply::Other(Answer::status(400, text)))
            }
        };
        Some(refusal)
    }

    /// Accepts the documents of a request, and chooses the answer for the fault.
    fn accept(&mut self, fault: Fault, mut numbers: Vec<u32>) -> (&'static str, Reply) {
        let (outcome, pause, answer) = match fault {
            Fault::Slow { pause } => ("accepted, late", pause, Answer::status(200, TAKEN)),
            Fault::LostAnswer => {
                let answer = if self.random.bool() { Answer::Cut } else { Answer::Reset };
                ("accepted, answer lost", Duration::ZERO, answer)
            }
            Fault::HalfAnswer => ("accepted, half an answer", Duration::ZERO, Answer::Half),
            Fault::PartThrottle => {
                let mut names = Vec::new();
                numbers.retain(|&number| {
                    let is_taken = self.random.u32(..8) > 0;
                    if !is_taken {
                        names.push(format!(
                            r#"{{"Id":"{}","ErrorCode":"ThrottledException","Message":"later"}}"#,
                            segment_id(number)
                        ));
                    }
                    is_taken
                });
                let text = format!(r#"{{"UnprocessedTraceSegments":[{}]}}"#, names.join(","));
                ("accepted in part", Duration::ZERO, Answer::status(200, &text))
            }
            _ => ("accepted", Duration::ZERO, Answer::status(200, TAKEN)),
        };
        (outcome, Reply::Accept { numbers, pause, answer })
    }

    /// Returns whether the throttle lets `document_count` documents through at this rate.
    fn lets_through(&mut self, document_count: usize, documents_per_second: f64) -> bool {
        let now = Instant::now();
        let (level, at) = self.bucket;
        let gained = (now - at).as_secs_f64() * documents_per_second;
        let level = (level + gained).min(self.rate * BUCKET_SECONDS);
        let needed = document_count as f64;
        let is_within = level >= needed;
        self.bucket = (if is_within { level - needed } else { level }, now);
        is_within
    }
}

/// The body of an answer, which may end early.
#[derive(Debug)]
pub struct AnswerBody {
    rest: Option<Bytes>,
    is_half: bool,
    length: u64,
}

impl AnswerBody {
    fn whole(text: String) -> Self {
        let length = text.len() as u64;
        Self {
            rest: Some(text.into()).filter(|text: &Bytes| !text.is_empty()),
            is_half: false,
            length,
        }
    }

    fn half() -> Self {
        let half = Bytes::from_static(&TAKEN.as_bytes()[..10]);
        Self { rest: Some(half), is_half: true, length: TAKEN.len() as u64 }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.rest.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.is_half => Poll::Ready(Some(Err(Broken))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.is_half
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
