//! Records the documents that the endpoint accepted.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// The largest count that fits into half a byte.
const COUNT_MAX: u8 = 15;

/// Counts documents by number, and requests by outcome.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often each document was accepted. The low half of the byte counts acceptances with an
    /// answer that was certainly in time. The high half counts all other acceptances.
    counts: Vec<u8>,
    /// Number of requests for each outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Total time of the windows of each fault.
    pub fault_times: BTreeMap<&'static str, Duration>,
    /// Numbers of the poison documents that were refused when each was alone in a request.
    pub poison_refused: HashSet<u32>,
    /// Number of requests with a body that is not made of sent documents.
    pub malformed_request_count: u64,
    /// The first bytes of the last request that was malformed in this way.
    pub malformed_example: String,
    /// The longest delay with which the endpoint's own thread woke up.
    pub lag_max: Duration,
    /// Number of acceptances, including repeated ones.
    pub accepted_count: u64,
    /// Number of acceptances with an answer that was lost or may have been too late.
    pub lost_answer_count: u64,
    /// Number of acceptances of a document that was already accepted with an answer in time.
    pub needlessly_doubled_count: u64,
}

impl Tally {
    /// Creates a tally for documents with numbers below `document_count`.
    pub fn new(document_count: usize) -> Self {
        Self { counts: vec![0; document_count], ..Self::default() }
    }

    /// Counts a request.
    pub fn request(&mut self, outcome: &'static str) {
        *self.requests.entry(outcome).or_default() += 1;
    }

    /// Counts documents that were accepted, and whether their answer was lost.
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

    /// Returns the number of documents that were accepted at least once.
    pub fn distinct_count(&self) -> u64 {
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }
}
