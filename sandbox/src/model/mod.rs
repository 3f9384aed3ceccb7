//! The model of traces that `xray tail` and the endpoint share.
//!
//! In: segment documents as text, and spans of OpenTelemetry. Out: traces, and each trace as a tree
//! for a terminal. No I/O. Only [`store::Moment::now`] reads a clock.

pub mod document;
pub mod forest;
pub mod span;
pub mod store;
pub mod text;
pub mod tree;

use std::time::Duration;

/// Time without a new document after which a trace is considered complete and is drawn.
pub const QUIET_TIME: Duration = Duration::from_millis(700);
