//! The paths that clients may call through the signing proxy.
//!
//! In: the path of a request. Out: whether it is allowed, and the path of the API operation that it
//! means. Thread: any. No I/O, no clock.
//!
//! The proxy signs the requests of all clients with the daemon's credentials. Therefore it allows
//! only the API operations that a daemon needs (see the AWS policy `AWSXRayDaemonWriteAccess`), and
//! the paths that the operator adds.

use http::Uri;
use http::uri::PathAndQuery;

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
pub struct AllowedPaths {
    more: Vec<String>,
}

impl AllowedPaths {
    /// Allows the default paths and the paths in `more`.
    pub fn new(more: &[String]) -> Self {
        Self { more: more.to_vec() }
    }

    /// Returns whether `path` is allowed. Except for slashes at its beginning and its end, a path
    /// is compared byte by byte. Escapes such as `%2F` are not decoded, and `..` is not resolved.
    /// So a path in an unusual spelling is not allowed.
    pub fn allows(&self, path: &str) -> bool {
        path.starts_with('/')
            && (known(path).is_some()
                || self.more.iter().any(|allowed| allowed == path || allowed == ANY))
    }
}

/// Returns whether `path` means one of the paths for sampling.
pub(super) fn is_sampling(path: &str) -> bool {
    known(path).is_some_and(|known| SAMPLING.contains(&known))
}

/// Replaces the path of `uri` by that of the API operation that it means. Clients that append
/// `/GetSamplingRules` to an address with a slash at its end send `//GetSamplingRules`. A path
/// that means no known operation stays as it is.
pub fn correct(uri: &mut Uri) {
    let Some(known) = known(uri.path()).filter(|known| *known != uri.path()) else { return };
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{known}{query}")).ok();
    if let Ok(corrected) = Uri::from_parts(parts) {
        *uri = corrected;
    }
}

/// Returns the default path that `path` means: the same path, with any number of slashes at its
/// beginning and its end.
fn known(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix('/')?.trim_matches('/');
    SAMPLING.into_iter().chain(OTHERS).find(|known| known.strip_prefix('/') == Some(name))
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
                format!("/.{path}"),
                format!("/x/{path}"),
                format!("/x/..{path}"),
                format!("{path}/.."),
                format!("{path};x"),
                path.replace('S', "%53"),
                path.to_uppercase(),
                path.trim_start_matches('/').to_owned(),
                format!("{}/", path.trim_start_matches('/')),
            ] {
                assert!(!paths.allows(&other) || other == **path, "{other}");
            }
        }
        for path in ["", "*", "/", "/GetTraceSummaries", "/Traces"] {
            assert!(!paths.allows(path), "{path}");
        }
    }

    #[test]
    fn slashes_at_the_beginning_and_the_end_of_a_default_path_do_not_matter() {
        let paths = AllowedPaths::new(&["/GetGroups".to_owned()]);
        for path in SAMPLING.iter().chain(&OTHERS) {
            for (prefix, suffix) in [("/", ""), ("", "/"), ("//", "//"), ("/", "/?a=b"), ("", "")] {
                let mut uri: Uri = format!("{prefix}{path}{suffix}").parse().unwrap();
                assert!(paths.allows(uri.path()), "{uri}");
                assert_eq!(is_sampling(uri.path()), SAMPLING.contains(path), "{uri}");
                correct(&mut uri);
                assert_eq!(uri.path(), *path);
                assert_eq!(uri.query(), suffix.split_once('?').map(|(_, query)| query));
            }
        }
        for path in ["//GetGroups", "/GetGroups/"] {
            let mut uri: Uri = path.parse().unwrap();
            assert!(!paths.allows(path), "{path}");
            correct(&mut uri);
            assert_eq!(uri.path(), path);
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
