//! Traces as they are understood: what `xray tail` and the endpoint share.
//!
//! In: segment documents as text. Out: traces, and each as a tree for a terminal. Pure code but for
//! the clock that the caller hands in.

pub mod document;
pub mod store;
pub mod text;
pub mod tree;

use std::time::Duration;

/// How long a trace gets no document before it is taken for complete and drawn.
pub const QUIET_TIME: Duration = Duration::from_millis(700);
