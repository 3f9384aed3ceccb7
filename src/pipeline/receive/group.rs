//! Binds a group of UDP sockets to one address (SO_REUSEPORT), one or several for each receiver.
//!
//! In: an address, a [`Binding`]. Out: the [`Receiver`]s with their sockets. Bound: the number of
//! sockets and the size of their queues, both in the binding. Thread: the one that starts the
//! daemon.
//!
//! **A port in use is an error**, as with the original daemon: the first socket of the group binds
//! alone, and only then allows the other sockets of the group to bind to the port. Sharing the port
//! with another daemon, for a restart without a gap, is a setting ([`Binding::share_port`]).

use super::program::{Program, TakeOver};
use super::steer::Steering;
use super::{Queue, ReceiveSocket, Receiver};
use crate::base::address;
use crate::base::clock::Clock;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why the UDP address could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not a host and a port
    #[error(
        "{address:?} is not an address to listen on: {source}. \
         Give HOST:PORT, for example -b 127.0.0.1:2000"
    )]
    Address {
        /// The address as configured.
        address: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// Another process has the port
    #[error(
        "UDP {address} is in use: another daemon listens there. \
         Stop it, or give another port with -b"
    )]
    InUse {
        /// The address as configured.
        address: String,
    },
    /// The kernel does not open the address
    #[error("UDP {address} cannot be opened: {source}")]
    Open {
        /// The address as configured.
        address: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// How to bind a group of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Number of receivers.
    pub receiver_count: usize,
    /// Number of sockets of each receiver.
    pub socket_count: usize,
    /// Size of the queue to ask for, in bytes per socket. The kernel grants twice the number, for
    /// its own overhead (`SO_RCVBUF` in socket(7)).
    pub queue_bytes: usize,
    /// Whether another process of the same user may also listen on the port.
    pub share_port: bool,
}

/// How the datagrams are spread over the sockets of a group.
#[derive(Debug)]
pub enum Spread {
    /// The group has one socket.
    Single,
    /// Datagrams are spread evenly, by the program of `steer.rs`.
    Program,
    /// The kernel spreads datagrams by a hash of the client's address, because the kernel did not
    /// take the program of `steer.rs`.
    Hash(io::Error),
    /// The kernel spreads datagrams by a hash of the client's address, because another process may
    /// share the port. A program would have to choose among the sockets of that process, too.
    Shared,
}

/// The sockets that are bound to one address.
#[derive(Debug)]
pub struct SocketGroup {
    /// The sockets of the first receiver, then those of the second one, and so on. The program of
    /// `steer.rs` needs this order.
    sockets: Vec<Arc<ReceiveSocket>>,
    binding: Binding,
    program: Arc<Program>,
    steering: Option<Steering>,
    spread: Spread,
}

