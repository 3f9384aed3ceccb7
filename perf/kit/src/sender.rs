//! The load: documents over UDP at a steady rate, all at once, or as fast as possible.
//!
//! The datagrams are prepared before the start. For each datagram the sender writes digits and
//! reads the clock. A burst goes out with one `sendmmsg`. With `gso`, consecutive datagrams of one
//! size are one message that the kernel splits (`UDP_SEGMENT`). This costs the sender less, but on
//! the loopback interface all datagrams of one message reach the same socket of a group, which does
//! not happen with datagrams of SDKs. Therefore `gso` is off by default.

use super::clock;
use super::document::{Mark, Wheel};
use super::pace::{Pace, Step, burst_for};
use super::sending::{Progress, Sending};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde::Serialize;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;

/// Number of prepared datagrams. One system call sends a part of them.
const SLOT_COUNT: usize = 512;

/// The largest number of messages per system call.
const BATCH_COUNT_MAX: usize = 64;

/// Limits of a message that the kernel splits: its size in bytes, and the number of datagrams that
/// result.
const MESSAGE_BYTES_MAX: usize = 65_000;
const PIECE_COUNT_MAX: usize = 64;

/// How documents are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// A steady rate in bursts of a given size. Size 0 means the size from [`burst_for`].
    Paced {
        /// Documents a second.
        rate: f64,
        /// Documents in a burst.
        burst: u32,
    },
    /// As fast as possible.
    Flat,
    /// This many documents as fast as possible; then the sender ends.
    Once(u64),
}

/// The size of the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Size {
    /// All documents have this size in bytes.
    Fixed(usize),
    /// Documents are drawn from the datagrams recorded in this folder.
    Mix(PathBuf),
}

/// The options of a sender.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to send to.
    pub target: SocketAddr,
    /// Kind of the load.
    pub load: Load,
    /// Size of the documents.
    pub size: Size,
    /// Number of sockets. They are used in turn, one for each system call.
    pub socket_count: usize,
    /// Seed for drawing documents from the recorded datagrams, if `size` is a mix.
    pub seed: u64,
    /// Whether the kernel splits messages into datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// Number of the first document.
    pub first_sequence: u64,
    /// The largest number of documents to send.
    pub count_max: u64,
}

/// A report about the sent datagrams.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Number of datagrams that the kernel accepted.
    pub sent_count: u64,
    /// Seconds from the first datagram to the last.
    pub seconds: f64,
    /// Average number of datagrams a second.
    pub rate: f64,
    /// Datagrams in a burst; 0 if sent as fast as possible.
    pub burst: u32,
    /// The largest number of bursts sent at once, without a wait, because the sender was late.
    pub back_to_back_max: u64,
    /// The longest delay of a burst, in microseconds.
    pub late_max_us: f64,
    /// Total time of long delays of the sender, in seconds. Datagrams due in this time were not
    /// sent.
    pub held_up_s: f64,
    /// CPU time of the sender, in microseconds per datagram.
    pub cpu_us_each: f64,
}

/// Prepares the datagrams and starts sending.
///
/// # Errors
///
/// Fails if a socket cannot be opened, or the datagrams cannot be prepared, or the system does not
/// create the thread.
pub fn start(options: &Options) -> io::Result<Sending<Report>> {
    let (mut line, load) = (Line::new(options)?, options.load);
    Sending::start(move |progress| line.run(load, progress))
}

/// The state of the sender's thread.
struct Line {
    sockets: Vec<UdpSocket>,
    wheel: Wheel,
    gso: bool,
    next_socket: usize,
    next_slot: usize,
    next_sequence: u64,
    first_sequence: u64,
    end_sequence: u64,
}

