//! Runs a group of receivers under load and measures it.

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use xrayd::pipeline::receive::{
    Backend, Binding, DropCause, Queue, Receiver, Sink, SocketGroup, Spread, Stop,
};

/// Length of a datagram in bytes.
pub const DATAGRAM_BYTES: usize = 1_000;

/// A way to receive datagrams.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// A backend with pauses between its drains, as the daemon uses it.
    Paused(Backend),
    /// A backend without pauses: each datagram wakes the receiver.
    Woken(Backend),
    /// `recv` into one buffer, one datagram at a time.
    Plain,
}

impl Way {
    /// Returns all ways: each backend with pauses and without pauses, and `recv`.
    pub fn all() -> Vec<Self> {
        let backends = Backend::ALL.into_iter();
        let mut ways: Vec<Self> =
            backends.flat_map(|backend| [Self::Paused(backend), Self::Woken(backend)]).collect();
        ways.push(Self::Plain);
        ways
    }

    /// Returns the ways that the daemon uses: each backend with pauses.
    pub fn backends() -> impl Iterator<Item = Self> {
        Backend::ALL.into_iter().map(Self::Paused)
    }

    /// Returns the name of this way for a table.
    pub fn name(self) -> String {
        match self {
            Self::Paused(backend) => backend.name().to_owned(),
            Self::Woken(backend) => format!("{backend}, wake for each"),
            Self::Plain => "recv, one by one".to_owned(),
        }
    }
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Number of datagrams sent.
    pub sent_count: u64,
    /// Number of datagrams received, by receiver.
    pub received_counts: Vec<u64>,
    /// Number of datagrams that the kernel reports as dropped.
    pub kernel_drop_count: u64,
    /// CPU time of all receiver threads.
    pub cpu_time: Duration,
    /// Granted queue size of each socket, in bytes.
    pub queue_bytes: usize,
}

impl Outcome {
    /// Returns the number of datagrams that all receivers received.
    pub fn received_count(&self) -> u64 {
        self.received_counts.iter().sum()
    }

    /// Returns the number of datagrams that were sent but not received.
    pub fn lost_count(&self) -> u64 {
        self.sent_count - self.received_count()
    }

    /// Returns the CPU time per datagram, in microseconds.
    pub fn microseconds_each(&self) -> f64 {
        self.cpu_time.as_secs_f64() * 1e6 / self.received_count().max(1) as f64
    }
}

/// The parameters of a run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// How the receivers take datagrams out of the kernel.
    pub way: Way,
    /// Number of receivers in the group.
    pub receiver_count: usize,
    /// Queue size to request, in bytes.
    pub queue_bytes: usize,
}

/// A sink that counts the datagrams of one receiver.
struct Counting<'a> {
    received_count: &'a AtomicU64,
    kernel_drop_count: &'a AtomicU64,
    /// CPU time of the thread at its first drain.
    started: Option<Duration>,
}

impl Sink for Counting<'_> {
    fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
        self.started.get_or_insert_with(cpu_time);
        let mut count = 0;
        for datagram in datagrams {
            black_box(datagram.first());
            count += u64::from(!datagram.is_empty());
        }
        self.received_count.fetch_add(count, Ordering::Relaxed);
    }

    fn kernel_dropped(&mut self, count: u32, _queue: Queue, _cause: DropCause) {
        self.kernel_drop_count.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    fn buffers_exhausted(&mut self, _count: u32) {}

    fn shed(&mut self, _time: Duration) {}
}

