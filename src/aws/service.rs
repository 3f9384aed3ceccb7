//! The seam between the uploader and the service.
//!
//! In: a request body with its SHA-256. Out: a future of what the answer means. The uploader calls
//! the service through [`Service`] only, so that a test can put a simulated service in the place of
//! a [`Route`]. An implementation starts no task or thread and catches no panic: the uploader runs
//! the futures and catches their panics. Bound: the timeouts of the client. Thread: `upload`.

use super::{Reading, RequestBody, Route, SignError, call};
use crate::base::account::RequestFailure;
use crate::base::clock::Clock;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::SystemTime;

/// The future of a call: what the answer means, and under which kind a failure is counted.
pub type CallFuture = Pin<Box<dyn Future<Output = (Reading, Option<RequestFailure>)> + Send>>;

/// The reason why a call was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no credentials
    #[error("there are no credentials")]
    NoCredentials,
    /// The request could not be signed
    #[error(transparent)]
    Unsigned(#[from] SignError),
}

/// A service that takes the requests of `PutTraceSegments`.
pub trait Service: Debug + Send {
    /// Returns whether there are credentials to sign with.
    fn is_ready(&self) -> bool;

    /// Waits until the credentials have changed. Dropping the future loses no change.
    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Signs a request with `body`, whose SHA-256 is `body_sha256`, and returns the future that
    /// sends it.
    ///
    /// # Errors
    ///
    /// When there are no credentials, or the request cannot be signed with them.
    fn call(&self, body: RequestBody, body_sha256: &[u8; 32]) -> Result<CallFuture, StartError>;

    /// Asks for new credentials.
    fn renew_credentials(&self);

    /// Signs later requests with the service's time, which is `service_time` now.
    fn set_time(&self, service_time: SystemTime);

    /// Sends later requests over new connections, to addresses that are looked up again.
    fn forget_connections(&mut self);
}

impl Service for Route {
    fn is_ready(&self) -> bool {
        self.identity.is_ready()
    }

    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.identity.changed())
    }

    fn call(&self, body: RequestBody, body_sha256: &[u8; 32]) -> Result<CallFuture, StartError> {
        let credentials = self.identity.credentials().ok_or(StartError::NoCredentials)?;
        let signed_at = self.signer.time(Clock::host_date());
        let request = self.signer.sign(body, body_sha256, &credentials, signed_at)?;
        let client = self.client.clone();
        Ok(Box::pin(async move { call(&client, request, signed_at).await }))
    }

    fn renew_credentials(&self) {
        self.identity.renew();
    }

    fn set_time(&self, service_time: SystemTime) {
        self.signer.set_time(service_time, Clock::host_date());
    }

    fn forget_connections(&mut self) {
        self.client.forget_connections();
    }
}
