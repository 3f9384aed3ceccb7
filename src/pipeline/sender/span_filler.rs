//! Takes requests of clients with spans out of their queue, and merges them into batches.
//!
//! In: the queue of spans. Out: finished batches. Bound: the pool's memory. A request stays in the
//! chunks in which it was received, so taking it needs no memory. When the memory is full: the
//! queue refuses requests at the door, and nothing is evicted. Thread: `upload-spans`.

use super::source::Source;
use crate::aws::SpansTo;
use crate::base::account::{Account, Held, RejectReason};
use crate::base::log::LogLimit;
use crate::base::memory::ChunkPool;
use crate::base::panics;
use crate::pipeline::batch::{AGE_MAX, Batch, OpenSpanBatch, OpenSpanDocuments};
use crate::pipeline::limits::SpanLimits;
use crate::pipeline::ring::Progress;
use crate::pipeline::spans::{SpanQueue, SpanRequest};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::error;
use xrayd_otlp::documents::{Part, documents};

/// The largest document of `PutTraceSegments`, in bytes. X-Ray takes documents of up to 64 kB.
const DOCUMENT_BYTES_MAX: usize = 64_000;

static REJECTED: LogLimit = LogLimit::new();

/// The largest number of requests that are taken before the sender does its other work.
const REQUESTS_PER_TURN: usize = 256;

/// Requests linger for this time after others were taken, so that one wake-up takes several.
const LINGER_TIME: Duration = Duration::from_millis(100);

/// While requests linger, this many spans end it.
const LINGER_SPAN_COUNT: usize = 2_000;

/// After a pause without requests, the first span wakes the sender.
const FIRST_COUNT: usize = 1;

/// The queue of spans, and the batch that is filled from it.
#[derive(Debug)]
pub struct SpanFiller {
    queue: SpanQueue,
    open: Option<OpenSpanBatch>,
    /// The batch that is filled if spans go through `PutTraceSegments`.
    documents: Option<OpenSpanDocuments>,
    to: SpansTo,
    finished: VecDeque<Batch>,
    pool: Arc<ChunkPool>,
    account: Arc<Account>,
    body_bytes_max: usize,
    /// When the sender looks into the queue without being woken; `None` after a pause without
    /// requests.
    look_at: Option<Instant>,
}

/// One look into the queue.
#[derive(Debug)]
pub struct SpanTurn {
    is_closed: bool,
    taken_count: usize,
}

impl SpanFiller {
    /// A filler for `queue`, whose requests use the memory of `pool`. `to` is the operation of
    /// X-Ray that gets the spans.
    pub(super) fn new(
        (limits, to): (&SpanLimits, SpansTo),
        queue: SpanQueue,
        pool: Arc<ChunkPool>,
        account: Arc<Account>,
    ) -> Self {
        Self {
            queue,
            open: None,
            documents: None,
            to,
            finished: VecDeque::new(),
            pool,
            account,
            body_bytes_max: limits.body_bytes_max,
            look_at: None,
        }
    }

    /// Takes one request and merges it. Returns `false` if the queue is empty.
    fn take(&mut self) -> bool {
        let Some(request) = self.queue.take() else { return false };
        panics::inject("merge");
        if self.to == SpansTo::Segments {
            self.take_documents(&request);
            return true;
        }
        match &mut self.open {
            Some(open) if open.takes(&request, self.body_bytes_max) => {
                open.add(request, &self.pool);
            }
            open => {
                let full = open.replace(OpenSpanBatch::new(request, &self.pool));
                self.finished.extend(full.map(OpenSpanBatch::finish));
            }
        }
        true
    }

    /// Writes a request as documents for `PutTraceSegments`.
    fn take_documents(&mut self, request: &SpanRequest) {
        let (body, received_at) = (request.body.concat(), request.received_at);
        let mut left_count = request.span_count;
        let account = Arc::clone(&self.account);
        let divided = documents(request.encoding, &body, DOCUMENT_BYTES_MAX, |part| match part {
            Part::Document(text, span_count) => {
                left_count = left_count.saturating_sub(span_count);
                let is_full = |it: &OpenSpanDocuments| !it.takes(text.len(), self.body_bytes_max);
                if self.documents.as_ref().is_some_and(is_full) {
                    self.finish_documents();
                }
                let open = &mut self.documents;
                let open = open.get_or_insert_with(|| OpenSpanDocuments::new(received_at));
                open.add(&text, span_count, &self.pool);
            }
            Part::Rejected(why) => {
                left_count = left_count.saturating_sub(1);
                reject(1, &why, &account);
            }
        });
        // The port has read the same request without an error.
        if let Err(error) = divided {
            reject(left_count, &error.to_string(), &account);
        }
    }

