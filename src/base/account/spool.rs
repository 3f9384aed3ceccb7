//! The counters and gauges of the spool.
//!
//! In: the results of the spool's jobs, from the sender. Out: numbers for the metrics. Bound: a
//! fixed set of counters. Thread: any.

use super::Counter;
use crate::base::clock::Moment;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The counters and gauges of the spool.
#[derive(Debug, Default)]
pub struct SpoolCounts {
    /// Size of all files of the spool, in bytes.
    pub size_bytes: AtomicU64,
    /// Number of segments in the spool that are not sent yet. After a start, segments in the files
    /// of earlier runs are added as soon as the daemon has counted them.
    pub segment_count: AtomicU64,
    /// Time at which the oldest segment in the spool was received, in seconds since boot. `None` if
    /// the spool is empty.
    oldest_made_at: Mutex<Option<i64>>,
    /// Number of failed spool jobs (a job writes or reads a part of the spool).
    pub errors: Counter,
    /// Number of records of the spool that were found damaged: cut off or changed.
    pub damaged_records: Counter,
    /// Size of all damaged records of the spool together, in bytes.
    pub damaged_bytes: Counter,
}

impl SpoolCounts {
    /// Sets the time at which the oldest segment in the spool was received, in seconds since boot.
    /// `None` means that the spool is empty.
    pub fn set_oldest(&self, made_at: Option<i64>) {
        *self.oldest_made_at.lock().unwrap_or_else(PoisonError::into_inner) = made_at;
    }

    /// Returns the age of the oldest segment in the spool at the time `now`. Returns zero if the
    /// spool is empty.
    pub fn oldest_age(&self, now: Moment) -> Duration {
        let made_at = *self.oldest_made_at.lock().unwrap_or_else(PoisonError::into_inner);
        made_at.map_or(Duration::ZERO, |made_at| now.since(made_at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Account;
    use super::*;

    #[test]
    fn the_oldest_segment_of_a_spool_has_an_age_and_an_empty_spool_has_none() {
        let (counts, account) = (SpoolCounts::default(), Account::default());
        let now = account.clock.now();
        assert_eq!(counts.oldest_age(now), Duration::ZERO);
        counts.set_oldest(Some(now.uptime_seconds - 60));
        assert_eq!(counts.oldest_age(now), Duration::from_secs(60));
        counts.set_oldest(Some(i64::MIN));
        assert_eq!(counts.oldest_age(now).as_secs(), i64::MAX as u64);
        counts.set_oldest(Some(i64::MAX));
        assert_eq!(counts.oldest_age(now), Duration::ZERO);
    }
}
