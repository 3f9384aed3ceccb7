//! The atomics, the lock-free queue and the wake-up that the ring and the pool use.
//!
//! In: types of std, crossbeam and tokio. Out: the same types. All of them are named in this one
//! file, so that `tests/model` can compile the ring and the pool with loom's types instead and
//! test every interleaving of their threads. Thread: any.

pub use crossbeam_queue::ArrayQueue;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
pub use tokio::sync::Notify;
