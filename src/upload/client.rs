//! From signed request to answer: a hyper client over HTTP/1.1 or HTTP/2, with rustls.
//!
//! Connections are kept and used again; which version of HTTP is spoken is settled by ALPN.
//! Bounds: a time for the connection, a time for the whole request, a size for the answer.

use super::body::RequestBody;
use super::classify::ANSWER_BYTES_MAX;
use crate::endpoint::Endpoint;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A connection that was not used for this long is closed: load balancers on the way forget it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// When a connection or a request is given up, and tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to be open, and for the answer to a ping.
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

/// Whose certificates the client trusts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A file of certificates to trust instead of the system's (`AWS_CA_BUNDLE`).
    pub bundle_path: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The bundle of certificates cannot be read
    #[error(
        "the certificates in {path} (AWS_CA_BUNDLE) cannot be used: {reason}. \
         The file must hold at least one certificate in PEM form"
    )]
    Bundle {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS library refuses its set-up
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a request has no answer. Each of these passes.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no connection, or it broke
    #[error("{0}")]
    Connection(String),
    /// The answer did not come in time
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer broke off or is too long
    #[error("the answer could not be read: {0}")]
    Answer(String),
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A client for one endpoint; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>, RequestBody>,
    connector: HttpsConnector<HttpConnector>,
    timeouts: Timeouts,
}

impl Client {
    /// A client that trusts `trust` when `endpoint` is an https address.
    ///
    /// # Errors
    ///
    /// When the certificates to trust cannot be read.
    pub fn new(
        endpoint: &Endpoint,
        trust: &Trust,
        timeouts: Timeouts,
    ) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeouts.connect));
        let roots = if endpoint.is_https() { roots(trust)? } else { RootCertStore::empty() };
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Ok(Self { http: http(&connector, timeouts), connector, timeouts })
    }

    /// Has later requests go over new connections, to addresses that are looked up anew. Clones
    /// keep theirs.
    pub fn forget_connections(&mut self) {
        self.http = http(&self.connector, self.timeouts);
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    ///
    /// When there is no complete answer in time; the service may have taken the request even so.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Answer, RequestError> {
        tokio::time::timeout(self.timeouts.request, self.exchange(request))
            .await
            .unwrap_or(Err(RequestError::Timeout(self.timeouts.request)))
    }

    async fn exchange(&self, request: Request<RequestBody>) -> Result<Answer, RequestError> {
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|error| RequestError::Connection(innermost(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| RequestError::Answer(innermost(&*error)))?;
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    }
}

/// An HTTP client without connections yet.
fn http(
    connector: &HttpsConnector<HttpConnector>,
    timeouts: Timeouts,
) -> HyperClient<HttpsConnector<HttpConnector>, RequestBody> {
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(timeouts.ping_interval)
        .http2_keep_alive_timeout(timeouts.connect)
        .build(connector.clone())
}

/// The error as hyper names it with its deepest cause, which is the one that an operator can mend.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause, error) { error.to_string() } else { format!("{error}: {cause}") }
}

/// The bundle's certificates; else the system's, which `SSL_CERT_FILE` and `SSL_CERT_DIR` can
/// replace; else, as in an image without a system, the ones built in.
fn roots(trust: &Trust) -> Result<RootCertStore, ClientError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = &trust.bundle_path {
        store.add_parsable_certificates(read_bundle(path)?);
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let error = |reason: String| ClientError::Bundle { path: path.to_owned(), reason };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates = certificates.map_err(|reason| error(reason.to_string()))?;
    if certificates.is_empty() { Err(error("it holds none".into())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_a_certificate_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        for path in [empty, folder.path().join("missing.pem")] {
            let endpoint = Endpoint::resolve(Some("https://127.0.0.1:1"), "x").unwrap();
            let trust = Trust { bundle_path: Some(path.clone()) };
            let error =
                Client::new(&endpoint, &trust, Timeouts::default()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
