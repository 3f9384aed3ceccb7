//! The UDP socket: bound as the original binds, with as large a queue as the kernel grants.

use super::{Sink, sys};
use crate::address;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// What the kernel charges to the queue for the smallest datagram, at least: its own structures
/// (`struct sk_buff` has over 200 bytes, `struct skb_shared_info` 320).
const QUEUE_BYTES_PER_DATAGRAM_MIN: usize = 512;

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
        /// As configured.
        address: String,
    },
    /// The kernel refuses
    #[error("UDP {address} cannot be opened: {source}")]
    Open {
        /// As configured.
        address: String,
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
        let addresses = address::resolve(address)
            .map_err(|source| BindError::Address { address: address.to_owned(), source })?;
        address::open_first(&addresses, |address| open(address, queue_bytes)).map_err(|source| {
            let address = address.to_owned();
            match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse { address },
                _ => BindError::Open { address, source },
            }
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

    /// Datagrams that fit into the queue at most.
    pub fn queue_datagram_count_max(&self) -> usize {
        self.queue_bytes / QUEUE_BYTES_PER_DATAGRAM_MIN
    }

    /// Datagrams that the kernel dropped since the socket was opened, up to 2^32 and then from 0;
    /// 0 where the kernel does not say.
    fn drop_count(&self) -> u32 {
        sys::drop_count(self.as_fd()).unwrap_or_default()
    }
}

/// Tells a sink of the datagrams that the kernel dropped, without asking at every drain.
///
/// The kernel only drops when the queue is full, and then a queue's worth of datagrams comes
/// first: so it is enough to ask when a part of that much has come since the last time.
#[derive(Debug, Default)]
pub(super) struct DropWatch {
    reported: u32,
    queue_bytes_taken: usize,
}

impl DropWatch {
    /// Notes what a drain took, and asks the kernel if that was enough for a full queue.
    pub(super) fn note(
        &mut self,
        datagram_count: usize,
        datagram_bytes: usize,
        socket: &ReceiveSocket,
        sink: &mut impl Sink,
    ) {
        self.queue_bytes_taken += datagram_bytes + datagram_count * QUEUE_BYTES_PER_DATAGRAM_MIN;
        if self.queue_bytes_taken > socket.queue_bytes() / 4 {
            self.report(socket, sink);
        }
    }

    /// Asks the kernel, and tells `sink` what is new.
    pub(super) fn report(&mut self, socket: &ReceiveSocket, sink: &mut impl Sink) {
        self.queue_bytes_taken = 0;
        let count = socket.drop_count();
        let fresh_count = count.wrapping_sub(self.reported);
        self.reported = count;
        if fresh_count > 0 {
            sink.kernel_dropped(fresh_count, socket.queue_bytes());
        }
    }
}

impl AsFd for ReceiveSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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
