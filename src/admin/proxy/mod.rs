//! The signing proxy: sends requests of clients to the service, signed with the daemon's
//! credentials.
//!
//! In: requests with their bodies, from `http_server`. Out: the service's answers with any status.
//! An answer with a success status is forwarded piece by piece. Any other is read whole, because
//! its text may contain the session token (`redact.rs`). If the service does not answer, the
//! daemon answers with the reason. SDKs use the proxy to get sampling rules and targets.
//! `POST /v1/traces` is the service's OTLP endpoint.
//!
//! ```text
//!  request ──► paths ──► permit ─► credentials ──► headers, signature ──► service
//!                │         │            │                                   │
//!               403       503          502                              502, 504
//! ```
//!
//! Bound: the allowed paths; [`REQUEST_COUNT_MAX`] sampling requests at a time, and the same number
//! of other requests; one timeout for the whole request. When full: a request waits for half of
//! its timeout, and is then answered with status 503. Thread: main. Requests are never sent without
//! a signature. The proxy does not share connections with uploads.

mod current_route;
mod headers;
mod paths;
mod query;
mod redact;
pub mod request;
mod stream;
#[cfg(test)]
mod tests;

use crate::admin::pages::Fallback;
use crate::aws::{self, Answer, Client, Outcome, ReceivedBody, RequestError, Route, SignError};
use crate::base::account::{Account, RequestFailure};
use crate::base::http_server::{self, AnswerBody, Lane};
use crate::base::log::LogLimit;
use aws_credential_types::Credentials;
use bytes::Bytes;
use current_route::{CurrentRoute, OpenCall};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use request::AllowedPaths;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use stream::ForwardedBody;
use tokio::sync::Semaphore;
use tracing::{Level, debug, info, warn};

/// Largest number of sampling requests in progress. The same limit applies separately to all other
/// requests. Further requests wait for up to half of their timeout; the other half is left for the
/// service's answer.
const REQUEST_COUNT_MAX: usize = 32;

/// How long a request waits for region and credentials. The daemon usually finds them shortly after
/// its start. The wait is short, because some SDKs have a timeout of two seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer without a success status that is forwarded, in bytes. Errors of the service have
/// less than 10 kB, with the canonical request that some of them quote.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Shortest time between two renewals of credentials after the service denied a request. Without
/// it, a client could cause endless renewals with requests that the credentials never permit.
const RENEW_PAUSE: Duration = Duration::from_secs(30);

static REFUSED: LogLimit = LogLimit::new();
static FAILED: LogLimit = LogLimit::new();
static ANSWERED: LogLimit = LogLimit::per_second(100);

/// The signing proxy. It answers all requests of the TCP port that are not for the daemon's own
/// paths.
#[derive(Debug)]
pub struct Proxy {
    paths: AllowedPaths,
    timeout: Duration,
    route: Arc<CurrentRoute>,
    sampling_permits: Arc<Semaphore>,
    other_permits: Arc<Semaphore>,
    renewed_at: Mutex<Option<Instant>>,
    account: Arc<Account>,
}

/// The reason why a client's request got no answer of the service.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    /// The largest number of requests is in progress already.
    #[error("too many requests to the service are in progress; try again later")]
    Busy,
    /// The region is not known yet, so the address of the service is not known either.
    #[error("the daemon has not found its region yet; set it with -n or AWS_REGION")]
    NoRegion,
    /// There are no credentials.
    #[error(
        "the daemon has no credentials to sign the request with; give it a role or keys, its log \
         lists the sources that were tried"
    )]
    NoCredentials,
    /// The request cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The service did not answer completely.
    #[error("the service cannot be reached: {0}")]
    Service(#[from] RequestError),
    /// There was no complete answer within the timeout. The value is the timeout in seconds.
    #[error("no answer of the service within {0} s (ProxyServer.TimeoutSeconds)")]
    Timeout(u64),
    /// The answer with a success status is longer than the proxy forwards.
    #[error("the answer of the service is longer than {} bytes", stream::ANSWER_BYTES_MAX)]
    TooLarge,
}