    fn finish_documents(&mut self) {
        let documents = self.documents.take();
        self.finished.extend(documents.map(|documents| documents.finish(&self.pool)));
    }
}

/// Counts and logs spans that cannot be written as documents.
fn reject(span_count: u32, why: &str, account: &Account) {
    account.rejected(RejectReason::Refused).add(u64::from(span_count));
    REJECTED.log(|more| {
        error!(
            "{span_count} spans are rejected, as PutTraceSegments cannot carry them: {why}{more}"
        );
    });
}

impl Source for SpanFiller {
    type Turn = SpanTurn;

    const KEEPS_ALL: bool = true;

    fn begin_turn(&mut self, now: Instant) -> Option<SpanTurn> {
        // Read before the queue is looked at: if it is closed, no request follows those in it.
        let is_closed = self.queue.is_closed();
        let waiting = self.queue.waiting();
        let is_late = self.look_at.is_some_and(|at| at <= now);
        let is_due = waiting.request_count > 0
            && (self.look_at.is_none()
                || waiting.span_count >= LINGER_SPAN_COUNT
                || waiting.length_bytes >= self.body_bytes_max
                || self.pool.is_low());
        (is_closed || is_late || is_due).then_some(SpanTurn { is_closed, taken_count: 0 })
    }

    fn has_room(&self) -> bool {
        true
    }

    fn take_entry(&mut self, turn: &mut SpanTurn, _now: Instant) -> bool {
        let is_taken = turn.taken_count < REQUESTS_PER_TURN && self.take();
        turn.taken_count += usize::from(is_taken);
        is_taken
    }

    fn end_turn(&mut self, turn: SpanTurn, now: Instant) -> Progress {
        if turn.taken_count == REQUESTS_PER_TURN {
            return Progress::More;
        }
        self.look_at = (turn.taken_count > 0).then_some(now + LINGER_TIME);
        if turn.is_closed { Progress::Closed } else { Progress::Idle }
    }

    fn put_off(&mut self, now: Instant) {
        self.look_at = Some(now + AGE_MAX);
    }

    fn has_two(&self) -> bool {
        self.finished.len() > 1
    }

    fn finish_due(&mut self, now: Instant) {
        if self.next_batch_due().is_some_and(|due| due <= now) {
            self.finish_all(now);
        }
    }

    fn finish_all(&mut self, _now: Instant) {
        self.finished.extend(self.open.take().map(OpenSpanBatch::finish));
        self.finish_documents();
    }

    fn pop_batch(&mut self) -> Option<Batch> {
        let batch = self.finished.pop_front()?;
        let sizes = &self.account.sizes;
        sizes.batch_documents.observe(batch.item_count() as f64);
        sizes.batch_bytes.observe(batch.body_length_bytes as f64);
        Some(batch)
    }

    fn take_rest(&mut self, now: Instant) {
        while self.take() {}
        self.finish_all(now);
    }

    fn clear(&mut self, now: Instant) -> usize {
        self.take_rest(now);
        self.finished.drain(..).map(|batch| batch.item_count()).sum()
    }

    fn is_empty(&self) -> bool {
        let is_open = self.open.is_some() || self.documents.is_some();
        self.queue.waiting().request_count == 0 && !is_open && self.finished.is_empty()
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    fn next_batch_due(&self) -> Option<Instant> {
        let open = self.open.as_ref().map(OpenSpanBatch::oldest_at);
        let documents = self.documents.as_ref().map(OpenSpanDocuments::oldest_at);
        open.into_iter().chain(documents).min().map(|oldest_at| oldest_at + AGE_MAX)
    }

    async fn woken(&mut self) {
        let is_lingering = self.look_at.is_some();
        self.queue.woken(if is_lingering { LINGER_SPAN_COUNT } else { FIRST_COUNT }).await;
    }

    fn count(&mut self, held: &mut Held) {
        let waiting = self.queue.waiting();
        held.segment_count += waiting.span_count;
        held.ring_bytes += waiting.memory_bytes;
        held.segment_count += self.open.as_ref().map_or(0, OpenSpanBatch::span_count);
        held.open_batch_bytes += self.open.as_ref().map_or(0, OpenSpanBatch::memory_bytes);
        if let Some(documents) = &self.documents {
            held.segment_count += documents.span_count();
            held.open_batch_bytes += documents.memory_bytes();
        }
        for batch in &self.finished {
            held.segment_count += batch.item_count();
            held.open_batch_bytes += batch.memory_bytes();
        }
    }
}
