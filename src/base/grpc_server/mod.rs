//! A small server for unary calls of gRPC over HTTP/2 without TLS.
//!
//! In: connections on a TCP port, and a [`Unary`] that answers their calls. Out: the answers.
//! Bound: [`ServerLimits`]: a number of connections, and one budget of memory for connections and
//! bodies; [`STREAM_COUNT_MAX`] calls at a time on a connection; a size for the body of a call, and
//! [`READ_TIMEOUT`] for its arrival. When full: the connection whose last call is longest ago is
//! closed; its client connects again. Thread: that of the port.
//!
//! hyper speaks HTTP/2, and bounds the frames, the headers and the resets of a connection. A call
//! of gRPC is then a request with a frame of five bytes and a message, and an answer with trailers.

use crate::base::http_server::{
    Acceptor, BodyError, ConnectionSlot, Port, Reservation, ServerLimits, read_body,
};
use crate::base::panics;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;
use xrayd_otlp::grpc::{FRAME_HEAD_BYTES, MESSAGE_BYTES_MAX, Refusal, code, frame};

/// Largest number of calls on a connection at a time.
const STREAM_COUNT_MAX: u32 = 16;

/// Time in which the first byte of a connection must arrive, and in which the body of a call must
/// be complete.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that is asked to close may stay open to write its last answers.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest size of the headers of a call, in bytes.
const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// How much a client may send on a connection, and on each stream of it, before the server reads
/// it.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Largest number of bytes of an answer that wait to be written. An answer is short.
const SEND_BYTES_MAX: usize = 16 * 1024;

/// Memory that an open connection needs, in bytes: the unread bytes of its calls, hyper's buffers
/// for a frame of 16 KiB in each direction, and its tables of headers.
pub const CONNECTION_BYTES: usize = WINDOW_BYTES as usize + 48 * 1024;

/// Memory that a call needs besides its body, in bytes.
const CALL_BYTES: usize = HEADER_BYTES_MAX as usize;

/// A connection without a sign of life is asked after this time, and closed after the same time.
const PING_INTERVAL: Duration = Duration::from_secs(20);

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Answers the calls of a server.
pub trait Unary: Send + Sync + 'static {
    /// Decides, before the body is read, whether a call is refused.
    ///
    /// # Errors
    ///
    /// Returns the status of a call that is refused.
    fn check(&self, _head: &Parts) -> Result<(), Refusal> {
        Ok(())
    }

    /// Answers a call that was not refused. `body` is the complete body, a frame of gRPC.
    ///
    /// # Errors
    ///
    /// Returns the status of a call that failed.
    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal>;
}

impl<U: Unary> Unary for Arc<U> {
    fn check(&self, head: &Parts) -> Result<(), Refusal> {
        (**self).check(head)
    }

    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
        (**self).call(head, body)
    }
}

/// A server for one port.
#[derive(Debug)]
pub struct Server<U> {
    unary: U,
    acceptor: Arc<Acceptor>,
    body_bytes_max: usize,
}

impl<U: Unary> Server<U> {
    /// Returns a server for `port`, whose calls have messages of at most `message_bytes_max`.
    /// `unary` answers the calls.
    pub fn new(unary: U, limits: ServerLimits, message_bytes_max: usize, port: Port) -> Arc<Self> {
        let body_bytes_max = message_bytes_max + FRAME_HEAD_BYTES;
        Arc::new(Self { unary, acceptor: Acceptor::new(limits, port), body_bytes_max })
    }

    /// Accepts and serves connections until [`finish`](Self::finish) is called.
    pub async fn serve(self: Arc<Self>, listener: Arc<TcpListener>) {
        let serve = |stream: TcpStream, slot: Arc<ConnectionSlot>| {
            let server = Arc::clone(&self);
            async move { server.serve_connection(stream, slot).await }
        };
        self.acceptor.accept(&listener, CONNECTION_BYTES, serve).await;
    }

