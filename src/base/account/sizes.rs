//! How long requests take and how full batches are: counts by size, once a batch or rarer.

use prometheus_client::metrics::histogram::Histogram;

/// Seconds; the last bound is the longest time that a request has by default, twice.
const REQUEST_SECONDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];

/// Documents; a request takes fifty.
const BATCH_DOCUMENTS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0];

/// Bytes; a body has 1 MiB at most, unless a single document is larger.
const BATCH_BYTES: [f64; 7] =
    [1_024.0, 4_096.0, 16_384.0, 65_536.0, 131_072.0, 262_144.0, 1_048_576.0];

/// Counts by size.
#[derive(Debug)]
pub struct Sizes {
    /// Seconds from the start of a request to the end of an answer that is a success.
    pub accepted_request_seconds: Histogram,
    /// Seconds from the start of a request to whatever else became of it.
    pub failed_request_seconds: Histogram,
    /// Documents of a batch that was ended, be it full or old.
    pub batch_documents: Histogram,
    /// Bytes of its body.
    pub batch_bytes: Histogram,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            accepted_request_seconds: Histogram::new(REQUEST_SECONDS),
            failed_request_seconds: Histogram::new(REQUEST_SECONDS),
            batch_documents: Histogram::new(BATCH_DOCUMENTS),
            batch_bytes: Histogram::new(BATCH_BYTES),
        }
    }
}
