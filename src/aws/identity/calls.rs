//! The HTTP client of the AWS SDK, for the calls that fetch region and credentials.
//!
//! In: requests of the SDK. Out: the answers. Calls to STS and SSO use the same proxy and root
//! certificates as uploads. Calls to the instance metadata and to container credentials use no
//! proxy. Bound: the timeouts of the SDK ([`CONNECT_TIMEOUT`] and [`ANSWER_TIMEOUT`] if it sets
//! none), and [`ANSWER_BYTES_MAX`]. Calls are rare, so connections over HTTP/1.1 are not kept open,
//! and those over HTTP/2 for [`IDLE_TIMEOUT`]. Thread: the caller's.

use crate::aws::transport::{
    ConnectError, ConnectionPool, HttpVersions, PoolError, PoolSettings, Transport, host_and_port,
};
use crate::aws::{ReceivedBody, RequestBody};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use std::error::Error;
use std::io::{self, ErrorKind::TimedOut};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Environment variables that contain the URL of a local source of credentials, for example of the
/// ECS agent or of the EC2 instance metadata. The daemon calls these sources without the proxy.
const SOURCE_VARIABLES: [&str; 2] =
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];

/// Timeouts to open a connection and to get the complete answer, for a call without timeouts of the
/// SDK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The time after which a connection over HTTP/2 without a request is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer of STS, SSO or a metadata service that is read, in bytes. Real answers are much
/// shorter.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Creates HTTP connectors for the AWS SDK.
#[derive(Debug)]
struct Calls {
    transport: Transport,
    /// Hosts that are called without the proxy. Loopback and metadata addresses never use the proxy
    /// and are not listed here.
    direct_hosts: Vec<String>,
}

/// Returns an HTTP client for all calls of the SDK. The client opens connections with `transport`.
/// For sources of credentials on this host it does not use the proxy.
pub(super) fn http_client(transport: &Transport) -> SharedHttpClient {
    let hosts = SOURCE_VARIABLES.into_iter().filter_map(|name| {
        let uri: Uri = std::env::var(name).ok()?.trim().parse().ok()?;
        Some(bare_host(&uri).to_owned())
    });
    SharedHttpClient::new(Calls { transport: transport.clone(), direct_hosts: hosts.collect() })
}

impl HttpClient for Calls {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connect_timeout = settings.connect_timeout().unwrap_or(CONNECT_TIMEOUT);
        let client = |transport: Transport| CallClient {
            pool: pool(&transport, connect_timeout),
            transport,
        };
        SharedHttpConnector::new(CallConnector {
            default: client(self.transport.clone()),
            direct: client(self.transport.without_proxy()),
            direct_hosts: self.direct_hosts.clone(),
            answer_timeout: settings.read_timeout().unwrap_or(ANSWER_TIMEOUT),
        })
    }
}

/// A call that has no answer. It names the host, because the errors of the libraries do not.
#[derive(Debug, thiserror::Error)]
#[error("{host} gives no answer")]
struct Unanswered<E: Error + 'static> {
    host: String,
    source: E,
}

#[derive(Debug)]
struct CallConnector {
    default: CallClient,
    direct: CallClient,
    direct_hosts: Vec<String>,
    answer_timeout: Duration,
}

impl HttpConnector for CallConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match to_hyper_request(request) {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error))),
        };
        let is_direct = is_direct(request.uri(), &self.direct_hosts);
        let client = if is_direct { self.direct.clone() } else { self.default.clone() };
        let timeout = self.answer_timeout;
        let host = host_and_port(request.uri());
        HttpConnectorFuture::new(async move {
            let late = |source| ConnectorError::timeout(Unanswered { host, source }.into());
            tokio::time::timeout(timeout, client.exchange(request)).await.map_err(late)?
        })
    }
}

/// Returns a pool that keeps no connections over HTTP/1.1. `connect_timeout` is the time to open a
/// connection.
pub(super) fn pool(transport: &Transport, connect_timeout: Duration) -> ConnectionPool {
    let settings = PoolSettings {
        connecting_count_max: 1,
        idle_count_max: 0,
        idle_timeout: IDLE_TIMEOUT,
        ping_interval: ANSWER_TIMEOUT,
        ping_timeout: CONNECT_TIMEOUT,
        http1_buffer_bytes: None,
        http2_windows_bytes: None,
    };
    ConnectionPool::new(transport.connector(connect_timeout, HttpVersions::All), settings)
}

