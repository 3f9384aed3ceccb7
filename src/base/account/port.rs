//! The counters of a port: connections that were closed, and requests that did not keep a limit.
//! Also the counters of the signing proxy.
//!
//! In and out: as in the parent module. They count no segments, so they have no part in the
//! balance. Thread: main.

use super::Counter;

/// Why a port closed a connection that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The largest number of connections was open, and a new one came.
    Count,
    /// The memory of the port was used up.
    Memory,
    /// The process had no file descriptor for a new connection.
    Descriptors,
}

impl CloseReason {
    /// All reasons why a connection is closed, in the order of the enum.
    pub const ALL: [Self; 3] = [Self::Count, Self::Memory, Self::Descriptors];

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
        }
    }
}

/// The counters of a port.
#[derive(Debug, Default)]
pub struct PortCounts {
    /// Connections that the port closed to make room, by [`CloseReason`].
    closed: [Counter; CloseReason::ALL.len()],
    /// Requests that got no turn in time, and status 503.
    pub busy: Counter,
    /// Requests whose header or body came too slowly, and answers that the client did not take in
    /// time.
    pub slow: Counter,
    /// Requests with a larger header or body than the port takes.
    pub too_large: Counter,
}

impl PortCounts {
    /// Returns the counter of connections that the port closed for `reason`.
    pub fn closed(&self, reason: CloseReason) -> &Counter {
        &self.closed[reason as usize]
    }
}

/// The counters of the signing proxy.
#[derive(Debug, Default)]
pub struct ProxyCounts {
    /// Requests of clients that the service answered, with any status.
    pub answered: Counter,
    /// Requests of clients that the proxy refused to forward: their path is not allowed, or a web
    /// page sent them.
    pub refused: Counter,
    /// Requests of clients that got no answer of the service, or not all of it, for example because
    /// there were no credentials to sign them with.
    pub failed: Counter,
    /// Answers of the service that were longer than the proxy forwards.
    pub answers_too_large: Counter,
}
