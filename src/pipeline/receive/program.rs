//! The program in the kernel that spreads the datagrams of a group, and its end.
//!
//! In: how many sockets to use; the wish to leave the port, or to take it over. Out: calls of the
//! kernel. Bound: one program for each group. Any thread; a lock keeps the calls in order.
//!
//! **Leaving a shared port.** The program may choose any socket of the group, also one that gets no
//! more datagrams. So the program is detached first, then *all* sockets of *all* receivers are
//! connected to a port that sends nothing, then a pause lets datagrams on their way arrive, and
//! only then are the queues drained. From here on no program is attached any more.
//!
//! **Taking over.** A daemon that joined the port of another daemon attaches its program when the
//! port has its own sockets only (`/proc/net/udp`). A program before that would choose among the
//! sockets of the other daemon. The kernel has changed the order of the sockets by then, so the
//! program chooses among all of them.

use super::{ReceiveSocket, sys};
use crate::base::files;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tracing::warn;

/// Pause after the sockets have left a shared port. Datagrams that the kernel is delivering to them
/// at that moment still arrive in their queues.
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// The program of a group, which all receivers of the group share.
#[derive(Debug)]
pub(super) struct Program {
    /// All sockets of the group. The references are weak: a socket that stays open after the end of
    /// its receiver would still get datagrams.
    sockets: Vec<Weak<ReceiveSocket>>,
    has_left: Mutex<bool>,
}

impl Program {
    pub(super) fn new(sockets: &[Arc<ReceiveSocket>]) -> Self {
        let sockets = sockets.iter().map(Arc::downgrade).collect();
        Self { sockets, has_left: Mutex::new(false) }
    }

    /// Spreads datagrams over the first `socket_count` sockets of the group. Does nothing, and
    /// returns false, after [`leave`](Self::leave).
    ///
    /// # Errors
    ///
    /// Returns the kernel's error. The program before, or the kernel's hash, then stays in use.
    pub(super) fn attach(&self, socket_count: usize) -> io::Result<bool> {
        let has_left = self.has_left.lock().unwrap_or_else(PoisonError::into_inner);
        match self.sockets.iter().find_map(Weak::upgrade) {
            Some(socket) if !*has_left => sys::attach_spread(&*socket, socket_count).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Makes the kernel give new datagrams to the other daemon on the port. Returns when none of
    /// them arrives here any more. The first call does this, and further calls wait for it.
    pub(super) fn leave(&self) {
        let mut has_left = self.has_left.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *has_left, true) {
            return;
        }
        let sockets: Vec<_> = self.sockets.iter().filter_map(Weak::upgrade).collect();
        if let Some(socket) = sockets.first() {
            // This fails if no program is attached, which is fine.
            let _ = sys::detach_spread(&**socket);
        }
        // Each socket has to leave, also after an error.
        let left = sockets.iter().map(|socket| socket.discard_incoming());
        if let Err(error) = left.fold(Ok(()), Result::and) {
            warn!("The other daemon on the port gets datagrams only when this one ends: {error}");
        }
        std::thread::sleep(LEAVE_PAUSE);
    }
}

/// Takes over a shared port once the other daemon on it has ended.
#[derive(Debug)]
pub struct TakeOver {
    program: Arc<Program>,
    /// The local address as `/proc/net/udp` shows it.
    address: String,
    is_ipv6: bool,
    /// The numbers of the own sockets in `/proc/net/udp`.
    own: BTreeSet<u64>,
}

impl TakeOver {
    pub(super) fn new(
        program: Arc<Program>,
        sockets: &[Arc<ReceiveSocket>],
        address: SocketAddr,
    ) -> io::Result<Self> {
        let own = sockets.iter().map(|socket| files::number_of(&**socket));
        let own = own.collect::<io::Result<_>>()?;
        Ok(Self { program, address: shown(address), is_ipv6: address.is_ipv6(), own })
    }

    /// Returns the file that lists the sockets of the port.
    pub fn table_path(&self) -> &'static str {
        if self.is_ipv6 { "/proc/net/udp6" } else { "/proc/net/udp" }
    }

    /// Returns whether a line of that file is a socket of another daemon on the same address.
    pub fn is_other(&self, line: &str) -> bool {
        let mut words = line.split_ascii_whitespace();
        let is_here = words.nth(1) == Some(&self.address);
        // After the address: 7 more words, then the number of the socket (`inode`).
        let number = words.nth(7).and_then(|word| word.parse().ok());
        is_here && number.is_none_or(|number| !self.own.contains(&number))
    }

    /// Spreads the datagrams over all sockets, and returns their number. Returns `None` if this
    /// daemon leaves the port itself.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error. The kernel's hash then stays in use.
    pub fn run(&self) -> io::Result<Option<usize>> {
        Ok(self.program.attach(self.own.len())?.then_some(self.own.len()))
    }
}

/// Returns an address as `/proc/net/udp` and `/proc/net/udp6` show it: each 32 bits in the order of
/// this machine, then the port.
fn shown(address: SocketAddr) -> String {
    let word = |bytes: &[u8]| match bytes {
        &[a, b, c, d] => format!("{:08X}", u32::from_ne_bytes([a, b, c, d])),
        _ => String::new(),
    };
    let ip: String = match address {
        SocketAddr::V4(address) => word(&address.ip().octets()),
        SocketAddr::V6(address) => address.ip().octets().chunks(4).map(word).collect(),
    };
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::super::{Binding, SocketGroup, Spread};
    use super::*;

    const SHARED: Binding =
        Binding { receiver_count: 2, socket_count: 3, queue_bytes: 64 * 1024, share_port: true };

    #[test]
    fn only_the_sockets_of_others_on_the_same_address_are_others() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let first = SocketGroup::bind(address, SHARED).unwrap();
            assert!(matches!(first.spread(), Spread::Program), "{:?}", first.spread());
            let joined = Binding { receiver_count: 1, socket_count: 2, ..SHARED };
            let second = SocketGroup::bind(&first.local_address().to_string(), joined).unwrap();
            let take_over = second.take_over().expect("the port is shared").unwrap();
            let others = || {
                let table = std::fs::read_to_string(take_over.table_path()).unwrap();
                table.lines().filter(|line| take_over.is_other(line)).count()
            };
            assert_eq!(others(), 6, "{address}");
            let receivers = first.into_receivers(4);
            receivers[1].leave_for_test();
            drop(receivers);
            assert_eq!(others(), 0, "{address}");
            assert_eq!(take_over.run().unwrap(), Some(2));
            take_over.program.leave();
            assert_eq!(take_over.run().unwrap(), None);
        }
    }

    #[test]
    fn addresses_are_shown_as_the_kernel_shows_them() {
        assert_eq!(shown("127.0.0.1:2000".parse().unwrap()).len(), 13);
        assert_eq!(shown("[::1]:2000".parse().unwrap()).len(), 37);
        assert!(shown("0.0.0.0:80".parse().unwrap()).ends_with("00000000:0050"));
    }

    #[test]
    fn after_the_end_no_program_is_attached() {
        let group = SocketGroup::bind("127.0.0.1:0", SHARED).unwrap();
        let program = group.program();
        assert!(program.attach(6).unwrap());
        program.leave();
        assert!(!program.attach(6).unwrap());
        let receivers = group.into_receivers(4);
        // There is nothing to detach.
        assert!(sys::detach_spread(&**receivers[0].socket()).is_err());
    }
}
