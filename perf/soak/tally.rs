//! What the endpoint has taken, document by document.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// The largest count that half a byte holds.
const COUNT_MAX: u8 = 15;

/// Counts by the number of the document, and of requests by outcome.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often each document was accepted: with an answer that surely went out in time in the
    /// low half of the byte, without one in the high half.
    counts: Vec<u8>,
    /// Requests by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Time by fault.
    pub fault_times: BTreeMap<&'static str, Duration>,
    /// Poison that was refused when it stood alone.
    pub poison_refused: HashSet<u32>,
    /// Requests whose body is not made of documents as they were sent.
    pub malformed_request_count: u64,
    /// The first bytes of one of them.
    pub malformed_example: String,
    /// The longest time that the endpoint itself kept everybody waiting.
    pub lag_max: Duration,
    /// Times that a document was accepted, all together.
    pub accepted_count: u64,
    /// Times that a document was accepted and its answer was lost, or may have been too late.
    pub lost_answer_count: u64,
    /// Times that a document was accepted though it had been, and the answer had gone out in time.
    pub needlessly_doubled_count: u64,
}

impl Tally {
    /// A tally of documents with numbers below `document_count`.
    pub fn new(document_count: usize) -> Self {
        Self { counts: vec![0; document_count], ..Self::default() }
    }

    /// Counts a request.
    pub fn request(&mut self, outcome: &'static str) {
        *self.requests.entry(outcome).or_default() += 1;
    }

    /// Counts documents that were accepted; whether their answer was lost.
    pub fn accepted(&mut self, numbers: &[u32], is_answer_lost: bool) {
        let shift = if is_answer_lost { 4 } else { 0 };
        for &number in numbers {
            let Some(count) = self.counts.get_mut(number as usize) else {
                self.malformed_request_count += 1;
                continue;
            };
            self.needlessly_doubled_count += u64::from(*count & COUNT_MAX > 0);
            if (*count >> shift) & COUNT_MAX < COUNT_MAX {
                *count += 1 << shift;
            }
        }
        self.accepted_count += numbers.len() as u64;
        self.lost_answer_count += if is_answer_lost { numbers.len() as u64 } else { 0 };
    }

    /// Documents that were accepted at least once.
    pub fn distinct_count(&self) -> u64 {
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }
}
