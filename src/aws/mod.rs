//! The AWS client: signs and sends requests, and classifies the answers.
//!
//! In: the body of a request, with region, endpoint and credentials. Out: the outcome of the call.
//! The pipeline, the signing proxy, telemetry and `xray verify` all use this client.

pub mod answer;
pub mod body;
mod call;
pub mod classify;
pub mod client;
pub mod encoding;
pub mod endpoint;
mod failure;
pub mod identity;
mod service;
pub mod sign;
mod spans;
pub mod transport;

pub use answer::Unprocessed;
pub use body::{Media, ReceiveError, ReceivedBody, RequestBody};
pub use call::call;
pub use classify::{Failure, Outcome, PartialSuccess, REQUEST_ID, Reading, classify};
pub use client::{Answer, Client, RequestError, Timeouts};
pub use encoding::{ANSWER_BYTES_MAX, Unreadable};
pub use service::{CallFuture, Service, StartError};
pub use sign::{SignError, Signer};
pub use spans::{Compression, SpanRoute, SpansTo};

use identity::Identity;

/// Largest number of documents in one `PutTraceSegments` request, see
/// <https://docs.aws.amazon.com/xray/latest/api/API_PutTraceSegments.html>.
pub const DOCUMENT_COUNT_MAX: usize = 50;

/// The parts that are needed to send signed requests to the service. The pipeline, the signing
/// proxy and telemetry have a `Route` each.
#[derive(Debug)]
pub struct Route {
    /// The HTTP client with its connections to the service.
    pub client: Client,
    /// The signer for the service's endpoint and region.
    pub signer: Signer,
    /// The credentials to sign with. A background task renews them.
    pub identity: Identity,
}
