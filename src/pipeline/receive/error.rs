//! Why a receiver ends before it is asked to.

use crate::base::panics::Panicked;
use std::io;

/// Why a receiver ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The backend could not be set up
    #[error("the receive backend cannot be set up: {0}. Another one may work: --receiver recvmmsg")]
    Setup(#[source] io::Error),
    /// Waiting for the socket failed
    #[error("waiting for datagrams failed: {0}")]
    Wait(#[source] io::Error),
    /// Reading the socket failed
    #[error("reading datagrams from the UDP socket failed: {0}")]
    Read(#[source] io::Error),
    /// A panic ended it, and another one its second start
    #[error("receiving met {0}")]
    Panic(#[source] Panicked),
}
