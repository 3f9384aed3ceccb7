//! Checks of the way to the service: region, credentials, name lookup, connection, TLS, and a
//! signed request.
//!
//! In: the configuration and the environment. Out: lines of the checklist, and a [`Service`] if the
//! service accepts a signed request. Later steps depend on earlier ones, so the first failure is
//! the one to fix. Bound: a timeout for each step.

use super::Checklist;
use crate::aws::endpoint::Endpoint;
use crate::aws::identity::{self, CallerError};
use crate::aws::transport::{ConnectError, HttpVersions, Resolver, Transport, Trust};
use crate::aws::{
    ANSWER_BYTES_MAX, Client, Failure, Outcome, RequestBody, RequestError, Signer, Timeouts,
    classify,
};
use crate::base::error_text::root_cause;
use crate::config::{Config, Source};
use aws_config::Region;
use aws_credential_types::Credentials;
use http::Uri;
use sha2::{Digest, Sha256};
use std::future::poll_fn;
use std::io;
use std::net::ToSocketAddrs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

/// Timeout for the search for credentials in all sources together. The slowest source is the
/// instance metadata.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(15);

/// The body of a request without a document. The answer shows whether the signature is accepted.
const NOTHING: &[u8] = br#"{"TraceSegmentDocuments":[]}"#;

const CHECK_POLICY: &str = "Allow xray:PutTraceSegments, for example with the policy \
                            AWSXRayDaemonWriteAccess, and check the policy of the interface \
                            endpoint, if there is one";

const CHECK_KEYS: &str = "Correct access key, secret and session token, or the role. Keys of \
                          another partition, and regions that are not enabled, cause the same \
                          error";

const CHECK_CLOCK: &str = "Set the clock of this host, with a time daemon such as chrony";

const CHECK_WAY: &str = "Open the network path: routes, security groups and network ACLs, a NAT \
                         or an interface endpoint (com.amazonaws.REGION.xray), or give a proxy \
                         with -p";

const CHECK_SERVER: &str = "Another server answers in the place of X-Ray: a captive portal, a \
                            proxy, or the server at a wrong endpoint (Endpoint, \
                            AWS_ENDPOINT_URL_XRAY). The daemon drops segments after such answers";

/// The client, the signer and the credentials for requests to the service.
#[derive(Debug)]
pub(super) struct Service {
    pub client: Client,
    pub signer: Signer,
    pub credentials: Credentials,
}

/// Checks the way to the service. Returns the service if it accepts a signed request.
pub(super) async fn check(
    config: &Config,
    environment: &dyn Fn(&str) -> Option<String>,
    resolver: &Resolver,
    list: &mut Checklist<'_>,
) -> Option<Service> {
    let trust = Trust {
        bundle_path: environment("AWS_CA_BUNDLE").map(Into::into),
        accept_any: config.no_verify_ssl,
    };
    let proxy = config.proxy.as_ref();
    let transport = Transport::new(&trust, proxy, &config.no_proxy, resolver.clone())
        .map_err(|error| list.fail("certificates", error.to_string(), ""))
        .ok()?;
    let region = find_region(config, resolver, list).await?;
    let endpoint =
        Endpoint::resolve(config.endpoint.as_deref(), region.as_ref(), config.endpoint_variant);
    let endpoint =
        endpoint.map_err(|error| list.fail("endpoint", format!("Endpoint {error}"), "")).ok()?;
    match transport.proxy(&endpoint.uri("/")) {
        Some(proxy) => list.ok("endpoint", format!("{endpoint} through the proxy {proxy}")),
        None => list.ok("endpoint", endpoint.to_string()),
    }
    let credentials = find_credentials(config, &region, &transport, list).await;
    let is_reached = check_way(config, &transport, &endpoint.uri("/"), list).await;
    let credentials = credentials?;
    if !is_reached {
        return None;
    }
    let seconds = Duration::from_secs;
    let timeouts = Timeouts {
        connect: seconds(config.connect_timeout_seconds),
        request: seconds(config.request_timeout_seconds),
        ping_interval: seconds(config.ping_interval_seconds),
    };
    let execution_environment = environment("AWS_EXECUTION_ENV");
    let signer = Signer::new(&endpoint, region.as_ref(), execution_environment.as_deref());
    let service = Service { client: Client::new(&transport, timeouts), signer, credentials };
    check_request(&service, list).await.then_some(service)
}

