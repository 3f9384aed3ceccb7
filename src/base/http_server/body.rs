//! The requests that a handler is to read whole: few at a time, their bodies bounded.
//!
//! In: a request whose body is not read yet. Out: the request with its body, or the answer that
//! says why not. Bounds: requests at a time, the size of a body, large bodies at a time.

use super::{ConnectionSlot, READ_TIMEOUT, error_answer};
use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests at a time; more wait for [`READ_TIMEOUT`].
const REQUEST_COUNT_MAX: usize = 128;

/// A request body beyond this size is refused.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Request bodies beyond this size wait for a place; the others, those of sampling calls among
/// them, never wait for large ones, and there are no more of them than requests.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Large bodies at a time at most, until their requests are answered: together 20 MB.
const LARGE_BODY_COUNT_MAX: usize = 4;

/// The places of the requests that are under way.
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
    /// Waits until it is the turn of a request; `None` when that takes too long, or its connection
    /// has to give way.
    pub async fn admit(&self, slot: &ConnectionSlot) -> Option<SemaphorePermit<'_>> {
        let permit = tokio::select! {
            biased;
            permit = tokio::time::timeout(READ_TIMEOUT, self.permits.acquire()) => permit.ok()?.ok(),
            () = slot.asked_to_close() => None,
        };
        slot.stop_waiting();
        permit
    }

    /// Reads the body of a request and hands the whole to `answer`; the body's place is taken until
    /// that is done.
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
            let why = "too many large requests are on their way already; try again";
            return error_answer(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        match tokio::time::timeout(READ_TIMEOUT, read(&mut body)).await {
            Ok(Ok(bytes)) => answer(Request::from_parts(head, bytes)).await,
            Ok(Err(BodyError::TooLarge)) => {
                discard(&head, body).await;
                error_answer(StatusCode::PAYLOAD_TOO_LARGE, too_large)
            }
            Ok(Err(BodyError::Broken)) => {
                error_answer(StatusCode::BAD_REQUEST, "the request's body broke off")
            }
            Err(_) => {
                error_answer(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly")
            }
        }
    }
}

/// Why there is no body.
enum BodyError {
    TooLarge,
    Broken,
}

/// The whole body.
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

/// Reads what is left of a body and forgets it, for a while: a connection that is closed with bytes
/// unread is reset, and the client may then never see its answer. Who asks first has sent nothing.
pub async fn discard(head: &Parts, mut body: Incoming) {
    if !head.headers.contains_key(EXPECT) {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(READ_TIMEOUT, rest).await;
    }
}
