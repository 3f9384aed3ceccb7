//! Stand-in until the configuration is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
/// Level.
pub enum LogLevel {
    /// x
    Dev,
    /// x
    Debug,
    /// x
    Info,
    /// x
    Warn,
    /// x
    Error,
    /// x
    #[default]
    Prod,
}