impl ProxyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Service(error) if error.kind() == RequestFailure::Timeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl Proxy {
    /// Returns a proxy that forwards requests to the default paths and to `more_paths`. `timeout`
    /// is the time for one request. Requests are counted in `account`. They fail until
    /// [`set_route`](Self::set_route) is called.
    pub fn new(more_paths: &[String], timeout: Duration, account: Arc<Account>) -> Self {
        Self {
            paths: AllowedPaths::new(more_paths),
            timeout,
            route: Arc::new(CurrentRoute::unknown()),
            sampling_permits: Arc::new(Semaphore::new(REQUEST_COUNT_MAX)),
            other_permits: Arc::new(Semaphore::new(REQUEST_COUNT_MAX)),
            renewed_at: Mutex::default(),
            account,
        }
    }

    /// Sets the route to the service, once the region is known.
    pub fn set_route(&self, route: Route) {
        self.route.set(route);
    }

    async fn forward(&self, request: Request<Bytes>) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        let (name, bytes) = (describe(&head), body.len());
        request::correct(&mut head.uri);
        let started_at = Instant::now();
        match self.exchange_in_time(head, body).await {
            Ok(answer) => {
                log_answered(&name, bytes, &answer, started_at);
                answer
            }
            Err(failure) => {
                count_failure(&failure, &self.account);
                FAILED.log(|more| warn!("{name} of a client failed: {failure}{more}"));
                http_server::error_answer(failure.status(), &failure.to_string())
                    .map(AnswerBody::from)
            }
        }
    }

    async fn exchange_in_time(
        &self,
        head: Parts,
        body: Bytes,
    ) -> Result<Response<AnswerBody>, ProxyError> {
        let is_sampling = paths::is_sampling(head.uri.path());
        let permits = if is_sampling { &self.sampling_permits } else { &self.other_permits };
        let deadline = tokio::time::Instant::now() + self.timeout;
        let permit = Arc::clone(permits).acquire_owned();
        let permit = tokio::time::timeout(self.timeout / 2, permit).await;
        let permit = permit.map_err(|_| ProxyError::Busy)?;
        let call = self.route.begin();
        let answer = tokio::time::timeout_at(deadline, self.exchange(head, body, deadline, call))
            .await
            .unwrap_or(Err(ProxyError::Timeout(self.timeout.as_secs())))?;
        Ok(answer.map(|body| body.keeping(permit)))
    }

    async fn exchange(
        &self,
        head: Parts,
        body: Bytes,
        deadline: tokio::time::Instant,
        mut call: OpenCall,
    ) -> Result<Response<AnswerBody>, ProxyError> {
        let (route, credentials) = self.wait_until_ready().await?;
        let (mut answer, signed_at) = send(&route, &credentials, &head, &body).await?;
        if !answer.status().is_success() {
            let read = Client::read(answer, ERROR_BYTES_MAX).await?;
            if !self.is_clock_corrected(&route, &read, signed_at) {
                call.answered();
                return Ok(self.forward_error(read, &head, &credentials));
            }
            answer = send(&route, &credentials, &head, &body).await?.0;
            if !answer.status().is_success() {
                let read = Client::read(answer, ERROR_BYTES_MAX).await?;
                call.answered();
                return Ok(self.forward_error(read, &head, &credentials));
            }
        }
        self.forward_success(answer, &head, deadline, call).await
    }

    /// Returns an answer with a success status. A long body is forwarded as it arrives.
    async fn forward_success(
        &self,
        answer: Response<ReceivedBody>,
        head: &Parts,
        deadline: tokio::time::Instant,
        mut call: OpenCall,
    ) -> Result<Response<AnswerBody>, ProxyError> {
        let (parts, body) = answer.into_parts();
        let body = match stream::read_start(body).await? {
            (whole, None) => {
                call.answered();
                self.account.proxy.answered.add(1);
                AnswerBody::from(whole)
            }
            (start, Some(rest)) => {
                let time = (deadline, self.timeout.as_secs());
                let (name, account) = (describe(head), Arc::clone(&self.account));
                AnswerBody::stream(ForwardedBody::new((start, rest), time, call, name, account))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers::for_client(parts.headers, head.method == Method::HEAD);
        Ok(response)
    }

    /// Returns an answer without a success status, without the session token.
    fn forward_error(
        &self,
        answer: Answer,
        head: &Parts,
        credentials: &Credentials,
    ) -> Response<AnswerBody> {
        self.account.proxy.answered.add(1);
        let answer = redact::redact(answer, credentials.session_token());
        let mut response = Response::new(AnswerBody::from(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = headers::for_client(answer.headers, head.method == Method::HEAD);
        response
    }

    /// Returns the route to the service and the credentials. If one of them is missing, waits up to
    /// [`READY_TIMEOUT`] for it.
    async fn wait_until_ready(&self) -> Result<(Arc<Route>, Credentials), ProxyError> {
        let timeout = tokio::time::sleep(READY_TIMEOUT);
        tokio::pin!(timeout);
        let mut routes = self.route.subscribe();
        let route = tokio::select! {
            biased;
            Ok(route) = routes.wait_for(Option::is_some) => route.clone(),
            () = &mut timeout => None,
        };
        let route = route.ok_or(ProxyError::NoRegion)?;
        let mut identity = route.identity.clone();
        loop {
            if let Some(credentials) = identity.credentials() {
                return Ok((route, credentials));
            }
            tokio::select! {
                () = identity.changed() => {}
                () = &mut timeout => return Err(ProxyError::NoCredentials),
            }
        }
    }

    /// Looks for two reasons why the service refused a request. If the host's clock is wrong, makes
    /// the signer use the service's time and returns `true`: the request can then be sent again. If
    /// the credentials are denied or have expired, requests new credentials and returns `false`.
    fn is_clock_corrected(&self, route: &Route, answer: &Answer, signed_at: SystemTime) -> bool {
        let outcome = aws::classify(answer.status, &answer.headers, &answer.body, signed_at);
        let Outcome::Failed { failure, .. } = outcome else { return false };
        match failure {
            aws::Failure::Skew { service_time } => {
                route.signer.set_time(service_time, SystemTime::now());
                true
            }
            aws::Failure::Expired | aws::Failure::Denied => {
                self.renew_credentials(route);
                false
            }
            _ => false,
        }
    }

    fn renew_credentials(&self, route: &Route) {
        let mut renewed_at = self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed_at.is_none_or(|at| at.elapsed() >= RENEW_PAUSE) {
            *renewed_at = Some(Instant::now());
            route.identity.renew();
        }
    }
}

/// Signs a request and sends it to the service. Returns the answer, whose body is not read yet, and
/// the time with which the request was signed.
async fn send(
    route: &Route,
    credentials: &Credentials,
    head: &Parts,
    body: &Bytes,
) -> Result<(Response<ReceivedBody>, SystemTime), ProxyError> {
    let signed_at = route.signer.time(SystemTime::now());
    let request = request::signed(&route.signer, credentials, (head, body), signed_at)?;
    Ok((route.client.begin(request).await?, signed_at))
}

/// Counts a request that failed.
fn count_failure(failure: &ProxyError, account: &Account) {
    account.proxy.failed.add(1);
    account.proxy.answers_too_large.add(u64::from(matches!(failure, ProxyError::TooLarge)));
}

impl Fallback for Proxy {
    /// The service has the path `/` only if the operator allows it.
    fn has_start_page(&self) -> bool {
        self.paths.allows("/")
    }

    fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        let (status, why) = request::refusal(head, &self.paths)?;
        self.account.proxy.refused.add(1);
        REFUSED.log(|more| info!("{} of a client is refused: {why}{more}", describe(head)));
        Some(http_server::error_answer(status, &why))
    }

    fn lane(&self, head: &Parts) -> Lane {
        if paths::is_sampling(head.uri.path()) { Lane::Quick } else { Lane::Other }
    }

    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send + '_>> {
        Box::pin(self.forward(request))
    }
}

/// Logs, at level debug, that a request of a client was answered.
fn log_answered(name: &str, bytes: usize, answer: &Response<AnswerBody>, started_at: Instant) {
    if !tracing::enabled!(Level::DEBUG) {
        return;
    }
    let (status, seconds) = (answer.status().as_u16(), started_at.elapsed().as_secs_f64());
    let request_id = answer.headers().get(aws::REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = request_id.unwrap_or("none");
    ANSWERED.log(|more| {
        debug!(
            bytes,
            status,
            request_id,
            seconds,
            "{name} of a client has the answer {status} after {seconds:.3} s, request id {id}{more}"
        );
    });
}

/// Returns the method and the path of a request for the log. The query is left out, because it may
/// contain private data.
fn describe(head: &Parts) -> String {
    let path: String = head.uri.path().chars().take(100).collect();
    format!("{} {path:?}", head.method)
}
