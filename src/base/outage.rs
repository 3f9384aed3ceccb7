//! An outage: how long nothing has gone through, and when the log has to say so.
//!
//! In: failures with their reasons, successes, and the time. Out: at most one [`Lasting`] a minute
//! to log as an error, and the length of an outage that is over. Bound: one reason. Thread: the
//! owner's. No I/O; the caller passes the time.
//!
//! A failure that passes within the patience of the outage is no error. Operators alarm on errors,
//! and a short failure repairs itself.

use std::time::{Duration, Instant};

/// The patience of most outages: a failure that passes within this time is only a warning.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Time between two errors about the same outage.
const REPEAT: Duration = Duration::from_secs(60);

/// The time since which nothing has gone through, with the latest reason.
#[derive(Debug)]
pub struct Outage {
    patience: Duration,
    since: Option<Instant>,
    /// When an error was last logged about this outage. `None` until the first one.
    said_at: Option<Instant>,
    reason: String,
}

/// An outage that lasts and has to be logged now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// How long nothing has gone through.
    pub duration: Duration,
    /// The latest reason.
    pub reason: String,
}

impl Outage {
    /// Returns an outage that has not begun. It is logged once it has lasted for `patience`.
    pub const fn with_patience(patience: Duration) -> Self {
        Self { patience, since: None, said_at: None, reason: String::new() }
    }

    /// Notes a failure. Nothing has gone through since `since`; an earlier begin of the same outage
    /// counts instead.
    pub fn fail(&mut self, since: Instant, reason: impl Into<String>) {
        self.since.get_or_insert(since);
        self.reason = reason.into();
    }

    /// Returns the time at which [`due`](Self::due) has to be asked again; `None` if there is no
    /// outage.
    pub fn next_due(&self) -> Option<Instant> {
        let since = self.since?;
        Some(self.said_at.map_or(since + self.patience, |said_at| said_at + REPEAT))
    }

    /// Returns the outage if it has to be logged now, and notes that it was logged.
    #[must_use = "it counts as logged"]
    pub fn due(&mut self, now: Instant) -> Option<Lasting> {
        if self.next_due()? > now { None } else { self.say(now) }
    }

    /// Returns the outage if it was not logged within the last minute, whatever its patience, and
    /// notes that it was logged. For a failure that does not pass without an operator.
    #[must_use = "it counts as logged"]
    pub fn due_at_once(&mut self, now: Instant) -> Option<Lasting> {
        let is_said = self.said_at.is_some_and(|said_at| said_at + REPEAT > now);
        if is_said { None } else { self.say(now) }
    }

    fn say(&mut self, now: Instant) -> Option<Lasting> {
        let since = self.since?;
        self.said_at = Some(now);
        let duration = now.saturating_duration_since(since);
        Some(Lasting { duration, reason: self.reason.clone() })
    }

    /// Notes that another line has said at `now` what fails.
    pub fn said(&mut self, now: Instant) {
        self.said_at = Some(now);
    }

    /// Ends the outage: something has gone through. Returns how long it lasted if an error was
    /// logged about it; `None` if it passed unsaid, or if there was none.
    pub fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        self.said_at.take().map(|_| now.saturating_duration_since(since))
    }

    /// Returns whether an outage has begun, logged or not.
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Returns whether an error was logged about an outage that is not over.
    pub fn is_said(&self) -> bool {
        self.said_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lasting(seconds: u32, reason: &str) -> Option<Lasting> {
        Some(Lasting { duration: seconds * SECOND, reason: reason.to_owned() })
    }

    #[test]
    fn an_outage_is_said_after_three_seconds_then_once_a_minute_with_its_latest_reason() {
        let (mut outage, start) = (Outage::with_patience(PATIENCE), Instant::now());
        assert_eq!((outage.next_due(), outage.due(start)), (None, None));
        outage.fail(start, "refused");
        assert_eq!(outage.due(start + 2 * SECOND), None);
        outage.fail(start + 2 * SECOND, "unknown");
        assert_eq!(outage.next_due(), Some(start + PATIENCE));
        assert_eq!(outage.due(start + PATIENCE), lasting(3, "unknown"));
        outage.fail(start + 10 * SECOND, "refused");
        assert_eq!(outage.due(start + 62 * SECOND), None);
        assert_eq!(outage.next_due(), Some(start + 63 * SECOND));
        assert_eq!(outage.due(start + 64 * SECOND), lasting(64, "refused"));
        assert_eq!(outage.end(start + 70 * SECOND), Some(70 * SECOND));
        assert_eq!((outage.next_due(), outage.end(start + 71 * SECOND)), (None, None));
    }

    #[test]
    fn an_outage_that_passes_in_time_is_never_said() {
        let (mut outage, start) = (Outage::with_patience(PATIENCE), Instant::now());
        outage.fail(start, "refused");
        assert_eq!(outage.end(start + 2 * SECOND), None);
        // The next outage has the whole patience again.
        outage.fail(start + 4 * SECOND, "refused");
        assert_eq!(outage.due(start + 6 * SECOND), None);
        assert!(outage.is_on());
        assert_eq!(outage.due(start + 7 * SECOND), lasting(3, "refused"));
    }

    #[test]
    fn a_failure_that_cannot_pass_is_said_at_once_and_then_once_a_minute() {
        let (mut outage, start) = (Outage::with_patience(PATIENCE), Instant::now());
        outage.fail(start, "unreadable");
        assert_eq!(outage.due_at_once(start), lasting(0, "unreadable"));
        assert_eq!(outage.due_at_once(start + SECOND), None);
        assert_eq!(outage.due(start + PATIENCE), None);
        outage.said(start + 30 * SECOND);
        assert_eq!(outage.due_at_once(start + 60 * SECOND), None);
        assert_eq!(outage.due(start + 90 * SECOND), lasting(90, "unreadable"));
    }
}
