//! What a number may be: its bounds, and what stands where none is given.
//!
//! In: what the operator wrote. Out: the value, or what is wrong with it and what to write instead.
//! Pure code.

/// The least that a buffer size may be, in megabytes; below it, only 0 has a meaning.
const BUFFER_SIZE_MB_MIN: u64 = 3;

/// Receivers at most that may be asked for.
pub(super) const RECEIVER_COUNT_MAX: u64 = 256;

/// Requests in flight at most that may be asked for.
pub(super) const CONCURRENCY_MAX: u64 = 1000;

/// The longest time for a shutdown that may be asked for.
pub(super) const SHUTDOWN_SECONDS_MAX: u64 = 3600;

/// Megabytes of the spool where none are given, and what may be asked for.
pub(super) const SPOOL_SIZE_MB: u64 = 256;
const SPOOL_SIZE_MB_MIN: u64 = 16;
const SPOOL_SIZE_MB_MAX: u64 = 1024 * 1024;

/// Hours that the spool keeps a segment for where none are given, and at most: a month, beyond
/// which the service takes none.
pub(super) const SPOOL_AGE_HOURS: u64 = 168;
pub(super) const SPOOL_AGE_HOURS_MAX: u64 = 720;

/// The longest timeout that may be asked for.
pub(super) const TIMEOUT_SECONDS_MAX: u64 = 300;

/// The longest time for a client's call that may be asked for; `http_server` counts on it.
pub(super) const PROXY_TIMEOUT_SECONDS_MAX: u64 = 60;

/// Megabytes for segments, or 0.
pub(super) fn buffer_size(megabytes: u64) -> Result<u64, String> {
    if (1..BUFFER_SIZE_MB_MIN).contains(&megabytes) {
        return Err(format!(
            "{megabytes} MB are too little. Give {BUFFER_SIZE_MB_MIN} or more, or 0 for 1 % of \
             the memory"
        ));
    }
    Ok(megabytes)
}

/// Megabytes of the spool.
pub(super) fn spool_size(megabytes: u64) -> Result<u64, String> {
    within(megabytes, SPOOL_SIZE_MB_MIN, SPOOL_SIZE_MB_MAX)
}

/// `number`, if it is from `low` to `high`.
pub(super) fn within(number: u64, low: u64, high: u64) -> Result<u64, String> {
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is out of bounds; write a number from {low} to {high}"))
    }
}
