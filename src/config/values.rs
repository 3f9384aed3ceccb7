//! What a value may be: the words that are taken, and the bounds of numbers.
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

/// The longest time for a client's call that may be asked for; `local_http` counts on it.
pub(super) const PROXY_TIMEOUT_SECONDS_MAX: u64 = 60;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything.
    Dev,
    /// What helps to find a fault, the start of bad datagrams among it.
    Debug,
    /// What the daemon does.
    Info,
    /// What goes wrong and passes.
    Warn,
    /// What goes wrong and costs something.
    Error,
    /// The same as [`Info`](Self::Info).
    #[default]
    Prod,
}

impl LogLevel {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "dev" => Ok(Self::Dev),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            "prod" => Ok(Self::Prod),
            _ => {
                Err(format!("{text:?} is no log level. Give dev, debug, info, warn, error or prod"))
            }
        }
    }
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// As the original's: `2026-01-31T12:00:00Z [Info] message`.
    #[default]
    Text,
    /// One JSON object a line, with `time`, `level` and `message`.
    Json,
}

impl LogFormat {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format. Give text or json")),
        }
    }
}

/// How datagrams should be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiveBackend {
    /// io_uring where it works, else `recvmmsg`.
    #[default]
    Auto,
    /// io_uring, or no start.
    Uring,
    /// `recvmmsg(2)`.
    Recvmmsg,
    /// The tokio-uring runtime, or no start.
    TokioUring,
}

impl ReceiveBackend {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "recvmmsg" => Ok(Self::Recvmmsg),
            "tokio-uring" => Ok(Self::TokioUring),
            _ => Err(format!(
                "{text:?} is no receive backend. Give auto, uring, recvmmsg or tokio-uring"
            )),
        }
    }
}

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
