//! The operator's HTTP proxy: its address, and the hosts that are reached without it.
//!
//! In: the text of `HTTPS_PROXY` and `NO_PROXY`, or of the configuration. Out: the proxy for an
//! address, or `None` for a direct connection. Thread: any. No I/O, no clock.

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// An address that is used to ask a `Matcher` for its proxy. The answer is the same for every host.
const ANY_HOST: &str = "http://any.invalid/";

/// A placeholder. A `Matcher` needs a proxy address, but here it is only used to match exceptions.
const SOME_PROXY: &str = "http://proxy.invalid/";

/// The error if a text is not the address of a proxy. The error does not show the text, because it
/// may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not the address of an HTTP proxy (the text is not shown, because it may contain a \
     password). Give http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %XX for special \
     characters in the password; or https:// if the proxy itself expects TLS"
)]
pub struct ProxyAddressError;

/// The address of an HTTP proxy. Neither `Debug` nor `Display` shows the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl ProxyAddress {
    /// Parses `[http[s]://][USER:PASSWORD@]HOST[:PORT]`. If the port is missing, the default port
    /// of the scheme is used. A path after it has no effect, as in the original daemon.
    ///
    /// # Errors
    ///
    /// Returns an error if `text` does not have this form, for example if it begins with `socks5:`.
    pub fn parse(text: &str) -> Result<Self, ProxyAddressError> {
        let text = text.trim();
        // The library ignores a path and an invalid port. Here an invalid port and a path with `@`
        // are an error: they can be a part of a password that contains `/` or `:` without escaping.
        let given: Uri = text.parse().map_err(|_| ProxyAddressError)?;
        if given.path_and_query().is_some_and(|it| it.as_str().contains('@')) {
            return Err(ProxyAddressError);
        }
        let any_host = Uri::from_static(ANY_HOST);
        let found = Matcher::builder().all(text).build().intercept(&any_host);
        let found = found.ok_or(ProxyAddressError)?;
        let uri = found.uri().clone();
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let is_plain = uri.authority().is_some_and(|all| *all == *format!("{host}{port}"));
        let is_http = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        if !is_http || host.is_empty() || !is_plain {
            return Err(ProxyAddressError);
        }
        Ok(Self { uri, authorization: found.basic_auth().cloned() })
    }

    /// Returns the address without user and password.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the value of the header `Proxy-Authorization`. Returns `None` if the address of the
    /// proxy has no user.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl std::fmt::Display for ProxyAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        write!(out, "{scheme}://{}:{}", self.uri.host().unwrap_or_default(), port_of(&self.uri))
    }
}

impl std::fmt::Debug for ProxyAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{self}")
    }
}

/// A proxy, and the hosts that are reached without it.
#[derive(Debug)]
pub(super) struct Proxy {
    address: ProxyAddress,
    /// Hosts that are reached without the proxy, each with a port. `None` means all ports of the
    /// host.
    exceptions: Vec<(Matcher, Option<u16>)>,
}

impl Proxy {
    /// Returns the proxy at `address`. `no_proxy` lists the hosts that are reached without the
    /// proxy, separated by commas. An entry is a host name, an IP address, a network such as
    /// `10.0.0.0/8`, or `*` for all hosts. A host name also stands for all its subdomains. An entry
    /// can end with `:PORT`, and then applies to this port only.
    pub(super) fn new(address: ProxyAddress, no_proxy: &str) -> Self {
        let entries = no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let exceptions = entries.map(|entry| {
            let (host, port) = split_port(entry);
            // The library supports `.name` but not `*.name`, so the `*` is removed.
            let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
            (Matcher::builder().all(SOME_PROXY).no(host).build(), port)
        });
        Self { exceptions: exceptions.collect(), address }
    }

    /// Returns the proxy for `uri`. Returns `None` if the host of `uri` is reached without it.
    pub(super) fn of(&self, uri: &Uri) -> Option<&ProxyAddress> {
        let port = port_of(uri);
        let is_excepted = self.exceptions.iter().any(|(matcher, wanted_port)| {
            wanted_port.is_none_or(|wanted| wanted == port) && matcher.intercept(uri).is_none()
        });
        (!is_excepted).then_some(&self.address)
    }
}

