//! Counts what the log has lost: lines that were dropped, and failures of the log file.
//!
//! In: the counter of the thread that writes the log, and failures. Out: two counts for the
//! metrics. Thread: any.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_appender::non_blocking::ErrorCounter;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

static FILE_FAILURES: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines of the process were dropped because too many waited to be written.
pub fn dropped_line_count() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Returns how often the log file could not be opened or written.
pub fn file_failure_count() -> u64 {
    FILE_FAILURES.load(Ordering::Relaxed)
}

/// Sets the counter of dropped lines.
pub(super) fn count_dropped_with(counter: ErrorCounter) {
    // Only the first call has an effect: the log is started once.
    let _ = DROPPED.set(counter);
}

/// Counts a failure of the log file.
pub(super) fn count_file_failure() {
    FILE_FAILURES.fetch_add(1, Ordering::Relaxed);
}
