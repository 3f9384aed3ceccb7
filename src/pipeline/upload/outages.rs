//! Knows since when no batch is delivered, and since when the service throttles, and logs both as
//! errors.
//!
//! In: the outcomes of calls, and the time. Out: an error once nothing has been delivered for
//! [`PATIENCE`], then one a minute, and an info line when it is over; the same after
//! [`THROTTLED_PATIENCE`] of throttling. Bound: one reason for each. Thread: `upload`.
//!
//! Throttling has a longer patience, because the daemon adapts its rate to it, and usually all
//! segments arrive. It is over when a call is accepted and no batch waits any more.

use crate::base::outage::{Lasting, Outage, PATIENCE};
use std::time::{Duration, Instant};
use tracing::{error, info};

/// How long the service may throttle before this is an error. After this time without a throttled
/// call no error is logged.
const THROTTLED_PATIENCE: Duration = Duration::from_secs(60);

/// After this time without a throttled call the throttling is over.
const THROTTLED_END: Duration = Duration::from_secs(5 * 60);

/// The outages of the calls to the service.
#[derive(Debug)]
pub struct Outages {
    /// The address of the service, for the log.
    address: String,
    failing: Outage,
    throttled: Outage,
    delivered_at: Option<Instant>,
    throttled_at: Option<Instant>,
}

impl Default for Outages {
    fn default() -> Self {
        Self {
            address: "not known yet".to_owned(),
            failing: Outage::with_patience(PATIENCE),
            throttled: Outage::with_patience(THROTTLED_PATIENCE),
            delivered_at: None,
            throttled_at: None,
        }
    }
}

impl Outages {
    /// Sets the address of the service that the log names.
    pub fn set_address(&mut self, address: String) {
        self.address = address;
    }

    /// Returns the address of the service.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Notes that a call that was started at `started_at` has failed. Returns whether this logged
    /// an error; the caller then need not log the failure.
    pub fn failed(&mut self, started_at: Instant, reason: &str, now: Instant) -> bool {
        let since = self.delivered_at.map_or(started_at, |at| at.max(started_at));
        self.failing.fail(since, reason);
        self.report(now)
    }

    /// Notes a failed call of which another line has logged an error.
    pub fn failed_and_said(&mut self, started_at: Instant, reason: &str, now: Instant) {
        let since = self.delivered_at.map_or(started_at, |at| at.max(started_at));
        self.failing.fail(since, reason);
        self.failing.said(now);
    }

    /// Notes that the service throttled a call. Returns whether this logged an error.
    pub fn throttled(&mut self, reason: &str, now: Instant) -> bool {
        // A throttled call has reached the service. Before that, the failures had lasted too short
        // a time for an error.
        if self.failing.is_said() {
            self.failing.fail(now, reason);
        } else {
            self.failing.end(now);
        }
        self.end_old_throttling(now);
        self.throttled.fail(now, reason);
        self.throttled_at = Some(now);
        self.report(now)
    }

    /// Notes that the service accepted documents. `is_all` is whether no other batch waits.
    pub fn delivered(&mut self, is_all: bool, now: Instant) {
        self.delivered_at = Some(now);
        if let Some(duration) = self.failing.end(now) {
            info!(
                seconds = duration.as_secs(),
                endpoint = self.address,
                "Segments are delivered again, to {}. Nothing was delivered for {} s",
                self.address,
                duration.as_secs()
            );
        }
        if is_all {
            self.end_throttling(now);
        }
        self.end_old_throttling(now);
    }

    fn end_old_throttling(&mut self, now: Instant) {
        if self.throttled_at.is_some_and(|at| at + THROTTLED_END <= now) {
            self.end_throttling(now);
        }
    }

    fn end_throttling(&mut self, now: Instant) {
        self.throttled_at = None;
        if let Some(duration) = self.throttled.end(now) {
            info!(
                seconds = duration.as_secs(),
                endpoint = self.address,
                "The service no longer throttles, and no batch waits. It throttled for {} s",
                duration.as_secs()
            );
        }
    }

