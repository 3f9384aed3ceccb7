//! A batch on its way to the service, with the history of its calls.
//!
//! In: a batch, from the batcher or from the spool. Out: the same batch, or a part of it, for each
//! call. Bound: the pool's memory. No I/O, no clock.

use crate::pipeline::batch::Batch;
use crate::pipeline::spool::RecordId;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// The age of a pending batch. A lower value is older. The first number is the number of the batch;
/// batches from the spool have lower numbers than fresh batches. The second number orders the parts
/// of one batch. It is 0 for a whole batch.
pub type Age = (u64, usize);

/// The number of the first fresh batch. Batches from the spool get lower numbers, because they are
/// older than any fresh batch.
pub(super) const FIRST_NUMBER: u64 = 1 << 63;

/// The name of a pending batch in the log: `Batch 7`, `Batch 7 of the spool`, or `Batch 7 from
/// document 25 on` for a part. Fresh batches and batches from the spool are numbered apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchName {
    age: Age,
    is_part: bool,
}

impl fmt::Display for BatchName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, first) = self.age;
        match number.checked_sub(FIRST_NUMBER) {
            Some(number) => write!(out, "Batch {}", number + 1)?,
            None => write!(out, "Batch {} of the spool", number + 1)?,
        }
        if self.is_part { write!(out, " from document {} on", first + 1) } else { Ok(()) }
    }
}

/// The suspicion that a document of a pending batch is faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// The number of requests that the service had accepted when the suspicion began.
    pub accepted_count: u64,
    /// Whether the service has refused a request with exactly these documents. It is `false` for a
    /// half of a refused batch until that half has been sent and refused.
    pub was_refused: bool,
}

/// A batch with the history of its calls.
#[derive(Debug)]
pub struct PendingBatch {
    /// The documents to send.
    pub batch: Batch,
    /// The number of failed calls; the next backoff depends on it.
    pub failure_count: u32,
    /// The number of calls that were started with exactly these documents.
    pub attempt_count: u32,
    /// The number of calls that another server, for example a captive portal, has answered in the
    /// place of X-Ray. A part starts with the count of the whole batch.
    pub not_x_ray_count: u32,
    /// The suspicion that a document is faulty, if there is one.
    pub suspicion: Option<Suspicion>,
    /// The record of the spool that the batch was read from. All parts of a batch share the record.
    pub record: Option<Arc<RecordId>>,
    /// Whether the pending batch has only some of the documents of a batch.
    pub is_part: bool,
    pub(super) age: Age,
}

impl PendingBatch {
    /// Returns a pending batch for a batch that was not sent yet.
    pub(super) fn new(batch: Batch, record: Option<RecordId>, age: Age) -> Self {
        Self {
            batch,
            failure_count: 0,
            attempt_count: 0,
            not_x_ray_count: 0,
            suspicion: None,
            record: record.map(Arc::new),
            is_part: false,
            age,
        }
    }

    /// Returns the name of the batch for the log.
    pub fn name(&self) -> BatchName {
        BatchName { age: self.age, is_part: self.is_part }
    }

    /// Returns whether the pending batch is a whole batch from the spool, and no other pending
    /// batch shares its record.
    pub fn is_in_spool(&self) -> bool {
        !self.is_part && self.record.as_ref().is_some_and(|record| Arc::strong_count(record) == 1)
    }

    /// Returns the memory of the pending batch in bytes. A part counts its own bytes only, because
    /// it shares its chunks with the other parts.
    pub fn memory_bytes(&self) -> usize {
        if self.is_part { self.batch.body_length_bytes } else { self.batch.memory_bytes() }
    }

    /// Returns a pending batch with `batch`, which has some of the documents of this pending batch.
    /// `first` is the number of segments or spans of this pending batch before those of `batch`.
    pub fn part(&self, batch: Batch, first: usize) -> Self {
        Self {
            batch,
            failure_count: 0,
            attempt_count: 0,
            not_x_ray_count: self.not_x_ray_count,
            suspicion: None,
            record: self.record.clone(),
            is_part: true,
            age: (self.age.0, self.age.1 + first),
        }
    }
}

/// A call in flight.
#[derive(Debug)]
pub struct Call {
    /// The pending batch that was sent.
    pub pending: PendingBatch,
    /// The time at which the call was started.
    pub started_at: Instant,
    /// The number of requests that the service had accepted when the call was started.
    pub accepted_count: u64,
}
