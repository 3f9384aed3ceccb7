//! The age of a record, even if the clock of the host was set or was wrong.
//!
//! In: the date in the header of a record, and the time now. Out: the age of the record, and
//! whether it has expired. Thread: any.
//!
//! The age of a record of this run is the difference of two times since boot, so it does not jump
//! when the clock is set. For a record of an earlier run, the date is used unless it is before 2025
//! or in the future. A record of an earlier run expires only after an answer of the service has
//! confirmed the date of today. If the clock of the earlier run was wrong, the age of its records
//! is wrong by the same time.

use crate::base::clock::Moment;
use std::time::Duration;

/// The start of 2025 in seconds since 1970. xrayd had no spool before 2025. An earlier date comes
/// from a clock that was not set: on a host without a battery, the clock begins in 1970.
const CREATED_AT_MIN: u64 = 1_735_689_600;

/// The clock that the dates of the records in a file come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// The clock of this run. A date is the seconds since boot plus `offset_seconds`.
    Own { offset_seconds: i64 },
    /// The clock of an earlier run. This run found the file `uptime_seconds` after boot.
    Found { uptime_seconds: i64 },
}

impl Dates {
    /// Returns the age of a record with this date.
    ///
    /// If the date of an earlier run is in the future or before 2025, the age is the time since the
    /// file was found.
    pub fn age(self, created_at: u64, now: Moment) -> Duration {
        match self {
            Self::Own { offset_seconds } => {
                let created_at = i64::try_from(created_at).unwrap_or(i64::MAX);
                now.since(created_at.saturating_sub(offset_seconds))
            }
            Self::Found { uptime_seconds } => {
                let age_seconds = now.unix_seconds().checked_sub(created_at);
                match age_seconds.filter(|_| created_at >= CREATED_AT_MIN) {
                    Some(seconds) => Duration::from_secs(seconds),
                    None => now.since(uptime_seconds),
                }
            }
        }
    }

    /// Returns the age of a record with this date as far as it is certain. Before the service has
    /// confirmed the date of today, the age of a record of an earlier run is the time since its
    /// file was found. A batch that is written to the spool again keeps this age, so a wrong date
    /// of today must not make it old.
    pub fn certain_age(self, created_at: u64, now: Moment) -> Duration {
        match self {
            Self::Found { uptime_seconds } if !now.is_confirmed => now.since(uptime_seconds),
            _ => self.age(created_at, now),
        }
    }

    /// Returns whether a record with this date is certainly older than `age_max`. For a date of an
    /// earlier run this is certain only after the service has confirmed the date of today.
    pub fn has_expired(self, created_at: u64, now: Moment, age_max: Duration) -> bool {
        let is_certain = now.is_confirmed || matches!(self, Self::Own { .. });
        is_certain && self.age(created_at, now) > age_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    fn moment(uptime_seconds: i64, unix_seconds: u64, is_confirmed: bool) -> Moment {
        let offset_seconds = i64::try_from(unix_seconds).unwrap() - uptime_seconds;
        Moment { uptime_seconds, offset_seconds, is_confirmed }
    }

    #[test]
    fn what_this_run_wrote_ages_by_its_own_clock_whatever_the_date_has_become() {
        // The host has no battery for its clock, so the clock begins in 1970.
        let written = moment(100, 5, false);
        let dates = Dates::Own { offset_seconds: written.offset_seconds };
        for now in [moment(160, 65, false), moment(160, NOW, true), moment(160, 0, true)] {
            assert_eq!(dates.age(written.unix_seconds(), now), Duration::from_secs(60));
        }
        let later = moment(100 + 8 * 24 * 3600, NOW, false);
        assert!(dates.has_expired(5, later, Duration::from_secs(7 * DAY)));
    }

    #[test]
    fn what_an_earlier_run_wrote_expires_when_the_service_vouches_for_the_date_and_not_before() {
        let dates = Dates::Found { uptime_seconds: 50 };
        let age_max = Duration::from_secs(7 * DAY);
        let created_at = NOW - 8 * DAY;
        assert!(!dates.has_expired(created_at, moment(100, NOW, false), age_max));
        assert!(dates.has_expired(created_at, moment(100, NOW, true), age_max));
        assert!(!dates.has_expired(NOW - 6 * DAY, moment(100, NOW, true), age_max));
        assert_eq!(dates.age(created_at, moment(100, NOW, false)), Duration::from_secs(8 * DAY));
        // Nor does a copy of it that is written before.
        let certain = |is_confirmed| dates.certain_age(created_at, moment(100, NOW, is_confirmed));
        assert_eq!([certain(false), certain(true)].map(|it| it.as_secs()), [50, 8 * DAY]);
    }

    #[test]
    fn a_date_that_cannot_be_right_counts_from_when_its_file_was_found() {
        let dates = Dates::Found { uptime_seconds: 50 };
        let age_max = Duration::from_secs(7 * DAY);
        for created_at in [0, 5, CREATED_AT_MIN - 1, NOW + 1, u64::MAX / 2, u64::MAX] {
            let now = moment(80, NOW, true);
            assert_eq!(dates.age(created_at, now), Duration::from_secs(30), "{created_at}");
            assert!(!dates.has_expired(created_at, now, age_max));
            let later = Moment { uptime_seconds: 51 + 7 * 24 * 3600, ..now };
            assert_eq!(dates.has_expired(created_at, later, age_max), created_at != NOW + 1);
        }
        assert_eq!(
            Dates::Own { offset_seconds: -9 }.age(u64::MAX, moment(1, 1, true)).as_secs(),
            0
        );
    }
}
