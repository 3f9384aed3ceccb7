//! Histograms of request times and batch sizes.
//!
//! In: one value per call or per batch, from the sender. Out: the histograms, for the metrics.
//! Bound: a fixed number of buckets. Thread: any.

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the histogram buckets for request times, in seconds. The last bound is twice the
/// default request timeout (`Upload.RequestTimeoutSeconds`: 15 s).
const REQUEST_SECONDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];

/// Upper bounds of the histogram buckets for the number of documents in a batch. A batch has at
/// most 50 documents.
const BATCH_DOCUMENTS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0];

/// Upper bounds of the histogram buckets for the size of request bodies, in bytes. A body has at
/// most 1 MiB, unless a single document is larger.
const BATCH_BYTES: [f64; 7] =
    [1_024.0, 4_096.0, 16_384.0, 65_536.0, 131_072.0, 262_144.0, 1_048_576.0];

/// Upper bounds of the histogram buckets for the number of spans in a batch. X-Ray takes at most
/// 10,000 in a request.
const BATCH_SPANS: [f64; 7] = [1.0, 10.0, 100.0, 512.0, 2_000.0, 5_000.0, 10_000.0];

/// The histograms of requests and batches.
#[derive(Debug)]
pub struct Sizes {
    /// Seconds from the start of a request to the end of its answer, for accepted requests.
    pub accepted_request_seconds: Histogram,
    /// Seconds from the start of a request to its failure, for requests that were not accepted.
    pub failed_request_seconds: Histogram,
    /// Number of documents or spans in a batch, when the batch is complete.
    pub batch_documents: Histogram,
    /// Size of the request body of a batch in bytes, when the batch is complete.
    pub batch_bytes: Histogram,
}

impl Sizes {
    /// The histograms of an account of spans.
    pub fn for_spans() -> Self {
        Self { batch_documents: Histogram::new(BATCH_SPANS), ..Self::default() }
    }
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
