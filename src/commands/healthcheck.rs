//! `xray healthcheck`: asks a running daemon for its health.
//!
//! In: the address of the daemon's TCP port. Out: one line, and the exit code: 0 if the daemon is
//! healthy, else 1. Bound: 4.5 s, since container orchestrators often wait no longer than 5 s.

use super::{fail, print};
use crate::admin::health::ask::ask;
use std::process::ExitCode;

/// Asks the daemon on `address` for its health: readiness (`/ready`) if `ready`, else liveness
/// (`/health`).
pub(super) fn run(address: &str, ready: bool) -> ExitCode {
    match ask(address, if ready { "/ready" } else { "/health" }) {
        Ok(status) => print(&status),
        Err(error) => fail(&error.to_string()),
    }
}
