//! Sends batches of spans over OTLP/HTTP or OTLP/gRPC at a steady rate, over a few connections.
//!
//! Each connection has one request at a time, as that of an exporter. If no connection is free when
//! a batch is due, the batch is late; the report shows that. A batch that is refused is not sent
//! again, so that the spans of the report are exactly those that the server has accepted.
//! Thread: one, named `sender`.

mod client;

pub use client::Protocol;

use super::batch::{Batch, SPAN_COUNT};
use crate::clock;
use crate::pace::{Pace, Step};
use crate::sending::{Progress, Sending};
use client::{Client, Outcome};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// The longest sleep of a sender that is to end when it is stopped.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// The options of a sender of spans.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Address to send to.
    pub target: SocketAddr,
    /// Protocol of the requests.
    pub protocol: Protocol,
    /// Spans a second.
    pub rate: f64,
    /// Whether requests are compressed with gzip.
    pub is_gzip: bool,
    /// Number of connections.
    pub connection_count: usize,
    /// Seed for the attributes of the spans.
    pub seed: u64,
    /// Number of the first batch. The numbers of its spans begin at 512 times this number.
    pub first_batch: u64,
    /// The largest number of batches to send.
    pub batch_count_max: u64,
}

/// A report about the sent spans.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Spans in all requests.
    pub offered_count: u64,
    /// Spans that the server accepted.
    pub accepted_count: u64,
    /// Spans that the server rejected while it accepted others of the request (partial success).
    pub rejected_count: u64,
    /// Spans of requests that the server refused and that a client may send again: 429, 503,
    /// `RESOURCE_EXHAUSTED`, UNAVAILABLE.
    pub refused_count: u64,
    /// Spans of requests that failed in another way.
    pub failed_count: u64,
    /// The reason of the first request that was refused, rejected in part or failed.
    pub first_trouble: Option<String>,
    /// Number of requests.
    pub request_count: u64,
    /// Bytes of the bodies of all requests, as they were sent.
    pub body_bytes: u64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Average number of offered spans a second.
    pub rate: f64,
    /// The longest delay of a batch, in microseconds. The timer has steps of 1 ms.
    pub late_max_us: f64,
    /// Total time of long delays, in seconds. Batches due in this time were not sent.
    pub held_up_s: f64,
    /// CPU time of the sender, in microseconds per span.
    pub cpu_us_each: f64,
}

impl Report {
    fn count(&mut self, outcome: Outcome) {
        let span_count = SPAN_COUNT as u64;
        let trouble = match outcome {
            Outcome::Accepted { rejected_count: 0, .. } => {
                self.accepted_count += span_count;
                return;
            }
            Outcome::Accepted { rejected_count, message } => {
                let rejected_count = rejected_count.min(span_count);
                self.accepted_count += span_count - rejected_count;
                self.rejected_count += rejected_count;
                message
            }
            Outcome::Refused(message) => {
                self.refused_count += span_count;
                message
            }
            Outcome::Failed(message) => {
                self.failed_count += span_count;
                message
            }
        };
        self.first_trouble.get_or_insert(trouble);
    }
}

/// Starts sending.
///
/// # Errors
///
/// Fails if the system does not create the thread.
pub fn start(options: Options) -> io::Result<Sending<Report>> {
    let runtime = runtime()?;
    Sending::start(move |progress| {
        clock::wake_exactly();
        runtime.block_on(run(options, progress))
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn run(options: Options, progress: &Progress) -> io::Result<Report> {
    let mut batch = Batch::new(SystemTime::now(), options.seed);
    let report = Arc::<Mutex<Report>>::default();
    // The connections that are free. A connection that could not be opened again is an error.
    let (free_sender, mut free) = mpsc::unbounded_channel::<io::Result<Client>>();
    for _ in 0..options.connection_count.max(1) {
        let client = Client::connect(options.target, options.protocol, options.is_gzip).await?;
        let _ = free_sender.send(Ok(client));
    }
    let (start_ns, start_cpu_ns) = (clock::now_ns(), clock::thread_cpu_ns());
    let mut pace = Pace::new(options.rate, u32::try_from(SPAN_COUNT).unwrap_or(0), start_ns);
    let (mut batch_count, mut body_bytes) = (0, 0);
    let is_over = |count| count >= options.batch_count_max || progress.is_over();
    while !is_over(batch_count) {
        let now_ns = clock::now_ns();
        if let Step::WaitUntil(due_ns) = pace.step(now_ns) {
            tokio::time::sleep(Duration::from_nanos(due_ns - now_ns).min(SLEEP_MAX)).await;
            continue;
        }
        let mut client = free.recv().await.expect("this task holds a sender")?;
        batch.fill((options.first_batch + batch_count) * SPAN_COUNT as u64, clock::now_ns());
        let body = client.body(&mut batch);
        body_bytes += body.len() as u64;
        batch_count += 1;
        progress.set_sent_count(batch_count * SPAN_COUNT as u64);
        let (free_sender, report) = (free_sender.clone(), Arc::clone(&report));
        tokio::spawn(async move {
            let outcome = client.send(body).await;
            report.lock().unwrap_or_else(PoisonError::into_inner).count(outcome);
            let again = client.open_again_if_closed().await;
            let _ = free_sender.send(again.map(|()| client));
        });
    }
    for _ in 0..options.connection_count.max(1) {
        free.recv().await.expect("this task holds a sender")?;
    }
    let counts = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seconds = (clock::now_ns() - start_ns) as f64 / 1e9;
    let offered_count = batch_count * SPAN_COUNT as u64;
    Ok(Report {
        offered_count,
        request_count: batch_count,
        body_bytes,
        seconds,
        rate: offered_count as f64 / seconds,
        late_max_us: pace.late_max_ns as f64 / 1e3,
        held_up_s: pace.held_up_ns as f64 / 1e9,
        cpu_us_each: (clock::thread_cpu_ns() - start_cpu_ns) as f64
            / 1e3
            / offered_count.max(1) as f64,
        ..counts
    })
}
