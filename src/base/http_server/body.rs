//! Reads the bodies of HTTP requests, then gives requests their turns.
//!
//! In: a request with an unread body. Out: the request with its complete body, or an answer with
//! the reason why the body cannot be read. Bound: the memory of the TCP port; in each [`Lane`] a
//! share of it, and [`REQUEST_COUNT_MAX`] turns; [`BODY_BYTES_MAX`] for a body. When full: the
//! connection that has waited longest is closed, and a request waits up to [`READ_TIMEOUT`] for its
//! turn. It is then answered with status 503. Thread: main.
//!
//! A body is read before the request takes its turn. So clients that do not finish their bodies
//! take no turn from others. Until its turn, a connection counts as waiting and can be closed.

use super::answer::AnswerBody;
use super::memory::{Memory, Reservation};
use super::{CONNECTION_BYTES, ConnectionSlot, READ_TIMEOUT, REQUEST_BYTES, ServerLimits};
use super::{TOO_MANY, error_answer, last_answer, too_many_requests};
use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

/// Largest number of requests of a lane that have their turn. Further requests wait up to
/// [`READ_TIMEOUT`].
const REQUEST_COUNT_MAX: usize = 64;

/// Largest request body, in bytes (5 MiB). Larger bodies are refused with status 413.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Memory that a request with its turn needs besides its body, in bytes.
const TURN_BYTES: usize = CONNECTION_BYTES + REQUEST_BYTES;

/// A group of requests with turns of its own. Requests of one lane cannot delay those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Small requests that applications wait for.
    Quick,
    /// All other requests.
    Other,
}

/// The turns of a lane.
#[derive(Debug)]
struct Turns {
    count: Arc<Semaphore>,
    /// The share of the memory for requests that have their turn. Such a request cannot be closed
    /// to make room, so the shares of both lanes are together less than the whole memory.
    memory: Memory,
}

/// The turn of a request.
#[derive(Debug)]
struct Turn {
    _count: OwnedSemaphorePermit,
    _memory: Reservation,
}

/// Makes the answer to a request that is refused, from the head of the request, the status and the
/// reason.
pub type ErrorForm = fn(&Parts, StatusCode, &str) -> Response<Bytes>;

/// The turns of both lanes.
#[derive(Debug)]
pub struct Requests {
    quick: Turns,
    other: Turns,
    error_form: ErrorForm,
}

impl Turns {
    fn new(memory_bytes: usize, count_max: usize) -> Self {
        let count = Arc::new(Semaphore::new(count_max));
        Self { count, memory: Memory::new(memory_bytes) }
    }

    /// Returns the largest body of a request of this lane, in bytes.
    fn body_bytes_max(&self) -> usize {
        self.memory.limit_bytes.saturating_sub(TURN_BYTES).min(BODY_BYTES_MAX)
    }

    /// Waits for the turn of a request with a body of `body_bytes`.
    async fn take(&self, body_bytes: usize) -> Turn {
        let count = Arc::clone(&self.count).acquire_owned().await.expect("it is never closed");
        Turn { _count: count, _memory: self.memory.reserve(TURN_BYTES + body_bytes).await }
    }
}

impl Requests {
    /// Returns the turns for a server with these limits. The shares of the memory are a quarter for
    /// quick requests and two thirds for others. The rest is for connections that wait. Each lane
    /// has turns for a third of the connections at most, so that a third of them can be closed to
    /// make room.
    pub fn new(limits: ServerLimits) -> Self {
        let ServerLimits { memory_bytes, connection_count_max } = limits;
        let count_max = (connection_count_max / 3).clamp(1, REQUEST_COUNT_MAX);
        Self {
            quick: Turns::new(memory_bytes / 4, count_max),
            other: Turns::new(memory_bytes / 3 * 2, count_max),
            error_form: |_, status, why| error_answer(status, why),
        }
    }

    /// Returns the same turns. Answers to refused requests have the form that `error_form` gives
    /// them, and not the one of [`error_answer`].
    #[must_use]
    pub fn with_errors(self, error_form: ErrorForm) -> Self {
        Self { error_form, ..self }
    }

    fn turns(&self, lane: Lane) -> &Turns {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Other => &self.other,
        }
    }

    /// Reads the body of a request, waits for its turn, passes the whole request to `answer`, and
    /// returns the answer. The turn and the memory of the body are kept until the answer is
    /// written.
    ///
    /// If the body is too large, too slow or incomplete, or if no turn comes in time, `answer` is
    /// not called, and the returned answer is an error with the reason.
    pub async fn with_body<F: Future<Output = Response<AnswerBody>>>(
        &self,
        request: Request<Incoming>,
        (slot, lane): (&ConnectionSlot, Lane),
        answer: impl FnOnce(Request<Bytes>) -> F,
    ) -> Response<AnswerBody> {
        let turns = self.turns(lane);
        let (head, body) = request.into_parts();
        let error = |status, why: &str| (self.error_form)(&head, status, why);
        let too_many = || last_answer(error(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY));
        let ready = async {
            let (body, memory) =
                read_in_time(&head, body, slot, (turns.body_bytes_max(), &error)).await?;
            let turn = tokio::time::timeout(READ_TIMEOUT, turns.take(body.bytes.len())).await;
            let busy = |_| {
                slot.note_busy();
                too_many()
            };
            Ok((body, memory, turn.map_err(busy)?))
        };
        let ready = tokio::select! {
            biased;
            ready = ready => ready,
            () = slot.asked_to_close() => Err(too_many()),
        };
        let (body, memory, turn) = match ready {
            Ok(ready) => ready,
            Err(refusal) => return refusal.map(AnswerBody::from),
        };
        slot.stop_waiting();
        let answer = answer(Request::from_parts(head, body.bytes)).await;
        let answer = if body.has_trailers { last_answer(answer) } else { answer };
        answer.map(|body| body.keeping(turn).keeping(memory))
    }
}

