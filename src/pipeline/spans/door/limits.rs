//! The limits of the ports for spans.
//!
//! In: the memory for spans, the number of descriptors, and which ports there are. Out: the limits
//! of each port, and the largest request. Bound: all holders together are a third of the memory for
//! spans, 32 MiB at most; the rest is for the spans themselves. No I/O, no clock.

use crate::base::grpc_server;
use crate::base::http_server::ServerLimits;
use xrayd_otlp::BODY_BYTES_MAX;
use xrayd_otlp::grpc::MESSAGE_BYTES_MAX;

/// Least and largest memory of both ports together, in bytes.
const DOOR_BYTES_MIN: u64 = 512 * 1024;
const DOOR_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Least and largest number of connections of a port.
const CONNECTION_COUNT_MIN: usize = 2;
const HTTP_CONNECTION_COUNT_MAX: usize = 128;
const GRPC_CONNECTION_COUNT_MAX: usize = 48;

/// Memory that a call needs besides its message, in bytes: the head of its frame, its headers, and
/// the unit of reservations.
const CALL_BYTES: usize = 16 * 1024;

/// Which ports there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ports {
    /// Whether there is a port for OTLP over HTTP.
    pub http: bool,
    /// Whether there is a port for OTLP over gRPC.
    pub grpc: bool,
}

/// The limits of the ports for spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// The limits of the port for HTTP.
    pub http: ServerLimits,
    /// The limits of the port for gRPC.
    pub grpc: ServerLimits,
    /// Largest request, in bytes, not compressed. This is also the size of the buffer into which
    /// requests are inflated, one at a time.
    pub request_bytes_max: usize,
    /// Largest message of a call of gRPC, in bytes, as it is sent.
    pub message_bytes_max: usize,
}

impl DoorLimits {
    /// Derives the limits from the memory for spans, in bytes, and the largest number of
    /// descriptors of the process.
    pub fn within(spans_bytes: u64, descriptor_count_max: u64, ports: Ports) -> Self {
        let door_bytes = (spans_bytes / 3).clamp(DOOR_BYTES_MIN, DOOR_BYTES_MAX);
        let door_bytes = usize::try_from(door_bytes).expect("it is clamped");
        // One byte more shows that a request is too large.
        let request_bytes_max = (door_bytes / 3 - 1).min(BODY_BYTES_MAX);
        let port_count = usize::from(ports.http) + usize::from(ports.grpc);
        let port_bytes = (door_bytes - request_bytes_max - 1) / port_count.max(1);
        let descriptors = usize::try_from(descriptor_count_max / 8).unwrap_or(usize::MAX);
        let port = |is_open: bool, connection_count_max: usize| {
            let count = descriptors.clamp(CONNECTION_COUNT_MIN, connection_count_max);
            let memory_bytes = if is_open { port_bytes } else { 0 };
            ServerLimits { memory_bytes, connection_count_max: count }
        };
        // At least half of the memory of the port is for the bodies of calls.
        let grpc_count = port_bytes / 2 / grpc_server::CONNECTION_BYTES;
        let grpc_count = grpc_count.clamp(CONNECTION_COUNT_MIN, GRPC_CONNECTION_COUNT_MAX);
        let body_bytes_max = (port_bytes / 2).saturating_sub(CALL_BYTES);
        let message_bytes_max = MESSAGE_BYTES_MAX.min(request_bytes_max).min(body_bytes_max);
        Self {
            http: port(ports.http, HTTP_CONNECTION_COUNT_MAX),
            grpc: port(ports.grpc, grpc_count),
            request_bytes_max,
            message_bytes_max,
        }
    }

    /// Returns the memory of all holders together, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.request_bytes_max + 1 + self.http.memory_bytes + self.grpc.memory_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_have_a_third_of_the_memory_and_take_a_full_request_if_it_is_large() {
        for ports in [(true, true), (true, false), (false, true)] {
            let ports = Ports { http: ports.0, grpc: ports.1 };
            for megabytes in [2, 5, 16, 64, 128, 4_096] {
                let bytes = megabytes << 20;
                let limits = DoorLimits::within(bytes, 1_024, ports);
                assert!(limits.total_bytes() as u64 <= bytes / 3, "{megabytes} MB: {limits:?}");
                let is_large = megabytes >= 64;
                assert_eq!(limits.request_bytes_max == BODY_BYTES_MAX, is_large, "{limits:?}");
                // Two thirds are for the bodies of requests, see `Requests::new`.
                let body_bytes = (limits.http.memory_bytes / 3 * 2).saturating_sub(28 * 1024);
                assert!(!is_large || !ports.http || body_bytes >= BODY_BYTES_MAX, "{limits:?}");
                assert!(!is_large || limits.message_bytes_max == MESSAGE_BYTES_MAX, "{limits:?}");
                assert_eq!(ports.http, limits.http.memory_bytes > 0);
                assert!(limits.grpc.connection_count_max >= CONNECTION_COUNT_MIN);
                let connections = limits.grpc.connection_count_max * grpc_server::CONNECTION_BYTES;
                let one = limits.message_bytes_max + CALL_BYTES;
                let has_room = connections + one <= limits.grpc.memory_bytes;
                assert!(!ports.grpc || has_room || megabytes < 5, "{megabytes} MB: {limits:?}");
            }
        }
        let large = DoorLimits::within(1 << 30, 1 << 20, Ports { http: true, grpc: true });
        assert_eq!(large.message_bytes_max, MESSAGE_BYTES_MAX);
        assert_eq!(large.http.connection_count_max, HTTP_CONNECTION_COUNT_MAX);
        assert_eq!(large.grpc.connection_count_max, GRPC_CONNECTION_COUNT_MAX);
    }
}
