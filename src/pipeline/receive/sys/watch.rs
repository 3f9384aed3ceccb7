//! Registers a descriptor with a tokio runtime, so that a future can wait for it.
//!
//! In: a descriptor. Out: the same descriptor, registered. Thread: the runtime's.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `descriptor` with the current runtime, to wait until it is readable.
///
/// # Errors
///
/// Returns the kernel's error, for example if the descriptor cannot be polled.
///
/// # Panics
///
/// Panics outside a tokio runtime.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and stays the same descriptor during its life, and the result
    // owns it.
    // JUSTIFICATION: tokio's safe constructor is deprecated because it takes any `AsRawFd`. It is
    // not about speed: it runs once for a receiver.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}