/// Converts a request of the AWS SDK into a request for hyper. Returns an error if the body is a
/// stream; the calls for region and credentials have bodies in memory.
fn to_hyper_request(request: HttpRequest) -> Result<Request<RequestBody>, BoxError> {
    let (parts, body) = request.try_into_http1x()?.into_parts();
    let body = body.bytes().ok_or("a request that is not in memory")?;
    Ok(Request::from_parts(parts, Bytes::copy_from_slice(body).into()))
}

#[derive(Debug, Clone)]
struct CallClient {
    pool: ConnectionPool,
    transport: Transport,
}

impl CallClient {
    async fn exchange(
        self,
        mut request: Request<RequestBody>,
    ) -> Result<HttpResponse, ConnectorError> {
        if let Some(authorization) = self.transport.proxy_authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let host = host_and_port(request.uri());
        let answer = self.pool.request(request).await.map_err(|error| {
            let is_connect = matches!(error, PoolError::Connect(_));
            let is_timeout = is_timeout(&error);
            let kind = if is_timeout { ConnectorError::timeout } else { ConnectorError::io };
            let error = kind(Unanswered { host, source: error }.into());
            if is_connect { error.never_connected() } else { error }
        })?;
        let (parts, body) = ReceivedBody::of(answer).into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(ConnectorError::io)?.to_bytes();
        HttpResponse::try_from(http::Response::from_parts(parts, body.into()))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Returns whether `error` or one of its causes is a timeout. The SDK must know this, because it
/// does not retry a call to the instance metadata after a timeout.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let is_connect_timeout = matches!(error.downcast_ref(), Some(ConnectError::Timeout { .. }));
    let is_system_timeout = error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == TimedOut);
    is_connect_timeout || is_system_timeout || error.source().is_some_and(is_timeout)
}

/// Returns the host of `uri`. The brackets around an IPv6 address are removed.
fn bare_host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Returns whether `uri` is called without the proxy. This is so for `localhost`, a loopback
/// address, a link-local IPv4 address, an IPv6 address of the metadata services, and a host in
/// `direct_hosts`.
fn is_direct(uri: &Uri, direct_hosts: &[String]) -> bool {
    let host = bare_host(uri);
    let is_by_address = match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_loopback(),
        Ok(IpAddr::V6(address)) => is_metadata(address) || address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_by_address || direct_hosts.iter().any(|direct| direct.eq_ignore_ascii_case(host))
}

/// Returns whether an address is in `fd00:ec2::/32`, the network of the metadata services.
fn is_metadata(address: Ipv6Addr) -> bool {
    address.segments()[..2] == [0xfd00, 0x0ec2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::transport::{ProxyAddress, Resolver, Trust};

    #[tokio::test]
    async fn a_connection_that_is_not_open_in_time_is_a_timeout_and_one_that_is_refused_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = ProxyAddress::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let trust = Trust { accept_any: true, ..Trust::default() };
        let transport =
            Transport::new(&trust, Some(&proxy), "", Resolver::start().unwrap()).unwrap();
        let call = async |timeout| {
            let pool = pool(&transport, timeout);
            let client = CallClient { pool, transport: transport.clone() };
            let request = Request::get("https://sts.invalid/").body(Bytes::new().into()).unwrap();
            client.exchange(request).await.unwrap_err()
        };
        let error = call(Duration::from_millis(50)).await;
        assert!(error.is_timeout(), "{error:?}");
        drop(listener);
        let error = call(Duration::from_secs(120)).await;
        assert!(error.is_io(), "{error:?}");
    }

    #[test]
    fn sources_on_this_host_and_beside_it_are_reached_without_a_proxy() {
        let named = ["agent.example".to_owned()];
        for (uri, expected) in [
            ("http://169.254.169.254/latest/api/token", true),
            ("http://169.254.170.2/v2/credentials", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::254]/latest", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:51679/x", true),
            ("http://[::1]/x", true),
            ("http://localhost:1/x", true),
            ("https://agent.example/x", true),
            ("https://sts.us-east-1.amazonaws.com/", false),
            ("https://10.0.0.1/", false),
            ("https://[fd00:ec3::1]/", false),
        ] {
            assert_eq!(is_direct(&uri.parse().unwrap(), &named), expected, "{uri}");
        }
    }
}
