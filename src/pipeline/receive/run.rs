//! The loop that all backends share: wait, take until there is nothing more, perhaps pause.
//!
//! A backend brings two things ([`Source`]): how to wait and how to take. Everything around them,
//! when to pause, when to ask for drops, how to end, is here once.

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

/// After so many drains without an empty queue between them the request to stop is looked at.
const DRAINS_PER_LOOK: usize = 64;

/// Time for datagrams that were on their way to a socket when it was steered away from.
const LEAVE_PAUSE: Duration = Duration::from_millis(20);

/// A socket, and what is known of it from one drain to the next.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<ReceiveSocket>,
    slot_count: usize,
    share_port: bool,
    coalescing: Coalescing,
    drops: DropWatch,
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

    /// The same without pauses: it wakes for each datagram. What the pauses save is measured
    /// against it.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        // A queue of no bytes allows no pause.
        self.coalescing = Coalescing::new(0, Clock::instant());
        self
    }

    /// Its socket.
    pub fn socket(&self) -> &Arc<ReceiveSocket> {
        &self.socket
    }

    /// Receive slots at most.
    pub(super) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Runs `source`, which is at work on this receiver's socket, until `stop` is asked for; then
    /// takes what the kernel has queued.
    pub(super) fn run(
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

    /// Takes until nothing more waits and a pause is not worth it; says whether to end.
    fn drain(
        &mut self,
        source: &mut impl Source,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<bool, ReceiveError> {
        let mut drain_count = 0;
        loop {
            let taken = source.take(sink)?;
            panics::inject("receiver");
            self.note(taken, sink);
            drain_count += 1;
            if taken.more {
                // A sender that never pauses must not keep the daemon from ending.
                if drain_count % DRAINS_PER_LOOK == 0 && stop.wait(Duration::ZERO)? {
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

    fn note(&mut self, taken: Taken, sink: &mut impl Sink) {
        let now = Clock::instant();
        if self.drops.note(taken.datagram_count, taken.datagram_bytes, &self.socket, sink) {
            self.coalescing.hold(now);
        }
        if let Some(rate) = self.coalescing.note(taken.datagram_count, taken.more, now)
            && let Some(steering) = &mut self.steering
        {
            steering.note(rate, now, &self.socket);
        }
    }

    /// Leaves the port to the other daemon that shares it.
    fn leave(&self) -> Result<(), ReceiveError> {
        if let Err(error) = self.socket.discard_incoming() {
            warn!("The other daemon on the port gets datagrams only when this one ends: {error}");
        }
        std::thread::sleep(LEAVE_PAUSE);
        Ok(())
    }

    /// Takes what the kernel has queued, as much as the queue can hold, whatever the backend.
    pub(super) fn drain_queue(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        take::drain_queue(&self.socket, &mut self.drops, sink)
    }
}
