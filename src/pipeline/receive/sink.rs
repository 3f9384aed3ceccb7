//! The interface between a receiver and the stage that gets its datagrams.
//!
//! In: the datagrams of one drain, lent. Out: nothing. Thread: the receiver's.

use super::Queue;

/// Gets the datagrams of one receiver, and is informed of losses.
pub trait Sink: Send {
    /// Takes the datagrams of one read of the socket, in the order in which they arrived.
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>);

    /// Counts `count` datagrams that the kernel dropped because the socket's queue was full.
    fn kernel_dropped(&mut self, count: u32, queue: Queue);

    /// Counts that no receive buffer was free, `count` times. Nothing is lost by this: the kernel
    /// keeps the datagrams in the socket's queue meanwhile.
    fn buffers_exhausted(&mut self, count: u32);
}
