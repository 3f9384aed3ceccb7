//! The HTTP client: sends a signed request over HTTP/1.1 or HTTP/2 and reads the answer.
//!
//! In: a signed request. Out: the complete answer, or an error. Bound: a time for the
//! connection, a time for the whole request, and a size for the answer. Connections are kept open
//! and reused; ALPN selects the version of HTTP. Thread: the caller's.

use super::body::{ReceivedBody, RequestBody};
use super::encoding::{Unreadable, decode};
use super::failure;
use crate::aws::transport::{
    ConnectError, ConnectionPool, HttpVersions, PoolSettings, Sent, Transport, explain,
    host_and_port,
};
use crate::base::account::RequestFailure;
use crate::base::error_text::with_root_cause;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::response::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

/// Idle time after which the client closes a connection. Load balancers of AWS close a connection
/// after 60 idle seconds by default, and a request sent at that time would fail.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// The timeouts of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout to open a connection, including the proxy and TLS. The answer to an HTTP/2 ping has
    /// the same timeout.
    pub connect: Duration,
    /// Time until the answer to a request is complete.
    pub request: Duration,
    /// Time without received data on an HTTP/2 connection after which a ping is sent, while a
    /// request waits for its answer.
    pub ping_interval: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), request: seconds(15), ping_interval: seconds(5) }
    }
}

/// The reason why a request has no complete answer. Each of these errors can be temporary.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection could not be opened, or broke.
    #[error("{reason}")]
    Connection {
        /// Kind of failure for telemetry and the metrics.
        kind: RequestFailure,
        /// Why it failed, in plain words, for the log.
        reason: String,
    },
    /// The answer was not complete in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer is incomplete, or not valid HTTP.
    #[error("the answer could not be read: {reason}")]
    Answer {
        /// Kind of failure for telemetry and the metrics.
        kind: RequestFailure,
        /// Text of the error and of its deepest cause, for the log.
        reason: String,
    },
    /// The body of the answer is longer than the limit that the caller gave to [`Client::send`].
    #[error("{status}, and the answer is longer than {limit_bytes} bytes")]
    TooLarge {
        /// Status of the answer.
        status: StatusCode,
        /// Headers of the answer.
        headers: Box<HeaderMap>,
        /// Limit for the body of the answer, in bytes, as the caller gave it.
        limit_bytes: usize,
    },
}

impl RequestError {
    /// Returns the error for an answer whose body ends early, with the cause `error`.
    pub fn unreadable(error: &(dyn Error + 'static)) -> Self {
        Self::Answer { kind: failure::of_error(error), reason: with_root_cause(error) }
    }

    /// Returns the kind of failure that telemetry and the metrics count.
    pub fn kind(&self) -> RequestFailure {
        match self {
            Self::Connection { kind, .. } | Self::Answer { kind, .. } => *kind,
            Self::Timeout(_) => RequestFailure::Timeout,
            Self::TooLarge { .. } => RequestFailure::Other,
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// Body of the answer as received, possibly compressed.
    pub body: Bytes,
    /// The time that the request waited for a connection.
    pub waited: Duration,
}

impl Answer {
    /// Returns the body, decompressed if `Content-Encoding` says that it is compressed.
    ///
    /// # Errors
    ///
    /// Returns an error if the encoding is not supported, if the body does not conform to it, or if
    /// the decoded body is too long.
    pub fn text(&self) -> Result<Cow<'_, [u8]>, Unreadable> {
        decode(&self.headers, &self.body)
    }
}

/// An HTTP client. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: ConnectionPool,
    transport: Transport,
    timeouts: Timeouts,
    buffers: Buffers,
    versions: HttpVersions,
}

/// The size of the buffers of a client, for answers that their reader has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffers {
    /// hyper's default: up to 400 kB for each connection, and with HTTP/2 up to 2 MB for each
    /// answer.
    Default,
    /// As small as the daemon's memory for answers to applications demands.
    Small,
}

/// Size of the buffers of a connection of HTTP/1.1 ([`Buffers::Small`]), in bytes.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;

/// Largest number of bytes of an answer over HTTP/2 that wait for their reader
/// ([`Buffers::Small`]), and the same for all answers of a connection.
const SMALL_WINDOW_BYTES: u32 = 32 * 1024;
const SMALL_CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// Largest number of idle connections that are kept ([`Buffers::Small`]).
const SMALL_IDLE_COUNT_MAX: usize = 4;

/// How many connections to a host are opened at a time ([`Buffers::Small`]).
const SMALL_CONNECTING_COUNT_MAX: usize = 4;

impl Client {
    /// Returns a client that opens its connections with `transport`.
    pub fn new(transport: &Transport, timeouts: Timeouts) -> Self {
        Self::with_buffers(transport, timeouts, Buffers::Default)
    }

    /// Returns a client as [`new`](Self::new) does, which holds little of an answer that its reader
    /// has not taken.
    pub fn with_small_buffers(transport: &Transport, timeouts: Timeouts) -> Self {
        Self::with_buffers(transport, timeouts, Buffers::Small)
    }