async fn find_region(
    config: &Config,
    resolver: &Resolver,
    list: &mut Checklist<'_>,
) -> Option<Region> {
    let sources = identity::Sources {
        configured: config.region.as_deref(),
        local_mode: config.local_mode,
        environment: &|name| std::env::var(name).ok(),
        resolver,
    };
    match sources.find_with_source().await {
        Ok((region, found)) => {
            let source = match config.sources.get("Region") {
                Some(Source::File(path)) => path.display().to_string(),
                Some(Source::Flag(name) | Source::Variable(name)) => (*name).to_owned(),
                None => found.to_owned(),
            };
            list.ok("region", format!("{region}, from {source}"));
            Some(region)
        }
        Err(error) => {
            list.fail("region", error.to_string(), "");
            None
        }
    }
}

/// Finds credentials, and asks STS for the account that they belong to.
async fn find_credentials(
    config: &Config,
    region: &Region,
    transport: &Transport,
    list: &mut Checklist<'_>,
) -> Option<Credentials> {
    let found = identity::find_credentials(region.clone(), config.role_arn.clone(), transport);
    let faults = identity::faults_of_shared_files();
    for fault in &faults {
        list.note("credentials", format!("a shared AWS file has a fault: {fault}"), "");
    }
    let advice = match faults.first() {
        Some(fault) => format!("Mend the shared AWS file: {fault}"),
        None => "Give the task, the instance or this user a role or keys".to_owned(),
    };
    let (credentials, source) = match timeout(CREDENTIALS_TIMEOUT, found).await {
        Ok(Ok(found)) => (found.credentials, found.source),
        Ok(Err(reason)) => {
            list.fail("credentials", format!("there are no credentials: {reason}"), &advice);
            return None;
        }
        Err(_) => {
            let seconds = CREDENTIALS_TIMEOUT.as_secs();
            list.fail("credentials", format!("no source has answered within {seconds} s"), &advice);
            return None;
        }
    };
    list.ok("credentials", format!("{}, from {source}", shown(&credentials)));
    match identity::caller(credentials.clone(), region.clone(), transport).await {
        Ok(caller) => list.ok("caller", format!("{}, account {}", caller.arn, caller.account)),
        Err(error @ CallerError::Unreachable(_)) => list.note(
            "caller",
            error.to_string(),
            "The daemon needs STS for a role (-r) only. The check `request` asks the service",
        ),
        Err(CallerError::Refused { message, .. }) if is_about_time(&message) => {
            let text = format!("STS refuses the signature because of its time: {message}");
            list.fail("caller", text, CHECK_CLOCK);
        }
        Err(error) => list.fail("caller", error.to_string(), CHECK_KEYS),
    }
    Some(credentials)
}

/// Returns whether the text is the answer of STS to a signature with a wrong time (too old, or in
/// the future).
fn is_about_time(message: &str) -> bool {
    message.contains("Signature expired") || message.contains("Signature not yet current")
}

/// Returns the start of the access key and the time until it expires. The key is not a secret, but
/// its start is enough to recognize it.
fn shown(credentials: &Credentials) -> String {
    let key = credentials.access_key_id();
    let start: String = key.chars().take(4).collect();
    let left = credentials.expiry().map(|expiry| {
        let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
        format!(", valid for {} min", left.as_secs() / 60)
    });
    format!("access key {start}****{}", left.unwrap_or_default())
}

/// Checks name lookup, connection and TLS of the endpoint. Returns whether all three have passed.
async fn check_way(
    config: &Config,
    transport: &Transport,
    uri: &Uri,
    list: &mut Checklist<'_>,
) -> bool {
    let limit = Duration::from_secs(config.connect_timeout_seconds);
    let is_https = uri.scheme_str() == Some("https");
    if transport.proxy(uri).is_none() {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if !check_tcp(host, port, limit, transport.resolver(), list).await {
            return false;
        }
        if !is_https {
            return true;
        }
    }
    let mut connector = transport.connector(limit, HttpVersions::All);
    let connected = match poll_fn(|context| connector.poll_ready(context)).await {
        Ok(()) => connector.call(uri.clone()).await.map(drop),
        Err(error) => Err(error),
    };
    let check = if transport.proxy(uri).is_some() { "proxy" } else { "tls" };
    let Err(error) = connected else {
        match transport.proxy(uri) {
            Some(proxy) if is_https => {
                list.ok("proxy", format!("{proxy} opens a tunnel, and TLS works"))
            }
            Some(proxy) if proxy.is_socks() => list.ok("proxy", format!("{proxy} opens a tunnel")),
            Some(proxy) => list.ok("proxy", format!("{proxy} accepts connections")),
            None => list.ok("tls", "the certificate is trusted"),
        }
        return true;
    };
    let check = match error.downcast_ref() {
        Some(ConnectError::Certificate { .. }) => "tls",
        _ => check,
    };
    let advice = match error.downcast_ref() {
        Some(ConnectError::ProxyUnreachable { .. } | ConnectError::Timeout { .. }) => {
            "Correct the address of the proxy (-p, ProxyAddress, HTTPS_PROXY), open the network \
             path to it, or exempt the endpoint with NO_PROXY"
        }
        // The text of the error has the advice already.
        _ => "",
    };
    let text = match error.downcast_ref::<ConnectError>() {
        Some(error) => error.to_string(),
        None => root_cause(&*error),
    };
    list.fail(check, text, advice);
    false
}

