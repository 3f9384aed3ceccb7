//! The form of a request over HTTP/1.1: its first line, and the header `Host`.
//!
//! In: a request with a whole address. Out: the same request as it is sent. Over HTTP/2 the address
//! travels in headers of its own, so nothing is changed there. No I/O, no clock.

use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};

/// Prepares a request for a connection over HTTP/1.1. `is_forward_proxy` says that the connection
/// leads to a proxy that needs the whole address in the first line.
pub(super) fn prepare<B>(request: &mut Request<B>, is_forward_proxy: bool) {
    if !request.headers().contains_key(HOST)
        && let Some(host) = host(request.uri())
    {
        request.headers_mut().insert(HOST, host);
    }
    // An https address never comes here with a forward proxy: the connection is a tunnel then.
    if !is_forward_proxy || request.uri().scheme() == Some(&Scheme::HTTPS) {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
}

/// Returns the value of the header `Host`: without the port if it is that of the scheme.
fn host(uri: &Uri) -> Option<HeaderValue> {
    let host = uri.host()?;
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    match uri.port_u16() {
        Some(port) if port != usual => HeaderValue::try_from(format!("{host}:{port}")).ok(),
        _ => HeaderValue::from_str(host).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_has_the_path_and_only_a_forward_proxy_gets_the_whole_address() {
        for (uri, is_forward_proxy, line, host) in [
            ("https://h/TraceSegments?a=1", false, "/TraceSegments?a=1", "h"),
            ("https://h:443/", false, "/", "h"),
            ("http://h:2000", false, "/", "h:2000"),
            ("http://h:80/x", true, "http://h:80/x", "h"),
            ("https://h:8443/x", true, "/x", "h:8443"),
        ] {
            let mut request = Request::builder().uri(uri).body(()).unwrap();
            prepare(&mut request, is_forward_proxy);
            assert_eq!(request.uri().to_string(), line, "{uri}");
            assert_eq!(request.headers()[HOST], host, "{uri}");
        }
        let mut request = Request::builder().uri("http://h/").header(HOST, "x").body(()).unwrap();
        prepare(&mut request, false);
        assert_eq!(request.headers()[HOST], "x");
    }
}
