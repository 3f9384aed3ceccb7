//! The `User-Agent` header of the daemon's own requests.
//!
//! In: the execution environment. Out: a text. Thread: any. No I/O, no clock.

/// Returns the `User-Agent` header. It contains the user agent of the original X-Ray daemon, so
/// that statistics of the service also count xrayd as an X-Ray daemon.
pub(super) fn user_agent(execution_environment: &str) -> String {
    // The original daemon is written in Go, and its user agent has Go's names of architectures.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "xrayd/{version} xray-agent/xray-daemon/{version} exec-env/{execution_environment} \
         OS/{os}-{architecture}",
        version = env!("CARGO_PKG_VERSION"),
        os = std::env::consts::OS,
    )
}
