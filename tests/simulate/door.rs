//! The way into the simulated daemon: a socket with its receiver for segments, the queue of the
//! OTLP port for spans.
//!
//! In: numbered documents or spans. Out: the production code behind the socket or the port gets
//! them. Bound: the kernel's queue, or the memory of the pool.

use super::documents;
use super::kernel::Kernel;
use super::spans;
use super::watch::Watch;
use super::world::World;
use std::sync::{Arc, Mutex};
use xrayd::aws::SpansTo;
use xrayd::pipeline::spans::{SpanRequest, SpanWriter, Times};

/// How many spans a client sends at once.
const SPANS_PER_REQUEST: [u32; 4] = [1, 3, 10, 40];

/// The way into a daemon.
pub enum Door {
    Segments(Kernel),
    /// `None` after the port is closed.
    Spans(Option<SpanWriter>),
}

impl Door {
    /// Sends `count` documents or spans. Returns the number of the last one; `None` if the queue of
    /// spans has refused it.
    pub fn send(
        &mut self,
        world: &World,
        watch: &Arc<Mutex<Watch>>,
        count: u32,
        (size_bytes, is_refused): (usize, bool),
    ) -> Option<u32> {
        let size_bytes = match (&self, world.to) {
            (Self::Spans(_), SpansTo::Segments) => size_bytes.min(spans::IN_DOCUMENT_BYTES_MAX),
            _ => size_bytes,
        };
        let now = world.seconds();
        let number_all = |count: u32| -> Vec<u32> {
            let mut ledger = world.ledger();
            (0..count).map(|_| ledger.send(size_bytes, is_refused, now)).collect()
        };
        let writer = match self {
            Self::Segments(kernel) => {
                let numbers = number_all(count);
                let datagram = |&number: &u32| (number, documents::datagram(number, size_bytes));
                kernel.deliver(numbers.iter().map(datagram).collect());
                return numbers.last().copied();
            }
            Self::Spans(writer) => writer.as_ref().expect("open until the end"),
        };
        let (mut last, mut rest) = (None, count);
        while rest > 0 {
            let span_count = rest.min(SPANS_PER_REQUEST[rest as usize % 4]);
            rest -= span_count;
            let first = u32::try_from(world.ledger().document_count()).unwrap();
            let numbers: Vec<u32> = (first..first + span_count).collect();
            last = match offer(writer, &numbers, size_bytes) {
                Some(request) => {
                    assert_eq!(number_all(span_count), numbers);
                    world.history.note("received", 1, span_count.into());
                    writer.push(vec![request]).expect("the queue is open");
                    numbers.last().copied()
                }
                None => {
                    world.history.note("refused at the door", 1, span_count.into());
                    None
                }
            };
            watch.lock().unwrap().check(None);
        }
        last
    }

    /// Returns how many datagrams the kernel holds for the daemon.
    pub fn queued_count(&self) -> usize {
        match self {
            Self::Segments(kernel) => kernel.queued_count(),
            Self::Spans(_) => 0,
        }
    }

    /// Ends it in order: the daemon gets the rest of the kernel's queue.
    pub fn stop(&mut self) {
        match self {
            Self::Segments(kernel) => kernel.stop(),
            Self::Spans(writer) => *writer = None,
        }
    }

    /// Ends it with its process.
    pub fn kill(&mut self) {
        match self {
            Self::Segments(kernel) => kernel.kill(),
            Self::Spans(writer) => *writer = None,
        }
    }
}

/// Returns the request of a client with these spans; `None` if the queue has no room.
fn offer(writer: &SpanWriter, numbers: &[u32], size_bytes: usize) -> Option<SpanRequest> {
    let (encoding, body) = spans::request(numbers, size_bytes);
    let mut reservation = writer.reserve(body.len()).ok()?;
    reservation.write(&body);
    let hours = numbers.iter().map(|&number| spans::hour(number));
    let times = Times {
        earliest_ns: spans::nanoseconds(hours.clone().min()?),
        latest_ns: spans::nanoseconds(hours.max()?),
    };
    let span_count = u32::try_from(numbers.len()).unwrap();
    Some(reservation.into_request(encoding, span_count, times))
}
