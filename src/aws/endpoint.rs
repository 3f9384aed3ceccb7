//! The endpoint: the base address of X-Ray. It is configured, or follows from the region.
//!
//! In: the region and the operator's settings. Out: an [`Endpoint`]. Thread: any. No I/O, no clock.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

/// The AWS partitions. Each entry has the prefix of the partition's regions, the DNS suffix of its
/// endpoints, and the DNS suffix of its dual-stack endpoints. The first entry with a matching
/// prefix is used.
const PARTITIONS: [(&str, &str, &str); 7] = [
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", "amazonaws.com", "api.aws"),
];

/// Options for the endpoint of a region: FIPS and dual stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// Whether to use the endpoint with cryptography that is validated for FIPS 140
    /// (`AWS_USE_FIPS_ENDPOINT`).
    pub fips: bool,
    /// Whether to use the endpoint that also has IPv6 addresses (`AWS_USE_DUALSTACK_ENDPOINT`).
    pub dual_stack: bool,
}

/// The error if the configured endpoint is not a valid address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text} is not an address of a service: {reason}. \
     Give http://HOST[:PORT] or https://HOST[:PORT]"
)]
pub struct EndpointError {
    text: String,
    reason: String,
}

/// The base address of X-Ray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
    /// Path that is put in front of the paths of the X-Ray API, without a slash at its end.
    path_prefix: String,
}

impl Endpoint {
    /// Returns the endpoint that the operator configured as `text`. If there is none, returns the
    /// endpoint of AWS in `region`. `variant` has no effect on a configured endpoint.
    ///
    /// # Errors
    ///
    /// Returns an error if the text, or the address made from the region, is not a valid http or
    /// https address.
    pub fn resolve(
        text: Option<&str>,
        region: &str,
        variant: Variant,
    ) -> Result<Self, EndpointError> {
        if let Some(text) = text {
            return Self::parse(text);
        }
        let partition = PARTITIONS.into_iter().find(|(prefix, ..)| region.starts_with(prefix));
        let (_, suffix, dual_stack_suffix) = partition.unwrap_or_default();
        let name = if variant.fips { "xray-fips" } else { "xray" };
        let suffix = if variant.dual_stack { dual_stack_suffix } else { suffix };
        Self::parse(&format!("https://{name}.{region}.{suffix}"))
    }

    fn parse(text: &str) -> Result<Self, EndpointError> {
        // An address with a user or a query may contain a password or a token. It is not shown in
        // the error.
        let shown = match text.contains(['@', '?']) {
            true => "(not shown)".to_owned(),
            false => format!("{text:?}"),
        };
        let error = |reason: String| EndpointError { text: shown.clone(), reason };
        let uri: Uri = text.trim().parse().map_err(|reason| error(format!("{reason}")))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or_else(|| error("the scheme is missing".into()))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(error(format!("the scheme {scheme} is neither http nor https")));
        }
        let authority = parts.authority.ok_or_else(|| error("the host is missing".into()))?;
        if authority.as_str().contains('@') {
            return Err(error("it has a user in it".into()));
        }
        if authority.host().is_empty() {
            return Err(error("the host is missing".into()));
        }
        // The library ignores a port that is not a number.
        let port = authority.port().map_or_else(String::new, |port| format!(":{port}"));
        if authority.as_str() != format!("{}{port}", authority.host()) {
            return Err(error("the port is not a number from 0 to 65535".into()));
        }
        let path = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(error("it has a query".into()));
        }
        let path_prefix = path.path().trim_end_matches('/').to_owned();
        Ok(Self { scheme, authority, path_prefix })
    }

    /// Returns the full address of the API operation with `path`, for example `/TraceSegments`.
    ///
    /// # Panics
    ///
    /// Panics if `path` is not a valid path that starts with a slash.
    pub fn uri(&self, path: &str) -> Uri {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.path_prefix))
            .build()
            .expect("the parts and the path are valid")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}://{}{}", self.scheme, self.authority, self.path_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(region: &str, fips: bool, dual_stack: bool) -> String {
        Endpoint::resolve(None, region, Variant { fips, dual_stack }).unwrap().to_string()
    }

    #[test]
    fn regions_of_every_partition_have_their_own_suffixes() {
        for (region, suffix, dual_stack_suffix) in [
            ("us-east-1", "amazonaws.com", "api.aws"),
            ("us-gov-west-1", "amazonaws.com", "api.aws"),
            ("cn-north-1", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
            ("us-iso-east-1", "c2s.ic.gov", "api.aws.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov", "api.aws.scloud"),
            ("eu-isoe-west-1", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
            ("us-isof-south-1", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
            ("eusc-de-east-1", "amazonaws.eu", "api.amazonwebservices.eu"),
        ] {
            let expected = |name, suffix| format!("https://{name}.{region}.{suffix}");
            assert_eq!(own(region, false, false), expected("xray", suffix));
            assert_eq!(own(region, true, false), expected("xray-fips", suffix));
            assert_eq!(own(region, false, true), expected("xray", dual_stack_suffix));
            assert_eq!(own(region, true, true), expected("xray-fips", dual_stack_suffix));
        }
    }

    #[test]
    fn an_endpoint_that_is_given_is_taken_whatever_the_variant() {
        let variant = Variant { fips: true, dual_stack: true };
        let endpoint = Endpoint::resolve(Some("http://127.0.0.1:5"), "us-east-1", variant);
        assert_eq!(endpoint.unwrap().to_string(), "http://127.0.0.1:5");
    }

    #[test]
    fn a_path_prefix_is_kept() {
        for text in ["http://127.0.0.1:5000/prefix/", "http://127.0.0.1:5000/prefix"] {
            let endpoint = Endpoint::parse(text).unwrap();
            let uri = endpoint.uri("/TraceSegments");
            assert_eq!(uri.to_string(), "http://127.0.0.1:5000/prefix/TraceSegments");
        }
        let plain = Endpoint::parse("https://[::1]:443").unwrap();
        assert_eq!(plain.uri("/TraceSegments").to_string(), "https://[::1]:443/TraceSegments");
    }

    #[test]
    fn what_is_no_address_of_a_service_is_an_error() {
        for text in [
            "xray",
            "ftp://host",
            "https://",
            "http://a b",
            "http://h/?q",
            "http://u:p@h",
            "http://h:x",
            "http://h:70000",
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.to_string().contains("is not an address of a service"), "{error}");
            assert!(!error.to_string().contains("u:p"), "{error}");
        }
    }
}