impl Line {
    fn new(options: &Options) -> io::Result<Self> {
        let mut random = fastrand::Rng::with_seed(options.seed);
        let wheel = match &options.size {
            Size::Fixed(bytes) => Wheel::fixed(*bytes, SLOT_COUNT)?,
            Size::Mix(folder) => Wheel::mix(folder, SLOT_COUNT, &mut random)?,
        };
        let open = |_| {
            let socket = UdpSocket::bind((options.target.ip(), 0)).or_else(|_| {
                UdpSocket::bind(if options.target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
            })?;
            socket.connect(options.target)?;
            Ok(socket)
        };
        let sockets = (0..options.socket_count.max(1)).map(open).collect::<io::Result<_>>()?;
        Ok(Self {
            sockets,
            wheel,
            gso: options.gso,
            next_socket: 0,
            next_slot: 0,
            next_sequence: options.first_sequence,
            first_sequence: options.first_sequence,
            end_sequence: options.first_sequence.saturating_add(match options.load {
                Load::Once(count) => count.min(options.count_max),
                Load::Paced { .. } | Load::Flat => options.count_max,
            }),
        })
    }

    fn run(&mut self, load: Load, progress: &Progress) -> io::Result<Report> {
        clock::wake_exactly();
        let (start_ns, start_cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns());
        let (rate, burst) = match load {
            Load::Paced { rate, burst: 0 } => (rate, burst_for(rate)),
            Load::Paced { rate, burst } => (rate, burst),
            Load::Flat | Load::Once(_) => (f64::INFINITY, 0),
        };
        let mut pace = Pace::new(rate, burst, start_ns);
        while self.next_sequence < self.end_sequence && !progress.is_over() {
            match pace.step(clock::now_ns()) {
                Step::WaitUntil(time_ns) => clock::sleep_until(time_ns),
                Step::Send if burst == 0 => self.send(BATCH_COUNT_MAX, progress)?,
                Step::Send => self.send(usize::try_from(burst).unwrap_or(usize::MAX), progress)?,
            }
        }
        let seconds = (clock::now_ns() - start_ns) as f64 / 1e9;
        let sent_count = self.next_sequence - self.first_sequence;
        let is_paced = burst > 0;
        Ok(Report {
            sent_count,
            seconds,
            rate: sent_count as f64 / seconds,
            burst,
            back_to_back_max: if is_paced { pace.chain_max * u64::from(burst) } else { 0 },
            late_max_us: if is_paced { pace.late_max_ns as f64 / 1e3 } else { 0.0 },
            held_up_s: if is_paced { pace.held_up_ns as f64 / 1e9 } else { 0.0 },
            cpu_us_each: (clock::thread_cpu_ns() - start_cpu_ns) as f64
                / 1e3
                / sent_count.max(1) as f64,
        })
    }

    /// Sends `count` documents, or all remaining documents if fewer remain.
    fn send(&mut self, count: usize, progress: &Progress) -> io::Result<()> {
        let left = usize::try_from(self.end_sequence - self.next_sequence).unwrap_or(usize::MAX);
        let mut count = count.min(left);
        while count > 0 {
            let batch = count.min(BATCH_COUNT_MAX).min(self.wheel.slot_count() - self.next_slot);
            let slots = self.next_slot..self.next_slot + batch;
            for (slot, sequence) in slots.clone().zip(self.next_sequence..) {
                self.wheel.fill(slot, Mark { sequence, time_ns: clock::now_ns() });
            }
            let socket = &self.sockets[self.next_socket];
            let taken = send_slots(socket, &self.wheel, slots, self.gso)?;
            // Datagrams that the kernel did not accept are filled again, with the same numbers.
            self.next_slot = (self.next_slot + taken) % self.wheel.slot_count();
            self.next_socket = (self.next_socket + 1) % self.sockets.len();
            self.next_sequence += taken as u64;
            count -= taken;
            progress.set_sent_count(self.next_sequence - self.first_sequence);
        }
        Ok(())
    }
}

/// Sends datagrams with one system call. Returns how many of them the kernel accepted.
fn send_slots(
    socket: &UdpSocket,
    wheel: &Wheel,
    slots: Range<usize>,
    gso: bool,
) -> io::Result<usize> {
    let runs = if gso { runs(wheel, slots) } else { slots.map(|slot| slot..slot + 1).collect() };
    if gso {
        let bytes = wheel.datagram(runs[0].start).len();
        setsockopt(socket, UdpGsoSegment, &i32::try_from(bytes).unwrap_or(0))?;
    }
    let slices: Vec<_> =
        runs.iter().map(|run| [IoSlice::new(wheel.datagrams(run.clone()))]).collect();
    let mut controls: Vec<_> = runs.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = slices
        .iter()
        .zip(&mut controls)
        .map(|(slice, control)| MMsgHdr::new(slice, control))
        .collect();
    let sent = sendmmsg(socket, &mut messages, SendFlags::empty())?;
    Ok(runs[..sent].iter().map(ExactSizeIterator::len).sum())
}

/// Returns runs of consecutive slots, up to the first slot with a datagram of a different size.
/// Each run is one message. The kernel splits it by that size, which is one setting of the socket.
fn runs(wheel: &Wheel, slots: Range<usize>) -> Vec<Range<usize>> {
    let bytes = wheel.datagram(slots.start).len();
    let same = slots.clone().take_while(|&slot| wheel.datagram(slot).len() == bytes).count();
    let step = (MESSAGE_BYTES_MAX / bytes).clamp(1, PIECE_COUNT_MAX);
    let end = slots.start + same;
    (slots.start..end).step_by(step).map(|start| start..end.min(start + step)).collect()
}