async fn check_tcp(
    host: &str,
    port: u16,
    limit: Duration,
    resolver: &Resolver,
    list: &mut Checklist<'_>,
) -> bool {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    let name = host.to_owned();
    let lookup = resolver.run(move || Ok((name, port).to_socket_addrs()?.collect::<Vec<_>>()));
    let addresses = match timeout(limit, lookup).await.unwrap_or_else(late) {
        Ok(addresses) => addresses,
        Err(error) => {
            let advice = "Look for typing errors in region and endpoint, and check the name \
                          server of this host; a VPC needs enableDnsSupport, and \
                          enableDnsHostnames for the private name of an interface endpoint";
            list.fail("name", format!("{host} has no address: {error}"), advice);
            return false;
        }
    };
    let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    list.ok("name", format!("{host} is {}", shown.join(", ")));
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    match timeout(limit, TcpStream::connect(&addresses[..])).await.unwrap_or_else(late) {
        Ok(stream) => {
            let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            list.ok("connection", format!("{peer} accepts connections"));
            true
        }
        Err(error) => {
            let text = format!("{host} does not accept a connection on port {port}: {error}");
            list.fail("connection", text, CHECK_WAY);
            false
        }
    }
}

/// Sends a request without a document. Returns whether the service would accept documents.
async fn check_request(service: &Service, list: &mut Checklist<'_>) -> bool {
    let Service { client, signer, credentials } = service;
    let body = RequestBody::from(bytes::Bytes::from_static(NOTHING));
    let signed_at = SystemTime::now();
    let hash = Sha256::digest(NOTHING).into();
    let request = match signer.sign_body(body, &hash, credentials, signed_at) {
        Ok(request) => request,
        Err(error) => {
            list.fail("request", error.to_string(), CHECK_KEYS);
            return false;
        }
    };
    let answer = match client.send(request, ANSWER_BYTES_MAX).await {
        Ok(answer) => answer,
        Err(error) => {
            let is_too_large = matches!(error, RequestError::TooLarge { .. });
            let advice = if is_too_large { CHECK_SERVER } else { CHECK_WAY };
            list.fail("request", error.to_string(), advice);
            return false;
        }
    };
    let takes = "the service accepts the signature and allows xray:PutTraceSegments";
    match classify(answer.status, &answer.headers, &answer.body, signed_at) {
        Outcome::Accepted { .. } => list.ok("request", takes),
        Outcome::Failed { failure, reason } => match failure {
            // The request has no document, and the service refuses it for this reason only. So its
            // signature is accepted.
            Failure::Split { .. } => list.ok("request", takes),
            Failure::Throttle { .. } => list.note(
                "request",
                format!("the service throttles: {reason}"),
                "The daemon keeps segments and sends them at the rate that the service allows. Ask \
                 for a higher quota, or sample less",
            ),
            Failure::Skew { service_time } => {
                let text = format!("the clock is {}", distance(service_time, signed_at));
                list.fail("request", text, CHECK_CLOCK);
            }
            Failure::Expired => list.fail("request", reason, CHECK_KEYS),
            Failure::Denied if is_about_permission(&reason) => {
                list.fail("request", format!("the service denies it: {reason}"), CHECK_POLICY);
            }
            Failure::Denied => list.fail(
                "request",
                format!("the service does not accept the credentials: {reason}"),
                CHECK_KEYS,
            ),
            Failure::NotXRay => list.fail("request", reason, CHECK_SERVER),
            Failure::Retry { .. } | Failure::TransactionSearchOff => list.fail(
                "request",
                format!("the service fails: {reason}"),
                "The daemon retries until this failure is over. If the answer is not from the \
                 service, look for a proxy or another server in its place",
            ),
        },
    }
    list.is_last_ok()
}

fn is_about_permission(reason: &str) -> bool {
    reason.starts_with("AccessDenied") || reason.starts_with("NotAuthorized")
}

/// Returns the difference between the clocks of this host and of the service, in words.
fn distance(service_time: SystemTime, now: SystemTime) -> String {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (service, ours) = (seconds(service_time), seconds(now));
    let which = if ours > service { "ahead of" } else { "behind" };
    format!("{} s {which} the service's", service.abs_diff(ours))
}
