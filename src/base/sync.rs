//! What threads share memory and wake each other through in the ring and the pool.
//!
//! In: crossbeam's, std's and tokio's types. Out: the same, named in one place so that
//! `tests/model` can compile ring and pool against loom's types and run them over their
//! interleavings. Bound: none of its own. Any thread.

pub use crossbeam_queue::ArrayQueue;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
pub use tokio::sync::Notify;
