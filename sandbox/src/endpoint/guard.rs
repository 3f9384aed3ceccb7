//! Refuses requests that another website caused in a browser on this host.
//!
//! In: the head of a request. Out: nothing, or a [`Failure`] with the reason. Programs on this host
//! and the sandbox's own page are allowed. A page of another website can also send requests to a
//! loopback port, in two ways. First, the owner of the website can let its name resolve to a
//! loopback address (DNS rebinding). The request then has this name in `Host`. Second, the page can
//! send the request from its own origin. The browser then adds `Origin` or `Sec-Fetch-Site`, which
//! a page cannot change. Programs other than browsers send neither of these two headers. No I/O, no
//! clock.

use super::answer::Failure;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks the head of a request. `own_hosts` are the hosts that are allowed besides `localhost` and
/// loopback addresses, without a port.
///
/// # Errors
///
/// Returns a failure (403) if `Host` is not allowed, or if another website caused the request.
pub fn check(head: &Parts, own_hosts: &[String]) -> Result<(), Failure> {
    let host = host(head)?;
    if !is_loopback(&host) && !own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host.host())) {
        return Err(Failure::forbidden(
            "The sandbox accepts only requests to localhost, 127.0.0.1, [::1], its own address and \
             the names given with --allow-host",
        ));
    }
    if let Some(origin) = only(head, &ORIGIN)? {
        let own = format!("http://{host}");
        if !origin.eq_ignore_ascii_case(own.as_bytes()) {
            return Err(Failure::forbidden("The sandbox accepts no requests of other pages"));
        }
    }
    match only(head, &FETCH_SITE)? {
        Some(b"cross-site") => {
            Err(Failure::forbidden("The sandbox accepts no requests of other websites"))
        }
        Some(b"same-site") if head.method != Method::GET => {
            Err(Failure::forbidden("Only the sandbox's own page may change anything"))
        }
        _ => Ok(()),
    }
}

/// Returns whether the host of a request is a loopback address or `localhost`.
///
/// No other name is allowed, because its owner can let it resolve to a loopback address (DNS
/// rebinding).
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let has_user = authority.as_str().contains('@');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    !has_user && (host.eq_ignore_ascii_case("localhost") || is_address)
}

/// Checks that a request of the page that changes data has the content type of JSON. An HTML form
/// of another website cannot send this content type.
///
/// # Errors
///
/// Returns a failure (400) if the content type is not `application/json`.
pub fn check_write(head: &Parts) -> Result<(), Failure> {
    let has_body = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    let is_json = essence
        .is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"application/json"));
    // A DELETE without a body has no content type. A form or a link cannot send a DELETE.
    if is_json || (!has_body && head.method == Method::DELETE) {
        Ok(())
    } else {
        Err(Failure::invalid("A change must have the header Content-Type: application/json"))
    }
}

/// Returns the host of a request, from the header or from the request target. If the request has
/// both, they must be equal.
fn host(head: &Parts) -> Result<Authority, Failure> {
    let header = only(head, &HOST)?;
    let header = header.map(Authority::try_from).transpose();
    let header = header.map_err(|_| Failure::forbidden("The Host header is not a valid host"))?;
    match (header, head.uri.authority()) {
        (Some(header), Some(target)) if header != *target => {
            Err(Failure::forbidden("The Host header differs from the host in the request target"))
        }
        (Some(host), _) => Ok(host),
        (None, Some(target)) => Ok(target.clone()),
        (None, None) => Err(Failure::forbidden("The Host header is missing")),
    }
}

