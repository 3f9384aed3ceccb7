//! The batcher: chooses the batch for each segment, and ends batches that are full or old.
//!
//! In: segments from the rings. Out: finished batches, hashed in pairs if two are finished. Bound:
//! see the module `batch`. Thread: `upload`.

use super::OPEN_BATCH_COUNT_MAX;
use super::body::Unhashed;
use super::open_batch::{OpenBatch, OutOfChunks};
use super::{AGE_MAX, Batch, DOCUMENT_COUNT_MAX};
use crate::base::memory::ChunkPool;
use crate::pipeline::ring::PackedSegment;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// If a batch is full within less than this time, the batcher adds an open batch.
const OPEN_BATCH_FILL_TIME_MIN: Duration = Duration::from_millis(100);

/// Collects segments into batches.
#[derive(Debug)]
pub struct Batcher {
    pool: Arc<ChunkPool>,
    open_batches: Vec<OpenBatch>,
    pub(super) open_batch_count: usize,
    body_bytes_max: usize,
    finished: VecDeque<Unhashed>,
    /// A batch that was hashed together with the batch before it, and was not taken yet.
    hashed: Option<Batch>,
}

impl Batcher {
    /// Returns a batcher with at most `open_batch_count_max` open batches, which writes into chunks
    /// of `pool`. A body ends before it is longer than `body_bytes_max`, unless a single document
    /// is longer.
    pub fn new(pool: Arc<ChunkPool>, body_bytes_max: usize, open_batch_count_max: usize) -> Self {
        let open_batches = (0..open_batch_count_max.clamp(1, OPEN_BATCH_COUNT_MAX))
            .map(|_| OpenBatch::default())
            .collect();
        Self {
            pool,
            open_batches,
            open_batch_count: 1,
            body_bytes_max,
            finished: VecDeque::new(),
            hashed: None,
        }
    }

    /// Adds a segment that was received at `received_at`. [`pop`](Self::pop) returns the batches
    /// that have become full.
    ///
    /// # Errors
    ///
    /// When the pool has no chunk left. The segment is then not added.
    pub fn add(
        &mut self,
        segment: &PackedSegment<'_>,
        received_at: Instant,
        now: Instant,
    ) -> Result<(), OutOfChunks> {
        let index = self.open_batch_of(segment);
        let open_batch = &mut self.open_batches[index];
        // Most documents grow by a tenth when they are escaped. If a document grows by more than an
        // eighth, the body becomes a little longer than `body_bytes_max`.
        let expected_bytes = open_batch.length + segment.document_length_bytes() * 9 / 8;
        if !open_batch.documents.is_empty() && expected_bytes > self.body_bytes_max {
            self.finish(index, now);
        }
        let open_batch = &mut self.open_batches[index];
        open_batch.add(segment, &self.pool)?;
        open_batch.oldest_at =
            Some(open_batch.oldest_at.map_or(received_at, |oldest| oldest.min(received_at)));
        if open_batch.documents.len() == DOCUMENT_COUNT_MAX {
            self.finish(index, now);
        }
        Ok(())
    }

    fn open_batch_of(&self, segment: &PackedSegment<'_>) -> usize {
        match segment.field(segment.fields.trace_id) {
            Some(trace_id) if self.open_batch_count > 1 => spread(trace_id) % self.open_batch_count,
            _ => 0,
        }
    }

    fn finish(&mut self, index: usize, now: Instant) {
        let Some(batch) = self.open_batches[index].finish() else { return };
        let fill_time = now.saturating_duration_since(batch.oldest_at);
        if batch.documents.len() == DOCUMENT_COUNT_MAX && fill_time < OPEN_BATCH_FILL_TIME_MIN {
            self.open_batch_count = (self.open_batch_count + 1).min(self.open_batches.len());
        } else if fill_time >= AGE_MAX {
            self.open_batch_count = (self.open_batch_count / 2).max(1);
        }
        self.finished.push_back(batch);
    }

    /// Ends each batch that has a document of the age [`AGE_MAX`] or older at `now`.
    pub fn finish_due(&mut self, now: Instant) {
        for index in 0..self.open_batches.len() {
            let oldest_at = self.open_batches[index].oldest_at;
            if oldest_at.is_some_and(|oldest| now.saturating_duration_since(oldest) >= AGE_MAX) {
                self.finish(index, now);
            }
        }
    }

    /// Ends all batches, full or not.
    pub fn finish_all(&mut self, now: Instant) {
        for index in 0..self.open_batches.len() {
            self.finish(index, now);
        }
    }

    /// Returns the time at which the next batch is due by age; `None` if all open batches are
    /// empty.
    pub fn next_due(&self) -> Option<Instant> {
        self.open_batches
            .iter()
            .filter_map(|open_batch| open_batch.oldest_at)
            .min()
            .map(|oldest| oldest + AGE_MAX)
    }

    /// Takes the oldest finished batch. The next finished batch, if there is one, is hashed
    /// together with it. A caller that waits until [two](Self::has_two) are finished saves a third
    /// of the time for hashing.
    pub fn pop(&mut self) -> Option<Batch> {
        if let Some(batch) = self.hashed.take() {
            return Some(batch);
        }
        let first = self.finished.pop_front()?;
        let Some(second) = self.finished.pop_front() else { return Some(first.hash()) };
        let [first, second] = Unhashed::hash_two([first, second]);
        self.hashed = Some(second);
        Some(first)
    }

    /// Returns whether two or more batches are finished.
    pub fn has_two(&self) -> bool {
        self.finished.len() > 1
    }

    /// Returns the number of segments in open and finished batches. They are counted one by one.
    pub fn segment_count(&self) -> usize {
        let open = self.open_batches.iter().map(|open_batch| open_batch.documents.len());
        let finished = self.finished.iter().map(|batch| batch.documents.len());
        let hashed = self.hashed.iter().map(|batch| batch.documents.len());
        open.chain(finished).chain(hashed).sum()
    }

    /// Returns the memory of the open and finished batches in bytes.
    pub fn memory_bytes(&self) -> usize {
        let open = self.open_batches.iter().map(OpenBatch::memory_bytes);
        let finished = self.finished.iter().map(Unhashed::memory_bytes);
        let hashed = self.hashed.iter().map(Batch::memory_bytes);
        open.chain(finished).chain(hashed).sum()
    }
}

/// Returns an evenly spread number for a trace id. The last eight bytes are enough, because the end
/// of a trace id is random; a hash of the whole id would cost more for each segment.
fn spread(trace_id: &[u8]) -> usize {
    let mut end = [0; 8];
    for (place, byte) in end.iter_mut().zip(trace_id.iter().rev()) {
        *place = *byte;
    }
    // Multiplying by 2^64 divided by the golden ratio (Fibonacci hashing) lets every digit of the
    // id change the upper 32 bits.
    let product = u64::from_le_bytes(end).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(product >> 32).unwrap_or_default()
}
