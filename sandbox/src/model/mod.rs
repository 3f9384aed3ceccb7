//! The model of traces that `xray tail` and the endpoint share.
//!
//! In: segment documents as text. Out: traces, and each trace as a tree for a terminal. Pure code,
//! except that [`store::Moment::now`] reads the clock for callers.

pub mod document;
pub mod store;
pub mod text;
pub mod tree;

use std::time::Duration;

/// A trace that received no document for this long is considered complete and is drawn.
pub const QUIET_TIME: Duration = Duration::from_millis(700);
