//! The loop of a receiver, which all backends share: wait, take all datagrams, perhaps pause.
//!
//! In: a backend ([`Source`]), which knows how to wait and how to take. Out: datagrams, lent to a
//! [`Sink`]. The loop decides when to pause, when to ask the kernel for drops, and how to end.
//! Bound: [`LOOKS_PER_STOP_CHECK`] reads of the socket between two checks for a stop. Thread: the
//! receiver's.

use super::coalescing::Coalescing;
use super::drops::DropWatch;
use super::source::{Source, Taken};
use super::steer::Steering;
use super::{ReceiveError, ReceiveSocket, Sink, Stop, take};
use crate::base::clock::Clock;
use crate::base::panics;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// Number of reads of the socket, within one drain, between two checks for a stop.
const LOOKS_PER_STOP_CHECK: usize = 64;

/// Pause after the socket has left a shared port. Datagrams that the kernel is delivering to the
/// socket at that moment still arrive in its queue.
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// A socket and the state of its receiver. The state is kept when a backend fails.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<ReceiveSocket>,
    slot_count: usize,
    /// Whether another daemon may share the port.
    share_port: bool,
    coalescing: Coalescing,
    drops: DropWatch,
    /// Present in the first receiver of a group that spreads datagrams by a program.
    steering: Option<Steering>,
}

impl Receiver {
    pub(super) fn new(
        socket: ReceiveSocket,
        slot_count: usize,
        steering: Option<Steering>,
        share_port: bool,
    ) -> Self {
        let coalescing = Coalescing::new(socket.queue().granted_bytes, Clock::instant());
        let (socket, drops) = (Arc::new(socket), DropWatch::default());
        Self { socket, slot_count, share_port, coalescing, drops, steering }
    }

    /// Returns this receiver without pauses, so that it wakes for each datagram. Benchmarks compare
    /// it with a receiver that pauses.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        // A queue of no bytes allows no pause.
        self.coalescing = Coalescing::new(0, Clock::instant());
        self
    }

    /// Returns the receiver's socket.
    pub fn socket(&self) -> &Arc<ReceiveSocket> {
        &self.socket
    }

    /// Returns the number of receive slots that a backend may have.
    pub(super) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Runs `source`, which receives from this receiver's socket, until `stop` is requested.
    ///
    /// # Errors
    ///
    /// Returns the first error of the source, or of waiting for `stop`. The sink then has every
    /// datagram that the source has taken, and another source can receive from the socket.
    pub(super) fn run(
        &mut self,
        source: &mut impl Source,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        let followed = self.follow(source, stop, sink);
        if followed.is_err() {
            source.abandon(sink);
        }
        followed
    }

    fn follow(
        &mut self,
        source: &mut impl Source,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<(), ReceiveError> {
        while !source.wait()? {
            if self.drain(source, stop, sink)? {
                break;
            }
        }
        if self.share_port {
            self.leave()?;
        }
        source.finish(sink)
    }

    /// Takes datagrams, with pauses, until the queue is empty and no pause is worth it. Returns
    /// whether a stop is requested.
    fn drain(
        &mut self,
        source: &mut impl Source,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<bool, ReceiveError> {
        let mut look_count = 0;
        loop {
            let taken = source.take(sink)?;
            panics::inject("receiver");
            self.note(taken, sink);
            look_count += 1;
            if taken.more {
                // A client that never stops sending must not delay the shutdown.
                if look_count % LOOKS_PER_STOP_CHECK == 0 && stop.wait(Duration::ZERO)? {
                    return Ok(true);
                }
                continue;
            }
            match self.coalescing.pause(Clock::instant()) {
                None => return Ok(false),
                Some(pause) if stop.wait(pause)? => return Ok(true),
                Some(_) => {}
            }
        }
    }

    /// Passes the counts of one read of the socket to the drop watch and to both controllers.
    fn note(&mut self, taken: Taken, sink: &mut impl Sink) {
        let now = Clock::instant();
        if self.drops.note(taken.datagram_count, taken.datagram_bytes, &self.socket, sink) {
            self.coalescing.suspend(now);
        }
        if let Some(rate) = self.coalescing.note(taken.datagram_count, taken.more, now)
            && let Some(steering) = &mut self.steering
        {
            steering.note(rate, now, &self.socket);
        }
    }

    /// Leaves a shared port, so that the other daemon on it gets all new datagrams.
    fn leave(&self) -> Result<(), ReceiveError> {
        if let Err(error) = self.socket.discard_incoming() {
            warn!("The other daemon on the port gets datagrams only when this one ends: {error}");
        }
        std::thread::sleep(LEAVE_PAUSE);
        Ok(())
    }

    /// Takes the datagrams that the kernel has queued. Uses `recvmmsg` with every backend.
    ///
    /// # Errors
    ///
    /// Returns [`ReceiveError::Read`] if reading the socket fails.
    pub(super) fn drain_queue(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        take::drain_queue(&self.socket, &mut self.drops, sink)
    }
}
