//! The signing proxy: sends requests of clients to the service, signed with the daemon's
//! credentials.
//!
//! In: requests with their bodies, from `http_server`. Out: the service's answers with any status.
//! If there is no answer of the service, the daemon sends an answer with the reason. SDKs use the
//! proxy to get sampling rules and targets. `POST /v1/traces` is the service's OTLP endpoint.
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

mod headers;
mod paths;
#[cfg(test)]
mod tests;

use crate::admin::pages::Fallback;
use crate::aws::{self, Answer, Outcome, RequestError, Route, SignError};
use crate::base::account::{Account, RequestFailure};
use crate::base::http_server;
use crate::base::log::LogLimit;
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::ORIGIN;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use paths::AllowedPaths;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

/// Largest number of sampling requests in progress. The same limit applies separately to all other
/// requests. Further requests wait for up to half of their timeout; the other half is left for the
/// service's answer.
const REQUEST_COUNT_MAX: usize = 32;

/// How long a request waits for region and credentials. The daemon usually finds them shortly after
/// its start. The wait is short, because some SDKs have a timeout of two seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest target (path and query) of a request, in bytes. The proxy puts the path of the endpoint
/// in front of it, and the `http` crate limits the result to 64 kB.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Longest answer of the service that is forwarded, in bytes: 1 MiB. Answers to clients, for
/// example with sampling rules or traces, are longer than answers to uploads.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Shortest time between two renewals of credentials after the service denied a request. Without
/// it, a client could cause endless renewals with requests that the credentials never permit.
const RENEW_PAUSE: Duration = Duration::from_secs(30);

static REFUSED: LogLimit = LogLimit::new();
static FAILED: LogLimit = LogLimit::new();

/// The signing proxy. It answers all requests of the TCP port that are not for the daemon's own
/// paths.
#[derive(Debug)]
pub struct Proxy {
    paths: AllowedPaths,
    timeout: Duration,
    route: watch::Sender<Option<Arc<Route>>>,
    sampling_permits: Semaphore,
    other_permits: Semaphore,
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
            route: watch::channel(None).0,
            sampling_permits: Semaphore::new(REQUEST_COUNT_MAX),
            other_permits: Semaphore::new(REQUEST_COUNT_MAX),
            renewed_at: Mutex::default(),
            account,
        }
    }

    /// Sets the route to the service, once the region is known.
    pub fn set_route(&self, route: Route) {
        self.route.send_replace(Some(Arc::new(route)));
    }

    async fn forward(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let name = describe(&head);
        match self.exchange_in_time(head, body).await {
            Ok(answer) => {
                self.account.proxy.answered.add(1);
                answer
            }
            Err(failure) => {
                self.account.proxy.failed.add(1);
                FAILED.log(|more| warn!("{name} of a client failed: {failure}{more}"));
                http_server::error_answer(failure.status(), &failure.to_string())
            }
        }
    }

    async fn exchange_in_time(
        &self,
        head: Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, ProxyError> {
        let is_sampling = paths::is_sampling(head.uri.path());
        let permits = if is_sampling { &self.sampling_permits } else { &self.other_permits };
        let started_at = Instant::now();
        let permit = tokio::time::timeout(self.timeout / 2, permits.acquire()).await;
        let _permit = permit.map_err(|_| ProxyError::Busy)?;
        let rest = self.timeout.saturating_sub(started_at.elapsed());
        tokio::time::timeout(rest, self.exchange(head, body))
            .await
            .unwrap_or(Err(ProxyError::Timeout(self.timeout.as_secs())))
    }

    async fn exchange(&self, head: Parts, body: Bytes) -> Result<Response<Bytes>, ProxyError> {
        let (route, credentials) = self.wait_until_ready().await?;
        let (answer, signed_at) = send(&route, &credentials, &head, &body).await?;
        let answer = if self.is_clock_corrected(&route, &answer, signed_at) {
            send(&route, &credentials, &head, &body).await?.0
        } else {
            answer
        };
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = headers::for_client(answer.headers, head.method == Method::HEAD);
        Ok(response)
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
        if answer.status.is_success() {
            return false;
        }
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

/// Signs a request and sends it to the service. Returns the answer, and the time with which the
/// request was signed.
async fn send(
    route: &Route,
    credentials: &Credentials,
    head: &Parts,
    body: &Bytes,
) -> Result<(Answer, SystemTime), ProxyError> {
    let signed_at = route.signer.time(SystemTime::now());
    let root = PathAndQuery::from_static("/");
    let target = head.uri.path_and_query().unwrap_or(&root);
    let headers = headers::for_service(head.headers.clone());
    let mut request = route.signer.sign_for_client(
        (head.method.clone(), target, headers),
        body.clone(),
        credentials,
        signed_at,
    )?;
    if body.is_empty() {
        headers::state_empty_body(&head.method, request.headers_mut());
    }
    Ok((route.client.send(request, ANSWER_BYTES_MAX).await?, signed_at))
}

impl Fallback for Proxy {
    fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        let (status, why) = if head.headers.contains_key(ORIGIN) {
            // Browsers set the header `Origin`. A web page in a browser on this host must not use
            // the daemon's credentials.
            (StatusCode::FORBIDDEN, "requests of web pages (Origin) are not forwarded".to_owned())
        } else if !self.paths.allows(head.uri.path()) {
            let why = "the daemon does not forward this path; ProxyServer.AllowedPaths in cfg.yaml \
                       allows more paths";
            (StatusCode::FORBIDDEN, why.to_owned())
        } else if head.uri.path_and_query().map_or(0, |it| it.as_str().len()) > TARGET_BYTES_MAX {
            let why = format!("the target is longer than {TARGET_BYTES_MAX} bytes");
            (StatusCode::URI_TOO_LONG, why)
        } else {
            return None;
        };
        self.account.proxy.refused.add(1);
        REFUSED.log(|more| info!("{} of a client is refused: {why}{more}", describe(head)));
        Some(http_server::error_answer(status, &why))
    }

    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + '_>> {
        Box::pin(self.forward(request))
    }
}

/// Returns the method and the path of a request for the log. The query is left out, because it may
/// contain private data.
fn describe(head: &Parts) -> String {
    let path: String = head.uri.path().chars().take(100).collect();
    format!("{} {path:?}", head.method)
}