/// Runs a group of receivers. `load` sends to the group and returns the number of datagrams sent.
pub fn run(setup: Setup, load: impl FnOnce(SocketAddr) -> u64 + Send) -> Outcome {
    let Setup { way, receiver_count, queue_bytes } = setup;
    if let Way::Paused(backend) | Way::Woken(backend) = way {
        backend.probe().expect("the backend works here");
    }
    let binding = Binding { receiver_count, socket_count: 1, queue_bytes, share_port: false };
    let group = SocketGroup::bind("127.0.0.1:0", binding).expect("a free port");
    assert!(matches!(group.spread(), Spread::Single | Spread::Program), "{:?}", group.spread());
    let (address, granted_bytes) = (group.local_address(), group.queue().granted_bytes);
    let stop = Stop::new().expect("a descriptor");
    let counts: Vec<AtomicU64> = (0..receiver_count).map(|_| AtomicU64::new(0)).collect();
    let (kernel_drop_count, total_time) = (AtomicU64::new(0), Mutex::new(Duration::ZERO));
    let sent_count = thread::scope(|scope| {
        for (receiver, received_count) in group.into_receivers(64).into_iter().zip(&counts) {
            let sink =
                Counting { received_count, kernel_drop_count: &kernel_drop_count, started: None };
            let (stop, total_time) = (&stop, &total_time);
            scope.spawn(move || {
                let time = receive(way, receiver, stop, sink);
                *total_time.lock().expect("no thread panics") += time;
            });
        }
        let sent_count = scope
            .spawn(|| {
                keep_to_processor(thread::available_parallelism().map_or(1, usize::from) - 1);
                load(address)
            })
            .join()
            .expect("the load does not panic");
        stop.request();
        if matches!(way, Way::Plain) {
            let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            sender.send_to(b"", address).expect("loopback takes it");
        }
        sent_count
    });
    Outcome {
        sent_count,
        received_counts: counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        kernel_drop_count: kernel_drop_count.into_inner(),
        cpu_time: total_time.into_inner().expect("no thread panicked"),
        queue_bytes: granted_bytes,
    }
}

/// Receives on this thread. Returns the thread's CPU time from the first drain on.
fn receive(way: Way, receiver: Receiver, stop: &Stop, mut sink: Counting<'_>) -> Duration {
    keep_to_processor(0);
    let before = cpu_time();
    match way {
        Way::Paused(backend) => {
            let mut receiver = receiver;
            backend.run(&mut receiver, stop, &mut sink).expect("the socket works");
        }
        Way::Woken(backend) => {
            let mut receiver = receiver.without_pauses();
            backend.run(&mut receiver, stop, &mut sink).expect("the socket works");
        }
        Way::Plain => {
            let mut buffer = vec![0; 65_536];
            let socket = &**receiver.socket();
            while let Ok((length @ 1.., _)) =
                rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::empty())
            {
                sink.drain(std::iter::once(&buffer[..length]));
            }
        }
    }
    cpu_time() - sink.started.unwrap_or(before)
}

/// Returns the exact CPU time of the calling thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a CPU time is not negative")
}

/// Pins the calling thread to the allowed processor at `index`, counted from 0.
fn keep_to_processor(index: usize) {
    let allowed = rustix::thread::sched_getaffinity(None).expect("the affinity can be read");
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    let mut one = CpuSet::new();
    one.set(allowed.nth(index).expect("the processor exists"));
    rustix::thread::sched_setaffinity(None, &one).expect("the processor is allowed");
}

/// Sends datagrams from one thread, through one socket or through several sockets in turn.
pub struct Sender {
    sockets: Vec<UdpSocket>,
    target: SocketAddr,
    sent_count: u64,
}

impl Sender {
    /// Creates a sender to `target` with this many sockets.
    pub fn new(target: SocketAddr, socket_count: usize) -> Self {
        let socket = |_| UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self { sockets: (0..socket_count).map(socket).collect(), target, sent_count: 0 }
    }

    /// Sends one datagram.
    pub fn send(&mut self) {
        let index = usize::try_from(self.sent_count).unwrap_or(0) % self.sockets.len();
        self.sockets[index].send_to(&[b'x'; DATAGRAM_BYTES], self.target).expect("loopback");
        self.sent_count += 1;
    }

    /// Sends `count` datagrams at an even rate of `rate` a second.
    pub fn send_paced(&mut self, rate: f64, count: u64) {
        let start = Instant::now();
        for index in 0..count {
            let due = start + Duration::from_secs_f64(index as f64 / rate);
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            self.send();
        }
    }

    /// Sends datagrams as fast as possible until `time` has passed.
    pub fn send_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            (0..16).for_each(|_| self.send());
        }
    }

    /// Returns the number of datagrams sent.
    pub fn sent_count(&self) -> u64 {
        self.sent_count
    }
}

/// Returns median, minimum and maximum of `numbers`, in this order.
pub fn spread_of(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (numbers[numbers.len() / 2], numbers[0], numbers[numbers.len() - 1])
}
