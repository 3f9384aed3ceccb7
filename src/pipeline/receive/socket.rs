//! One bound UDP socket, with as large a queue as the kernel grants.

use super::sys;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// What the kernel charges to the queue for a datagram beside its bytes, at least: its own
/// structures (`struct sk_buff` has over 200 bytes, `struct skb_shared_info` 320).
pub(super) const DATAGRAM_OVERHEAD_BYTES_MIN: usize = 512;

/// The queue of a socket, where datagrams wait that no receiver has taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// What was asked of the kernel, twice the binding's number as the kernel counts.
    pub asked_bytes: usize,
    /// What the kernel granted, its own overhead included.
    pub granted_bytes: usize,
}

impl Queue {
    /// What makes it larger: more memory where the kernel has granted all that was asked for.
    pub fn advice(self) -> &'static str {
        if self.granted_bytes < self.asked_bytes {
            "A larger net.core.rmem_max, or CAP_NET_ADMIN, allows a larger queue"
        } else {
            "A larger -m asks for a larger queue"
        }
    }
}

/// A bound UDP socket.
#[derive(Debug)]
pub struct ReceiveSocket {
    socket: Socket,
    local_address: SocketAddr,
    queue: Queue,
}

impl ReceiveSocket {
    pub(super) fn open(
        address: SocketAddr,
        queue_bytes: usize,
        reuse_port: bool,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.set_reuse_port(reuse_port)?;
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; without it as much as that allows. A
        // refusal of both leaves the system's default, which is what the original always has.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, queue_bytes).is_err() {
            let _ = socket.set_recv_buffer_size(queue_bytes);
        }
        socket.bind(&address.into())?;
        let local_address = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the socket has no IP address"))?;
        let granted_bytes = socket.recv_buffer_size()?;
        let queue = Queue { asked_bytes: 2 * queue_bytes, granted_bytes };
        Ok(Self { socket, local_address, queue })
    }

    /// Lets more sockets of this user bind to the same address.
    pub(super) fn share_port(&self) -> io::Result<()> {
        self.socket.set_reuse_port(true)
    }

    /// The address that it is bound to, with the port taken.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Its queue.
    pub fn queue(&self) -> Queue {
        self.queue
    }

    /// Datagrams that fit into the queue at most.
    pub(super) fn queue_datagram_count_max(&self) -> usize {
        self.queue.granted_bytes / DATAGRAM_OVERHEAD_BYTES_MIN
    }

    /// Datagrams that the kernel dropped since the socket was opened, up to 2^32 and then from 0;
    /// 0 where the kernel does not say.
    pub(super) fn drop_count(&self) -> u32 {
        sys::drop_count(self.as_fd()).unwrap_or_default()
    }

    /// Bytes that its queue takes up at the moment; 0 where the kernel does not say.
    pub fn queued_bytes(&self) -> u32 {
        sys::queued_bytes(self.as_fd()).unwrap_or_default()
    }

    /// Has the datagrams that come from now on go to the other members of its group.
    ///
    /// The kernel's hash passes over sockets that are connected, and so talk to one peer alone;
    /// the peer here is the discard port of this host, which sends nothing. What is queued stays.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; then datagrams go on to come until the socket is closed.
    pub(super) fn discard_incoming(&self) -> io::Result<()> {
        // Without a program there is none to take off.
        let _ = sys::detach_spread(self);
        const DISCARD_PORT: u16 = 9;
        let peer: SocketAddr = match self.local_address {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, DISCARD_PORT).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, DISCARD_PORT).into(),
        };
        self.socket.connect(&peer.into())
    }

    /// A descriptor of its own for the same socket.
    pub(super) fn try_clone(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }
}

impl AsFd for ReceiveSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
impl ReceiveSocket {
    /// A socket that is none: to wait for it, and to read it, is an error.
    pub(super) fn broken() -> Self {
        let (_reader, writer) = std::io::pipe().unwrap();
        let socket = Socket::from(std::os::fd::OwnedFd::from(writer));
        let queue = Queue { asked_bytes: 0, granted_bytes: 0 };
        Self { socket, local_address: (Ipv4Addr::LOCALHOST, 0).into(), queue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_that_did_not_fit_are_counted() {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let socket = ReceiveSocket::open(address, 4096, false).unwrap();
        assert_eq!(socket.drop_count(), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..1_000 {
            sender.send_to(&[0; 1_000], socket.local_address()).unwrap();
        }
        assert!(socket.drop_count() > 900);
    }

    #[test]
    fn the_advice_fits_what_bounds_the_queue() {
        let queue = Queue { asked_bytes: 100, granted_bytes: 50 };
        assert!(queue.advice().contains("rmem_max"));
        assert!(Queue { granted_bytes: 100, ..queue }.advice().contains("-m"));
    }
}
