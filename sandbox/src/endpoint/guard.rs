//! Who may ask: programs on this host, and the sandbox's own page.
//!
//! In: the head of a request. Out: nothing, or a [`Failure`] that says why not. A page of another
//! site in this host's browser can send requests to a loopback port too: by a name of its own that
//! is made to lead to this address (DNS rebinding: the Host gives it away), or from its own origin
//! (the browser then says so in Origin or Sec-Fetch-Site, which a page cannot change). Programs
//! send neither. Pure code.

use super::answer::Failure;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks the head of any request. `own_hosts` are names that are good beside those of loopback.
pub fn check(head: &Parts, own_hosts: &[String]) -> Result<(), Failure> {
    let host = host(head)?;
    if !is_loopback(&host) && !own_hosts.iter().any(|own| own.eq_ignore_ascii_case(host.host())) {
        return Err(Failure::forbidden(
            "The sandbox answers to the names of this host alone: localhost, 127.0.0.1, [::1] and \
             those given with --allow-host",
        ));
    }
    if let Some(origin) = only(head, &ORIGIN)? {
        let own = format!("http://{host}");
        if !origin.eq_ignore_ascii_case(own.as_bytes()) {
            return Err(Failure::forbidden("The sandbox answers to no page but its own"));
        }
    }
    match only(head, &FETCH_SITE)? {
        Some(b"cross-site") => Err(Failure::forbidden("The sandbox answers to no other site")),
        Some(b"same-site") if head.method != Method::GET => {
            Err(Failure::forbidden("The sandbox is changed by no page but its own"))
        }
        _ => Ok(()),
    }
}

/// Whether a host, as in a `Host` header, is a name or an address of loopback. No name but
/// `localhost` is: any other could be made to lead here by whoever owns it (DNS rebinding).
fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let has_user = authority.as_str().contains('@');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    !has_user && (host.eq_ignore_ascii_case("localhost") || is_address)
}

/// Checks a change that the page asks for: what a form of another page could send is not JSON.
pub fn check_write(head: &Parts) -> Result<(), Failure> {
    let has_body = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    let is_json = essence
        .is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"application/json"));
    // A DELETE without a body has no type; no form and no link can send one.
    if is_json || (!has_body && head.method == Method::DELETE) {
        Ok(())
    } else {
        Err(Failure::invalid("A change needs Content-Type: application/json"))
    }
}

/// The host that the request is for; the one in the target counts as well as the header.
fn host(head: &Parts) -> Result<Authority, Failure> {
    let header = only(head, &HOST)?;
    let header = header.map(Authority::try_from).transpose();
    let header = header.map_err(|_| Failure::forbidden("The Host is none"))?;
    match (header, head.uri.authority()) {
        (Some(header), Some(target)) if header != *target => {
            Err(Failure::forbidden("The Host is not the one in the target"))
        }
        (Some(host), _) => Ok(host),
        (None, Some(target)) => Ok(target.clone()),
        (None, None) => Err(Failure::forbidden("There is no Host")),
    }
}

/// The value of a header that must not be there twice.
fn only<'a>(head: &'a Parts, name: &HeaderName) -> Result<Option<&'a [u8]>, Failure> {
    let mut values = head.headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Failure::forbidden(format!("More than one {name}"))),
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
    fn only_names_of_this_host_are_answered_to() {
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
        // A link on a page of another local port leads here; its script changes nothing.
        assert!(is_good("GET", &[host, ("sec-fetch-site", "same-site")]));
        assert!(!is_good("DELETE", &[host, ("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn what_a_form_could_send_changes_nothing() {
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
