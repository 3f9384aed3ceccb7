//! Time that no setting of the host's clock moves, and the date that the service vouches for.
//!
//! In: the kernel's clock since boot, the host's clock once, at the start, and the `Date` of the
//! service's answers. Out: a [`Moment`]. Ages within a run are differences of the kernel's clock
//! alone: a host without a battery, a restored machine and the first answer of NTP all set the date
//! forward or back, by years even. Dates follow the service as soon as it has answered, and the
//! host's clock at the start until then. Any thread; no lock.
//!
//! `CLOCK_BOOTTIME` counts the time that a machine is suspended, `CLOCK_MONOTONIC` and so `Instant`
//! do not: what lies on disk for a week grows old while a machine sleeps, too.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The `Date` of an answer has whole seconds, and the answer was some time on its way: what is
/// nearer than this to the date in force changes nothing.
const CHANGE_SECONDS_MIN: u64 = 60;

/// No answer has vouched for a date.
const NONE: i64 = i64::MIN;

/// A reading of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since boot; below zero before it.
    pub uptime_seconds: i64,
    /// What is added to that for seconds since 1970.
    pub offset_seconds: i64,
    /// Whether an answer of the service vouches for the date.
    pub is_confirmed: bool,
}

impl Moment {
    /// The date, in seconds since 1970.
    pub fn unix_seconds(self) -> u64 {
        let seconds = self.uptime_seconds.saturating_add(self.offset_seconds);
        u64::try_from(seconds).unwrap_or_default()
    }

    /// The moment that was `age` ago, by the same clock.
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        let age_seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        Self { uptime_seconds: self.uptime_seconds.saturating_sub(age_seconds), ..self }
    }

    /// How long ago another moment was, by its seconds since boot; nothing if it is to come.
    pub fn since(self, uptime_seconds: i64) -> Duration {
        let seconds = self.uptime_seconds.saturating_sub(uptime_seconds);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

/// A clock; shared by all who ask for ages and dates.
#[derive(Debug)]
pub struct Clock {
    /// Seconds since boot, where a test sets them.
    manual_uptime_seconds: Option<AtomicI64>,
    /// By the host's clock, as it was at the start.
    start_offset_seconds: i64,
    /// By the service's clock; [`NONE`] until it has answered.
    confirmed_offset_seconds: AtomicI64,
}

impl Default for Clock {
    /// The system's.
    fn default() -> Self {
        Self {
            manual_uptime_seconds: None,
            start_offset_seconds: unix_seconds(SystemTime::now()).saturating_sub(uptime_seconds()),
            confirmed_offset_seconds: AtomicI64::new(NONE),
        }
    }
}

impl Clock {
    /// A clock that stands until it is [advanced](Self::advance), on a host whose own clock shows
    /// `host_time`.
    pub fn manual(uptime_seconds: i64, host_time: SystemTime) -> Self {
        Self {
            manual_uptime_seconds: Some(AtomicI64::new(uptime_seconds)),
            start_offset_seconds: unix_seconds(host_time).saturating_sub(uptime_seconds),
            confirmed_offset_seconds: AtomicI64::new(NONE),
        }
    }

    /// Sets a standing clock forward; the system's goes by itself.
    pub fn advance(&self, time: Duration) {
        if let Some(seconds) = &self.manual_uptime_seconds {
            seconds.fetch_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// The time for pauses, deadlines and ages within a run. It is the time of tokio's runtime,
    /// which a test can stop and set forward; on any other thread it is the system's.
    pub fn instant() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The date by the host's clock.
    pub fn host_date() -> SystemTime {
        SystemTime::now()
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        let manual =
            self.manual_uptime_seconds.as_ref().map(|manual| manual.load(Ordering::Relaxed));
        let confirmed_offset_seconds = self.confirmed_offset_seconds.load(Ordering::Relaxed);
        let is_confirmed = confirmed_offset_seconds != NONE;
        Moment {
            uptime_seconds: manual.unwrap_or_else(uptime_seconds),
            offset_seconds: if is_confirmed {
                confirmed_offset_seconds
            } else {
                self.start_offset_seconds
            },
            is_confirmed,
        }
    }

    /// The service has just answered with this date.
    pub fn confirm_date(&self, service_time: SystemTime) {
        let now = self.now();
        let offset_seconds = unix_seconds(service_time).saturating_sub(now.uptime_seconds);
        if !now.is_confirmed || offset_seconds.abs_diff(now.offset_seconds) >= CHANGE_SECONDS_MIN {
            self.confirmed_offset_seconds.store(offset_seconds, Ordering::Relaxed);
        }
    }
}

fn uptime_seconds() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

/// Whole seconds since 1970; below zero before it.
fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[test]
    fn dates_follow_the_host_at_the_start_until_the_service_has_answered() {
        let host_time = UNIX_EPOCH + YEAR;
        let clock = Clock::manual(500, host_time);
        let first = clock.now();
        assert_eq!((first.unix_seconds(), first.is_confirmed), (YEAR.as_secs(), false));
        clock.advance(Duration::from_secs(9));
        let service_time = UNIX_EPOCH + 57 * YEAR;
        clock.confirm_date(service_time);
        let now = clock.now();
        assert_eq!((now.unix_seconds(), now.is_confirmed), (57 * YEAR.as_secs(), true));
        assert_eq!(now.since(first.uptime_seconds), Duration::from_secs(9));
    }

    #[test]
    fn an_answer_that_was_on_its_way_for_some_seconds_changes_nothing() {
        let clock = Clock::manual(500, UNIX_EPOCH);
        let service_time = UNIX_EPOCH + 57 * YEAR;
        clock.confirm_date(service_time);
        let before = clock.now();
        clock.confirm_date(service_time - Duration::from_secs(59));
        assert_eq!(clock.now(), before);
        clock.confirm_date(service_time - Duration::from_secs(60));
        assert_eq!(clock.now().unix_seconds(), before.unix_seconds() - 60);
    }

    #[test]
    fn moments_at_the_ends_of_time_are_no_overflow() {
        let clock = Clock::manual(i64::MAX, UNIX_EPOCH - YEAR);
        clock.confirm_date(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4));
        let now = clock.now();
        assert_eq!(now.before(Duration::MAX).since(i64::MAX), Duration::ZERO);
        assert_eq!(now.since(i64::MIN), Duration::from_secs(i64::MAX as u64));
        assert_eq!(now.before(Duration::MAX).unix_seconds(), 0);
    }

    #[test]
    fn the_clock_of_the_system_shows_the_date_and_goes() {
        let clock = Clock::default();
        let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(clock.now().unix_seconds().abs_diff(date) < 60);
        assert!(clock.now().uptime_seconds > 0);
    }
}
