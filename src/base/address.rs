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
/// Returns an error if `address` is not `HOST:PORT`, or if the host name cannot be resolved.
pub fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    // A missing host, as in `:2000`, means all network interfaces, as in the original daemon.
    let every_interface = address.starts_with(':').then(|| format!("0.0.0.0{address}"));
    let found: Vec<_> = every_interface.as_deref().unwrap_or(address).to_socket_addrs()?.collect();
    // SDKs send to the IPv4 address if a host name has IPv4 and IPv6 addresses.
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    let first = *first.ok_or_else(|| io::Error::other("the name has no address"))?;
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, first.port()));
    Ok(if first.ip().is_unspecified() && first != both { vec![both, first] } else { vec![first] })
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
