//! The UDP socket: bound as the original binds, with as large a queue as the kernel grants.

use super::sys;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};

/// Why the address for segments could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is no host and port
    #[error(
        "{address:?} is not an address to listen on: {source}. \
         Give HOST:PORT, for example -b 127.0.0.1:2000"
    )]
    Address {
        /// As configured.
        address: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The port is taken
    #[error(
        "UDP {address} is in use: another daemon listens there. \
         Stop it, or give another port with -b"
    )]
    InUse {
        /// The address as resolved.
        address: SocketAddr,
    },
    /// The kernel refuses
    #[error("UDP {address} cannot be opened: {source}")]
    Open {
        /// The address as resolved.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A bound UDP socket.
#[derive(Debug)]
pub struct ReceiveSocket {
    socket: Socket,
    local_address: SocketAddr,
    queue_bytes: usize,
}

impl ReceiveSocket {
    /// Binds to `address` (`HOST:PORT`; a name is resolved, port 0 takes a free one) and asks for
    /// a queue of `queue_bytes`.
    ///
    /// `0.0.0.0` listens on IPv4 and IPv6 both where the host has IPv6, as the original does.
    ///
    /// # Errors
    ///
    /// Says which address is wrong or taken.
    pub fn bind(address: &str, queue_bytes: usize) -> Result<Self, BindError> {
        let resolved = resolve(address)
            .map_err(|source| BindError::Address { address: address.to_owned(), source })?;
        let opened = match dual_stack(resolved) {
            Some(both) => open(both, queue_bytes).or_else(|error| {
                // Without IPv6 on this host there is still IPv4.
                if is_in_use(&error) { Err(error) } else { open(resolved, queue_bytes) }
            }),
            None => open(resolved, queue_bytes),
        };
        opened.map_err(|source| match is_in_use(&source) {
            true => BindError::InUse { address: resolved },
            false => BindError::Open { address: resolved, source },
        })
    }

    /// The address that it is bound to, with the port taken.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The queue that the kernel granted, in bytes, its own overhead included.
    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Datagrams that the kernel dropped since the socket was opened; 0 where it does not say.
    pub fn drop_count(&self) -> u64 {
        sys::drop_count(self.as_fd()).map_or(0, u64::from)
    }
}

impl AsFd for ReceiveSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut candidates = address.to_socket_addrs()?;
    candidates.next().ok_or_else(|| io::Error::other("the name has no address"))
}

/// The address that takes IPv4 and IPv6 both, where the given one means every interface.
fn dual_stack(address: SocketAddr) -> Option<SocketAddr> {
    address.ip().is_unspecified().then(|| (Ipv6Addr::UNSPECIFIED, address.port()).into())
}

fn open(address: SocketAddr, queue_bytes: usize) -> io::Result<ReceiveSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A refusal leaves the system's default, which is what the original always has.
    let _ = socket.set_recv_buffer_size(queue_bytes);
    socket.bind(&address.into())?;
    let local_address = socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no IP address"))?;
    let queue_bytes = socket.recv_buffer_size()?;
    Ok(ReceiveSocket { socket, local_address, queue_bytes })
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    const QUEUE_BYTES: usize = 64 * 1024;

    #[test]
    fn a_taken_port_is_an_error_that_names_it() {
        let first = ReceiveSocket::bind("127.0.0.1:0", QUEUE_BYTES).unwrap();
        let address = first.local_address().to_string();
        let error = ReceiveSocket::bind(&address, QUEUE_BYTES).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[test]
    fn what_is_no_address_is_an_error_that_shows_a_good_one() {
        for address in ["", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000"] {
            let error = ReceiveSocket::bind(address, QUEUE_BYTES).unwrap_err();
            assert!(matches!(error, BindError::Address { .. }), "{error}");
            assert!(error.to_string().contains("127.0.0.1:2000"), "{error}");
        }
    }

    #[test]
    fn every_interface_means_ipv4_and_ipv6() {
        let socket = ReceiveSocket::bind("0.0.0.0:0", QUEUE_BYTES).unwrap();
        let port = socket.local_address().port();
        let mut senders = vec![(UdpSocket::bind("127.0.0.1:0").unwrap(), "127.0.0.1")];
        // A host without IPv6 has no ::1 to send from.
        senders.extend(UdpSocket::bind("[::1]:0").ok().map(|sender| (sender, "::1")));
        for (sender, host) in &senders {
            sender.send_to(host.as_bytes(), (*host, port)).unwrap();
            let mut buffer = [std::mem::MaybeUninit::uninit(); 16];
            assert_eq!(socket.socket.recv(&mut buffer).unwrap(), host.len());
        }
    }

    #[test]
    fn names_resolve() {
        let socket = ReceiveSocket::bind("localhost:0", QUEUE_BYTES).unwrap();
        assert!(socket.local_address().ip().is_loopback());
    }

    #[test]
    fn datagrams_that_did_not_fit_are_counted() {
        let socket = ReceiveSocket::bind("127.0.0.1:0", 4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(socket.drop_count(), 0);
        for _ in 0..1_000 {
            sender.send_to(&[0; 1_000], socket.local_address()).unwrap();
        }
        assert!(socket.drop_count() > 900);
    }
}
