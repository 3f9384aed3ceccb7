//! The errors that end a receiver before a stop is requested.
//!
//! In: errors of the kernel, panics. Out: a [`ReceiveError`] for the thread that runs the receiver.

use crate::base::panics::Panicked;
use std::io;

/// Why a receiver ended before a stop was requested.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The backend could not be set up
    #[error("the receive backend cannot be set up: {0}")]
    Setup(#[source] io::Error),
    /// Waiting for the socket failed
    #[error("waiting for datagrams failed: {0}")]
    Wait(#[source] io::Error),
    /// Reading the socket failed
    #[error("reading datagrams from the UDP socket failed: {0}")]
    Read(#[source] io::Error),
    /// Receiving panicked, and so did the second attempt with `recvmmsg`
    #[error("receiving met {0}")]
    Panic(#[source] Panicked),
}
