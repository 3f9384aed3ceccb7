//! Measures ages independently of the host's date, and takes the date from the service's answers.
//!
//! In: the kernel's clock since boot, the host's date once at the start, and the `Date` header of
//! the service's answers. Out: a [`Moment`]. Thread: any; there is no lock.
//!
//! Ages are differences between two readings of the clock since boot. The host's date is not used
//! for ages, because it can jump, even by years: on a host without a clock battery, on a restored
//! virtual machine, and when NTP first answers. Before the service has answered, dates are based on
//! the host's date at the start; afterwards they are based on the service's date.
//!
//! The clock since boot is `CLOCK_BOOTTIME`. It also counts the time in which the machine is
//! suspended, so this time is part of the age of records in the spool. `CLOCK_MONOTONIC`, and
//! therefore `Instant`, does not count that time (`clock_gettime`(2)).

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Smallest difference, in seconds, at which a date of the service replaces a date that the service
/// confirmed earlier. Smaller differences are not reliable: a `Date` header has whole seconds, and
/// the answer took some time to arrive.
const CHANGE_SECONDS_MIN: u64 = 60;

/// Value of [`Clock::confirmed_offset_seconds`] until the first answer of the service with a date.
const NONE: i64 = i64::MIN;

/// A reading of the clock: the time since boot, and the date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since boot. Negative for a time before boot.
    pub uptime_seconds: i64,
    /// Difference between seconds since 1970 and seconds since boot. Add it to `uptime_seconds` to
    /// get the date.
    pub offset_seconds: i64,
    /// Whether the date is based on an answer of the service, and not on the host's date.
    pub is_confirmed: bool,
}

impl Moment {
    /// Returns the date, in seconds since 1970. Returns 0 for a date before 1970.
    pub fn unix_seconds(self) -> u64 {
        let seconds = self.uptime_seconds.saturating_add(self.offset_seconds);
        u64::try_from(seconds).unwrap_or_default()
    }

    /// Returns the moment that is earlier than this moment by `age`.
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        let age_seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        Self { uptime_seconds: self.uptime_seconds.saturating_sub(age_seconds), ..self }
    }

    /// Returns the time that has passed between `uptime_seconds` (in seconds since boot) and this
    /// moment. Returns zero if `uptime_seconds` is later than this moment.
    pub fn since(self, uptime_seconds: i64) -> Duration {
        let seconds = self.uptime_seconds.saturating_sub(uptime_seconds);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }
}

/// The clock that the whole daemon uses for ages and dates.
#[derive(Debug)]
pub struct Clock {
    /// Seconds since boot, as set by a test. `None` means that the kernel's clock is read.
    manual_uptime_seconds: Option<AtomicI64>,
    /// The time from which on a clock for tests also follows the time of the tokio runtime. `None`
    /// means that it does not follow it.
    followed_from: Option<Instant>,
    /// Difference between seconds since 1970 and seconds since boot, from the host's date at the
    /// start of the daemon.
    start_offset_seconds: i64,
    /// Difference between seconds since 1970 and seconds since boot, from a date of the service.
    /// [`NONE`] until the first answer of the service with a date.
    confirmed_offset_seconds: AtomicI64,
}

impl Default for Clock {
    /// Returns a clock that follows the kernel's clock since boot.
    fn default() -> Self {
        Self {
            manual_uptime_seconds: None,
            followed_from: None,
            start_offset_seconds: unix_seconds(SystemTime::now()).saturating_sub(uptime_seconds()),
            confirmed_offset_seconds: AtomicI64::new(NONE),
        }
    }
}

impl Clock {
    /// Returns a clock for tests. It changes only by [`advance`](Self::advance). Its date starts at
    /// `host_time`.
    pub fn manual(uptime_seconds: i64, host_time: SystemTime) -> Self {
        Self {
            manual_uptime_seconds: Some(AtomicI64::new(uptime_seconds)),
            followed_from: None,
            start_offset_seconds: unix_seconds(host_time).saturating_sub(uptime_seconds),
            confirmed_offset_seconds: AtomicI64::new(NONE),
        }
    }

    /// Returns a clock for tests that run in virtual time. It follows the time of the tokio runtime
    /// from now on. [`advance`](Self::advance) adds to that, as a suspended machine does: the
    /// kernel's clock since boot goes on while `Instant` stands still.
    pub fn simulated(uptime_seconds: i64, host_time: SystemTime) -> Self {
        Self { followed_from: Some(Self::instant()), ..Self::manual(uptime_seconds, host_time) }
    }

    /// Advances a clock for tests by `time`, in whole seconds. Does nothing on a real clock.
    pub fn advance(&self, time: Duration) {
        if let Some(seconds) = &self.manual_uptime_seconds {
            seconds.fetch_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Returns the current time, for pauses, deadlines and short ages. Inside a tokio runtime, this
    /// is the time of the runtime, which a test can pause and advance. On other threads it is the
    /// system's time.
    pub fn instant() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Returns the current date of the host.
    pub fn host_date() -> SystemTime {
        SystemTime::now()
    }

    /// Returns the current reading of the clock.
    pub fn now(&self) -> Moment {
        let followed = self.followed_from.map_or(0, |from| {
            let time = Self::instant().saturating_duration_since(from);
            i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
        });
        let manual = self
            .manual_uptime_seconds
            .as_ref()
            .map(|manual| manual.load(Ordering::Relaxed).saturating_add(followed));
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

    /// Sets the date to `service_time`, the `Date` of an answer that the service has just sent.
    /// Small differences to an earlier date of the service are ignored.
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

/// Returns `time` in whole seconds since 1970. The result is negative for a date before 1970.
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

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_follows_the_runtime_and_goes_on_while_the_machine_is_suspended() {
        let clock = Clock::simulated(500, UNIX_EPOCH + YEAR);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(clock.now().uptime_seconds, 540);
        clock.advance(Duration::from_secs(60));
        let now = clock.now();
        assert_eq!((now.uptime_seconds, now.unix_seconds()), (600, YEAR.as_secs() + 100));
    }

    #[test]
    fn a_date_that_differs_by_less_than_a_minute_changes_nothing() {
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
    fn extreme_moments_do_not_overflow() {
        let clock = Clock::manual(i64::MAX, UNIX_EPOCH - YEAR);
        clock.confirm_date(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4));
        let now = clock.now();
        assert_eq!(now.before(Duration::MAX).since(i64::MAX), Duration::ZERO);
        assert_eq!(now.since(i64::MIN), Duration::from_secs(i64::MAX as u64));
        assert_eq!(now.before(Duration::MAX).unix_seconds(), 0);
    }

    #[test]
    fn the_default_clock_shows_the_date_and_the_time_since_boot() {
        let clock = Clock::default();
        let date = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(clock.now().unix_seconds().abs_diff(date) < 60);
        assert!(clock.now().uptime_seconds > 0);
    }
}
