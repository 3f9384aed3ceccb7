//! What the kernel dropped because a socket's queue was full.

use super::socket::DATAGRAM_OVERHEAD_BYTES_MIN;
use super::{ReceiveSocket, Sink};

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
    /// Notes what a drain took, and asks the kernel if that was enough for a full queue; says
    /// whether there are new drops.
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

    /// Asks the kernel, and tells `sink` what is new; says whether there is anything.
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
