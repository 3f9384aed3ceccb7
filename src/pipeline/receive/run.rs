//! The loop of a receiver, which all backends share: wait, take all datagrams, perhaps pause.
//!
//! In: a backend ([`Source`]), which knows how to wait and how to take. Out: datagrams, lent to a
//! [`Sink`]. The loop decides when to pause, when to ask the kernel for drops, and how to end.
//! Bound: [`LOOKS_PER_STOP_CHECK`] reads of the socket between two checks for a stop. Thread: the
//! receiver's.

use super::coalescing::Coalescing;
use super::drops::{self, DropWatch};
use super::program::Program;
use super::room::Room;
use super::source::{Source, Taken};
use super::steer::Steering;
use super::{DropCause, ReceiveError, ReceiveSocket, Sink, Stop, take};
use crate::base::clock::Clock;
use crate::base::panics;
use crate::pipeline::shedding::Shedding;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Number of reads of the socket, within one drain, between two checks for a stop.
const LOOKS_PER_STOP_CHECK: usize = 64;

/// Time between two looks at the flag of shedding, while a receiver leaves its sockets alone.
/// Chosen, not measured: such a receiver wakes 200 times a second.
const SHED_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The sockets and the state of a receiver. The state is kept when a backend fails.
#[derive(Debug)]
pub struct Receiver {
    /// One socket or several. All have queues of the same size.
    sockets: Vec<Arc<ReceiveSocket>>,
    slot_count: usize,
    /// Present if another daemon may share the port.
    shared: Option<Arc<Program>>,
    coalescing: Coalescing,
    drops: DropWatch,
    /// Present in the first receiver of a group that spreads datagrams by a program.
    steering: Option<Steering>,
    shedding: Arc<Shedding>,
}

impl Receiver {
    pub(super) fn new(
        sockets: Vec<Arc<ReceiveSocket>>,
        slot_count: usize,
        steering: Option<Steering>,
        shared: Option<Arc<Program>>,
    ) -> Self {
        let now = Clock::instant();
        let room = Room::of(sockets.len(), sockets[0].queue().granted_bytes);
        let (coalescing, drops) = (Coalescing::new(room, now), DropWatch::new(now));
        let shedding = Arc::default();
        Self { sockets, slot_count, shared, coalescing, drops, steering, shedding }
    }

    /// Returns this receiver, which leaves its sockets alone while `shedding` is on.
    #[must_use]
    pub fn with_shedding(mut self, shedding: Arc<Shedding>) -> Self {
        self.shedding = shedding;
        self
    }

    /// Returns this receiver without pauses, so that it wakes for each datagram. Benchmarks compare
    /// it with a receiver that pauses.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        // A queue of no bytes allows no pause.
        self.coalescing = Coalescing::new(Room::of(1, 0), Clock::instant());
        self
    }

    /// Returns the receiver's first socket. The backends `uring` and `tokio-uring` use only this
    /// one, so a receiver with one of them has no other.
    pub fn socket(&self) -> &Arc<ReceiveSocket> {
        &self.sockets[0]
    }

    /// Returns all sockets of the receiver.
    pub fn sockets(&self) -> &[Arc<ReceiveSocket>] {
        &self.sockets
    }

    /// Returns weak references to all sockets of the receiver.
    pub fn weak_sockets(&self) -> Vec<Weak<ReceiveSocket>> {
        self.sockets.iter().map(Arc::downgrade).collect()
    }

    /// Returns the number of receive slots that a backend may have.
    pub(super) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Runs `source`, which receives from this receiver's sockets, until `stop` is requested.
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
        if let Some(program) = &self.shared {
            program.leave();
        }
        self.wait_for_room(sink);
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
            if self.shedding.is_on() && self.shed(source, stop, sink)? {
                return Ok(true);
            }
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
        let Taken { datagram_count, datagram_bytes, mut is_quarter_taken, .. } = taken;
        if let [socket] = &self.sockets[..] {
            is_quarter_taken |= drops::note(socket, datagram_count, datagram_bytes);
        }
        let cause = self.drop_cause();
        let has_dropped = self.drops.look(&self.sockets, is_quarter_taken, (cause, now), sink);
        if has_dropped && cause == DropCause::Burst {
            self.coalescing.suspend(now);
        }
        if let Some(rate) = self.coalescing.note(taken.datagram_count, taken.more, now)
            && let Some(steering) = &mut self.steering
        {
            steering.note(rate, now);
        }
    }

    /// Leaves the sockets alone while shedding is on. The kernel drops what has no room in their
    /// queues, and counts it. Returns whether a stop is requested.
    fn shed(
        &mut self,
        source: &mut impl Source,
        stop: &Stop,
        sink: &mut impl Sink,
    ) -> Result<bool, ReceiveError> {
        // These datagrams are out of the kernel's queue already.
        let taken = source.hand_over_waited(sink)?;
        self.note(taken, sink);
        // Datagrams that the kernel has dropped before have another cause.
        let cause = self.drop_cause();
        self.drops.ask_all(&self.sockets, (cause, Clock::instant()), sink);
        while self.shedding.is_on() {
            let since = Clock::instant();
            let is_stopped = stop.wait(SHED_LOOK_INTERVAL)?;
            self.note_shed(since, sink);
            if is_stopped {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits after a stop until shedding is off, so that memory has room for what the kernel holds.
    /// The sender ends shedding at the deadline of the shutdown at the latest.
    fn wait_for_room(&mut self, sink: &mut impl Sink) {
        while self.shedding.is_on() {
            let since = Clock::instant();
            std::thread::sleep(SHED_LOOK_INTERVAL);
            self.note_shed(since, sink);
        }
    }

    /// Counts the time since `since` as shed, and once a second the datagrams that the kernel has
    /// dropped. Neither controller learns from either.
    fn note_shed(&mut self, since: Instant, sink: &mut impl Sink) {
        let now = Clock::instant();
        sink.shed(now.saturating_duration_since(since));
        self.drops.look(&self.sockets, false, (DropCause::Shed, now), sink);
        self.coalescing.resume(now);
        if let Some(steering) = &mut self.steering {
            steering.resume(now);
        }
    }

    /// Returns why the kernel has dropped datagrams, if it has. Drops before the receiver has taken
    /// a whole queue after shedding are due to shedding.
    fn drop_cause(&self) -> DropCause {
        if self.coalescing.is_resuming() { DropCause::Shed } else { DropCause::Burst }
    }

    /// Takes the datagrams that the kernel has queued. Uses `recvmmsg` with every backend.
    ///
    /// # Errors
    ///
    /// Returns [`ReceiveError::Read`] if reading the socket fails.
    pub(super) fn drain_queue(&mut self, sink: &mut impl Sink) -> Result<(), ReceiveError> {
        let cause = self.drop_cause();
        let shedding = &self.shedding;
        take::drain_queues(&self.sockets, cause, sink, || {
            // The sender is awake, because memory is low. It makes room or asks to wait for room.
            std::thread::sleep(SHED_LOOK_INTERVAL);
            while shedding.is_on() {
                std::thread::sleep(SHED_LOOK_INTERVAL);
            }
        })
    }
}

#[cfg(test)]
impl Receiver {
    /// Does what a receiver of a shared port does when a stop is requested.
    pub(super) fn leave_for_test(&self) {
        self.shared.as_ref().expect("the port is shared").leave();
    }
}