    /// Stops accepting calls. Waits until the calls in progress are answered, at most `time`.
    pub async fn finish(&self, time: Duration) {
        self.acceptor.stop();
        self.acceptor.finish(time).await;
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, slot: Arc<ConnectionSlot>) {
        // hyper waits for the first bytes without a timeout.
        if tokio::time::timeout(READ_TIMEOUT, stream.readable()).await.is_err() {
            return slot.note_slow();
        }
        let service = service_fn(|request| {
            let (server, slot) = (Arc::clone(&self), Arc::clone(&slot));
            async move {
                let answer = server.answer(request, &slot).await;
                // From now on this is the connection whose last call is the latest.
                slot.start_waiting();
                Ok::<_, Infallible>(answer)
            }
        });
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAM_COUNT_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .keep_alive_interval(Some(PING_INTERVAL))
            .keep_alive_timeout(PING_INTERVAL)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => Ok(result),
            () = self.acceptor.must_close(&slot) => {
                served.as_mut().graceful_shutdown();
                let time = if slot.is_asked_to_close() { WRITE_TIMEOUT } else { READ_TIMEOUT };
                tokio::time::timeout(time, served).await
            }
        };
        let name = self.acceptor.name();
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("A connection to the {name} ended: {error}"),
            Err(_) => debug!("A connection to the {name} was open for too long"),
        }
    }

    /// Answers a call. A panic is the status INTERNAL.
    async fn answer(&self, request: Request<Incoming>, slot: &ConnectionSlot) -> Response<Reply> {
        let (head, body) = request.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
        if head.method != Method::POST || !is_grpc {
            let mut response = Response::new(Reply::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let answered = panics::caught(async {
            self.unary.check(&head)?;
            let (body, _memory) = self.read(body, slot).await?;
            self.unary.call(&head, &body)
        });
        let answer = answered.await.unwrap_or_else(|panicked| {
            self.acceptor.say_panicked(head.uri.path(), &panicked);
            Err(Refusal::new(code::INTERNAL, panicked.to_string()))
        });
        match answer {
            Ok(message) => {
                let mut trailers = HeaderMap::new();
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                let reply = Reply { data: Some(frame(&message)), trailers: Some(trailers) };
                let mut response = Response::new(reply);
                response.headers_mut().insert(CONTENT_TYPE, GRPC);
                response
            }
            Err(refusal) => refused(&refusal),
        }
    }

    /// Reads the body of a call.
    async fn read(
        &self,
        mut body: Incoming,
        slot: &ConnectionSlot,
    ) -> Result<(Bytes, Reservation), Refusal> {
        let limit_bytes = self.body_bytes_max;
        let read = async {
            let mut memory = slot.reserve(CALL_BYTES).await;
            let whole = read_body(&mut body, slot, &mut memory, limit_bytes).await;
            whole.map(|whole| (whole.bytes, memory))
        };
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout(READ_TIMEOUT, read) => read,
            () = slot.asked_to_close() => {
                let why = "the port has no room for this connection; connect again";
                return Err(Refusal::new(code::UNAVAILABLE, why));
            }
        };
        match read {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(BodyError::TooLarge)) => {
                slot.note_too_large();
                let limit_bytes = limit_bytes - FRAME_HEAD_BYTES;
                let more = match limit_bytes < MESSAGE_BYTES_MAX {
                    true => "; a larger -m of the daemon allows more, up to 4 MB",
                    false => "",
                };
                let why = format!("the message is larger than {limit_bytes} bytes{more}");
                Err(Refusal::new(code::RESOURCE_EXHAUSTED, why))
            }
            Ok(Err(BodyError::Broken)) => {
                Err(Refusal::new(code::INVALID_ARGUMENT, "the body of the call is incomplete"))
            }
            Err(_) => {
                slot.note_slow();
                let why = "the body of the call came too slowly";
                Err(Refusal::new(code::DEADLINE_EXCEEDED, why))
            }
        }
    }
}

/// Returns the answer to a call that failed. It has no body, and its status is in the header.
fn refused(refusal: &Refusal) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(refusal.code));
    let message = HeaderValue::from_str(&refusal.percent_encoded());
    headers.extend(message.ok().map(|message| (GRPC_MESSAGE, message)));
    if refusal.code == code::UNIMPLEMENTED {
        // A client whose compression is not known takes one of these.
        headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,deflate"));
    }
    let details = refusal.details().and_then(|details| HeaderValue::try_from(details).ok());
    headers.extend(details.map(|details| (GRPC_DETAILS, details)));
    response
}

/// The body of an answer: a frame, then the trailers. An answer to a failed call has neither.
#[derive(Debug, Default)]
struct Reply {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[cfg(test)]
mod tests;