/// Makes the answer to one request that is refused, from the status and the reason.
type ErrorAnswer<'a> = dyn Fn(StatusCode, &str) -> Response<Bytes> + Sync + 'a;

/// Reads the body of a request, of up to `limit_bytes`. The error is the answer to the client, made
/// by `error`.
async fn read_in_time(
    head: &Parts,
    mut body: Incoming,
    slot: &ConnectionSlot,
    (limit_bytes, error): (usize, &ErrorAnswer<'_>),
) -> Result<(WholeBody, Reservation), Response<Bytes>> {
    let why = match limit_bytes {
        BODY_BYTES_MAX => "the request's body is larger than 5 MB".to_owned(),
        _ => format!(
            "the request's body is larger than {limit_bytes} bytes; a larger -m of the daemon \
             allows more, up to 5 MB"
        ),
    };
    let too_large = || {
        slot.note_too_large();
        error(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(discard(head, body, too_large()).await);
    }
    let mut memory = slot.reserve(REQUEST_BYTES).await;
    let read = read(&mut body, slot, &mut memory, limit_bytes);
    match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok((body, memory)),
        Ok(Err(BodyError::TooLarge)) => Err(discard(head, body, too_large()).await),
        Ok(Err(BodyError::Broken)) => {
            let why = "the request's body is incomplete";
            Err(last_answer(error(StatusCode::BAD_REQUEST, why)))
        }
        Err(_) => {
            slot.note_slow();
            debug!("A request was refused with 408: its body came too slowly");
            let why = "the request's body came too slowly";
            Err(last_answer(error(StatusCode::REQUEST_TIMEOUT, why)))
        }
    }
}

/// The complete body of a request.
pub struct WholeBody {
    pub bytes: Bytes,
    /// Whether trailers follow the last chunk. They are not passed on, and the connection ends
    /// after the answer. hyper takes LF alone for the end of a trailer, but not for the end of all
    /// trailers: a request behind two of them would be a trailer for hyper, and a request for a
    /// proxy in front of the daemon.
    has_trailers: bool,
}

/// The reason why the body of a request could not be read.
pub enum BodyError {
    TooLarge,
    Broken,
}

/// Reads the whole body, up to `limit_bytes`. Memory is reserved for what has arrived, and not for
/// what the client announces.
pub async fn read(
    body: &mut Incoming,
    slot: &ConnectionSlot,
    memory: &mut Reservation,
    limit_bytes: usize,
) -> Result<WholeBody, BodyError> {
    let announced_bytes = usize::try_from(body.size_hint().upper().unwrap_or(u64::MAX));
    let capacity_max = announced_bytes.unwrap_or(usize::MAX).min(limit_bytes);
    let (mut bytes, mut has_trailers) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else {
            has_trailers = true;
            continue;
        };
        let needed_bytes = bytes.len() + data.len();
        if needed_bytes > limit_bytes {
            return Err(BodyError::TooLarge);
        }
        if needed_bytes > bytes.capacity() {
            let capacity = (2 * bytes.capacity()).min(capacity_max).max(needed_bytes);
            memory.merge(slot.reserve(capacity - bytes.capacity()).await);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(WholeBody { bytes: bytes.into(), has_trailers })
}

/// Answers a request with `refusal` instead of passing it on. Reads and discards its body before,
/// unless the connection is asked to close.
pub async fn refuse(
    head: &Parts,
    body: Incoming,
    refusal: Response<Bytes>,
    slot: &ConnectionSlot,
) -> Response<Bytes> {
    tokio::select! {
        biased;
        () = slot.asked_to_close() => too_many_requests(),
        refusal = discard(head, body, refusal) => refusal,
    }
}

/// Reads and discards the rest of a body, for up to [`READ_TIMEOUT`]. Returns `answer`; if the body
/// was not read to its end, or has trailers, the answer says that the connection is closed.
///
/// If a connection with unread bytes is closed, the system resets it, and the client may not
/// receive the answer. Nothing is read if the request has the header `Expect: 100-continue`,
/// because the client has not sent the body yet.
async fn discard<B>(head: &Parts, mut body: Incoming, answer: Response<B>) -> Response<B> {
    if head.headers.contains_key(EXPECT) {
        return if body.is_end_stream() { answer } else { last_answer(answer) };
    }
    let rest = async {
        while let Some(frame) = body.frame().await {
            // A broken body and trailers end the connection, as in `read`.
            if !frame.is_ok_and(|frame| frame.is_data()) {
                return false;
            }
        }
        true
    };
    match tokio::time::timeout(READ_TIMEOUT, rest).await {
        Ok(true) => answer,
        Ok(false) | Err(_) => last_answer(answer),
    }
}
