//! The paths that clients may call through the signing proxy.
//!
//! In: the path of a request. Out: whether it is allowed. Thread: any; the functions are pure.
//!
//! Every client of the TCP port uses the credentials of the daemon. Therefore only the paths for
//! which the policy of a daemon (`AWSXRayDaemonWriteAccess`) is meant are allowed, and those that
//! the operator adds.

/// Paths of the sampling calls of SDKs. They do not share their permits with other paths.
const SAMPLING: [&str; 3] =
    ["/GetSamplingRules", "/SamplingTargets", "/SamplingStatisticSummaries"];

/// Other allowed paths. The last one is for OpenTelemetry (OTLP over HTTP).
const OTHERS: [&str; 3] = ["/TraceSegments", "/TelemetryRecords", "/v1/traces"];

/// An entry that allows every path.
const ANY: &str = "*";

/// The paths that clients may call.
#[derive(Debug)]
pub(super) struct AllowedPaths {
    more: Vec<String>,
}

impl AllowedPaths {
    /// Returns the default paths and `more`.
    pub(super) fn new(more: &[String]) -> Self {
        Self { more: more.to_vec() }
    }

    /// Returns whether a path is allowed. Paths are compared byte by byte, without decoding and
    /// without resolving dots. So a path that the service could interpret as another one is not
    /// allowed.
    pub(super) fn allows(&self, path: &str) -> bool {
        path.starts_with('/')
            && (SAMPLING.contains(&path)
                || OTHERS.contains(&path)
                || self.more.iter().any(|allowed| allowed == path || allowed == ANY))
    }
}

/// Returns whether a path is that of a sampling call.
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
