//! The load: documents at a steady rate, in bursts of 1 to 5 ms, through several sockets.

use super::document::Template;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SOCKET_COUNT: usize = 8;

/// A running sender.
pub struct Sender {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    sent_count: AtomicU64,
    poison_count: AtomicU64,
}

impl Sender {
    /// Sends `rate` documents a second to `target`, at most `count_max`.
    pub fn start(target: SocketAddr, seed: u64, rate: f64, count_max: u64) -> io::Result<Self> {
        let sockets = (0..SOCKET_COUNT).map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(target)?;
            Ok(socket)
        });
        let sockets: Vec<UdpSocket> = sockets.collect::<io::Result<_>>()?;
        let shared = Arc::<Shared>::default();
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("sender".into());
        let thread = thread.spawn(move || send(&sockets, seed, rate, count_max, &for_thread))?;
        Ok(Self { shared, thread })
    }

    /// Returns whether the sender has ended, with all documents sent or with an error.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the sender. Returns how many documents were sent, and how many of them were poison.
    pub fn stop(self) -> io::Result<(u64, u64)> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender does not panic")?;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok((load(&self.shared.sent_count), load(&self.shared.poison_count)))
    }
}

fn send(
    sockets: &[UdpSocket],
    seed: u64,
    rate: f64,
    count_max: u64,
    shared: &Shared,
) -> io::Result<()> {
    let mut template = Template::datagram(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let (start, mut number) = (Instant::now(), 0_u64);
    while !shared.is_over.load(Ordering::Relaxed) && number < count_max {
        // If the sleep was too long, this burst is larger.
        while (number as f64) < start.elapsed().as_secs_f64() * rate && number < count_max {
            let socket = &sockets[usize::try_from(number).unwrap_or(0) % sockets.len()];
            socket.send(template.fill(number))?;
            shared.poison_count.fetch_add(template.is_poison(number).into(), Ordering::Relaxed);
            number += 1;
            shared.sent_count.store(number, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_micros(random.u64(1_000..5_000)));
    }
    Ok(())
}
