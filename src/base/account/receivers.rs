//! The counters of one receiver.
//!
//! In: counts, from the receiver. Out: numbers for the metrics, for liveness and for the shutdown.
//! Thread: `receive-N` writes, main reads.

use super::Counter;

/// The counters of one receiver.
#[derive(Debug, Default)]
pub struct ReceiverCounts {
    /// Datagrams taken from the receiver's socket, including empty datagrams.
    pub datagrams: Counter,
    /// Datagrams that the kernel dropped because the socket's queue was full.
    pub kernel_drops: Counter,
    /// Microseconds for which the receiver has left its socket alone, because segments come faster
    /// than they are sent.
    pub shed_us: Counter,
}

impl ReceiverCounts {
    /// Returns a number that grows while the receiver makes progress: it takes datagrams, or leaves
    /// its socket alone on purpose.
    pub fn progress(&self) -> u64 {
        self.datagrams.get() + self.kernel_drops.get() + self.shed_us.get()
    }
}