    fn with_buffers(transport: &Transport, timeouts: Timeouts, buffers: Buffers) -> Self {
        let versions = HttpVersions::All;
        let http = http(transport, timeouts, buffers, versions);
        Self { http, transport: transport.clone(), timeouts, buffers, versions }
    }

    /// Drops all connections of this client. The next request looks up the host name again and
    /// opens a new connection. Clones of the client that exist already keep their connections.
    pub fn forget_connections(&mut self) {
        self.http = http(&self.transport, self.timeouts, self.buffers, self.versions);
    }

    /// Returns a client with the same settings and with separate connections.
    pub fn with_own_connections(&self) -> Self {
        let mut client = self.clone();
        client.forget_connections();
        client
    }

    /// Returns a client with the same settings and with separate connections, over HTTP/1.1 only.
    pub fn over_http1(&self) -> Self {
        let mut client = self.clone();
        client.versions = HttpVersions::Http1;
        client.forget_connections();
        client
    }

    /// Returns a text that names the proxy for calls to `uri`. The text is empty if `uri` is called
    /// directly.
    pub fn way(&self, uri: &Uri) -> String {
        match self.transport.proxy(uri) {
            Some(proxy) => format!(" through the proxy {proxy}"),
            None => String::new(),
        }
    }

    /// Sends `request` and reads the whole answer. The body of the answer may have at most
    /// `limit_bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if the answer is not complete in time, or if its body has more than
    /// `limit_bytes`. Even then the service may have processed the request.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
        limit_bytes: usize,
    ) -> Result<Answer, RequestError> {
        tokio::time::timeout(self.timeouts.request, self.exchange(request, limit_bytes))
            .await
            .unwrap_or(Err(RequestError::Timeout(self.timeouts.request)))
    }

    async fn exchange(
        &self,
        request: Request<RequestBody>,
        limit_bytes: usize,
    ) -> Result<Answer, RequestError> {
        Self::read(self.begin(request).await?, limit_bytes).await
    }

    /// Sends `request` and returns the answer, with a body that is not read yet. There is no
    /// timeout.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no answer. Even then the service may have processed the
    /// request.
    pub async fn begin(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ReceivedBody>, RequestError> {
        if let Some(authorization) = self.transport.proxy_authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let uri = request.uri().clone();
        let answer =
            self.http.request(request).await.map_err(|error| RequestError::Connection {
                kind: kind_of(&error),
                reason: explain(&error, &host_and_port(&uri)),
            })?;
        if let Some(refusal) = self.transport.refusal(&uri, answer.status()) {
            let kind = refusal.kind();
            return Err(RequestError::Connection { kind, reason: refusal.to_string() });
        }
        if answer.status().is_informational() {
            let reason = format!("the server switches to another protocol ({})", answer.status());
            return Err(RequestError::Answer { kind: RequestFailure::Other, reason });
        }
        Ok(ReceivedBody::of(answer))
    }

    /// Reads the whole body of an answer, which may have at most `limit_bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if the body ends early, or if it has more than `limit_bytes`.
    pub async fn read(
        answer: Response<ReceivedBody>,
        limit_bytes: usize,
    ) -> Result<Answer, RequestError> {
        let (Parts { status, headers, extensions, .. }, body) = answer.into_parts();
        let sent = extensions.get::<Sent>();
        let waited = sent.map_or(Duration::ZERO, |sent| sent.waited);
        match Limited::new(body, limit_bytes).collect().await {
            Ok(body) => Ok(Answer { status, headers, body: body.to_bytes(), waited }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(RequestError::TooLarge { status, headers: headers.into(), limit_bytes })
            }
            Err(error) => Err(RequestError::unreadable(&*error)),
        }
    }
}

/// Returns the kind of failure of an error of the HTTP client. An error of the connector knows its
/// kind; it is among the causes of the client's error.
fn kind_of(error: &(dyn Error + 'static)) -> RequestFailure {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let connect = causes.find_map(|cause| cause.downcast_ref::<ConnectError>());
    connect.map_or_else(|| failure::of_error(error), ConnectError::kind)
}

/// Returns a pool that has no connections yet.
fn http(
    transport: &Transport,
    timeouts: Timeouts,
    buffers: Buffers,
    versions: HttpVersions,
) -> ConnectionPool {
    let is_small = buffers == Buffers::Small;
    let settings = PoolSettings {
        // The calls of applications have a short time, so a few connections are opened at a time.
        connecting_count_max: if is_small { SMALL_CONNECTING_COUNT_MAX } else { 1 },
        idle_count_max: if is_small { SMALL_IDLE_COUNT_MAX } else { usize::MAX },
        idle_timeout: IDLE_TIMEOUT,
        ping_interval: timeouts.ping_interval,
        ping_timeout: timeouts.connect,
        http1_buffer_bytes: is_small.then_some(SMALL_BUFFER_BYTES),
        http2_windows_bytes: is_small
            .then_some((SMALL_WINDOW_BYTES, SMALL_CONNECTION_WINDOW_BYTES)),
    };
    ConnectionPool::new(transport.connector(timeouts.connect, versions), settings)
}
