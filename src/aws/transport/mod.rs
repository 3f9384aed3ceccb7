//! Opens connections to services: name lookup, TCP, the operator's proxy, and TLS.
//!
//! In: the trusted certificates, the proxy and the resolver. Out: a [`ConnectionPool`], whose
//! connections a [`Connector`] opens. Uploads and the calls for credentials use the same transport.
//! Bound: one timeout for all steps of opening a connection (name lookup, TCP, proxy, TLS). Thread:
//! the thread of the HTTP client.

mod connect;
mod error;
mod explain;
mod opened;
mod pool;
mod proxy;
mod resolve;
mod socks;
mod task;
mod tls;

pub use connect::{Connector, HttpVersions, host_and_port};
pub use error::ConnectError;
pub use explain::explain;
pub use pool::{ConnectionPool, PoolError, PoolSettings, Sent};
pub use proxy::{ProxyAddress, ProxyAddressError};
pub use resolve::Resolver;
pub use socks::SocksRefusal;
pub use task::Executor;
pub use tls::{TlsError, Trust};

use http::uri::Scheme;
use http::{HeaderValue, StatusCode, Uri};
use proxy::Proxy;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// The settings with which connections are opened. Clones share these settings.
#[derive(Debug, Clone)]
pub struct Transport {
    tls: Arc<ClientConfig>,
    proxy: Option<Arc<Proxy>>,
    resolver: Resolver,
}

impl Transport {
    /// Returns a transport that accepts the certificates in `trust` and connects through `proxy`.
    /// Hosts in `no_proxy` are reached without the proxy; the format is that of the variable
    /// `NO_PROXY`. `resolver` looks up host names.
    ///
    /// # Errors
    ///
    /// Returns an error if the trusted certificates cannot be read.
    pub fn new(
        trust: &Trust,
        proxy: Option<&ProxyAddress>,
        no_proxy: &str,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let proxy = proxy.map(|address| Arc::new(Proxy::new(address.clone(), no_proxy)));
        Ok(Self { tls: Arc::new(tls::client(trust)?), proxy, resolver })
    }

    /// Returns a transport without proxy and without trusted certificates, for services on this
    /// host that do not use TLS.
    pub fn local(resolver: Resolver) -> Self {
        Self { tls: Arc::new(tls::without_roots()), proxy: None, resolver }
    }

    /// Returns a copy of this transport that does not use the proxy.
    pub fn without_proxy(&self) -> Self {
        Self { proxy: None, ..self.clone() }
    }

    /// Returns the resolver for host names.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Returns a connector that opens each connection within `timeout`, and offers `versions`.
    pub fn connector(&self, timeout: Duration, versions: HttpVersions) -> Connector {
        Connector::new(&self.tls, self.proxy.clone(), self.resolver.clone(), timeout, versions)
    }

    /// Returns the proxy for connections to `uri`. Returns `None` if `uri` is reached directly.
    pub fn proxy(&self, uri: &Uri) -> Option<&ProxyAddress> {
        self.proxy.as_deref()?.of(uri)
    }

    /// Returns the `Proxy-Authorization` header for a request to `uri`. Only an http request has
    /// this header, because the proxy itself receives the request. For https, the header is in the
    /// `CONNECT` request that opens the tunnel. A SOCKS5 proxy gets no header.
    pub fn proxy_authorization(&self, uri: &Uri) -> Option<&HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.proxy(uri)?.authorization()
    }

    /// Returns an error if the answer to a request to `uri` comes from the proxy and not from the
    /// service. A proxy that refuses an http request answers with status 407
    /// (`Proxy Authentication Required`). Services never send this status.
    pub fn refusal(&self, uri: &Uri, status: StatusCode) -> Option<ConnectError> {
        if uri.scheme() != Some(&Scheme::HTTP)
            || status != StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return None;
        }
        let proxy = self.proxy(uri).filter(|proxy| !proxy.is_socks())?.clone();
        Some(ConnectError::ProxyRefuses { proxy, host: connect::host_and_port(uri), status })
    }
}