/// Time to retry a port that is in use. The kernel frees the port of a daemon that was killed a few
/// milliseconds after its end, because it removes the io_uring instances first. A restart must not
/// fail because of that.
const RELEASE_TIME: Duration = Duration::from_millis(500);
/// Time between two attempts to bind to a port that is in use.
const RELEASE_LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl SocketGroup {
    /// Binds to `address` (`HOST:PORT`). A name is resolved; port 0 means any free port.
    ///
    /// `0.0.0.0` means IPv4 and IPv6 if the host has IPv6, as with the original daemon.
    ///
    /// # Errors
    ///
    /// Returns an error that names the address if it is invalid, in use, or cannot be opened.
    pub fn bind(address: &str, binding: Binding) -> Result<Self, BindError> {
        let addresses = address::resolve(address)
            .map_err(|source| BindError::Address { address: address.to_owned(), source })?;
        address::open_first(&addresses, |address| Self::open(address, binding)).map_err(|source| {
            let address = address.to_owned();
            match source.kind() {
                io::ErrorKind::AddrInUse => BindError::InUse { address },
                _ => BindError::Open { address, source },
            }
        })
    }

    fn open(address: SocketAddr, binding: Binding) -> io::Result<Self> {
        let Binding { receiver_count, socket_count, queue_bytes, share_port } = binding;
        let count = receiver_count * socket_count;
        let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let retry_until = Clock::instant() + RELEASE_TIME;
        let (first, is_shared) = loop {
            match ReceiveSocket::open(address, queue_bytes, false) {
                Err(error) if is_taken(&error) && share_port => {
                    break (ReceiveSocket::open(address, queue_bytes, true)?, true);
                }
                Err(error) if is_taken(&error) && Clock::instant() < retry_until => {
                    std::thread::sleep(RELEASE_LOOK_INTERVAL);
                }
                first => break (first?, false),
            }
        };
        if count > 1 || share_port {
            // The option is set only now that the bind has shown that the port was free. From here
            // on other sockets of the same user can bind to the port.
            first.share_port()?;
        }
        let address = first.local_address();
        let mut sockets = vec![Arc::new(first)];
        for _ in 1..count {
            sockets.push(Arc::new(ReceiveSocket::open(address, queue_bytes, true)?));
        }
        let program = Arc::new(Program::new(&sockets));
        let (steering, spread) = if is_shared {
            (None, Spread::Shared)
        } else if count <= 1 {
            (None, Spread::Single)
        } else {
            let counts = (receiver_count, socket_count);
            let granted_bytes = sockets[0].queue().granted_bytes;
            match Steering::start(Arc::clone(&program), counts, granted_bytes) {
                Ok(steering) => (Some(steering), Spread::Program),
                Err(error) => (None, Spread::Hash(error)),
            }
        };
        Ok(Self { sockets, binding, program, steering, spread })
    }

    /// Returns the address that the group is bound to, with the actual port.
    pub fn local_address(&self) -> SocketAddr {
        self.sockets[0].local_address()
    }

    /// Returns the sizes of each socket's queue.
    pub fn queue(&self) -> Queue {
        self.sockets[0].queue()
    }

    /// Returns how datagrams are spread over the sockets.
    pub fn spread(&self) -> &Spread {
        &self.spread
    }

    /// Returns the number of sockets.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// Returns what takes over the port once the other daemon on it has ended. `None` if there is
    /// no other daemon.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn take_over(&self) -> Option<io::Result<TakeOver>> {
        let program = Arc::clone(&self.program);
        matches!(self.spread, Spread::Shared)
            .then(|| TakeOver::new(program, &self.sockets, self.local_address()))
    }

    /// Returns the receivers, with `slot_count` receive slots each.
    pub fn into_receivers(self, slot_count: usize) -> Vec<Receiver> {
        let mut steering = self.steering;
        let shared = self.binding.share_port.then_some(self.program);
        let receiver = |sockets: &[Arc<ReceiveSocket>]| {
            Receiver::new(sockets.to_vec(), slot_count, steering.take(), shared.clone())
        };
        self.sockets.chunks(self.binding.socket_count).map(receiver).collect()
    }
}

#[cfg(test)]
impl SocketGroup {
    /// Returns a group that has a pipe instead of a socket, so that waiting and reading fail.
    pub(crate) fn broken() -> Self {
        Self::broken_with(1)
    }

    /// Returns a group of one receiver with so many pipes instead of sockets.
    pub(crate) fn broken_with(socket_count: usize) -> Self {
        let sockets: Vec<_> =
            (0..socket_count).map(|_| Arc::new(ReceiveSocket::broken())).collect();
        let binding =
            Binding { receiver_count: 1, socket_count, queue_bytes: 0, share_port: false };
        let program = Arc::new(Program::new(&sockets));
        Self { sockets, binding, program, steering: None, spread: Spread::Single }
    }

