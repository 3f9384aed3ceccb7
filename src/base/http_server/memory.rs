//! The memory of the TCP port: one budget of bytes for connections, headers, bodies and answers.
//!
//! In: a request for bytes. Out: a [`Reservation`], which gives the bytes back when it is dropped.
//! Bound: the budget. When full: the connection that has waited longest is closed, until there is
//! room (`connections.rs`). Thread: main.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is reserved, in bytes.
const UNIT_BYTES: usize = 1024;

/// A budget of bytes.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    /// Size of the budget, in bytes.
    pub limit_bytes: usize,
}

/// Reserved bytes of a budget. They are given back when this is dropped.
#[derive(Debug)]
pub struct Reservation(OwnedSemaphorePermit);

impl Reservation {
    /// Adds the bytes of `more` to this reservation.
    pub fn merge(&mut self, more: Self) {
        self.0.merge(more.0);
    }
}

impl Memory {
    /// Returns a budget of `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        let free = Arc::new(Semaphore::new(limit_bytes / UNIT_BYTES));
        Self { free, limit_bytes: limit_bytes / UNIT_BYTES * UNIT_BYTES }
    }

    /// Returns whether `bytes` are free.
    pub fn has(&self, bytes: usize) -> bool {
        self.free.available_permits() >= units(bytes) as usize
    }

    /// Returns how many bytes are reserved.
    pub fn used_bytes(&self) -> usize {
        self.limit_bytes - self.free.available_permits() * UNIT_BYTES
    }

    /// Waits until `bytes` are free, and reserves them. Never returns if the budget is smaller.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let free = Arc::clone(&self.free);
        Reservation(free.acquire_many_owned(units(bytes)).await.expect("it is never closed"))
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).expect("the budget has a few megabytes")
}
