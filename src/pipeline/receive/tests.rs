//! Tests of the properties that all backends share, with each backend that works on this host.

use super::*;
use crate::pipeline::shedding::Shedding;
use crate::skip::{Need, skip};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A sink that sends everything to a channel.
struct Forward(mpsc::Sender<Event>);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Drain(Vec<Vec<u8>>),
    Dropped(u32, DropCause),
    Exhausted(u32),
    Shed,
}

impl Sink for Forward {
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        let datagrams = datagrams.map(<[u8]>::to_vec).collect();
        self.0.send(Event::Drain(datagrams)).unwrap();
    }

    fn kernel_dropped(&mut self, count: u32, _queue: Queue, cause: DropCause) {
        self.0.send(Event::Dropped(count, cause)).unwrap();
    }

    fn buffers_exhausted(&mut self, count: u32) {
        self.0.send(Event::Exhausted(count)).unwrap();
    }

    fn shed(&mut self, time: Duration) {
        assert!(time > Duration::ZERO);
        self.0.send(Event::Shed).unwrap();
    }
}

/// Returns the backends that work on this host. `recvmmsg` is always among them. Valgrind does not
/// see that the kernel fills the buffers of tokio-uring, so each byte of them would count as not
/// initialised: `tests/memcheck` leaves it out.
fn backends() -> Vec<Backend> {
    let works = |backend: &Backend| match backend.probe() {
        Ok(()) => *backend != Backend::TokioUring || !is_memcheck(),
        Err(error) => {
            skip(Need::Uring, error);
            false
        }
    };
    Backend::ALL.into_iter().filter(works).collect()
}

/// Returns whether `tests/memcheck` runs the tests.
fn is_memcheck() -> bool {
    std::env::var_os("XRAY_MEMCHECK").is_some()
}

/// Returns the backends for a test in which a receiver sleeps until another thread acts. Valgrind
/// before 3.21 stops all threads while one sleeps in `io_uring_enter`
/// (<https://bugs.kde.org/show_bug.cgi?id=463859>), so such a test would never end there.
fn sleeping_backends() -> Vec<Backend> {
    let mut backends = backends();
    backends.retain(|backend| *backend != Backend::Uring || !is_memcheck());
    backends
}

fn receiver(queue_bytes: usize, slot_count: usize) -> (Receiver, SocketAddr) {
    receiver_with(1, queue_bytes, slot_count)
}

fn receiver_with(
    socket_count: usize,
    queue_bytes: usize,
    slot_count: usize,
) -> (Receiver, SocketAddr) {
    let binding = Binding { receiver_count: 1, socket_count, queue_bytes, share_port: false };
    let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
    let address = group.local_address();
    (group.into_receivers(slot_count).remove(0), address)
}

fn send(target: SocketAddr, count: usize) -> Vec<Vec<u8>> {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams: Vec<_> = (0..count).map(|index| format!("{index:0500}").into_bytes()).collect();
    for datagram in &datagrams {
        sender.send_to(datagram, target).unwrap();
    }
    datagrams
}

/// Returns the datagrams of `events` and the number of kernel drops.
fn received(events: impl Iterator<Item = Event>) -> (Vec<Vec<u8>>, u32) {
    let mut datagrams = Vec::new();
    let mut dropped_count = 0;
    for event in events {
        match event {
            Event::Drain(more) => datagrams.extend(more),
            Event::Dropped(count, _) => dropped_count += count,
            Event::Shed => {}
            Event::Exhausted(count) => assert!(count > 0),
        }
    }
    (datagrams, dropped_count)
}

/// Runs `backend` with a stop requested before the start. Returns the datagrams and the number of
/// kernel drops.
fn run_to_end(backend: Backend, receiver: &mut Receiver) -> (Vec<Vec<u8>>, u32) {
    let (sender, events) = mpsc::channel();
    let stop = Stop::new().unwrap();
    stop.request();
    backend.run(receiver, &stop, &mut Forward(sender)).unwrap();
    received(events.into_iter())
}

#[test]
fn what_is_queued_at_the_stop_comes_too() {
    for backend in backends() {
        let (mut receiver, address) = receiver(256 * 1024, 64);
        let sent = send(address, 100);
        let (mut datagrams, dropped_count) = run_to_end(backend, &mut receiver);
        // The reads of tokio-uring finish in no order.
        datagrams.sort();
        assert_eq!((datagrams, dropped_count), (sent, 0), "{backend}");
    }
}

