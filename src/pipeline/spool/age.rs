//! How old a record is, whatever the clocks of this run and of earlier ones have shown.
//!
//! In: the date in a record's header, and the time now. Out: an age, and whether to act on it. A
//! date that this run has written is held against the clock that it was written by, which does not
//! jump. One of an earlier run is believed as far as it can be right; nothing expires by it before
//! an answer of the service vouches for the date now. A clock that was wrong by less makes such a
//! record as much older or younger.

use crate::base::clock::Moment;
use std::time::Duration;

/// No record was written before 2025: xrayd had no spool. A clock without a battery begins earlier.
const CREATED_AT_MIN: u64 = 1_735_689_600;

/// By what clock the dates in a file were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// By this run's, with what it added to the seconds since boot.
    Own { offset_seconds: i64 },
    /// By an earlier run's. The file was found so many seconds after boot.
    Found { uptime_seconds: i64 },
}

impl Dates {
    /// How old a record is with this date.
    ///
    /// A date of an earlier run that is yet to come, or that no run can have written, says nothing:
    /// the record counts as made when its file was found.
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

    /// Whether a record with this date has to be given up.
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
        // The host has no battery: its clock begins in 1970.
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
