//! From signed request to answer: a hyper client over HTTP/1.1 or HTTP/2.
//!
//! Connections are kept and used again; which version of HTTP is spoken is settled by ALPN.
//! Bounds: a time for the connection, a time for the whole request, and the size of the answer that
//! the caller names.

use super::body::RequestBody;
use super::encoding::{Unreadable, decode};
use super::failure;
use crate::aws::transport::{Connector, Executor, Transport};
use crate::base::account::RequestFailure;
use crate::base::error_text::with_root_cause;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::response::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioTimer;
use std::borrow::Cow;
use std::time::Duration;

/// A connection that was not used for this long is closed: load balancers on the way forget it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// When a connection or a request is given up, and tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be open, proxy and TLS included, and for the answer to a ping.
    pub connect: Duration,
    /// For the answer to a request to be complete.
    pub request: Duration,
    /// An HTTP/2 connection with requests in flight that is silent for this long is asked whether
    /// it still lives.
    pub ping_interval: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), request: seconds(15), ping_interval: seconds(5) }
    }
}

/// Why a request has no answer. Each of these passes.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no connection, or it broke
    #[error("{reason}")]
    Connection {
        /// What telemetry counts it as.
        kind: RequestFailure,
        /// With its deepest cause.
        reason: String,
    },
    /// The answer did not come in time
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer broke off
    #[error("the answer could not be read: {0}")]
    Answer(String),
    /// The answer is longer than the caller reads
    #[error("{status}, and the answer is longer than {limit_bytes} bytes")]
    TooLarge {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: Box<HeaderMap>,
        /// What the caller reads.
        limit_bytes: usize,
    },
}

impl RequestError {
    /// What telemetry and metrics count it as.
    pub fn kind(&self) -> RequestFailure {
        match self {
            Self::Connection { kind, .. } => *kind,
            Self::Timeout(_) => RequestFailure::Timeout,
            Self::Answer(_) | Self::TooLarge { .. } => RequestFailure::Other,
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it came.
    pub body: Bytes,
}

impl Answer {
    /// Its body, decoded.
    ///
    /// # Errors
    ///
    /// When it is not what its encoding says, or that encoding is not known.
    pub fn text(&self) -> Result<Cow<'_, [u8]>, Unreadable> {
        decode(&self.headers, &self.body)
    }
}

/// A client for one endpoint; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: HyperClient<Connector, RequestBody>,
    transport: Transport,
    timeouts: Timeouts,
}

impl Client {
    /// A client that makes its connections with `transport`.
    pub fn new(transport: &Transport, timeouts: Timeouts) -> Self {
        Self { http: http(transport, timeouts), transport: transport.clone(), timeouts }
    }

    /// Has later requests go over new connections, to addresses that are looked up anew. Clones
    /// keep theirs.
    pub fn forget_connections(&mut self) {
        self.http = http(&self.transport, self.timeouts);
    }

    /// The same client with connections that no clone of this one uses.
    pub fn with_own_connections(&self) -> Self {
        let mut client = self.clone();
        client.forget_connections();
        client
    }

    /// Sends `request` and reads the whole answer, whose body has `limit_bytes` at most.
    ///
    /// # Errors
    ///
    /// When there is no complete answer in time, or a longer one; the service may have taken the
    /// request even so.
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
        mut request: Request<RequestBody>,
        limit_bytes: usize,
    ) -> Result<Answer, RequestError> {
        if let Some(authorization) = self.transport.proxy_authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let uri = request.uri().clone();
        let answer =
            self.http.request(request).await.map_err(|error| RequestError::Connection {
                kind: failure::of_error(&error),
                reason: with_root_cause(&error),
            })?;
        if let Some(refusal) = self.transport.refusal(&uri, answer.status()) {
            let kind = RequestFailure::Http4xx;
            return Err(RequestError::Connection { kind, reason: refusal.to_string() });
        }
        let (Parts { status, headers, .. }, body) = answer.into_parts();
        match Limited::new(body, limit_bytes).collect().await {
            Ok(body) => Ok(Answer { status, headers, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(RequestError::TooLarge { status, headers: headers.into(), limit_bytes })
            }
            Err(error) => Err(RequestError::Answer(with_root_cause(&*error))),
        }
    }
}

/// An HTTP client without connections yet.
fn http(transport: &Transport, timeouts: Timeouts) -> HyperClient<Connector, RequestBody> {
    HyperClient::builder(Executor)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(timeouts.ping_interval)
        .http2_keep_alive_timeout(timeouts.connect)
        .build(transport.connector(timeouts.connect))
}
