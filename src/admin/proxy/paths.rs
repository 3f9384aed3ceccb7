//! The paths that clients may call through the signing proxy.
//!
//! In: the path of a request. Out: whether it is allowed. Thread: any. No I/O, no clock.
//!
//! The proxy signs the requests of all clients with the daemon's credentials. Therefore it allows
//! only the API operations that a daemon needs (see the AWS policy `AWSXRayDaemonWriteAccess`), and
//! the paths that the operator adds.

/// Paths of the requests with which SDKs get sampling rules. Their number in progress is limited
/// separately from that of all other requests.
const SAMPLING: [&str; 3] =
    ["/GetSamplingRules", "/SamplingTargets", "/SamplingStatisticSummaries"];

/// Allowed paths that are not for sampling. `/v1/traces` is for OpenTelemetry (OTLP over HTTP).
const OTHERS: [&str; 3] = ["/TraceSegments", "/TelemetryRecords", "/v1/traces"];

/// A configured path that allows every path.
const ANY: &str = "*";

/// The paths that clients may call.
#[derive(Debug)]
pub(super) struct AllowedPaths {
    more: Vec<String>,
}

impl AllowedPaths {
    /// Allows the default paths and the paths in `more`.
    pub(super) fn new(more: &[String]) -> Self {
        Self { more: more.to_vec() }
    }

    /// Returns whether `path` is allowed. Paths are compared byte by byte. Escapes such as `%2F`
    /// are not decoded, and `..` is not resolved. So a path in an unusual spelling is not allowed.
    pub(super) fn allows(&self, path: &str) -> bool {
        path.starts_with('/')
            && (SAMPLING.contains(&path)
                || OTHERS.contains(&path)
                || self.more.iter().any(|allowed| allowed == path || allowed == ANY))
    }
}

/// Returns whether `path` is one of the paths for sampling.
pub(super) fn is_sampling(path: &str) -> bool {
    SAMPLING.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_paths_are_allowed_and_similar_ones_are_not() {
        let paths = AllowedPaths::new(&[]);
        for path in SAMPLING.iter().chain(&OTHERS) {
            assert!(paths.allows(path), "{path}");
            for other in [
                format!("{path}/"),
                format!("/{path}"),
                format!("/.{path}"),
                format!("/x/..{path}"),
                format!("{path}/.."),
                format!("{path};x"),
                path.replace('S', "%53"),
                path.to_uppercase(),
                path.trim_start_matches('/').to_owned(),
            ] {
                assert!(!paths.allows(&other) || other == **path, "{other}");
            }
        }
        for path in ["", "*", "/", "/GetTraceSummaries", "/Traces"] {
            assert!(!paths.allows(path), "{path}");
        }
    }

    #[test]
    fn the_operator_adds_paths_or_opens_all() {
        let paths = AllowedPaths::new(&["/GetGroups".to_owned()]);
        assert!(paths.allows("/GetGroups") && paths.allows("/TraceSegments"));
        assert!(!paths.allows("/GetGroup") && !paths.allows("/Groups"));
        let all = AllowedPaths::new(&["*".to_owned()]);
        assert!(all.allows("/Anything") && !all.allows("*") && !all.allows(""));
    }
}
