//! The log level and the log format that an operator can choose.
//!
//! In: the text of a flag or of the configuration file. Out: the level or the format, or an error
//! that lists the accepted words. Thread: any. No I/O, no clock.

/// The log level. It decides which lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Log all lines, also each rejected datagram (100 in a second at most).
    Dev,
    /// Log the lines of `Info`, and details that help to find a fault: each batch and call,
    /// connections, the source of the credentials, the start of rejected datagrams.
    Debug,
    /// Log the lines of `Warn`, and the normal work of the daemon.
    Info,
    /// Log the lines of `Error`, and problems without a lasting effect.
    Warn,
    /// Log only problems that an operator must solve: dropped segments, refused documents, and that
    /// nothing has been delivered for some seconds.
    Error,
    /// The same as [`Info`](Self::Info).
    #[default]
    Prod,
}

impl LogLevel {
    /// Parses the name of a log level, in upper or lower case. `warning` means `warn`.
    ///
    /// # Errors
    ///
    /// Returns a message that lists the accepted words if `text` is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "dev" => Ok(Self::Dev),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            "prod" => Ok(Self::Prod),
            _ => {
                Err(format!("{text:?} is no log level. Give dev, debug, info, warn, error or prod"))
            }
        }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// The format of the original daemon: `2026-01-31T12:00:00Z [Info] message`.
    #[default]
    Text,
    /// Each line is a JSON object with the fields `time`, `level` and `message`, and with the
    /// fields of the event, for example `segments`.
    Json,
}

impl LogFormat {
    /// Parses the name of a log format, in upper or lower case.
    ///
    /// # Errors
    ///
    /// Returns a message that lists the accepted words if `text` is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format. Give text or json")),
        }
    }
}
