//! Opens connections to services: name lookup, TCP, the operator's HTTP proxy, and TLS.
//!
//! In: the trusted certificates, the proxy and the resolver. Out: a [`Connector`] for hyper
//! clients. Uploads and the calls that fetch credentials use the same transport. Bound: one timeout
//! for opening a connection, which includes name lookup, proxy and TLS. Thread: that of the HTTP
//! client.

mod connect;
mod proxy;
mod resolve;
mod task;
mod tls;

pub use connect::{ConnectError, Connector};
pub use proxy::{ProxyAddress, ProxyAddressError};
pub use resolve::Resolver;
pub use task::Executor;
pub use tls::{TlsError, Trust};

use http::uri::Scheme;
use http::{HeaderValue, StatusCode, Uri};
use proxy::Proxy;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// The settings with which connections are opened. Clones share them.
#[derive(Debug, Clone)]
pub struct Transport {
    tls: Arc<ClientConfig>,
    proxy: Option<Arc<Proxy>>,
    resolver: Resolver,
}

impl Transport {
    /// Returns a transport that trusts `trust` and connects through `proxy`, except to the hosts in
    /// `no_proxy` (in the format of the variable `NO_PROXY`). `resolver` looks up host names.
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

    /// Returns a connector that opens each connection within `timeout`.
    pub fn connector(&self, timeout: Duration) -> Connector {
        Connector::new(&self.tls, self.proxy.clone(), self.resolver.clone(), timeout)
    }

    /// Returns the proxy for connections to `uri`; `None`: they are direct.
    pub fn proxy(&self, uri: &Uri) -> Option<&ProxyAddress> {
        self.proxy.as_deref()?.of(uri)
    }

    /// Returns the `Proxy-Authorization` header that a request to `uri` needs. Only a request
    /// without TLS needs one, because the proxy receives it directly. With TLS, the header is in
    /// the `CONNECT` request.
    pub fn proxy_authorization(&self, uri: &Uri) -> Option<&HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.proxy(uri)?.authorization()
    }

    /// Returns an error if an answer with this status to a request to `uri` comes from the proxy.
    /// Without TLS, a proxy that refuses a request answers it itself, with status 407
    /// (`Proxy Authentication Required`), which services do not use.
    pub fn refusal(&self, uri: &Uri, status: StatusCode) -> Option<ConnectError> {
        if uri.scheme() != Some(&Scheme::HTTP)
            || status != StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return None;
        }
        let proxy = self.proxy(uri)?.clone();
        Some(ConnectError::ProxyRefuses { proxy, host: connect::host_and_port(uri), status })
    }
}
