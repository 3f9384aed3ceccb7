//! The way to a service: TCP, the operator's HTTP proxy, TLS.
//!
//! In: what to trust, which proxy to use, who looks up names. Out: a [`Connector`] for hyper
//! clients, the same for uploads and for the calls that fetch credentials. Bound: one time for a
//! connection to be open, name lookup, proxy and TLS included; it is an error when it is over. Runs
//! on the thread of the client that it is given to.

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

/// How services are reached; clones share it.
#[derive(Debug, Clone)]
pub struct Transport {
    tls: Arc<ClientConfig>,
    proxy: Option<Arc<Proxy>>,
    resolver: Resolver,
}

impl Transport {
    /// A transport that trusts `trust` and goes through `proxy`, but for the hosts of `no_proxy`
    /// (as in the variable of that name); `resolver` looks up names.
    ///
    /// # Errors
    ///
    /// When the certificates to trust cannot be read.
    pub fn new(
        trust: &Trust,
        proxy: Option<&ProxyAddress>,
        no_proxy: &str,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let proxy = proxy.map(|address| Arc::new(Proxy::new(address.clone(), no_proxy)));
        Ok(Self { tls: Arc::new(tls::client(trust)?), proxy, resolver })
    }

    /// A transport without a proxy that trusts nobody: for services on this host, without TLS.
    pub fn local(resolver: Resolver) -> Self {
        Self { tls: Arc::new(tls::without_roots()), proxy: None, resolver }
    }

    /// The same without the proxy.
    pub fn without_proxy(&self) -> Self {
        Self { proxy: None, ..self.clone() }
    }

    /// Looks up the names of hosts.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Makes connections, each within `timeout`.
    pub fn connector(&self, timeout: Duration) -> Connector {
        Connector::new(&self.tls, self.proxy.clone(), self.resolver.clone(), timeout)
    }

    /// The proxy that connections to `uri` go through.
    pub fn proxy(&self, uri: &Uri) -> Option<&ProxyAddress> {
        self.proxy.as_deref()?.of(uri)
    }

    /// The `Proxy-Authorization` that a request to `uri` needs itself: where there is no TLS the
    /// proxy gets the request, and not a request for a tunnel before it.
    pub fn proxy_authorization(&self, uri: &Uri) -> Option<&HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.proxy(uri)?.authorization()
    }
    /// What the answer to a request to `uri` means if it is the proxy's: where there is no TLS the
    /// proxy itself answers what it refuses, and this status is no service's.
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
