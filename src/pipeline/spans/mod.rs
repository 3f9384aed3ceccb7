//! The spans of OpenTelemetry between the port that takes them and the sender that uploads them.
//!
//! In: requests that the port has checked. Out: the same requests, one by one, for the sender of
//! spans. Spans and segments share no queue, no memory and no thread, so neither can keep the other
//! waiting. Bound: the pool of the spans. Threads: `otlp` puts requests in, `upload-spans` takes
//! them out.

pub mod door;
mod queue;

pub use queue::{Closed, NoRoom, Reservation, SpanQueue, SpanRequest, SpanWriter, Times, Waiting};
