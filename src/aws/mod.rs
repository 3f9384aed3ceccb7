//! The AWS client: from a body to a signed request, and from its answer to an outcome.
//!
//! The pipeline, the signing proxy, telemetry and `xray verify` all call the service through it.

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
pub mod transport;

pub use answer::Unprocessed;
pub use body::RequestBody;
pub use call::call;
pub use classify::{Failure, Outcome, Reading, classify};
pub use client::{Answer, Client, RequestError, Timeouts};
pub use encoding::{ANSWER_BYTES_MAX, Unreadable};
pub use service::{CallFuture, Service, StartError};
pub use sign::{SignError, Signer};

use identity::Identity;

/// The most documents that a call of `PutTraceSegments` takes,
/// <https://docs.aws.amazon.com/xray/latest/api/API_PutTraceSegments.html>.
pub const DOCUMENT_COUNT_MAX: usize = 50;

/// Whom batches are sent to, and as whom.
#[derive(Debug)]
pub struct Route {
    /// The way to the service.
    pub client: Client,
    /// Signs for it.
    pub signer: Signer,
    /// Whose credentials to sign with.
    pub identity: Identity,
}
