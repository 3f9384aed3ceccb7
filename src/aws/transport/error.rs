//! The reasons why a connection could not be opened, as texts for an operator.
//!
//! In: the proxy, the host, and the error of a library as text. Out: a [`ConnectError`]. Thread:
//! any. No I/O, no clock.

use super::proxy::ProxyAddress;
use super::socks::SocksRefusal;
use crate::base::account::RequestFailure;
use http::StatusCode;
use std::time::Duration;

/// The reason why a connection could not be opened. These errors name the proxy and the host, and
/// some of them advise the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection to the proxy could be opened.
    #[error("the proxy {proxy} cannot be reached: {reason}")]
    ProxyUnreachable {
        /// Address of the proxy, without user and password.
        proxy: ProxyAddress,
        /// Kind of failure of the connection to the proxy.
        kind: RequestFailure,
        /// Why it cannot be reached, in plain words.
        reason: String,
    },
    /// The proxy refuses the connection to the host.
    #[error("the proxy {proxy} refuses a connection to {host}: {status}{}", advice(.proxy, *.status))]
    ProxyRefuses {
        /// Address of the proxy, without user and password.
        proxy: ProxyAddress,
        /// Host and port to connect to.
        host: String,
        /// HTTP status of the proxy's answer.
        status: StatusCode,
    },
    /// The SOCKS5 proxy refuses the connection to the host.
    #[error("the proxy {proxy} refuses a connection to {host}: {refusal}")]
    SocksRefuses {
        /// Address of the proxy, without user and password.
        proxy: ProxyAddress,
        /// Host and port to connect to.
        host: String,
        /// Why the proxy refuses, and advice for the operator.
        refusal: SocksRefusal,
    },
    /// The proxy closes the connection, or sends something that is not valid HTTP or SOCKS5.
    #[error("the proxy {proxy} breaks off a connection to {host}: {reason}")]
    ProxyBreaks {
        /// Address of the proxy, without user and password.
        proxy: ProxyAddress,
        /// Host and port to connect to.
        host: String,
        /// The fault in words, or the text of the error's deepest cause.
        reason: String,
    },
    /// The certificate of the host is not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Certificate {
        /// Host and port of the server with this certificate.
        host: String,
        /// Why the certificate is not trusted, and advice for the operator.
        reason: String,
    },
    /// The connection was not open in time.
    #[error(
        "no connection to {host}{} within {} s",
        .proxy.as_ref().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default(),
        .timeout.as_secs_f32()
    )]
    Timeout {
        /// Host and port to connect to.
        host: String,
        /// Proxy through which the host is reached; `None` for a direct connection.
        proxy: Option<ProxyAddress>,
        /// The timeout that has expired.
        timeout: Duration,
    },
}

impl ConnectError {
    /// Returns the kind of failure that telemetry and the metrics count.
    pub fn kind(&self) -> RequestFailure {
        match self {
            Self::Timeout { .. } => RequestFailure::Timeout,
            Self::ProxyUnreachable { kind, .. } => *kind,
            Self::SocksRefuses { refusal, .. } => refusal.kind(),
            Self::ProxyRefuses { status, .. } if status.is_client_error() => {
                RequestFailure::Http4xx
            }
            Self::ProxyRefuses { status, .. } if status.is_server_error() => {
                RequestFailure::Http5xx
            }
            _ => RequestFailure::Other,
        }
    }
}

/// Returns advice for the operator if the proxy answered with the error `status`.
fn advice(proxy: &ProxyAddress, status: StatusCode) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED if proxy.authorization().is_some() => {
            ". Correct the user and the password in its address"
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            ". Give it a user and a password in its address, http://USER:PASSWORD@HOST:PORT"
        }
        StatusCode::FORBIDDEN => ". Allow this host in the rules of the proxy",
        _ => "",
    }
}
