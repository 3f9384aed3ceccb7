//! Finds datagrams that the kernel dropped because a socket's queue was full.
//!
//! In: how many datagrams each read of a socket took, and the kernel's counts of drops. Out: new
//! drops, reported to a [`Sink`]. Bound: one system call for each quarter of a queue that is taken,
//! and one for each socket in a second. Thread: the receiver's.
//!
//! The kernel drops while a queue is full, and a receiver then takes a whole queue of datagrams. So
//! it is enough to ask each time that a quarter of a queue has been taken. The kernel also drops
//! while all UDP sockets of the host together have too much memory (`net.ipv4.udp_mem`); therefore
//! a receiver that takes datagrams asks for all of its sockets once a second too.

use super::socket::DATAGRAM_OVERHEAD_BYTES_MIN;
use super::{DropCause, ReceiveSocket, Sink};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time after which a receiver that takes datagrams asks for the drops of all of its sockets.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Notes the datagrams that one read of `socket` took. Returns whether a quarter of the socket's
/// queue has been taken since the kernel was last asked for drops.
pub(super) fn note(socket: &ReceiveSocket, datagram_count: usize, datagram_bytes: usize) -> bool {
    let bytes = (datagram_bytes + datagram_count * DATAGRAM_OVERHEAD_BYTES_MIN) as u64;
    socket.progress().add(bytes);
    is_quarter_taken(socket)
}

fn is_quarter_taken(socket: &ReceiveSocket) -> bool {
    socket.progress().unasked_bytes() > socket.queue().granted_bytes as u64 / 4
}

/// Asks the kernel for the drops of `socket` and reports new ones to `sink`. Returns whether there
/// are any.
pub(super) fn report(socket: &ReceiveSocket, cause: DropCause, sink: &mut impl Sink) -> bool {
    let fresh_count = socket.progress().asked(socket.drop_count());
    if fresh_count > 0 {
        sink.kernel_dropped(fresh_count, socket.queue(), cause);
    }
    fresh_count > 0
}

/// Decides when a receiver asks for the drops of which sockets.
#[derive(Debug)]
pub(super) struct DropWatch {
    asked_at: Instant,
}

impl DropWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked_at: now }
    }

    /// Asks for the drops of all `sockets` if the last time was a second ago. Otherwise, if
    /// `is_any_due`, asks for those of the sockets that [`note`] named. Returns whether there
    /// are new ones.
    pub(super) fn look(
        &mut self,
        sockets: &[Arc<ReceiveSocket>],
        is_any_due: bool,
        (cause, now): (DropCause, Instant),
        sink: &mut impl Sink,
    ) -> bool {
        if now.saturating_duration_since(self.asked_at) >= ASK_INTERVAL {
            return self.ask_all(sockets, (cause, now), sink);
        }
        let mut has_dropped = false;
        if is_any_due {
            for socket in sockets.iter().filter(|socket| is_quarter_taken(socket)) {
                has_dropped |= report(socket, cause, sink);
            }
        }
        has_dropped
    }

    /// Asks for the drops of all `sockets`. Returns whether there are new ones.
    pub(super) fn ask_all(
        &mut self,
        sockets: &[Arc<ReceiveSocket>],
        (cause, now): (DropCause, Instant),
        sink: &mut impl Sink,
    ) -> bool {
        self.asked_at = now;
        sockets.iter().fold(false, |dropped, socket| report(socket, cause, sink) | dropped)
    }
}
