//! The window in which a contender under load is measured: readings of all counters at its
//! beginning and its end, and the waits before and after it.

use super::contender::Running;
use super::process::{self, Sleeps, ThreadTime};
use super::turn::{Turn, in_megabytes};
use crate::endpoint::{Counts, Endpoint};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a delivery: a batch that is not full is sent after 1 s.
const ALIGN_MAX: Duration = Duration::from_millis(1_500);
/// Time for the daemon to finish its work after an answer.
const SETTLE: Duration = Duration::from_millis(3);

/// Time between two readings of memory.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// If nothing is delivered for this time, the remaining documents count as lost.
const QUIET: Duration = Duration::from_millis(1_300);
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// The counters of the contender, the sender and the endpoint at one moment.
pub struct Look {
    /// When they were read.
    pub time: Instant,
    /// CPU time of the contender.
    pub cpu_ns: u64,
    schedstat_ns: u64,
    /// Sleeps of the contender.
    pub sleeps: Sleeps,
    sender: ThreadTime,
    endpoint: ThreadTime,
    machine: process::MachineTime,
    sent_count: u64,
    /// Counters of the endpoint.
    pub counts: Counts,
}

impl Look {
    /// Reads the counters. `sent_count` is that of the sender.
    ///
    /// # Errors
    ///
    /// Fails if the process no longer exists.
    pub fn take(running: &Running, endpoint: &Endpoint, sent_count: u64) -> io::Result<Self> {
        Ok(Self {
            time: Instant::now(),
            cpu_ns: process::cpu_ns(running.id())?,
            counts: endpoint.counts(),
            sent_count,
            schedstat_ns: process::schedstat_ns(running.id()),
            sleeps: Sleeps::of(running.id()),
            sender: process::own_thread_time("sender"),
            endpoint: process::own_thread_time("endpoint"),
            machine: process::machine_time(),
        })
    }
}

/// Records the figures of the window between two readings of the counters.
pub fn window_figures(first: &Look, last: &Look, turn: &mut Turn) {
    let seconds = (last.time - first.time).as_secs_f64();
    let delivered = (last.counts.delivered_count - first.counts.delivered_count) as f64;
    let sent = (last.sent_count - first.sent_count) as f64;
    let requests = (last.counts.request_count - first.counts.request_count) as f64;
    let each = |ns: u64| ns as f64 / 1e3 / delivered;
    turn.put("window_s", seconds);
    turn.put("cpu_us_per_segment", each(last.cpu_ns - first.cpu_ns));
    turn.put("cpu_schedstat_us_per_segment", each(last.schedstat_ns - first.schedstat_ns));
    turn.put("sender_us_per_sent", (last.sender.cpu_ns - first.sender.cpu_ns) as f64 / 1e3 / sent);
    turn.put("endpoint_us_per_segment", each(last.endpoint.cpu_ns - first.endpoint.cpu_ns));
    turn.put("delivered_per_s", delivered / seconds);
    turn.put("offered_per_s", sent / seconds);
    turn.put("wake_ups_per_s", last.sleeps.since(&first.sleeps) as f64 / seconds);
    turn.put("segments_per_request", delivered / requests);
    let calls =
        |counts: Counts| counts.request_count + counts.throttled_count + counts.failed_count;
    turn.put("calls_per_s", (calls(last.counts) - calls(first.counts)) as f64 / seconds);
    turn.put("calls_at_once_max", last.counts.waiting_count_max as f64);
    let share = |ns: u64| ns as f64 / 1e9 / seconds;
    turn.put("cpu_share", share(last.cpu_ns - first.cpu_ns));
    let busy = |time: ThreadTime| time.cpu_ns + time.waiting_ns;
    turn.put("sender_busy_share", share(busy(last.sender) - busy(first.sender)));
    turn.put("endpoint_busy_share", share(busy(last.endpoint) - busy(first.endpoint)));
    turn.put("machine_busy_share", last.machine.busy_share_since(first.machine));
}

/// Records the latency of what was delivered in the window.
pub fn latency_figures(first: &Look, last: &Look, endpoint: &Endpoint, turn: &mut Turn) {
    let (from, to) = (first.counts.delivered_count, last.counts.delivered_count);
    let percentiles = endpoint.percentiles_us(from, to, &[0.5, 0.99]);
    turn.put("latency_p50_ms", percentiles[0] / 1e3);
    turn.put("latency_p99_ms", percentiles[1] / 1e3);
}

/// Waits for `time`. Meanwhile records the memory of the contender.
pub fn sample(running: &Running, begin: Instant, time: Duration, turn: &mut Turn) {
    let end = Instant::now() + time;
    loop {
        let resident = process::resident(running.id()).now_bytes;
        turn.memory.push((begin.elapsed().as_secs_f64(), in_megabytes(resident)));
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(SAMPLE_INTERVAL));
    }
}

/// Waits until a document is delivered to the endpoint, for at most [`ALIGN_MAX`].
pub fn wait_for_delivery(endpoint: &Endpoint) {
    let (start, before) = (Instant::now(), endpoint.counts().delivered_count);
    while endpoint.counts().delivered_count == before && start.elapsed() < ALIGN_MAX {
        thread::sleep(Duration::from_micros(500));
    }
    thread::sleep(SETTLE);
}

/// Waits until all documents are delivered, or nothing is delivered for [`QUIET`], or [`DRAIN_MAX`]
/// has passed.
pub fn drain(endpoint: &Endpoint, sent_count: u64) {
    let start = Instant::now();
    let (mut count, mut changed) = (endpoint.counts().delivered_count, start);
    while count < sent_count && changed.elapsed() < QUIET && start.elapsed() < DRAIN_MAX {
        thread::sleep(Duration::from_millis(10));
        let now = endpoint.counts().delivered_count;
        if now != count {
            (count, changed) = (now, Instant::now());
        }
    }
}
