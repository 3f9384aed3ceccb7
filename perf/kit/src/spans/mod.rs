//! The load and the floor for spans of OpenTelemetry.
//!
//! ```text
//!   sender ──OTLP/HTTP or gRPC──► a daemon, or floor ──TLS──► endpoint
//!   batch                                                     reads the ids
//! ```
//!
//! A batch of 512 spans is made once; its ids change with each request. They contain the number of
//! the span and the time of sending, so that the endpoint recognises each span.

mod batch;
pub mod floor;
mod ids;
mod message;
pub mod sender;

pub use batch::{Batch, SPAN_COUNT};
pub use ids::{Unreadable, marks};
