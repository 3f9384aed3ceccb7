//! Whether receivers leave their sockets alone, because segments come faster than they are sent.
//!
//! In: the decision of the sender (`sender/shed.rs` has the rule). Out: one flag, which receivers
//! read once for each look at their socket. Threads: `upload` writes, `receive-N` read.
//!
//! The flag goes one way, and nobody is woken for it: a receiver that sheds reads it again after
//! some milliseconds. The flag protects no other memory, so its accesses are relaxed.

use std::sync::atomic::{AtomicBool, Ordering};

/// The flag by which the sender tells receivers to leave their sockets alone.
#[derive(Debug, Default)]
pub struct Shedding(AtomicBool);

impl Shedding {
    /// Returns whether receivers leave their sockets alone.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells receivers to leave their sockets alone, or to go on.
    pub fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Relaxed);
    }
}
