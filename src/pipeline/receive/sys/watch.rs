//! A descriptor that a tokio runtime watches.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the current runtime tell when `descriptor` can be read.
///
/// # Errors
///
/// What the kernel says.
///
/// # Panics
///
/// Outside of a runtime.
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor for as long as it lives, and the
    // result owns it.
    // JUSTIFICATION: the safe way to do the same is deprecated, since it takes any `AsRawFd`.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}
