//! The history of a simulation: what has happened, and when, in virtual time.
//!
//! In: events of the world. Out: the events, for the comparison of two runs of one seed and for the
//! text of a failure. Bound: the text shows [`SHOWN_COUNT`] events.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// How many of the last events a failure shows.
const SHOWN_COUNT: usize = 150;

/// One event: its time in milliseconds since the start, its name, and two numbers that belong to
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub at_ms: u64,
    pub name: &'static str,
    pub first: u64,
    pub second: u64,
}

/// All events of a simulation. Clones share them.
#[derive(Debug, Clone)]
pub struct History {
    start: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl History {
    /// An empty history, which starts now.
    pub fn start() -> Self {
        Self { start: Instant::now(), events: Arc::default() }
    }

    /// Returns the virtual time in milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes an event that happens now.
    pub fn note(&self, name: &'static str, first: u64, second: u64) {
        let event = Event { at_ms: self.now_ms(), name, first, second };
        self.events.lock().unwrap().push(event);
    }

    /// Takes all events.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

/// Returns the last events as text, one on each line.
pub fn text(events: &[Event]) -> String {
    let skipped = events.len().saturating_sub(SHOWN_COUNT);
    let mut text = format!("... {skipped} events before these\n");
    for Event { at_ms, name, first, second } in &events[skipped..] {
        let (seconds, ms) = (at_ms / 1_000, at_ms % 1_000);
        let _ = writeln!(text, "{seconds:>7}.{ms:03} s  {name:<24} {first:>8} {second:>8}");
    }
    text
}
