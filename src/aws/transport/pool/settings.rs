//! The settings of a pool, and the host that its connections lead to.
//!
//! In: the settings of a client; the address of a request. Out: plain values. No I/O, no clock.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use std::time::Duration;

/// The settings of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// How many connections to a host are opened at a time.
    pub connecting_count_max: usize,
    /// How many connections over HTTP/1.1 without a request are kept for a host.
    pub idle_count_max: usize,
    /// The time without a request after which a connection is closed.
    pub idle_timeout: Duration,
    /// The time without received data after which a ping is sent over HTTP/2, while a request waits
    /// for its answer.
    pub ping_interval: Duration,
    /// The time for the answer to a ping.
    pub ping_timeout: Duration,
    /// The size of the buffer of a connection over HTTP/1.1, in bytes; `None` for hyper's default.
    pub http1_buffer_bytes: Option<usize>,
    /// The bytes of an answer, and of all answers of a connection, that wait for their reader over
    /// HTTP/2; `None` for hyper's default.
    pub http2_windows_bytes: Option<(u32, u32)>,
}

/// The host of a request. Requests with the same key share connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    scheme: Scheme,
    authority: Authority,
}

impl Key {
    /// Returns the key of an address; `None` if the address has no scheme or no host.
    pub fn of(uri: &Uri) -> Option<Self> {
        let (scheme, authority) = uri.scheme().zip(uri.authority())?;
        Some(Self { scheme: scheme.clone(), authority: authority.clone() })
    }

    /// Returns the address of the host, without a path.
    pub fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("a scheme, a host and a path are an address")
    }
}
