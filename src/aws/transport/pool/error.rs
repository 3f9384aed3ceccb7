//! The reasons why a request over a pool of connections has no answer.
//!
//! In: errors of the libraries. Out: a [`PoolError`], whose causes are these errors. Thread: any.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error of a connection that could not be opened. All requests that waited for it get it.
pub(super) type ConnectFailure = Arc<dyn Error + Send + Sync>;

/// Why a request has no answer.
#[derive(Debug)]
pub enum PoolError {
    /// No connection could be opened.
    Connect(ConnectFailure),
    /// The connection broke, or the answer is not valid HTTP.
    Send(hyper::Error),
    /// The address has no scheme or no host.
    Address,
}

impl fmt::Display for PoolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Connect(_) => "no connection",
            Self::Send(_) => "no answer",
            Self::Address => "the address needs a scheme and a host",
        })
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(failure) => Some(&**failure),
            Self::Send(error) => Some(error),
            Self::Address => None,
        }
    }
}

/// The task that opened a connection ended without a result.
#[derive(Debug, thiserror::Error)]
#[error("the task that opens connections has ended early")]
pub(super) struct EndedEarly;
