//! Skips a test if the receive backend of its test target does not work on this machine.

use super::process::missing;
use super::skip::{Need, skip};

/// Returns whether the backend of this test target does not work on this machine. If so, prints
/// that the calling test is skipped; the test must then return.
#[track_caller]
pub fn is_backend_missing() -> bool {
    if let Some(reason) = missing() {
        skip(Need::Uring, reason);
    }
    missing().is_some()
}
