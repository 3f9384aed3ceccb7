//! Reads whole requests, with bounds on their number and on the memory for their bodies.
//!
//! In: a request whose body has not been read. Out: the request with its body, or an answer that
//! says what is wrong. Bound: [`REQUEST_COUNT_MAX`] requests, [`BODY_BYTES_MAX`] for a body, and
//! [`LARGE_BODY_COUNT_MAX`] large bodies at a time. When full: a request waits up to
//! [`READ_TIMEOUT`], then it is answered with status 503. Thread: main.

use super::{ConnectionSlot, READ_TIMEOUT, error_answer};
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Number of requests at a time. Further requests wait up to [`READ_TIMEOUT`].
const REQUEST_COUNT_MAX: usize = 128;

/// Largest request body, in bytes (5 MiB). Larger bodies are refused with status 413.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A body of up to this size, in bytes (64 KiB), is small. Small bodies, for example those of
/// sampling calls, need no permit; [`REQUEST_COUNT_MAX`] bounds their number. Larger bodies do.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Number of large bodies at a time, each until its request is answered: 4 * 5 MiB = 20 MiB.
const LARGE_BODY_COUNT_MAX: usize = 4;

/// The permits for requests and for large bodies.
#[derive(Debug)]
pub struct Requests {
    permits: Semaphore,
    large_body_permits: Semaphore,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(REQUEST_COUNT_MAX),
            large_body_permits: Semaphore::new(LARGE_BODY_COUNT_MAX),
        }
    }
}

impl Requests {
    /// Waits for the permit of a request. Returns `None` if that takes longer than
    /// [`READ_TIMEOUT`], or if the connection is asked to close. Afterwards the connection no
    /// longer counts as waiting.
    pub async fn admit(&self, slot: &ConnectionSlot) -> Option<SemaphorePermit<'_>> {
        let permit = tokio::select! {
            biased;
            permit = tokio::time::timeout(READ_TIMEOUT, self.permits.acquire()) => permit.ok()?.ok(),
            () = slot.asked_to_close() => None,
        };
        slot.stop_waiting();
        permit
    }

    /// Reads the body of a request, passes the whole request to `answer`, and returns the answer. A
    /// large body keeps its permit until then.
    ///
    /// If the body is too large, too slow or incomplete, the answer says so.
    pub async fn with_body<F: Future<Output = Response<Bytes>>>(
        &self,
        request: Request<Incoming>,
        answer: impl FnOnce(Request<Bytes>) -> F,
    ) -> Response<Bytes> {
        let (head, mut body) = request.into_parts();
        let too_large = "the request's body is larger than 5 MB";
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            discard(&head, body).await;
            return error_answer(StatusCode::PAYLOAD_TOO_LARGE, too_large);
        }
        let is_small = body.size_hint().upper().is_some_and(|size| size <= SMALL_BODY_BYTES_MAX);
        let permit =
            async { if is_small { None } else { self.large_body_permits.acquire().await.ok() } };
        let Ok(_permit) = tokio::time::timeout(READ_TIMEOUT, permit).await else {
            let why = "too many large requests are in progress; try again later";
            return error_answer(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        match tokio::time::timeout(READ_TIMEOUT, read(&mut body)).await {
            Ok(Ok(bytes)) => answer(Request::from_parts(head, bytes)).await,
            Ok(Err(BodyError::TooLarge)) => {
                discard(&head, body).await;
                error_answer(StatusCode::PAYLOAD_TOO_LARGE, too_large)
            }
            Ok(Err(BodyError::Broken)) => {
                error_answer(StatusCode::BAD_REQUEST, "the request's body is incomplete")
            }
            Err(_) => {
                error_answer(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly")
            }
        }
    }
}

/// Why a body could not be read.
enum BodyError {
    TooLarge,
    Broken,
}

/// Reads the whole body, up to [`BODY_BYTES_MAX`].
async fn read(body: &mut Incoming) -> Result<Bytes, BodyError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads and discards the rest of a body, for up to [`READ_TIMEOUT`].
///
/// Closing a connection with unread bytes resets it, and the client may then not receive its
/// answer. A client that sent `Expect: 100-continue` has not sent its body yet.
pub async fn discard(head: &Parts, mut body: Incoming) {
    if !head.headers.contains_key(EXPECT) {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(READ_TIMEOUT, rest).await;
    }
}
