//! The operator's proxy, HTTP or SOCKS5: its address, and the hosts that are reached without it.
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

/// The port of a SOCKS5 proxy whose address has none.
const SOCKS_PORT: u16 = 1080;

/// Largest length of a user and of a password that SOCKS5 has room for, in bytes.
const SOCKS_LOGIN_BYTES_MAX: usize = u8::MAX as usize;

/// The error if a text is not the address of a proxy. The error does not show the text, because it
/// may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyAddressError {
    /// The text has another form.
    #[error(
        "it is not the address of a proxy (the text is not shown, because it may contain a \
         password). Give http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %XX for special \
         characters in the password; https:// if the proxy itself expects TLS; or socks5:// for a \
         SOCKS5 proxy"
    )]
    Form,
    /// The login does not fit into a message of SOCKS5.
    #[error(
        "its user or its password has more than {SOCKS_LOGIN_BYTES_MAX} bytes, and SOCKS5 has no \
         room for more. Give a shorter one"
    )]
    LongLogin,
}

/// The user and the password for a SOCKS5 proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SocksLogin {
    pub(super) user: String,
    /// May be empty.
    pub(super) password: String,
}

/// The protocol that the proxy speaks, and the login in its form.
#[derive(Clone, PartialEq, Eq)]
enum Protocol {
    /// HTTP, with the value of the header `Proxy-Authorization`.
    Http(Option<HeaderValue>),
    Socks(Option<SocksLogin>),
}

/// The address of a proxy. Neither `Debug` nor `Display` shows the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    uri: Uri,
    protocol: Protocol,
}

impl ProxyAddress {
    /// Parses `[http[s]|socks5[h]://][USER:PASSWORD@]HOST[:PORT]`. If the port is missing, the
    /// default port of the scheme is used. A path after it has no effect, as in the original
    /// daemon. `socks5` and `socks5h` mean the same, as in Go: the proxy looks up the names.
    ///
    /// # Errors
    ///
    /// Returns an error if `text` does not have this form, for example if it begins with `socks4:`.
    pub fn parse(text: &str) -> Result<Self, ProxyAddressError> {
        let text = lower_scheme(text.trim());
        // The library ignores a path and an invalid port. Here an invalid port and a path with `@`
        // are an error: they can be a part of a password that contains `/` or `:` without escaping.
        let given: Uri = text.parse().map_err(|_| ProxyAddressError::Form)?;
        if given.path_and_query().is_some_and(|it| it.as_str().contains('@')) {
            return Err(ProxyAddressError::Form);
        }
        let any_host = Uri::from_static(ANY_HOST);
        let found = Matcher::builder().all(text).build().intercept(&any_host);
        let found = found.ok_or(ProxyAddressError::Form)?;
        let uri = found.uri().clone();
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let is_plain = uri.authority().is_some_and(|all| *all == *format!("{host}{port}"));
        if host.is_empty() || !is_plain {
            return Err(ProxyAddressError::Form);
        }
        match uri.scheme_str() {
            Some("http" | "https") => {
                Ok(Self { protocol: Protocol::Http(found.basic_auth().cloned()), uri })
            }
            Some("socks5" | "socks5h") => Self::socks(&uri, found.raw_auth()),
            _ => Err(ProxyAddressError::Form),
        }
    }

    /// Returns the SOCKS5 proxy at `uri`. The result has a port in any case, because libraries do
    /// not know the default port of this scheme.
    fn socks(uri: &Uri, login: Option<(&str, &str)>) -> Result<Self, ProxyAddressError> {
        let login = login
            .map(|(user, password)| SocksLogin { user: user.into(), password: password.into() });
        let is_long = |text: &str| text.len() > SOCKS_LOGIN_BYTES_MAX;
        if login.as_ref().is_some_and(|it| is_long(&it.user) || is_long(&it.password)) {
            return Err(ProxyAddressError::LongLogin);
        }
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(SOCKS_PORT);
        let uri = format!("{scheme}://{host}:{port}/").parse();
        let uri = uri.map_err(|_| ProxyAddressError::Form)?;
        Ok(Self { uri, protocol: Protocol::Socks(login) })
    }

    /// Returns whether the proxy speaks SOCKS5.
    pub fn is_socks(&self) -> bool {
        matches!(self.protocol, Protocol::Socks(_))
    }

    /// Returns the address without user and password.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the value of the header `Proxy-Authorization`. Returns `None` if the address of the
    /// proxy has no user, or if the proxy does not speak HTTP.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        match &self.protocol {
            Protocol::Http(authorization) => authorization.as_ref(),
            Protocol::Socks(_) => None,
        }
    }

    /// Returns the login for a SOCKS5 proxy.
    pub(super) fn socks_login(&self) -> Option<&SocksLogin> {
        match &self.protocol {
            Protocol::Http(_) => None,
            Protocol::Socks(login) => login.as_ref(),
        }
    }
}

/// Returns the address with its scheme in lower case, as Go reads it.
fn lower_scheme(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => text.to_owned(),
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
            ("HTTP://proxy:3128", "http://proxy:3128", None),
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
            "socks4://u:hush@proxy:1",
            "socks4a://u:hush@proxy:1",
            "socks5://u:hush@",
            "socks5://u:hush@proxy:port",
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
        let long = format!("socks5://u:{}@proxy", "hu".repeat(128));
        let error = ProxyAddress::parse(&long).unwrap_err().to_string();
        assert!(error.contains("more than 255 bytes") && !error.contains("hu"), "{error}");
    }

    #[test]
    fn the_address_of_a_socks_proxy_has_a_port_and_keeps_its_login_for_itself() {
        for (text, shown, login) in [
            ("socks5://proxy", "socks5://proxy:1080", None),
            ("SOCKS5H://proxy:9/path", "socks5h://proxy:9", None),
            ("socks5://[::1]", "socks5://[::1]:1080", None),
            ("socks5://u@proxy", "socks5://proxy:1080", Some(("u", ""))),
            ("socks5h://u:h%3Au%40@proxy:1", "socks5h://proxy:1", Some(("u", "h:u@"))),
        ] {
            let address = ProxyAddress::parse(text).unwrap();
            assert_eq!((&*address.to_string(), &*format!("{address:?}")), (shown, shown));
            let found = address.socks_login().map(|it| (&*it.user, &*it.password));
            assert_eq!((found, address.authorization()), (login, None), "{text}");
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
