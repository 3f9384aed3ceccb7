//! Finds datagrams that the kernel dropped because a socket's queue was full.
//!
//! In: how many datagrams each read of the socket took, and the kernel's count of drops. Out: new
//! drops, reported to a [`Sink`]. Bound: one system call for each quarter of a queue that is taken.
//! Thread: the receiver's.

use super::socket::DATAGRAM_OVERHEAD_BYTES_MIN;
use super::{ReceiveSocket, Sink};

/// Reports the datagrams that the kernel dropped, without asking the kernel at every drain.
///
/// The kernel drops only while the queue is full, and a receiver then takes a whole queue of
/// datagrams. So it is enough to ask each time that a quarter of a queue has been taken.
#[derive(Debug, Default)]
pub(super) struct DropWatch {
    /// Number of drops reported so far, modulo 2^32 as in the kernel's count.
    reported: u32,
    /// Bytes that datagrams have taken up in the queue, at least, since the kernel was last asked.
    queue_bytes_taken: usize,
}

impl DropWatch {
    /// Notes the datagrams that one read of the socket took. Asks the kernel for drops if a quarter
    /// of a queue has been taken since the last question. Returns whether there are new drops.
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
