//! The counters of the ports for OpenTelemetry's spans.
//!
//! In and out: as in the parent module. Spans that a port refuses are not received: the client
//! knows that it still has them. So they have no part in the balance. Thread: that of the ports.

use super::{Counter, PortCounts};
use std::sync::Arc;

/// Why a span was refused although the rest of its request may have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanRefusal {
    /// The span is cut off or broken.
    Broken,
    /// The span has more bytes than the service takes.
    Size,
    /// The span is older than the service takes, or has no time.
    Old,
    /// The span is further in the future than the service takes.
    Future,
}

impl SpanRefusal {
    /// All reasons why a span is refused, in the order of the enum.
    pub const ALL: [Self; 4] = [Self::Broken, Self::Size, Self::Old, Self::Future];

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Size => "size",
            Self::Old => "old",
            Self::Future => "future",
        }
    }
}

/// The result of a request for export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// All spans were accepted.
    Accepted,
    /// Some spans were accepted, and the others refused.
    Partial,
    /// Nothing was accepted: the request is invalid, or not for this port.
    Refused,
    /// Nothing was accepted, because there is no memory. The client may try again.
    Full,
    /// The request has metrics or logs.
    OtherSignal,
}

impl Export {
    /// All results, in the order of the enum.
    pub const ALL: [Self; 5] =
        [Self::Accepted, Self::Partial, Self::Refused, Self::Full, Self::OtherSignal];

    /// Returns the value of the label `outcome` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::OtherSignal => "other_signal",
        }
    }
}

/// The counters of both ports.
#[derive(Debug, Default)]
pub struct OtlpCounts {
    /// Connections and limits of the port for HTTP.
    pub http: Arc<PortCounts>,
    /// Connections and limits of the port for gRPC.
    pub grpc: Arc<PortCounts>,
    exports: [Counter; Export::ALL.len()],
    refused_spans: [Counter; SpanRefusal::ALL.len()],
}

impl OtlpCounts {
    /// Returns the counter of requests with this result.
    pub fn exports(&self, export: Export) -> &Counter {
        &self.exports[export as usize]
    }

    /// Returns the counter of spans that were refused for `reason`.
    pub fn refused_spans(&self, reason: SpanRefusal) -> &Counter {
        &self.refused_spans[reason as usize]
    }

    /// Returns how many requests were answered.
    pub fn request_count(&self) -> u64 {
        self.exports.iter().map(Counter::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_results_index_their_own_counters() {
        for (index, reason) in SpanRefusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, export) in Export::ALL.into_iter().enumerate() {
            assert_eq!(export as usize, index);
        }
    }
}
