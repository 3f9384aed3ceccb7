//! The receiver and the queue of its socket. While the sender tells receivers to leave their
//! sockets alone (shedding), the queue fills, and the kernel drops what has no room in it.
//!
//! In: the datagrams that applications send. Out: drains for the production code behind the
//! sockets; in the ledger, the documents that the kernel has dropped. Bound: [`QUEUE_BYTES`]. The
//! receiver does as `src/pipeline/receive/run.rs`: it looks at the flag every few milliseconds.

use super::watch::Watch;
use super::world::World;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;
use xrayd::pipeline::ingest::Ingest;
use xrayd::pipeline::receive::{DropCause, Queue, Sink};
use xrayd::pipeline::shedding::Shedding;

/// The size of the queue, with the kernel's overhead: the smallest that a daemon asks for.
const QUEUE_BYTES: usize = 128 * 1024;

/// The kernel's overhead for a datagram.
const OVERHEAD_BYTES: usize = 512;

/// The largest number of datagrams that a receiver takes at once.
const DRAIN_COUNT: usize = 64;

/// The number of datagrams that the receiver takes at once after a stop, and how often it waits for
/// room then.
const LAST_SLOT_COUNT: usize = 4;
const ROOM_WAIT_COUNT_MAX: usize = 50;

/// The time between two looks at the flag.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A document and its datagram.
pub type Datagram = (u32, Vec<u8>);

/// The receiver and its socket. Clones share them.
#[derive(Clone)]
pub struct Kernel {
    world: World,
    watch: Arc<Mutex<Watch>>,
    shedding: Arc<Shedding>,
    state: Rc<RefCell<State>>,
    wake: Rc<Notify>,
}

struct State {
    /// `None` after the receiver has ended.
    ingest: Option<Ingest>,
    queue: VecDeque<Datagram>,
    queued_bytes: usize,
    /// Datagrams that the kernel has dropped and the receiver has not counted yet.
    dropped_count: u32,
    is_stopping: bool,
}

impl Kernel {
    /// Starts the receiver.
    pub fn start(
        world: &World,
        ingest: Ingest,
        watch: Arc<Mutex<Watch>>,
        shedding: Arc<Shedding>,
    ) -> Self {
        let (queue, wake) = (VecDeque::new(), Rc::<Notify>::default());
        let ingest = Some(ingest);
        let state = State { ingest, queue, queued_bytes: 0, dropped_count: 0, is_stopping: false };
        let state = Rc::new(RefCell::new(state));
        let this = Self { world: world.clone(), watch, shedding, state, wake };
        let receiver = this.clone();
        spawn_local(async move { receiver.run().await });
        this
    }

    /// Delivers datagrams to the socket. A receiver that looks at it takes them at once.
    pub fn deliver(&self, datagrams: Vec<Datagram>) {
        if !self.shedding.is_on() && self.state.borrow().queue.is_empty() {
            return self.drain(datagrams);
        }
        for datagram in datagrams {
            let state = &mut *self.state.borrow_mut();
            let bytes = datagram.1.len() + OVERHEAD_BYTES;
            if state.queued_bytes + bytes > QUEUE_BYTES {
                state.dropped_count += 1;
                self.world.ledger().dropped_by_kernel(datagram.0);
            } else {
                state.queued_bytes += bytes;
                state.queue.push_back(datagram);
            }
        }
        self.wake.notify_one();
    }

    /// Returns how many datagrams are in the queue.
    pub fn queued_count(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// Lets the receiver end once it has taken what is in the queue.
    pub fn stop(&self) {
        self.state.borrow_mut().is_stopping = true;
        self.wake.notify_one();
    }

    /// Ends the receiver at once. The queue is gone with its process.
    pub fn kill(&self) {
        self.state.borrow_mut().ingest = None;
        for (number, _) in self.state.borrow_mut().queue.drain(..) {
            self.world.ledger().gone_with_socket(number);
        }
        self.wake.notify_one();
    }

    async fn run(self) {
        while self.state.borrow().ingest.is_some() {
            self.wake.notified().await;
            while self.shedding.is_on() && self.state.borrow().ingest.is_some() {
                sleep(LOOK_INTERVAL).await;
                self.watch.lock().unwrap().check_shedding();
                self.count(true);
            }
            if self.state.borrow().is_stopping {
                self.drain_at_end().await;
                self.state.borrow_mut().ingest = None;
                return;
            }
            let queue = std::mem::take(&mut self.state.borrow_mut().queue);
            self.state.borrow_mut().queued_bytes = 0;
            self.drain(queue.into());
            self.count(false);
        }
    }

    /// Takes the queue after a stop, a few datagrams at a time while memory is low.
    async fn drain_at_end(&self) {
        let mut waits_left = ROOM_WAIT_COUNT_MAX;
        while self.queued_count() > 0 {
            let is_low = |ingest: &Ingest| ingest.is_memory_low();
            if waits_left > 0 && self.state.borrow().ingest.as_ref().is_some_and(is_low) {
                waits_left -= 1;
                sleep(LOOK_INTERVAL).await;
                while self.shedding.is_on() {
                    sleep(LOOK_INTERVAL).await;
                    self.watch.lock().unwrap().check_shedding();
                }
            }
            let datagrams = {
                let queue = &mut self.state.borrow_mut().queue;
                queue.drain(..LAST_SLOT_COUNT.min(queue.len())).collect()
            };
            self.drain(datagrams);
        }
        self.count(false);
    }

    /// Counts what the kernel has dropped, and the time of a look if the receiver sheds.
    fn count(&self, sheds: bool) {
        let state = &mut *self.state.borrow_mut();
        let Some(ingest) = &mut state.ingest else { return };
        if sheds {
            ingest.shed(LOOK_INTERVAL);
        }
        let count = std::mem::take(&mut state.dropped_count);
        if count > 0 {
            self.world.history.note("kernel drops", count.into(), 0);
            let queue = Queue { asked_bytes: QUEUE_BYTES, granted_bytes: QUEUE_BYTES };
            ingest.kernel_dropped(count, queue, DropCause::Shed);
        }
    }

    fn drain(&self, datagrams: Vec<Datagram>) {
        for drain in datagrams.chunks(DRAIN_COUNT) {
            let size_bytes = drain[0].1.len() as u64;
            self.world.history.note("received", drain.len() as u64, size_bytes);
            if let Some(ingest) = &mut self.state.borrow_mut().ingest {
                ingest.drain(drain.iter().map(|(_, datagram)| &datagram[..]));
            }
            self.watch.lock().unwrap().check(None);
        }
    }
}
