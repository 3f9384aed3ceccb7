//! Reads requests of OpenTelemetry's protocol for traces (OTLP), and writes the answers.
//!
//! In: the body of a request over HTTP or gRPC, or a document of AWS's UDP exporters. Out: the
//! spans of the request one by one, each with its resource and scope, and the bytes of the answer.
//! The crate knows neither X-Ray nor sockets, and does not use the daemon's code or the sandbox's.
//!
//! ```text
//!   HTTP ──────────► coding ────┐
//!                    inflates   │
//!   gRPC ──────────► grpc ──────┼──► Request ──► protobuf or json ──► message::Span
//!                    frames     │    bounds,     one span at a time        │
//!   UDP ───────────► datagram ──┤    finds                             to_json
//!                    T1S, T1U, M1    the spans                         for a viewer
//!                               │
//!                               └──► scan ──► size, start and end of each span
//!                                    cut ───► a request with some of the spans, byte for byte
//!
//!   answer ◄── how many spans were rejected, and why
//! ```
//!
//! The protocol is <https://opentelemetry.io/docs/specs/otlp/>; the messages are those of
//! opentelemetry-proto 1.9 for traces. Bound: [`BODY_BYTES_MAX`], [`SPAN_COUNT_MAX`],
//! [`SPAN_BYTES_MAX`] and [`DEPTH_MAX`]. A request is searched for its spans without decoding them,
//! and one span is decoded at a time. So a small hostile body cannot take much memory. A daemon
//! that only forwards a request scans and cuts it, and decodes nothing. No I/O, no clock.

pub mod answer;
pub mod coding;
pub mod datagram;
pub mod documents;
pub mod grpc;
mod json;
pub mod message;
mod protobuf;
#[cfg(test)]
mod recorded;
pub mod reply;
mod request;
mod scan;
mod to_json;

pub use request::{DecodeError, Encoding, Received, Request, Source, SpanError};
pub use scan::{FoundSpan, SpanTimes, cut, scan};
pub use to_json::{any_json, span_json};

/// Largest body of a request after decompression, in bytes. X-Ray's OTLP endpoint takes 5 MB,
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>.
pub const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Largest number of spans in a request. It is the limit of X-Ray's OTLP endpoint, see
/// [`BODY_BYTES_MAX`].
pub const SPAN_COUNT_MAX: usize = 10_000;

/// Largest span, in bytes of the request. It is the limit of X-Ray's OTLP endpoint, see
/// [`BODY_BYTES_MAX`]. A resource and a scope have the same limit.
pub const SPAN_BYTES_MAX: usize = 200 * 1024;

/// Largest number of lists and objects that an attribute has inside each other.
pub const DEPTH_MAX: usize = 16;
