//! Resolves `HOST:PORT` to socket addresses, and recognizes loopback addresses.
//!
//! In: text from the configuration or from a `Host` header. Out: socket addresses. Thread: any.
//! [`resolve`] blocks while the system looks up a host name.

use http::uri::Authority;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Returns the socket addresses for `address` (`HOST:PORT`), in the order in which the caller
/// should try them. The caller opens only one of them ([`open_first`]).
///
/// A host name is looked up. If it has IPv4 and IPv6 addresses, an IPv4 address is returned. The
/// host `0.0.0.0` and a missing host mean all network interfaces, with IPv4 and IPv6. The original
/// daemon does the same. On a host without IPv6, the second returned address is for IPv4 only.
///
/// # Errors
///
/// Returns an error if `address` is not `HOST:PORT` (`InvalidInput`), or if the host name cannot be
/// resolved.
pub fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
    let (host, port) = split(address).map_err(invalid)?;
    // A missing host, as in `:2000`, means all network interfaces, as in the original daemon.
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    // An IPv4 address that is written as IPv6, as in `[::ffff:127.0.0.1]:2000`, is IPv4.
    let found = (host, port).to_socket_addrs()?;
    let found: Vec<_> = found.map(|it| SocketAddr::new(it.ip().to_canonical(), port)).collect();
    // SDKs send to the IPv4 address if a host name has IPv4 and IPv6 addresses.
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    let first = *first.ok_or_else(|| io::Error::other("the name has no address"))?;
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, first.port()));
    Ok(if first.ip().is_unspecified() && first != both { vec![both, first] } else { vec![first] })
}

/// Checks that `address` has the form `HOST:PORT`. Does not look up the host.
///
/// # Errors
///
/// Returns what is wrong with the address.
pub fn check_form(address: &str) -> Result<(), &'static str> {
    split(address).map(|_| ())
}

/// Splits `HOST:PORT`. An IPv6 address must be in brackets, and any other host may be.
fn split(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    // No port means any free port, as in Go.
    let port = if port.is_empty() { "0" } else { port };
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) if !host.contains(['[', ']', '\0']) => Ok((host, port)),
        None if host.contains(':') => Err("an IPv6 address needs brackets"),
        None if !host.contains(['[', ']', '\0']) => Ok((host, port)),
        _ => Err("the host has a character that no host has"),
    }
}

/// Calls `open` with each of `addresses` until a call succeeds. Returns the result of this call.
///
/// # Errors
///
/// Returns the last error of `open` if no call succeeds. If the port is in use, the remaining
/// addresses are not tried, because they have the same port.
pub fn open_first<T>(
    addresses: &[SocketAddr],
    mut open: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = Err(io::Error::other("there is no address to open"));
    for &address in addresses {
        result = open(address);
        match &result {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    result
}

/// Returns the address to which a process on this host connects, if a socket listens on `address`.
/// This is a loopback address if the socket listens on all network interfaces.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        // A socket on `[::]` also accepts IPv4 connections, and every host has IPv4 loopback.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

/// Returns whether the host of a `Host` header is `localhost` or a loopback address.
///
/// All other host names are not accepted, even if they resolve to a loopback address. The owner of
/// a domain can make its name resolve to 127.0.0.1. Then a web page from this domain could send
/// requests to the daemon (DNS rebinding).
pub fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let has_user = authority.as_str().contains('@');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
    !has_user && (host.eq_ignore_ascii_case("localhost") || is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_means_both_families() {
        let addresses = |text| resolve(text).unwrap().iter().map(SocketAddr::to_string).collect();
        let found: Vec<String> = addresses("0.0.0.0:2000");
        assert_eq!(found, ["[::]:2000", "0.0.0.0:2000"]);
        let found: Vec<String> = addresses(":2000");
        assert_eq!(found, ["[::]:2000", "0.0.0.0:2000"]);
        let found: Vec<String> = addresses("[::]:2000");
        assert_eq!(found, ["[::]:2000"]);
        let found: Vec<String> = addresses("127.0.0.1:2000");
        assert_eq!(found, ["127.0.0.1:2000"]);
        let found: Vec<String> = addresses("[::ffff:0.0.0.0]:2000");
        assert_eq!(found, ["[::]:2000", "0.0.0.0:2000"]);
    }

    #[test]
    fn an_ipv4_address_may_be_written_as_ipv6_and_any_host_in_brackets() {
        for text in ["[::ffff:127.0.0.1]:2000", "[127.0.0.1]:2000", "127.0.0.1:02000"] {
            let found = resolve(text).unwrap();
            assert_eq!(found, ["127.0.0.1:2000".parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn the_form_of_an_address_is_checked_without_looking_up_its_host() {
        for text in [":2000", "no-such-host.invalid:2000", "[::1]:0", "localhost:", "*:2000"] {
            assert_eq!(check_form(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "2000",
            "localhost",
            "[::1]",
            "h:x",
            "h:70000",
            "h:-1",
            "[h:1",
            "h\0:1",
            "::1:1",
            "h:1:1",
        ] {
            check_form(text).unwrap_err();
            assert_eq!(resolve(text).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{text}");
        }
    }

    #[test]
    fn a_host_without_ipv6_still_gets_ipv4_but_a_taken_port_is_final() {
        let addresses = resolve("0.0.0.0:2000").unwrap();
        let opened = open_first(&addresses, |address| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        });
        assert_eq!(opened.unwrap().to_string(), "0.0.0.0:2000");
        let mut try_count = 0;
        let taken = open_first(&addresses, |_| {
            try_count += 1;
            Err::<(), _>(io::ErrorKind::AddrInUse.into())
        });
        assert_eq!((taken.unwrap_err().kind(), try_count), (io::ErrorKind::AddrInUse, 1));
    }
}
