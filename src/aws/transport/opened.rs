//! Logs that a connection was opened and closed, at level debug.
//!
//! In: the host, the proxy, and the end of the connection's life. Out: two log lines. Bound:
//! [`LINES_PER_SECOND`] lines of each kind. Thread: the caller's. At other levels a connection
//! costs one check of the level.

use super::proxy::ProxyAddress;
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use std::time::Instant;
use tracing::{Level, debug};

const LINES_PER_SECOND: u64 = 100;

static OPENED: LogLimit = LogLimit::per_second(LINES_PER_SECOND);
static CLOSED: LogLimit = LogLimit::per_second(LINES_PER_SECOND);

/// A connection whose end is logged when this value is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    host: String,
    at: Instant,
}

/// The time at which opening a connection began. `None` if the log does not show connections.
pub(super) fn begin() -> Option<Instant> {
    tracing::enabled!(Level::DEBUG).then(Clock::instant)
}

impl Opened {
    /// Logs that a connection to `host` is open, through `proxy` if it is given. `began_at` is the
    /// result of [`begin`]; returns `None` if it is `None`.
    pub fn log(
        began_at: Option<Instant>,
        host: impl FnOnce() -> String,
        proxy: Option<&ProxyAddress>,
    ) -> Option<Self> {
        let (began_at, at, host) = (began_at?, Clock::instant(), host());
        let seconds = (at - began_at).as_secs_f64();
        OPENED.log(|more| match proxy {
            None => {
                debug!(host, seconds, "A connection to {host} is open after {seconds:.3} s{more}")
            }
            Some(proxy) => debug!(
                host,
                seconds,
                proxy = %proxy,
                "A connection to {host} through the proxy {proxy} is open after {seconds:.3} \
                 s{more}"
            ),
        });
        Some(Self { host, at })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (host, seconds) = (&*self.host, (Clock::instant() - self.at).as_secs_f64());
        CLOSED.log(|more| {
            debug!(
                host,
                seconds,
                "A connection to {host} is closed, {seconds:.3} s after it was opened{more}"
            );
        });
    }
}
