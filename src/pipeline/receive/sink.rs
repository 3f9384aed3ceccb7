//! What takes datagrams from a receiver.

use super::Queue;

/// What takes datagrams from a receiver.
pub trait Sink: Send {
    /// Takes the datagrams of one drain of the socket, in the order they came.
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>);

    /// Learns that the kernel dropped `count` datagrams because the socket's queue was full.
    fn kernel_dropped(&mut self, count: u32, queue: Queue);

    /// Learns that every receive buffer was full `count` times: the kernel queued meanwhile.
    fn buffers_exhausted(&mut self, count: u32);
}
