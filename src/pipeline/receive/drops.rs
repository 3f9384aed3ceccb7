//! Finds datagrams that the kernel dropped because a socket's queue was full.
//!
//! In: how much each drain took, the kernel's count of drops. Out: new drops, reported to a
//! [`Sink`]. Bound: one system call per quarter of a queue that is taken. Thread: the receiver's.

use super::socket::DATAGRAM_OVERHEAD_BYTES_MIN;
use super::{ReceiveSocket, Sink};

/// Reports the datagrams that the kernel dropped, without asking the kernel at every drain.
///
/// The kernel drops only while the queue is full, and a receiver then takes a whole queue of
/// datagrams. So it is enough to ask each time that a quarter of a queue has been taken.
#[derive(Debug, Default)]
pub(super) struct DropWatch {
    /// Drops reported so far, as the kernel counts: modulo 2^32.
    reported: u32,
    /// Bytes of the queue that the datagrams taken since the kernel was last asked had, at least.
    queue_bytes_taken: usize,
}

impl DropWatch {
    /// Notes what a look took. Asks the kernel for drops if a quarter of a queue has been taken
    /// since the last time. Returns whether there are new drops.
    pub(super) fn note(
        &mut self,
        datagram_count: usize,
        datagram_bytes: usize,
        socket: &ReceiveSocket,
        sink: &mut impl Sink,
    ) -> bool {
        self.queue_bytes_taken += datagram_bytes + datagram_count * DATAGRAM_OVERHEAD_BYTES_MIN;
        self.queue_bytes_taken > socket.queue().granted_bytes / 4 && self.report(socket, sink)
    }

    /// Asks the kernel for drops and reports new ones to `sink`. Returns whether there are any.
    pub(super) fn report(&mut self, socket: &ReceiveSocket, sink: &mut impl Sink) -> bool {
        self.queue_bytes_taken = 0;
        let count = socket.drop_count();
        let fresh_count = count.wrapping_sub(self.reported);
        self.reported = count;
        if fresh_count > 0 {
            sink.kernel_dropped(fresh_count, socket.queue());
        }
        fresh_count > 0
    }
}
