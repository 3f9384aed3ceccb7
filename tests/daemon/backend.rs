//! The skip of a test for want of the receive backend in its target's name.

use super::process::missing;
use super::skip::{Need, skip};

/// Whether the backend in the target's name does not work here. The test is skipped then, which is
/// said here.
#[track_caller]
pub fn is_backend_missing() -> bool {
    if let Some(reason) = missing() {
        skip(Need::Uring, reason);
    }
    missing().is_some()
}
