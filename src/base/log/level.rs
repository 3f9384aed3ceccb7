//! What the operator chooses of the log: how much of it, and what a line looks like.
//!
//! In: the operator's words. Out: the choice, or what to write instead. Bound: a word. Pure code.

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
    /// Reads the operator's word for it.
    ///
    /// # Errors
    ///
    /// Says which words are taken.
    pub fn parse(text: &str) -> Result<Self, String> {
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
    /// Reads the operator's word for it.
    ///
    /// # Errors
    ///
    /// Says which words are taken.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format. Give text or json")),
        }
    }
}