    /// Logs the outages that have to be logged now. Returns whether it logged one.
    pub fn report(&mut self, now: Instant) -> bool {
        let failing = self.failing.due(now);
        if let Some(Lasting { duration, reason }) = &failing {
            error!(
                seconds = duration.as_secs(),
                endpoint = self.address,
                "Sending segment batch failed with: {reason}. Endpoint: {}. Nothing has been \
                 delivered for {} s; segments are kept meanwhile",
                self.address,
                duration.as_secs()
            );
        }
        let is_throttled = self.next_throttled().is_some_and(|due| due <= now);
        let throttled = if is_throttled { self.throttled.due(now) } else { None };
        if let Some(Lasting { duration, reason }) = &throttled {
            error!(
                seconds = duration.as_secs(),
                endpoint = self.address,
                "Sending segment batch failed with: {reason}. Endpoint: {}. The service has \
                 throttled for {} s: more segments arrive than it accepts; they are kept meanwhile",
                self.address,
                duration.as_secs()
            );
        }
        failing.is_some() || throttled.is_some()
    }

    /// Returns when [`report`](Self::report) has to be called next; `None` if there is no outage.
    pub fn next_due(&self) -> Option<Instant> {
        self.failing.next_due().into_iter().chain(self.next_throttled()).min()
    }

    /// Returns when throttling has to be logged; `None` if no call will have been throttled for a
    /// while by then.
    fn next_throttled(&self) -> Option<Instant> {
        let ends_at = self.throttled_at? + THROTTLED_PATIENCE;
        self.throttled.next_due().filter(|due| *due < ends_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failure_counts_from_the_start_of_its_call_or_from_the_last_delivery() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        // A call that was refused at once, and one that hung until its timeout.
        assert!(!outages.failed(start, "refused", start + SECOND));
        assert_eq!(outages.next_due(), Some(start + PATIENCE));
        outages.delivered(true, start + 2 * SECOND);
        assert_eq!(outages.next_due(), None);
        assert!(outages.failed(start + 2 * SECOND, "timeout", start + 17 * SECOND));
        outages.delivered(true, start + 20 * SECOND);
        // Another call was accepted while this one hung.
        assert!(!outages.failed(start, "timeout", start + 21 * SECOND));
        assert_eq!(outages.next_due(), Some(start + 23 * SECOND));
        assert!(outages.report(start + 23 * SECOND));
        assert_eq!(outages.next_due(), Some(start + 83 * SECOND));
        assert!(!outages.failed(start + 24 * SECOND, "refused", start + 25 * SECOND));
    }

    #[test]
    fn throttling_after_a_short_failure_is_no_error_before_its_minute() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        outages.failed(start, "refused", start + SECOND);
        outages.throttled("slow down", start + 2 * SECOND);
        assert!(!outages.report(start + 5 * SECOND));
        // A failure that was said is not over before something is delivered.
        assert!(outages.failed(start + 3 * SECOND, "refused", start + 6 * SECOND));
        outages.throttled("slow down", start + 7 * SECOND);
        assert_eq!(outages.next_due(), Some(start + 62 * SECOND));
    }

    #[test]
    fn throttling_is_an_error_after_a_minute_in_which_batches_always_waited() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        for second in 0..59 {
            assert!(!outages.throttled("slow down", start + second * SECOND), "{second}");
            outages.delivered(false, start + second * SECOND);
        }
        assert_eq!(outages.next_due(), Some(start + 60 * SECOND));
        assert!(outages.throttled("slow down", start + 60 * SECOND));
        assert!(!outages.throttled("slow down", start + 61 * SECOND));
        // The throttling ends when all is delivered. After that, its minute starts again.
        outages.delivered(true, start + 62 * SECOND);
        assert_eq!(outages.next_due(), None);
        assert!(!outages.throttled("slow down", start + 63 * SECOND));
        // Throttling of long ago is no error.
        assert_eq!(outages.next_due(), None);
        assert!(!outages.report(start + 123 * SECOND));
        assert!(outages.throttled("slow down", start + 124 * SECOND));
    }
}
