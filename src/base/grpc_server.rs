//! A small server for unary calls of gRPC over HTTP/2 without TLS.
//!
//! In: connections on a TCP port, and a [`Unary`] that answers their calls. Out: the answers.
//! Bound: [`CONNECTION_COUNT_MAX`] connections with [`STREAM_COUNT_MAX`] calls each;
//! [`MESSAGE_BYTES_MAX`] for the body of a call; [`LARGE_BODY_COUNT_MAX`] bodies of more than
//! [`SMALL_BODY_BYTES`] at a time; [`READ_TIMEOUT`] for a body. When full: a further connection is
//! closed, and a call whose body finds no room is answered with RESOURCE_EXHAUSTED, after which a
//! client tries again. Thread: main.
//!
//! hyper speaks HTTP/2, and bounds the frames, the headers and the resets of a connection. A call
//! of gRPC is then a request with a frame of five bytes and a message, and an answer with trailers.

use super::log::LogLimit;
use super::panics;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error, warn};
use xrayd_otlp::grpc::{Refusal, code, frame};

/// Largest body of a call, in bytes: the usual limit of gRPC's servers, and the head of a frame.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024 + 5;

/// Largest number of open connections. An exporter uses one.
const CONNECTION_COUNT_MAX: usize = 64;

/// Largest number of calls on a connection at a time.
const STREAM_COUNT_MAX: u32 = 16;

/// A body of at most this size needs no permit, so that slow clients with large bodies do not keep
/// others waiting.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// Largest number of larger bodies that are read at a time.
const LARGE_BODY_COUNT_MAX: usize = 8;

/// Time in which the body of a call must be complete.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest size of the headers of a call, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How much a client may send on one stream, and on one connection, before the server reads it.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// A connection without a sign of life is asked after this time, and closed after the same time.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Pause before the next attempt to accept a connection after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

static FULL: LogLimit = LogLimit::once_a_minute();
static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Answers the calls of a server.
pub trait Unary: Send + Sync + 'static {
    /// Answers a call. `body` is the complete body, a frame of gRPC.
    ///
    /// # Errors
    ///
    /// Returns the status of a call that failed.
    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal>;
}

/// Accepts and serves connections. Never returns.
pub async fn serve<U: Unary>(listener: Arc<TcpListener>, unary: Arc<U>) {
    let connections = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
    let large_bodies = Arc::new(Semaphore::new(LARGE_BODY_COUNT_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("The gRPC port cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            FULL.log(|more| {
                warn!(
                    "The gRPC port closes a new connection: {CONNECTION_COUNT_MAX} are open \
                     already{more}"
                );
            });
            continue;
        };
        let served = serve_connection(stream, Arc::clone(&unary), Arc::clone(&large_bodies));
        tokio::spawn(async move {
            if let Err(panicked) = panics::caught(served).await {
                say(&panicked.to_string());
            }
            drop(permit);
        });
    }
}

fn say(panicked: &str) {
    PANICKED.log(|more| error!("A connection to the gRPC port met {panicked}{more}"));
}

async fn serve_connection<U: Unary>(
    stream: TcpStream,
    unary: Arc<U>,
    large_bodies: Arc<Semaphore>,
) {
    let service = service_fn(move |request| {
        let (unary, large_bodies) = (Arc::clone(&unary), Arc::clone(&large_bodies));
        async move {
            let answered = panics::caught(answer(request, &*unary, large_bodies)).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|panicked| {
                say(&panicked.to_string());
                refused(&Refusal::new(code::INTERNAL, panicked.to_string()))
            }))
        }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAM_COUNT_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SMALL_BODY_BYTES)
        .keep_alive_interval(Some(PING_INTERVAL))
        .keep_alive_timeout(PING_INTERVAL)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!("A connection to the gRPC port ended: {error}");
    }
}

