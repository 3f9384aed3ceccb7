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

/// Stand-in.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// x
    pub udp_address: String,
    /// x
    pub tcp_address: String,
    /// x
    pub region: Option<String>,
    /// x
    pub endpoint: Option<String>,
    /// x
    pub role_arn: Option<String>,
    /// x
    pub local_mode: bool,
    /// x
    pub buffer_size_mb: u64,
    /// x
    pub concurrency: usize,
    /// x
    pub shutdown_seconds: u64,
}
