//! Which paths clients may call. Pure code.
//!
//! Whoever reaches the TCP port borrows the host's credentials, so the paths are those that a
//! daemon's policy (`AWSXRayDaemonWriteAccess`) is for, and what the operator adds.

/// The calls that SDKs make for sampling; they have places of their own.
const SAMPLING: [&str; 3] =
    ["/GetSamplingRules", "/SamplingTargets", "/SamplingStatisticSummaries"];

/// The others, the last of them for OpenTelemetry (OTLP over HTTP).
const OTHERS: [&str; 3] = ["/TraceSegments", "/TelemetryRecords", "/v1/traces"];

/// Stands for every path.
const ANY: &str = "*";

/// The paths that clients may call.
#[derive(Debug)]
pub(super) struct AllowedPaths {
    more: Vec<String>,
}

impl AllowedPaths {
    /// The usual ones and `more`.
    pub(super) fn new(more: &[String]) -> Self {
        Self { more: more.to_vec() }
    }

    /// Whether a path is one of them, byte for byte: nothing is decoded and no dot is followed, so
    /// what the service could take for another path is none of them.
    pub(super) fn allows(&self, path: &str) -> bool {
        path.starts_with('/')
            && (SAMPLING.contains(&path)
                || OTHERS.contains(&path)
                || self.more.iter().any(|allowed| allowed == path || allowed == ANY))
    }
}

/// Whether it is a call for sampling.
pub(super) fn is_sampling(path: &str) -> bool {
    SAMPLING.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_paths_are_allowed_and_nothing_that_only_looks_like_them() {
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