async fn answer<U: Unary>(
    request: Request<Incoming>,
    unary: &U,
    large_bodies: Arc<Semaphore>,
) -> Response<Reply> {
    let (head, body) = request.into_parts();
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = content_type.is_some_and(|value| value.starts_with(b"application/grpc"));
    if head.method != Method::POST || !is_grpc {
        let mut response = Response::new(Reply::default());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let read = tokio::time::timeout(READ_TIMEOUT, read(body, large_bodies)).await;
    let read = read.unwrap_or_else(|_| {
        Err(Refusal::new(code::DEADLINE_EXCEEDED, "the body of the call came too slowly"))
    });
    match read.and_then(|(body, _permit)| unary.call(&head, &body)) {
        Ok(message) => {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
            let mut response =
                Response::new(Reply { data: Some(frame(&message)), trailers: Some(trailers) });
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            response
        }
        Err(refusal) => refused(&refusal),
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
    response
}

/// Reads the body of a call. The permit of a large body is held until the body is used.
async fn read(
    mut body: Incoming,
    large_bodies: Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    let (mut bytes, mut permit) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::new(code::INVALID_ARGUMENT, "the body of the call is incomplete");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let size_bytes = bytes.len() + data.len();
        if size_bytes > MESSAGE_BYTES_MAX {
            let why = format!("the message is larger than {MESSAGE_BYTES_MAX} bytes");
            return Err(Refusal::new(code::RESOURCE_EXHAUSTED, why));
        }
        if size_bytes > SMALL_BODY_BYTES && permit.is_none() {
            let turn =
                tokio::time::timeout(READ_TIMEOUT / 2, Arc::clone(&large_bodies).acquire_owned());
            permit = turn.await.ok().and_then(Result::ok);
            if permit.is_none() {
                let why = "too many large calls are in progress";
                return Err(Refusal::new(code::RESOURCE_EXHAUSTED, why));
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), permit))
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
mod tests {
    use super::*;
    use hyper::client::conn::http2 as client;
    use std::net::SocketAddr;

    /// Answers a call with its body, and refuses an empty one.
    struct Echo;

    impl Unary for Echo {
        fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
            assert_ne!(head.uri.path(), "/panic", "asked to");
            match body.is_empty() {
                true => Err(Refusal::new(code::INVALID_ARGUMENT, "no bödy")),
                false => Ok(body.clone()),
            }
        }
    }

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(Arc::new(listener), Arc::new(Echo)));
        address
    }

    struct Answer {
        status: u16,
        grpc_status: String,
        message: String,
        body: Bytes,
    }

    type Full = http_body_util::Full<Bytes>;

    async fn connect(address: SocketAddr) -> client::SendRequest<Full> {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn call(sender: &mut client::SendRequest<Full>, path: &str, body: Vec<u8>) -> Answer {
        let request = Request::post(format!("http://localhost{path}"));
        let request = request.header(CONTENT_TYPE, "application/grpc").body(Full::from(body));
        let (head, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or(head.headers);
        let text = |name| {
            trailers.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned()
        };
        Answer {
            status: head.status.as_u16(),
            grpc_status: text(GRPC_STATUS),
            message: text(GRPC_MESSAGE),
            body: body.to_bytes(),
        }
    }

    #[tokio::test]
    async fn a_call_is_answered_with_a_frame_and_trailers() {
        let mut sender = connect(start().await).await;
        let answer = call(&mut sender, "/a", b"abc".to_vec()).await;
        assert_eq!((answer.status, &*answer.grpc_status), (200, "0"));
        assert_eq!(answer.body, Bytes::from_static(b"\0\0\0\0\x03abc"));
        let refused = call(&mut sender, "/a", Vec::new()).await;
        assert_eq!((refused.status, &*refused.grpc_status), (200, "3"));
        assert_eq!((&*refused.message, refused.body.len()), ("no b%C3%B6dy", 0));
    }

    #[tokio::test]
    async fn a_body_has_a_limit_and_the_connection_goes_on() {
        let mut sender = connect(start().await).await;
        let whole = call(&mut sender, "/a", vec![7; MESSAGE_BYTES_MAX]).await;
        assert_eq!((&*whole.grpc_status, whole.body.len()), ("0", MESSAGE_BYTES_MAX + 5));
        let large = call(&mut sender, "/a", vec![7; MESSAGE_BYTES_MAX + 1]).await;
        assert_eq!((&*large.grpc_status, large.body.len()), ("8", 0));
        assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
    }

    #[tokio::test]
    async fn a_panic_is_the_status_internal_and_the_server_goes_on() {
        let mut sender = connect(start().await).await;
        assert_eq!(call(&mut sender, "/panic", vec![7]).await.grpc_status, "13");
        assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_refused_in_time() {
        let address = start().await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let open = Waiting { first: Some(Bytes::from_static(b"abc")) };
        let request = Request::post("http://localhost/a").header(CONTENT_TYPE, "application/grpc");
        let response = sender.send_request(request.body(open).unwrap()).await.unwrap();
        assert_eq!(response.headers()[GRPC_STATUS], "4");
    }

    /// A body that begins and never ends.
    struct Waiting {
        first: Option<Bytes>,
    }

    impl Body for Waiting {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.first
                .take()
                .map_or(Poll::Pending, |first| Poll::Ready(Some(Ok(Frame::data(first)))))
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed() {
        let address = start().await;
        let mut held = Vec::new();
        for _ in 0..CONNECTION_COUNT_MAX {
            let mut sender = connect(address).await;
            assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
            held.push(sender);
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut { stream }, &mut byte).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_not_grpc_has_the_status_415() {
        let mut sender = connect(start().await).await;
        let request = Request::post("http://localhost/a").body(Full::from("abc")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
