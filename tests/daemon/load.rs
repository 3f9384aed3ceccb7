//! Documents that differ from each other, and a thread that sends them at a steady rate. The thread
//! sends slower if the daemon receives slower.

use super::pacing::Pacer;
use super::process::{Daemon, HEADER};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two bursts of datagrams.
const BURST_INTERVAL: Duration = Duration::from_millis(5);

/// After a delay, the thread sends the documents of at most this many bursts at once. It sends the
/// rest in the following bursts.
const BURSTS_AT_ONCE_MAX: u32 = 8;

/// A document that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The document, without the header line.
    pub document: String,
    /// The time just after the kernel accepted the datagram.
    pub at: Instant,
}

/// Returns the trace id that contains this number.
pub fn trace_id(trace: usize) -> String {
    format!("1-5759e988-{trace:024x}")
}

/// Returns a document in a separate trace. Ids have leading zeros, so that sorted documents are in
/// the order of `index`.
pub fn document(index: usize) -> String {
    document_of(index, index, "")
}

/// Returns a document of the trace with this number. `text` makes the document larger, or contains
/// a word that makes the endpoint refuse the document.
pub fn document_of(trace: usize, index: usize, text: &str) -> String {
    let trace_id = trace_id(trace);
    format!(r#"{{"trace_id":"{trace_id}","id":"{index:016x}","name":"n","text":"{text}"}}"#)
}

/// Returns a document of about 1 kB.
pub fn large_document(index: usize) -> String {
    document_of(index, index, &"x".repeat(900))
}

/// Sends documents, no faster than the daemon reads them from its socket.
pub fn send(address: SocketAddr, documents: impl IntoIterator<Item = String>) -> Vec<Sent> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut pacer = Pacer::of_queue(address);
    documents.into_iter().map(|it| send_one(&socket, address, it, &mut pacer)).collect()
}

fn send_one(socket: &UdpSocket, address: SocketAddr, document: String, pacer: &mut Pacer) -> Sent {
    let datagram = format!("{HEADER}{document}");
    pacer.wait(datagram.len());
    // The socket is not connected, so that an ended daemon causes no send error.
    socket.send_to(datagram.as_bytes(), address).unwrap();
    Sent { document, at: Instant::now() }
}

/// A thread that sends at a steady rate until it is stopped or this value is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent_count: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<Sent>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts sending `shape(0)`, `shape(1)` and so on to `address`, no faster than the daemon
    /// reads its socket. The daemon's memory may be too small for the load.
    pub fn start(address: SocketAddr, per_second: u32, shape: fn(usize) -> String) -> Self {
        Self::start_paced(Pacer::of_queue(address), address, per_second, shape)
    }

    /// Starts a load as [`Self::start`] does, but sends no faster than the service or the spool
    /// accepts the segments, so that no segment is lost because memory is full.
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

    /// Returns the number of documents sent so far.
    pub fn sent_count(&self) -> usize {
        self.sent_count.load(Ordering::Relaxed)
    }

    /// Stops the thread and returns the sent documents in order.
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
    // The number of documents that should have been sent by now and were not. It may have a
    // fraction.
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