    /// Returns the program of the group.
    pub(super) fn program(&self) -> Arc<Program> {
        Arc::clone(&self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sys;
    use super::*;
    use std::net::UdpSocket;

    const BINDING: Binding =
        Binding { receiver_count: 1, socket_count: 1, queue_bytes: 64 * 1024, share_port: false };
    const GROUP: Binding = Binding { receiver_count: 4, ..BINDING };
    const SHARED: Binding = Binding { receiver_count: 2, share_port: true, ..BINDING };
    const MANY: Binding = Binding { receiver_count: 2, socket_count: 3, ..BINDING };

    fn bind(address: &str, binding: Binding) -> Result<SocketGroup, BindError> {
        SocketGroup::bind(address, binding)
    }

    fn send(target: SocketAddr, count: usize) {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..count {
            sender.send_to(b"datagram", target).unwrap();
        }
    }

    /// Takes the datagrams that wait in each socket. Returns how many each socket had.
    fn queued(group: &SocketGroup) -> Vec<usize> {
        let take = |socket: &Arc<ReceiveSocket>| {
            let socket = socket.try_clone().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
            std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
        };
        group.sockets.iter().map(take).collect()
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_it_also_for_a_group() {
        for (first, second) in
            [(BINDING, BINDING), (GROUP, GROUP), (GROUP, BINDING), (MANY, BINDING), (MANY, MANY)]
        {
            let first = bind("127.0.0.1:0", first).unwrap();
            let address = first.local_address().to_string();
            let error = bind(&address, second).unwrap_err();
            assert!(matches!(error, BindError::InUse { .. }), "{error}");
            assert!(error.to_string().contains(&address), "{error}");
        }
    }

    #[test]
    fn a_port_is_shared_only_where_both_sides_want_it() {
        let first = bind("127.0.0.1:0", SHARED).unwrap();
        let address = first.local_address().to_string();
        assert!(matches!(bind(&address, GROUP), Err(BindError::InUse { .. })));
        let second = bind(&address, SHARED).unwrap();
        assert!(matches!(first.spread(), Spread::Program), "{:?}", first.spread());
        assert!(matches!(second.spread(), Spread::Shared), "{:?}", second.spread());
        let alone = bind("127.0.0.1:0", BINDING).unwrap();
        let address = alone.local_address().to_string();
        assert!(matches!(bind(&address, SHARED), Err(BindError::InUse { .. })));
    }

    #[test]
    fn what_leaves_a_shared_port_gets_nothing_more_and_keeps_what_is_queued() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let first = bind(address, SHARED).unwrap();
            let second = bind(&first.local_address().to_string(), SHARED).unwrap();
            let port = first.local_address().port();
            let host = if address.starts_with("[::1]") { "[::1]" } else { "127.0.0.1" };
            let target: SocketAddr = format!("{host}:{port}").parse().unwrap();
            let send = |count| {
                for _ in 0..count {
                    let any = if host == "[::1]" { "[::1]:0" } else { "127.0.0.1:0" };
                    UdpSocket::bind(any).unwrap().send_to(b"x", target).unwrap();
                }
            };
            send(20);
            first.program.leave();
            send(20);
            assert_eq!(queued(&first).iter().sum::<usize>(), 20, "{address}");
            assert_eq!(queued(&second).iter().sum::<usize>(), 20, "{address}");
        }
    }

    #[test]
    fn the_datagrams_of_one_sender_are_spread_evenly_over_the_sockets_in_use() {
        let group = bind("127.0.0.1:0", Binding { queue_bytes: 256 * 1024, ..GROUP }).unwrap();
        assert!(matches!(group.spread(), Spread::Program), "{:?}", group.spread());
        sys::attach_spread(&*group.sockets[0], 4).unwrap();
        send(group.local_address(), 400);
        let queued_counts = queued(&group);
        assert_eq!(queued_counts.iter().sum::<usize>(), 400);
        assert!(
            queued_counts.iter().all(|&count| (60..=160).contains(&count)),
            "{queued_counts:?}"
        );
        sys::attach_spread(&*group.sockets[0], 1).unwrap();
        send(group.local_address(), 40);
        assert_eq!(queued(&group), [40, 0, 0, 0]);
        sys::detach_spread(&*group.sockets[0]).unwrap();
        send(group.local_address(), 40);
        assert_eq!(queued(&group).iter().filter(|&&count| count > 0).count(), 1);
    }

    #[test]
    fn the_first_receivers_have_the_first_sockets_of_the_group() {
        let group = bind("127.0.0.1:0", MANY).unwrap();
        assert!(matches!(group.spread(), Spread::Program), "{:?}", group.spread());
        // Two receivers are needed for 1,024 datagrams, so all six sockets are in use.
        send(group.local_address(), 300);
        let queued_counts = queued(&group);
        assert_eq!(queued_counts.iter().sum::<usize>(), 300);
        assert!(queued_counts.iter().all(|&count| count > 0), "{queued_counts:?}");
        sys::attach_spread(&*group.sockets[0], 3).unwrap();
        send(group.local_address(), 150);
        let queued_counts = queued(&group);
        assert!(queued_counts[..3].iter().all(|&count| count > 0), "{queued_counts:?}");
        assert_eq!(queued_counts[3..], [0, 0, 0]);
        let sockets: Vec<_> = group.sockets.iter().map(Arc::as_ptr).collect();
        let receivers = group.into_receivers(4);
        let own = |receiver: &Receiver| -> Vec<_> {
            receiver.sockets().iter().map(Arc::as_ptr).collect()
        };
        assert_eq!([own(&receivers[0]), own(&receivers[1])].concat(), sockets);
    }

    #[test]
    fn a_burst_from_one_sender_finds_the_queues_of_as_many_sockets_as_it_takes() {
        // A process without privileges gets this queue. A burst of 500 is spread over all four
        // sockets.
        let group = bind("127.0.0.1:0", Binding { queue_bytes: 212_992, ..GROUP }).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..500 {
            sender.send_to(&[b'x'; 1_000], group.local_address()).unwrap();
        }
        let queued_counts = queued(&group);
        assert_eq!(queued_counts.iter().sum::<usize>(), 500, "{queued_counts:?}");
        // A burst of 1,000 needs two queues of 1 MB, or one larger queue.
        for (queue_bytes, in_use) in [(1 << 20, 2), (2 << 20, 1)] {
            let group = bind("127.0.0.1:0", Binding { queue_bytes, ..GROUP }).unwrap();
            if group.queue().granted_bytes >= 2 * queue_bytes {
                send(group.local_address(), 1_000);
                let queued_counts = queued(&group);
                assert_eq!(queued_counts.iter().sum::<usize>(), 1_000, "{queued_counts:?}");
                assert!(queued_counts[in_use..].iter().all(|&it| it == 0), "{queued_counts:?}");
            }
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_that_shows_a_good_one() {
        for address in ["", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000"] {
            let error = bind(address, BINDING).unwrap_err();
            assert!(matches!(error, BindError::Address { .. }), "{error}");
            assert!(error.to_string().contains("127.0.0.1:2000"), "{error}");
        }
    }

    #[test]
    fn every_interface_means_ipv4_and_ipv6() {
        for binding in [BINDING, GROUP] {
            let group = bind("0.0.0.0:0", binding).unwrap();
            let port = group.local_address().port();
            let mut senders = vec![(UdpSocket::bind("127.0.0.1:0").unwrap(), "127.0.0.1")];
            // A host without IPv6 has no address ::1.
            senders.extend(UdpSocket::bind("[::1]:0").ok().map(|sender| (sender, "::1")));
            for (sender, host) in &senders {
                sender.send_to(host.as_bytes(), (*host, port)).unwrap();
                assert_eq!(queued(&group).iter().sum::<usize>(), 1, "{host}");
            }
        }
    }

    #[test]
    fn names_resolve() {
        assert!(bind("localhost:0", BINDING).unwrap().local_address().ip().is_loopback());
    }
}
