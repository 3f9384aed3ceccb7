//! The types for communication between threads that the ring and the pool use: atomics, a lock-free
//! queue and a wake-up.
//!
//! In: types of std, crossbeam and tokio. Out: the same types. The ring and the pool import these
//! types only from this file. In `tests/model`, another file with the same names replaces it. The
//! ring and the pool then use types of the crate loom, which tests all orders in which the steps of
//! their threads can run. Thread: any.

pub use crossbeam_queue::ArrayQueue;
pub use std::sync::Arc;
pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
pub use tokio::sync::Notify;
