//! A bound on how often one place in the code may log.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines that a place may write in a window, unless it says otherwise.
const LINE_COUNT_MAX: u64 = 5;

/// Length of a window.
const WINDOW_SECONDS: u64 = 10;

/// Lines that were held back, in all places, and that no line has told of yet.
static UNREPORTED_COUNT: AtomicU64 = AtomicU64::new(0);

/// How many lines were held back that no later line tells of; for the last word of the log.
pub fn unreported_count() -> u64 {
    UNREPORTED_COUNT.load(Ordering::Relaxed)
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Lets some lines through in a window, five in ten seconds unless it says otherwise, and counts
/// the rest; one for each place, in a static.
#[derive(Debug)]
pub struct LogLimit {
    window: AtomicU64,
    line_count: AtomicU64,
    suppressed_count: AtomicU64,
    line_count_max: u64,
    window_seconds: u64,
}

/// How many lines were held back since the last one; written behind a message, empty for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suppressed(u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(out, " ({count} more like this were not logged)"),
        }
    }
}

impl LogLimit {
    /// A limit that has let nothing through yet.
    pub const fn new() -> Self {
        Self::with_line_count(LINE_COUNT_MAX)
    }

    /// The same with another number of lines in a window, for what operators count on seeing.
    pub const fn with_line_count(line_count_max: u64) -> Self {
        Self::with(line_count_max, WINDOW_SECONDS)
    }

    /// One line a minute, for what an operator has to mend.
    pub const fn once_a_minute() -> Self {
        Self::with(1, 60)
    }

    const fn with(line_count_max: u64, window_seconds: u64) -> Self {
        Self {
            line_count_max,
            window_seconds,
            window: AtomicU64::new(0),
            line_count: AtomicU64::new(0),
            suppressed_count: AtomicU64::new(0),
        }
    }

    /// Calls `write` unless this place has written enough for now.
    pub fn log(&self, write: impl FnOnce(Suppressed)) {
        if let Some(suppressed) = self.admit(START.elapsed().as_secs() / self.window_seconds) {
            write(suppressed);
        }
    }

    fn admit(&self, window: u64) -> Option<Suppressed> {
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.line_count.store(0, Ordering::Relaxed);
        }
        if self.line_count.fetch_add(1, Ordering::Relaxed) < self.line_count_max {
            let suppressed_count = self.suppressed_count.swap(0, Ordering::Relaxed);
            UNREPORTED_COUNT.fetch_sub(suppressed_count, Ordering::Relaxed);
            Some(Suppressed(suppressed_count))
        } else {
            self.suppressed_count.fetch_add(1, Ordering::Relaxed);
            UNREPORTED_COUNT.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_five_lines_through_and_the_next_one_says_how_many_were_held_back() {
        let limit = LogLimit::new();
        let admitted: Vec<_> = (0..12).filter_map(|_| limit.admit(7)).collect();
        assert_eq!(admitted, [Suppressed(0); 5]);
        let next = limit.admit(8).unwrap();
        assert_eq!(next.to_string(), " (7 more like this were not logged)");
        assert_eq!(limit.admit(8).unwrap().to_string(), "");
    }
}
