//! Reads the bodies of HTTP requests. It limits the number of requests and the memory for bodies.
//!
//! In: a request with an unread body. Out: the request with its complete body, or an answer with
//! the reason why the body cannot be read. Bound: [`REQUEST_COUNT_MAX`] requests and
//! [`LARGE_BODY_COUNT_MAX`] large bodies at a time, and [`BODY_BYTES_MAX`] for a body. When full: a
//! request waits up to [`READ_TIMEOUT`], and is then answered with status 503. Thread: main.

use super::{ConnectionSlot, READ_TIMEOUT, error_answer};
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Largest number of requests in progress. Further requests wait up to [`READ_TIMEOUT`].
const REQUEST_COUNT_MAX: usize = 128;

/// Largest request body, in bytes (5 MiB). Larger bodies are refused with status 413.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Largest size of a small body, in bytes: 64 KiB. Requests for sampling rules have small bodies,
/// for example. A larger body needs one of the [`LARGE_BODY_COUNT_MAX`] permits; a small body does
/// not.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Largest number of large bodies in memory at a time. Together they have at most 4 * 5 MiB =
/// 20 MiB.
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
    /// Waits for the permit to begin a request. Returns `None` if the wait takes longer than
    /// [`READ_TIMEOUT`], or if the connection is asked to close. With the permit, the connection no
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
    /// large body keeps its permit until the answer is known.
    ///
    /// If the body is too large, too slow or incomplete, `answer` is not called, and the returned
    /// answer is an error with the reason.
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

/// The reason why the body of a request could not be read.
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
/// If a connection with unread bytes is closed, the system resets it, and the client may not
/// receive the answer. Nothing is read if the request has the header `Expect: 100-continue`,
/// because the client has not sent the body yet.
pub async fn discard(head: &Parts, mut body: Incoming) {
    if !head.headers.contains_key(EXPECT) {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(READ_TIMEOUT, rest).await;
    }
}
