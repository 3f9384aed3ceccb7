//! The log limit: how many log lines of one kind may be written in a time window.
//!
//! In: a line to log, and the time. Out: the line is written, or it is only counted. Bound: by
//! default five lines of one kind in ten seconds. When full: lines are counted, and the next
//! written line reports how many lines were not written. Thread: any; there is no lock.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Default number of lines of one kind that may be written in a time window.
const LINE_COUNT_MAX: u64 = 5;

/// Default length of the time window of a log limit, in seconds.
const WINDOW_SECONDS: u64 = 10;

/// Number of suppressed lines of all kinds together that no written line has reported yet.
static UNREPORTED_COUNT: AtomicU64 = AtomicU64::new(0);

/// Returns how many suppressed lines no written line has reported yet. The daemon logs this number
/// when it ends.
pub fn unreported_count() -> u64 {
    UNREPORTED_COUNT.load(Ordering::Relaxed)
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The log limit of one kind of log line. It is kept in a `static`. In each time window, it allows
/// a number of lines, and suppresses and counts all further lines.
#[derive(Debug)]
pub struct LogLimit {
    window: AtomicU64,
    line_count: AtomicU64,
    suppressed_count: AtomicU64,
    line_count_max: u64,
    window_seconds: u64,
}

/// The number of lines of one kind that were suppressed since the last written line of this kind.
/// Its `Display` text is for the end of a message. For zero, the text is empty.
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
    /// Returns a limit of five lines in ten seconds.
    pub const fn new() -> Self {
        Self::with_line_count(LINE_COUNT_MAX)
    }

    /// Returns a limit of `line_count_max` lines in ten seconds. Use this for lines of which an
    /// operator needs more than the default number.
    pub const fn with_line_count(line_count_max: u64) -> Self {
        Self::with(line_count_max, WINDOW_SECONDS)
    }

    /// Returns a limit of one line a minute. Use this for problems that last until an operator
    /// fixes them.
    pub const fn once_a_minute() -> Self {
        Self::with(1, 60)
    }

    /// Returns a limit of `line_count_max` lines in a second. Use this for lines at the levels
    /// debug and dev, of which an operator wants to see each one.
    pub const fn per_second(line_count_max: u64) -> Self {
        Self::with(line_count_max, 1)
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

    /// Calls `write` to log a line, unless the limit of the current time window is reached. `write`
    /// gets the number of suppressed lines, and puts it at the end of its message.
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