#[test]
fn a_receiver_sleeps_until_there_is_something_and_ends_when_it_is_asked_to() {
    for backend in sleeping_backends() {
        let (mut receiver, address) = receiver(256 * 1024, 64);
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        thread::scope(|scope| {
            let stop = &stop;
            let run = move || backend.run(&mut receiver, stop, &mut Forward(sender));
            let receiver = scope.spawn(run);
            for _ in 0..3 {
                let sent = send(address, 1);
                assert_eq!(events.recv().unwrap(), Event::Drain(sent), "{backend}");
            }
            stop.request();
            receiver.join().unwrap().unwrap();
        });
        let (rest, dropped_count) = received(events.into_iter());
        assert!(rest.is_empty() && dropped_count == 0, "{backend}");
    }
}

#[test]
fn datagrams_of_every_size_come_whole_and_empty_ones_end_nothing() {
    for backend in sleeping_backends() {
        let (mut receiver, address) = receiver(4 << 20, 4);
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        thread::scope(|scope| {
            let stop = &stop;
            let run = move || backend.run(&mut receiver, stop, &mut Forward(sender));
            let receiver = scope.spawn(run);
            for length in [1, 0, 0, 65_507, 1_472, 0, 32_768, 2] {
                let datagram = vec![b'x'; length];
                socket.send_to(&datagram, address).unwrap();
                assert_eq!(events.recv().unwrap(), Event::Drain(vec![datagram]), "{backend}");
            }
            stop.request();
            receiver.join().unwrap().unwrap();
        });
    }
}

#[test]
fn every_datagram_is_either_received_or_reported_as_dropped() {
    for backend in backends() {
        let (mut receiver, address) = receiver(32 * 1024, 16);
        let sent = send(address, 1_000);
        let (mut datagrams, dropped_count) = run_to_end(backend, &mut receiver);
        datagrams.sort();
        assert!(dropped_count > 0 && !datagrams.is_empty(), "{backend}");
        assert_eq!(datagrams.len() + dropped_count as usize, sent.len(), "{backend}");
        assert_eq!(datagrams, sent[..datagrams.len()], "{backend}");
    }
}

/// Returns the backends for a receiver that leaves its sockets alone, each with a number of
/// sockets.
fn shedding_backends() -> Vec<(Backend, usize)> {
    let one = sleeping_backends().into_iter().map(|backend| (backend, 1));
    one.chain([(Backend::Recvmmsg, 3)]).collect()
}

/// A receiver on a thread of its own that leaves its sockets alone.
struct ShedRun {
    shedding: Arc<Shedding>,
    stop: Stop,
    events: mpsc::Receiver<Event>,
    address: SocketAddr,
    thread: thread::JoinHandle<()>,
}

impl ShedRun {
    /// Starts a receiver that has taken a datagram. Returns once it leaves its sockets alone.
    fn start((backend, socket_count): (Backend, usize)) -> Self {
        let (receiver, address) = receiver_with(socket_count, 32 * 1024, 16);
        let shedding = Arc::<Shedding>::default();
        let mut receiver = receiver.with_shedding(Arc::clone(&shedding));
        let ((sender, events), stop) = (mpsc::channel(), Stop::new().unwrap());
        let until = stop.clone();
        let run = move || backend.run(&mut receiver, &until, &mut Forward(sender)).unwrap();
        let this = Self { shedding, stop, events, address, thread: thread::spawn(run) };
        let sent = send(address, 1);
        assert_eq!(this.events.recv().ok(), Some(Event::Drain(sent)), "{backend}");
        this.shedding.set(true);
        // The receiver sleeps until a datagram comes, which a backend may take with the wait.
        send(address, 1);
        this.wait_for("it sheds", |event| matches!(event, Event::Shed));
        this
    }

    /// Waits for an event, and asserts that no datagram is taken from the second one on.
    fn wait_for(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> u32 {
        let (mut taken_count, mut dropped_count) = (0, 0);
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(60));
            let event = event.unwrap_or_else(|_| panic!("never: {what}"));
            match &event {
                Event::Drain(datagrams) => taken_count += datagrams.len(),
                Event::Dropped(count, cause) => {
                    assert_eq!(*cause, DropCause::Shed);
                    dropped_count += count;
                }
                _ => {}
            }
            assert!(taken_count <= 1, "{what}");
            if is_it(&event) {
                return dropped_count;
            }
        }
    }

    /// Returns the number of datagrams that are taken or dropped from now on.
    fn end(self) -> usize {
        self.thread.join().unwrap();
        let (datagrams, dropped_count) = received(self.events.into_iter());
        datagrams.len() + dropped_count as usize
    }
}

