//! What threads share memory through in the ring and the pool, named in one place so that
//! `tests/model` can compile both against loom's types and go through their interleavings.

pub use crossbeam_queue::ArrayQueue;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
