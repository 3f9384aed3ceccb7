//! Documents that can be told apart, and a thread that sends them at a steady rate, or as fast as
//! the daemon takes them where that is less.

use super::pacing::Pacer;
use super::process::{Daemon, HEADER};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Datagrams go out in bursts this far apart.
const BURST_INTERVAL: Duration = Duration::from_millis(5);

/// A sender that was held up catches up by no more than so many bursts at once.
const BURSTS_AT_ONCE_MAX: u32 = 8;

/// A document that was sent, and when.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Without the header line.
    pub document: String,
    /// When the socket had taken it.
    pub at: Instant,
}

/// The id of a trace.
pub fn trace_id(trace: usize) -> String {
    format!("1-5759e988-{trace:024x}")
}

/// A document with a trace of its own. Zeros in front, so that sorting keeps the order.
pub fn document(index: usize) -> String {
    document_of(index, index, "")
}

/// A document of a trace with some text, which may steer the endpoint or make it larger.
pub fn document_of(trace: usize, index: usize, text: &str) -> String {
    let trace_id = trace_id(trace);
    format!(r#"{{"trace_id":"{trace_id}","id":"{index:016x}","name":"n","text":"{text}"}}"#)
}

/// A document of about a kilobyte.
pub fn large_document(index: usize) -> String {
    document_of(index, index, &"x".repeat(900))
}

/// Sends documents, no faster than the daemon takes them off its socket.
pub fn send(address: SocketAddr, documents: impl IntoIterator<Item = String>) -> Vec<Sent> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut pacer = Pacer::of_queue(address);
    documents.into_iter().map(|it| send_one(&socket, address, it, &mut pacer)).collect()
}

fn send_one(socket: &UdpSocket, address: SocketAddr, document: String, pacer: &mut Pacer) -> Sent {
    let datagram = format!("{HEADER}{document}");
    pacer.wait(datagram.len());
    // Not connected: that the daemon has ended is not an error here.
    socket.send_to(datagram.as_bytes(), address).unwrap();
    Sent { document, at: Instant::now() }
}

/// A thread that sends at a steady rate until it is stopped; it ends with this value.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent_count: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<Sent>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to send what `shape` makes of 0, 1, 2 and so on to `address`, no faster than the
    /// daemon takes it off its socket. Its memory may be too small for it.
    pub fn start(address: SocketAddr, per_second: u32, shape: fn(usize) -> String) -> Self {
        Self::start_paced(Pacer::of_queue(address), address, per_second, shape)
    }

    /// The same, no faster than the service or the spool takes it: nothing is lost for want of
    /// memory.
    pub fn start_within_memory(
        daemon: &Daemon,
        per_second: u32,
        shape: fn(usize) -> String,
    ) -> Self {
        Self::start_paced(Pacer::of_memory(daemon), daemon.udp, per_second, shape)
    }

    fn start_paced(
        pacer: Pacer,
        address: SocketAddr,
        per_second: u32,
        shape: fn(usize) -> String,
    ) -> Self {
        let (stop, sent_count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let (is_over, count, list) =
            (Arc::clone(&stop), Arc::clone(&sent_count), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let sent = run(pacer, address, per_second, shape, &is_over, &count);
            *list.lock().unwrap() = sent;
        });
        Self { stop, sent_count, sent, thread: Some(thread) }
    }

    /// How many it has sent so far.
    pub fn sent_count(&self) -> usize {
        self.sent_count.load(Ordering::Relaxed)
    }

    /// Stops it; returns what it has sent, in order.
    pub fn stop(mut self) -> Vec<Sent> {
        self.end();
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn run(
    mut pacer: Pacer,
    address: SocketAddr,
    per_second: u32,
    shape: fn(usize) -> String,
    is_over: &AtomicBool,
    sent_count: &AtomicUsize,
) -> Vec<Sent> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = Vec::new();
    // Documents that are due; whole ones are sent.
    let mut due = 0.0;
    let due_max = f64::from(per_second) * (BURST_INTERVAL * BURSTS_AT_ONCE_MAX).as_secs_f64();
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        due += last.elapsed().as_secs_f64() * f64::from(per_second);
        last = Instant::now();
        let mut burst = f64::min(due, due_max);
        while burst >= 1.0 && !is_over.load(Ordering::Relaxed) {
            sent.push(send_one(&socket, address, shape(sent.len()), &mut pacer));
            sent_count.store(sent.len(), Ordering::Relaxed);
            (burst, due) = (burst - 1.0, due - 1.0);
        }
        thread::sleep(BURST_INTERVAL);
    }
    sent
}