/// Returns the value of a header. The header must not appear more than once.
fn only<'a>(head: &'a Parts, name: &HeaderName) -> Result<Option<&'a [u8]>, Failure> {
    let mut values = head.headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Failure::forbidden(format!("The header {name} appears more than once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/traces");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn is_good(method: &str, headers: &[(&str, &str)]) -> bool {
        check(&head(method, headers), &["xray.internal".to_owned(), "10.0.0.5".to_owned()]).is_ok()
    }

    #[test]
    fn loopback_is_localhost_and_the_addresses_of_loopback() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:2000", true),
            ("127.0.0.1", true),
            ("127.255.255.254:1", true),
            ("[::1]:2000", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.", false),
            ("a.localhost", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("127.1", false),
            ("126.255.255.255", false),
            ("128.0.0.1", false),
            ("0.0.0.0", false),
            ("[::]", false),
            ("[::2]", false),
            ("[::ffff:10.0.0.1]", false),
            ("user@localhost", false),
            ("localhost@example", false),
        ] {
            assert_eq!(is_loopback(&host.parse().unwrap()), expected, "{host}");
        }
    }

    #[test]
    fn only_names_of_this_host_are_accepted() {
        for host in [
            "localhost",
            "LOCALHOST:2000",
            "127.0.0.1",
            "127.0.0.1:2000",
            "127.8.8.8:1",
            "[::1]",
            "[::1]:2000",
            "[::ffff:127.0.0.1]:1",
            "xray.internal:2000",
            "XRay.Internal",
            "10.0.0.5:1",
        ] {
            assert!(is_good("GET", &[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:2000",
            "128.0.0.1",
            "0.0.0.0:2000",
            "10.0.0.6",
            "[::2]",
            "[fe80::1]",
            "localhost:2000:1",
            "u@localhost",
            "2130706433",
            "127.1",
            "0x7f.0.0.1",
            "localhost/",
            "localhost.",
        ] {
            assert!(!is_good("GET", &[("host", host)]), "{host}");
        }
        assert!(!is_good("GET", &[]));
        assert!(!is_good("GET", &[("host", "localhost"), ("host", "evil.example")]));
    }

    #[test]
    fn a_host_in_the_target_counts_too() {
        let mut with_target = head("GET", &[("host", "localhost:2000")]);
        with_target.uri = "http://evil.example/traces".parse().unwrap();
        assert!(check(&with_target, &[]).is_err());
        with_target.uri = "http://localhost:2000/traces".parse().unwrap();
        assert!(check(&with_target, &[]).is_ok());
        with_target.headers.remove(HOST);
        assert!(check(&with_target, &[]).is_ok());
        with_target.uri = "http://evil.example/traces".parse().unwrap();
        assert!(check(&with_target, &[]).is_err());
    }

    #[test]
    fn another_origin_is_refused_for_every_method() {
        let host = ("host", "localhost:2000");
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            assert!(is_good(method, &[host]), "{method}");
            assert!(is_good(method, &[host, ("origin", "http://localhost:2000")]), "{method}");
            for origin in [
                "http://localhost:3000",
                "https://localhost:2000",
                "http://localhost",
                "null",
                "",
                "http://127.0.0.1:2000",
                "http://evil.example",
                "http://localhost:2000/",
            ] {
                assert!(!is_good(method, &[host, ("origin", origin)]), "{method} {origin}");
            }
            assert!(!is_good(method, &[host, ("sec-fetch-site", "cross-site")]), "{method}");
            assert!(is_good(method, &[host, ("sec-fetch-site", "same-origin")]), "{method}");
            assert!(is_good(method, &[host, ("sec-fetch-site", "none")]), "{method}");
        }
        // A page of another local port may have a link to the sandbox, but its script must not
        // change anything.
        assert!(is_good("GET", &[host, ("sec-fetch-site", "same-site")]));
        assert!(!is_good("DELETE", &[host, ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn a_request_that_a_form_could_send_changes_nothing() {
        fn is_good(method: &str, headers: &[(&str, &str)]) -> bool {
            check_write(&head(method, headers)).is_ok()
        }
        let json = ("content-type", "application/json");
        assert!(is_good("PUT", &[json, ("content-length", "2")]));
        assert!(is_good("PUT", &[("content-type", "Application/JSON; charset=utf-8")]));
        assert!(is_good("DELETE", &[]));
        for content_type in ["text/plain", "text/plain;application/json", "application/jsonx", ""] {
            assert!(!is_good("PUT", &[("content-type", content_type), ("content-length", "2")]));
        }
        assert!(!is_good("PUT", &[]));
        assert!(!is_good("DELETE", &[("content-length", "2")]));
    }
}
