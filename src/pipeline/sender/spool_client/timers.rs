//! The timers of the spool client.
//!
//! In: times when work is due. Out: the earliest of these times. Bound: one time for each
//! [`Timer`]. Thread: the sender's.

use std::time::Instant;

/// A kind of work that is done later.
#[derive(Debug, Clone, Copy)]
pub enum Timer {
    /// Sync records that were written.
    Sync,
    /// Read again after memory had no room for a record.
    Read,
    /// Read files again that could not be read, and settle on disk what could not be settled there.
    Retry,
}

/// The time of each [`Timer`] that is set.
#[derive(Debug, Default)]
pub struct Timers([Option<Instant>; 3]);

impl Timers {
    /// Sets a timer.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a timer unless it is set already.
    pub fn set_if_unset(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    /// Clears a timer. Returns whether it was set.
    pub fn clear(&mut self, timer: Timer) -> bool {
        self.0[timer as usize].take().is_some()
    }

    /// Clears a timer if it is due. Returns whether it was due.
    pub fn clear_if_due(&mut self, timer: Timer, now: Instant) -> bool {
        let is_due = self.0[timer as usize].is_some_and(|at| at <= now);
        is_due && self.clear(timer)
    }

    /// Returns whether a timer is set.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Returns the earliest time; `None` if no timer is set.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
