//! From `HOST:PORT` to the socket addresses to listen on.

use http::uri::Authority;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The addresses to try for `address`, best first: the first one that can be opened is enough.
///
/// A name is resolved, to IPv4 where it has both. Every interface (`0.0.0.0`) means IPv4 and IPv6
/// both, as in the original, and IPv4 alone on a host without IPv6.
///
/// # Errors
///
/// When `address` is no host and port, or the host's name is not known.
pub fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    // No host means every interface, as in the original.
    let every_interface = address.starts_with(':').then(|| format!("0.0.0.0{address}"));
    let found: Vec<_> = every_interface.as_deref().unwrap_or(address).to_socket_addrs()?.collect();
    // SDKs send to IPv4 where a name has both.
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    let first = *first.ok_or_else(|| io::Error::other("the name has no address"))?;
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, first.port()));
    Ok(if first.ip().is_unspecified() && first != both { vec![both, first] } else { vec![first] })
}

/// Opens the first of `addresses` that can be opened.
///
/// # Errors
///
/// The last error; a port that is in use is not tried in another way.
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

/// The address under which a process on this host reaches a port that listens on `address`.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        // Such a port takes IPv4 too, which every host has.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

/// Whether a host, as in a `Host` header, is a name or an address of loopback. No name but
/// `localhost` is: any other could be made to lead here by whoever owns it (DNS rebinding).
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
