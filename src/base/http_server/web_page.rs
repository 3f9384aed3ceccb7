//! Recognizes requests that a web page in a browser on this host has sent.
//!
//! In: the head of a request. Out: the header that says so, or nothing. A page of another website
//! can send requests to a port of this host, also under a name of its own that it lets resolve to a
//! loopback address (DNS rebinding). A page must not use the daemon: to spend the credentials of
//! the host, or to add spans. Programs other than browsers send neither of the two headers, and a
//! page cannot change them. Thread: any. No I/O, no clock.

use http::header::ORIGIN;
use http::request::Parts;

/// Returns the name of the header by which a request is known as one of a web page. Returns `None`
/// for a request of a program.
pub fn sent_by_web_page(head: &Parts) -> Option<&'static str> {
    // Browsers send the header `Sec-Fetch-Site` also where they send no `Origin`, for example for
    // images.
    let mut sites = head.headers.get_all("sec-fetch-site").iter();
    let is_of_other_site = |site: &[u8]| ![&b"same-origin"[..], b"none"].contains(&site);
    if head.headers.contains_key(ORIGIN) {
        Some("Origin")
    } else if sites.any(|site| is_of_other_site(site.as_bytes())) {
        Some("Sec-Fetch-Site")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn a_web_page_is_known_by_the_headers_that_its_browser_adds() {
        for (header, expected) in [
            (("accept", "*/*"), None),
            (("sec-fetch-site", "same-origin"), None),
            (("sec-fetch-site", "none"), None),
            (("sec-fetch-site", "same-site"), Some("Sec-Fetch-Site")),
            (("sec-fetch-site", "cross-site"), Some("Sec-Fetch-Site")),
            (("sec-fetch-site", ""), Some("Sec-Fetch-Site")),
            (("origin", "null"), Some("Origin")),
            (("origin", "http://127.0.0.1:4318"), Some("Origin")),
        ] {
            let request = Request::builder().header(header.0, header.1).body(()).unwrap();
            assert_eq!(sent_by_web_page(&request.into_parts().0), expected, "{header:?}");
        }
    }
}