/// Returns the port of `uri`, or the default port of its scheme.
pub(super) fn port_of(uri: &Uri) -> u16 {
    let by_scheme = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(by_scheme)
}

/// Splits an entry of `no_proxy` into host and port, because the library does not support ports
/// there. An IPv6 address with a port must be in brackets; without a port, the brackets are
/// optional.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_user_and_a_password_and_shows_neither() {
        for (text, shown, authorization) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            (" proxy:3128 ", "http://proxy:3128", None),
            ("http://proxy/", "http://proxy:80", None),
            ("http://[::1]:3128", "http://[::1]:3128", None),
            ("https://u@proxy", "https://proxy:443", Some("Basic dTo=")),
            ("http://u:hush@proxy:1", "http://proxy:1", Some("Basic dTpodXNo")),
            ("http://u:w%40r%3Ad@proxy:1", "http://proxy:1", Some("Basic dTp3QHI6ZA==")),
            ("http://u@proxy:1", "http://proxy:1", Some("Basic dTo=")),
            ("http://u:hush@proxy:1/path?a=b", "http://proxy:1", Some("Basic dTpodXNo")),
        ] {
            let address = ProxyAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
            let found = address.authorization().map(|value| value.to_str().unwrap());
            assert_eq!(found, authorization, "{text}");
        }
    }

    #[test]
    fn an_invalid_address_of_a_proxy_is_an_error_that_does_not_show_it() {
        for text in [
            "ftp://u:hush@proxy:1",
            "socks5://u:hush@proxy:1",
            "http://",
            "http://u:hush@",
            "http://u:hush/@proxy:1",
            "http://u:hu sh@proxy:1",
            "http://u:hu@sh@proxy:1",
            "http://u:hush@proxy:port",
            "/proxy",
        ] {
            let error = ProxyAddress::parse(text).expect_err(text).to_string();
            assert!(error.contains("http://HOST:PORT") && !error.contains("hu"), "{error}");
        }
    }

    #[test]
    fn hosts_that_are_excepted_are_reached_without_the_proxy() {
        for (no_proxy, uri, is_direct) in [
            ("", "https://example.com", false),
            ("example.com", "https://example.com", true),
            ("EXAMPLE.com", "https://xray.example.COM", true),
            ("example.com", "https://notexample.com", false),
            (".example.com", "https://xray.example.com", true),
            ("*.example.com", "https://xray.example.com", true),
            ("*.example.com", "https://example.org", false),
            ("a.org , example.com", "http://example.com:8080", true),
            ("*", "https://example.com", true),
            ("*", "https://[2001:db8::1]", false),
            ("10.0.0.0/8", "https://10.2.3.4", true),
            ("10.0.0.0/8", "https://11.2.3.4", false),
            ("10.0.0.0/8", "https://10.example.com", false),
            ("127.0.0.1", "http://127.0.0.1:9", true),
            ("127.0.0.1", "http://127.0.0.2:9", false),
            ("::1", "http://[::1]:9", true),
            ("[::1]", "http://[::1]:9", true),
            ("[::1]:9", "http://[::1]:9", true),
            ("[::1]:9", "http://[::1]:10", false),
            ("2001:db8::/32", "https://[2001:db8::7]", true),
            ("example.com:443", "https://example.com", true),
            ("example.com:443", "http://example.com", false),
            ("example.com:80", "http://example.com", true),
            ("127.0.0.1:81", "http://127.0.0.1:80", false),
            (".example.com:8443", "https://a.example.com:8443", true),
        ] {
            let address = ProxyAddress::parse("http://proxy:1").unwrap();
            let proxy = Proxy::new(address, no_proxy);
            let found = proxy.of(&uri.parse().unwrap());
            assert_eq!(found.is_none(), is_direct, "{no_proxy:?} {uri}");
        }
    }
}
