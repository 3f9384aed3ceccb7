//! An answer of the service on its way to a client.
//!
//! In: the body of an answer with a success status. Out: a short body is read whole first; of a
//! longer one the pieces follow as they arrive. Bound: [`ANSWER_BYTES_MAX`], and the time of the
//! call. When reached: the client's connection is closed, because the answer has begun already; a
//! counter and the log say why. Thread: main.

use super::ProxyError;
use super::current_route::OpenCall;
use crate::aws::{ReceivedBody, RequestError};
use crate::base::account::Account;
use crate::base::http_server::StreamError;
use crate::base::log::LogLimit;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Sleep;
use tracing::warn;

/// Longest answer with a success status that is forwarded, in bytes: 16 MiB. It is never whole in
/// memory. Answers with traces are the longest.
pub(super) const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// An answer of at most this many bytes is read whole before the client gets it. So a short answer
/// that breaks off becomes an error with a reason. It is part of the memory of a request.
const SHORT_ANSWER_BYTES: usize = 16 * 1024;

static BROKEN: LogLimit = LogLimit::new();

/// Reads the body of an answer until it ends, or until [`SHORT_ANSWER_BYTES`] are read. Returns the
/// bytes, and the rest of the body if it has not ended.
///
/// # Errors
///
/// Returns an error if the body ends early, or announces more than [`ANSWER_BYTES_MAX`].
pub(super) async fn read_start(
    mut body: ReceivedBody,
) -> Result<(Bytes, Option<ReceivedBody>), ProxyError> {
    if body.size_hint().lower() > ANSWER_BYTES_MAX {
        return Err(ProxyError::TooLarge);
    }
    let mut start = BytesMut::new();
    while start.len() < SHORT_ANSWER_BYTES {
        let Some(frame) = body.frame().await else { return Ok((start.freeze(), None)) };
        let frame = frame.map_err(|error| RequestError::unreadable(&error))?;
        // Trailers belong to the connection, and are left out.
        if let Ok(data) = frame.into_data() {
            start.extend_from_slice(&data);
        }
    }
    let rest = (!body.is_end_stream()).then_some(body);
    Ok((start.freeze(), rest))
}

/// The body of an answer, as the client gets it.
#[derive(Debug)]
pub(super) struct ForwardedBody {
    /// The start of the answer, until the client has it.
    start: Bytes,
    body: ReceivedBody,
    /// How many more bytes are forwarded.
    left_bytes: u64,
    deadline: Pin<Box<Sleep>>,
    timeout_seconds: u64,
    /// Method and path of the request, for the log.
    name: String,
    account: Arc<Account>,
    call: OpenCall,
    is_over: bool,
}

impl ForwardedBody {
    /// Returns the body of the answer to the request `name`: `start`, and then the pieces of
    /// `body`. It ends with an error at `deadline`, which is `timeout_seconds` after the begin of
    /// the call.
    pub(super) fn new(
        (start, body): (Bytes, ReceivedBody),
        (deadline, timeout_seconds): (tokio::time::Instant, u64),
        call: OpenCall,
        name: String,
        account: Arc<Account>,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        let left_bytes = ANSWER_BYTES_MAX.saturating_sub(start.len() as u64);
        Self {
            start,
            body,
            left_bytes,
            deadline,
            timeout_seconds,
            name,
            account,
            call,
            is_over: false,
        }
    }

    /// Returns the next piece, `None` at the end, or why there is no end.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ProxyError>>> {
        if !self.start.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.start))));
        }
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(RequestError::unreadable(&error).into())));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(context));
                    return Poll::Ready(Some(Err(ProxyError::Timeout(self.timeout_seconds))));
                }
            };
            // Trailers belong to the connection, and are left out.
            let Ok(data) = frame.into_data() else { continue };
            return Poll::Ready(Some(match self.left_bytes.checked_sub(data.len() as u64) {
                Some(left_bytes) => {
                    self.left_bytes = left_bytes;
                    Ok(data)
                }
                None => Err(ProxyError::TooLarge),
            }));
        }
    }

    fn end(&mut self, failure: Option<&ProxyError>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let Some(failure) = failure else { return self.account.proxy.answered.add(1) };
        super::count_failure(failure, &self.account);
        let name = &self.name;
        BROKEN.log(|more| {
            warn!("The answer to {name} of a client is cut off: {failure}{more}");
        });
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        Poll::Ready(match ready!(self.poll_data(context)) {
            Some(Ok(data)) => Some(Ok(Frame::data(data))),
            Some(Err(failure)) => {
                self.end(Some(&failure));
                Some(Err(failure.into()))
            }
            None => {
                self.call.answered();
                self.end(None);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, start_bytes) = (self.body.size_hint(), self.start.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + start_bytes);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + start_bytes);
        }
        hint
    }
}

/// The service has answered, also if the client is gone before the end of the answer.
impl Drop for ForwardedBody {
    fn drop(&mut self) {
        self.end(None);
    }
}