#[test]
fn a_receiver_that_sheds_takes_nothing_and_the_kernel_counts_what_it_drops() {
    for backend in shedding_backends() {
        let run = ShedRun::start(backend);
        send(run.address, 1_000);
        let is_drop = |event: &Event| matches!(event, Event::Dropped(..));
        let dropped_count = run.wait_for("the kernel drops", is_drop);
        run.shedding.set(false);
        let last = send(run.address, 1).remove(0);
        let is_last = |event: &Event| matches!(event, Event::Drain(all) if all.contains(&last));
        let mut count = dropped_count as usize;
        // The queue has room again once the receiver has gone on.
        while let Ok(event) = run.events.recv_timeout(Duration::from_secs(60)) {
            count += match &event {
                Event::Drain(datagrams) => datagrams.len(),
                Event::Dropped(count, _) => *count as usize,
                _ => 0,
            };
            if is_last(&event) || count >= 1_000 {
                break;
            }
        }
        run.stop.request();
        count += run.end();
        // The datagram that woke the receiver came before it left its sockets alone, or now.
        assert!((1_001..=1_002).contains(&count), "{backend:?}: {count}");
    }
}

#[test]
fn a_stop_while_a_receiver_sheds_takes_what_the_kernel_holds_once_there_is_room() {
    for backend in shedding_backends() {
        let run = ShedRun::start(backend);
        send(run.address, 20);
        run.stop.request();
        for _ in 0..3 {
            run.wait_for("it waits for room", |event| matches!(event, Event::Shed));
        }
        assert!(!run.thread.is_finished(), "{backend:?}");
        run.shedding.set(false);
        let count = run.end();
        assert!((20..=21).contains(&count), "{backend:?}: {count}");
    }
}

#[test]
fn a_sender_that_never_pauses_does_not_keep_a_receiver_from_ending() {
    for backend in sleeping_backends() {
        let (mut receiver, address) = receiver(64 * 1024, 8);
        let stop = Stop::new().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    send(address, 10);
                }
            });
            let (sender, events) = mpsc::channel();
            let (stop_at, stop) = (Instant::now() + Duration::from_millis(50), &stop);
            scope.spawn(move || {
                thread::sleep(stop_at.saturating_duration_since(Instant::now()));
                stop.request();
            });
            backend.run(&mut receiver, stop, &mut Forward(sender)).unwrap();
            done.store(true, Ordering::Relaxed);
            drop(events);
        });
    }
}

#[test]
fn four_buffers_survive_a_hundred_thousand_datagrams() {
    const BURST: usize = 100;
    // Under valgrind 100,000 datagrams would take minutes.
    let count = if is_memcheck() { 5_000 } else { 100_000 };
    for backend in sleeping_backends() {
        let (mut receiver, address) = receiver(4 << 20, 4);
        let (sender, events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let (datagram_count, dropped_count) = thread::scope(|scope| {
            let stop = &stop;
            let run = move || backend.run(&mut receiver, stop, &mut Forward(sender));
            let receiver = scope.spawn(run);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut received_count = 0;
            // A burst has more datagrams than there are buffers, and fewer than an unprivileged
            // queue holds (416 KiB).
            for burst in 0..count / BURST {
                for index in 0..BURST {
                    let index = burst * BURST + index;
                    socket.send_to(format!("{index:0100}").as_bytes(), address).unwrap();
                }
                while received_count < (burst + 1) * BURST {
                    let (datagrams, dropped_count) = received(events.recv().into_iter());
                    assert_eq!(dropped_count, 0, "{backend}");
                    assert!(datagrams.iter().all(|datagram| datagram.len() == 100));
                    received_count += datagrams.len();
                }
            }
            stop.request();
            receiver.join().unwrap().unwrap();
            let (rest, dropped_count) = received(events.into_iter());
            (received_count + rest.len(), dropped_count)
        });
        assert_eq!((datagram_count, dropped_count), (count, 0), "{backend}");
    }
}

#[test]
fn an_error_of_the_socket_ends_the_receiver_with_it() {
    for backend in backends() {
        let mut receiver = SocketGroup::broken().into_receivers(4).remove(0);
        let (sender, _events) = mpsc::channel();
        let stop = Stop::new().unwrap();
        let error = backend.run(&mut receiver, &stop, &mut Forward(sender)).unwrap_err();
        assert!(!error.to_string().is_empty(), "{backend}");
    }
}
