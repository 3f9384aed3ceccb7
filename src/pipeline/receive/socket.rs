//! One bound UDP socket, with a queue as large as the kernel grants.
//!
//! In: an address, and the size of the queue. Out: a [`ReceiveSocket`]. Bound: the queue; [`Queue`]
//! has its granted size. When full: the kernel drops datagrams and counts them. Any thread.

use super::progress::Progress;
use super::sys;
use crate::base::host::set_queue_bytes;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Least number of bytes that the kernel charges to the queue for a datagram in addition to its
/// contents. The bytes are for `struct sk_buff` (over 200 bytes) and `struct skb_shared_info` (320
/// bytes), linux/skbuff.h.
pub(super) const DATAGRAM_OVERHEAD_BYTES_MIN: usize = 512;

/// Sizes of a socket's queue, in which datagrams wait until a receiver takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Bytes that were asked for. This is twice [`Binding::queue_bytes`](super::Binding), because
    /// the kernel doubles the number for its own overhead (`SO_RCVBUF` in socket(7)).
    pub asked_bytes: usize,
    /// Bytes that the kernel granted, its own overhead included.
    pub granted_bytes: usize,
}

impl Queue {
    /// Returns a sentence for the log that says how to get a larger queue.
    pub fn advice(self) -> &'static str {
        if self.granted_bytes < self.asked_bytes {
            "A larger net.core.rmem_max, or CAP_NET_ADMIN, allows a larger queue"
        } else {
            "A larger -m asks for a larger queue"
        }
    }
}

/// A bound UDP socket and its queue.
#[derive(Debug)]
pub struct ReceiveSocket {
    socket: Socket,
    local_address: SocketAddr,
    queue: Queue,
    progress: Progress,
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
        set_queue_bytes(&socket, queue_bytes);
        socket.bind(&address.into())?;
        let local_address = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the socket has no IP address"))?;
        let granted_bytes = socket.recv_buffer_size()?;
        let queue = Queue { asked_bytes: 2 * queue_bytes, granted_bytes };
        Ok(Self { socket, local_address, queue, progress: Progress::default() })
    }

    /// Lets more sockets of the same user bind to this address (SO_REUSEPORT).
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub(super) fn share_port(&self) -> io::Result<()> {
        self.socket.set_reuse_port(true)
    }

    /// Returns the address that the socket is bound to, with the actual port.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Returns the sizes of the socket's queue.
    pub fn queue(&self) -> Queue {
        self.queue
    }

    /// Returns the largest number of datagrams that fit into the queue.
    pub(super) fn queue_datagram_count_max(&self) -> usize {
        self.queue.granted_bytes / DATAGRAM_OVERHEAD_BYTES_MIN
    }

    /// Returns how many datagrams the kernel has dropped since the socket was opened, modulo 2^32;
    /// 0 if the kernel does not say (before Linux 4.12).
    pub(super) fn drop_count(&self) -> u32 {
        sys::drop_count(self.as_fd()).unwrap_or_default()
    }

    /// Returns what was taken out of the queue, and the drops that are reported.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns a number that grows with each datagram that the receiver takes out of the queue.
    pub fn taken_bytes(&self) -> u64 {
        self.progress.taken_bytes()
    }

    /// Returns the bytes that datagrams in the queue take up now; 0 if the kernel does not say
    /// (before Linux 4.12).
    pub fn queued_bytes(&self) -> u32 {
        sys::queued_bytes(self.as_fd()).unwrap_or_default()
    }

    /// Makes the kernel give new datagrams to the other sockets on the port.
    ///
    /// The socket is connected to the discard port of this host, which sends nothing. The kernel
    /// gives datagrams of other peers only to sockets that are not connected. Datagrams that are
    /// already queued stay in this socket's queue. No program may be attached to the group: it
    /// could go on to choose this socket, and the kernel would drop the datagram.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error. The socket then gets datagrams until it is closed.
    pub(super) fn discard_incoming(&self) -> io::Result<()> {
        const DISCARD_PORT: u16 = 9;
        let peer: SocketAddr = match self.local_address {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, DISCARD_PORT).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, DISCARD_PORT).into(),
        };
        self.socket.connect(&peer.into())
    }

    /// Returns a second descriptor of the same socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the process has no file descriptor left.
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
    /// Returns a value that has a pipe instead of a socket, so that waiting and reading fail.
    pub(super) fn broken() -> Self {
        let (_reader, writer) = std::io::pipe().unwrap();
        let socket = Socket::from(std::os::fd::OwnedFd::from(writer));
        let queue = Queue { asked_bytes: 0, granted_bytes: 0 };
        let local_address = (Ipv4Addr::LOCALHOST, 0).into();
        Self { socket, local_address, queue, progress: Progress::default() }
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
