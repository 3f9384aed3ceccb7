//! The interface between a receiver and the stage that gets its datagrams.
//!
//! In: the datagrams of one drain, lent. Out: nothing. Thread: the receiver's.

use super::Queue;
use std::time::Duration;

/// Why a socket's queue was full when the kernel dropped datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropCause {
    /// Datagrams came faster than the receiver took them.
    Burst,
    /// The receiver had left its socket alone, because segments come faster than they are sent.
    Shed,
}

/// Gets the datagrams of one receiver, and is informed of losses.
pub trait Sink: Send {
    /// Takes the datagrams of one read of the socket, in the order in which they arrived.
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>);

    /// Counts `count` datagrams that the kernel dropped because the socket's queue was full.
    fn kernel_dropped(&mut self, count: u32, queue: Queue, cause: DropCause);

    /// Counts that no receive buffer was free, `count` times. Nothing is lost by this: the kernel
    /// keeps the datagrams in the socket's queue meanwhile.
    fn buffers_exhausted(&mut self, count: u32);

    /// Counts the time for which the receiver has left its socket alone. Called every few
    /// milliseconds meanwhile.
    fn shed(&mut self, time: Duration);

    /// Returns whether memory for datagrams is low.
    fn is_memory_low(&self) -> bool {
        false
    }
}
