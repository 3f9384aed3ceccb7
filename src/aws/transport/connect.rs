//! Opens connections, directly or through the proxy, with or without TLS.
//!
//! In: the address of a host. Out: an open connection. Bound: one timeout for all steps of opening
//! it. Thread: the caller's.
//!
//! For an https address, the proxy is asked for a tunnel (`CONNECT`). For an http address, the
//! request is sent to the proxy, with the whole address in its first line, and the proxy forwards
//! it. The original daemon does the same. A tunnel for http would often fail, because many proxies
//! allow tunnels to port 443 only. A SOCKS5 proxy is asked for a connection in both cases.

use super::error::ConnectError;
use super::opened::{self, Opened};
use super::proxy::{Proxy, ProxyAddress, port_of};
use super::socks::{self, SocksError};
use super::{Executor, Resolver, explain};
use crate::aws::failure;
use crate::base::error_text::root_cause;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper::rt::{Executor as _, Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

/// A connection on which TLS to the host is not started yet: plain TCP, or TLS to the proxy.
type Wire = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A boxed error, for the different errors of the libraries that open connections.
type AnyError = Box<dyn Error + Send + Sync>;

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, AnyError>> + Send>>;

/// The versions of HTTP that a connection over TLS offers to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/2 and HTTP/1.1.
    All,
    /// HTTP/1.1 only.
    Http1,
}

/// Opens connections for a hyper client.
#[derive(Debug, Clone)]
pub struct Connector {
    https: HttpsConnector<WireConnector>,
    proxy: Option<Arc<Proxy>>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        tls: &ClientConfig,
        proxy: Option<Arc<Proxy>>,
        resolver: Resolver,
        timeout: Duration,
        versions: HttpVersions,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // If a host name has several addresses, hyper-util divides this time among them. So if an
        // address cannot be reached, there is time left for the next address.
        tcp.set_connect_timeout(Some(timeout));
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp.clone());
        let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let wire = WireConnector { tcp, to_proxy, proxy: proxy.clone() };
        let https = match versions {
            HttpVersions::All => https.enable_all_versions().wrap_connector(wire),
            HttpVersions::Http1 => https.enable_http1().wrap_connector(wire),
        };
        Self { https, proxy, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = AnyError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let timeout = self.timeout;
        let proxy = self.proxy.as_deref().and_then(|proxy| proxy.of(&destination)).cloned();
        let connecting = self.https.call(destination.clone());
        Box::pin(async move {
            let host = host_and_port(&destination);
            let connection = match tokio::time::timeout(timeout, connecting).await {
                Ok(connection) => connection,
                Err(_) => return Err(ConnectError::Timeout { host, proxy, timeout }.into()),
            };
            connection.map_err(|error| match explain::certificate(&*error) {
                Some(reason) => ConnectError::Certificate { host, reason }.into(),
                None => error,
            })
        })
    }
}

/// Opens connections without TLS to the host: TCP, or a connection to the proxy.
#[derive(Debug, Clone)]
struct WireConnector {
    tcp: HttpConnector<Resolver>,
    to_proxy: HttpsConnector<HttpConnector<Resolver>>,
    proxy: Option<Arc<Proxy>>,
}

impl Service<Uri> for WireConnector {
    type Response = Stream;
    type Error = AnyError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let began_at = opened::begin();
        let Some(proxy) = self.proxy.as_deref().and_then(|proxy| proxy.of(&destination)).cloned()
        else {
            let connecting = self.tcp.call(destination.clone());
            return Box::pin(async move {
                let wire = MaybeHttpsStream::Http(connecting.await?);
                let opened = Opened::log(began_at, || host_and_port(&destination), None);
                Ok(Stream { wire, is_forward_proxy: false, _opened: opened })
            });
        };
        let connecting: Connecting<Wire> = if proxy.is_socks() {
            let connecting = self.tcp.call(proxy.uri().clone());
            Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
        } else {
            self.to_proxy.call(proxy.uri().clone())
        };
        Box::pin(async move {
            let wire = connecting.await.map_err(|error| ConnectError::ProxyUnreachable {
                reason: match explain::certificate(&*error) {
                    Some(reason) => format!("its certificate is not trusted: {reason}"),
                    None => explain::explain(&*error, &host_and_port(proxy.uri())),
                },
                kind: failure::of_error(&*error),
                proxy: proxy.clone(),
            })?;
            let host = || host_and_port(&destination);
            let is_forward_proxy = !proxy.is_socks() && destination.scheme() == Some(&Scheme::HTTP);
            let wire = match (is_forward_proxy, proxy.is_socks()) {
                (true, _) => wire,
                (false, true) => socks_connection(wire, &proxy, &destination).await?,
                (false, false) => tunnel(wire, proxy.clone(), host()).await?,
            };
            let opened = Opened::log(began_at, host, Some(&proxy));
            Ok(Stream { wire, is_forward_proxy, _opened: opened })
        })
    }
}

/// Asks the SOCKS5 proxy at the other end of `wire` for a connection to the host of `destination`.
async fn socks_connection(
    wire: Wire,
    proxy: &ProxyAddress,
    destination: &Uri,
) -> Result<Wire, ConnectError> {
    let name = destination.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut wire = TokioIo::new(wire);
    let asked = socks::ask(&mut wire, proxy.socks_login(), name, port_of(destination)).await;
    asked.map_err(|error| {
        let (proxy, host) = (proxy.clone(), host_and_port(destination));
        match error {
            SocksError::Refused(refusal) => ConnectError::SocksRefuses { proxy, host, refusal },
            SocksError::Broken(reason) => ConnectError::ProxyBreaks { proxy, host, reason },
        }
    })?;
    Ok(wire.into_inner())
}

/// Asks the proxy at the other end of `wire` for a tunnel to `host`. hyper-util also has a function
/// for this, but its errors do not contain the proxy's answer.
async fn tunnel(wire: Wire, proxy: ProxyAddress, host: String) -> Result<Wire, ConnectError> {
    let breaks = |reason: &str| {
        let (proxy, host) = (proxy.clone(), host.clone());
        ConnectError::ProxyBreaks { proxy, host, reason: reason.to_owned() }
    };
    let broken = |error: hyper::Error| breaks(&root_cause(&error));
    let (mut sender, connection) = handshake(wire).await.map_err(broken)?;
    // This task drives the connection until the tunnel is open or `sender` is dropped. `sender`
    // returns the task's errors.
    Executor.execute(connection.with_upgrades());
    let mut request = Request::connect(host.as_str()).header(HOST, host.as_str());
    if let Some(authorization) = proxy.authorization() {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| breaks(&error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if !answer.status().is_success() {
        return Err(ConnectError::ProxyRefuses { status: answer.status(), proxy, host });
    }
    let tunnel = hyper::upgrade::on(answer).await.map_err(broken)?;
    match tunnel.downcast::<Wire>() {
        // In TLS the client sends first. So bytes that were received already do not come from the
        // host, but from the proxy.
        Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io),
        _ => Err(breaks("it sends data after its answer")),
    }
}

/// Returns host and port of `uri`. If `uri` has no port, the port is that of its scheme.
pub fn host_and_port(uri: &Uri) -> String {
    format!("{}:{}", uri.host().unwrap_or_default(), port_of(uri))
}

/// A connection to the service or to a proxy.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    /// Whether the connection leads to a proxy that forwards requests, without a tunnel. Then the
    /// first line of a request must contain the whole address.
    is_forward_proxy: bool,
    /// Logs the end of the connection when it is dropped.
    _opened: Option<Opened>,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.wire.connected().proxy(self.is_forward_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(context, pieces)
    }
}
