//! Resolves `HOST:PORT` to socket addresses, and recognizes loopback addresses.
//!
//! In: text from the configuration or from a `Host` header. Out: socket addresses. Thread: any;
//! [`resolve`] blocks while the system looks up a name.

use http::uri::Authority;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Returns the socket addresses to try for `address`, the preferred one first. The caller needs to
/// open only one of them ([`open_first`]).
///
/// A host name is looked up; its IPv4 address is preferred to an IPv6 address. `0.0.0.0` and a
/// missing host mean every interface, with IPv4 and IPv6, as in the original daemon. On a host
/// without IPv6 they mean IPv4 alone.
///
/// # Errors
///
/// Returns an error if `address` is not `HOST:PORT`, or if the host name cannot be resolved.
pub fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    // A missing host means every interface, as in the original daemon.
    let every_interface = address.starts_with(':').then(|| format!("0.0.0.0{address}"));
    let found: Vec<_> = every_interface.as_deref().unwrap_or(address).to_socket_addrs()?.collect();
    // SDKs send to IPv4 if a name has addresses of both families.
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    let first = *first.ok_or_else(|| io::Error::other("the name has no address"))?;
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, first.port()));
    Ok(if first.ip().is_unspecified() && first != both { vec![both, first] } else { vec![first] })
}

/// Calls `open` with each of `addresses` until one succeeds, and returns its result.
///
/// # Errors
///
/// Returns the last error of `open`. If a port is in use, the remaining addresses are not tried:
/// they have the same port.
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

/// Returns the address with which a process on this host connects to a socket that listens on
/// `address`.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        // A socket on the unspecified IPv6 address also accepts IPv4, which every host has.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

/// Returns whether the host of a `Host` header is `localhost` or a loopback address.
///
/// Other names never count as loopback, whatever their address is. The owner of a name can make
/// it resolve to 127.0.0.1, and then a web page could send requests to the daemon (DNS rebinding).
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
