//! The interface between the sender and the X-Ray service.
//!
//! In: a request body with its SHA-256. Out: a future of the classified answer. The sender calls
//! the service only through the trait [`Service`]. A [`Route`] implements the trait for the real
//! service; tests use a simulated service. An implementation starts no task or thread and catches
//! no panic: the sender runs the futures and catches their panics. Bound: the timeouts of the HTTP
//! client. Thread: `upload`.

use super::{Reading, RequestBody, Route, SignError, call};
use crate::base::account::RequestFailure;
use crate::base::clock::Clock;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::SystemTime;

/// The future of a call. It returns the classified answer, and the kind of failure to count; the
/// kind is `None` if the service accepted the request.
pub type CallFuture = Pin<Box<dyn Future<Output = (Reading, Option<RequestFailure>)> + Send>>;

/// The reason why a call was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no credentials to sign the request with.
    #[error("there are no credentials")]
    NoCredentials,
    /// The request could not be signed.
    #[error(transparent)]
    Unsigned(#[from] SignError),
}

/// A service that takes the requests of `PutTraceSegments`.
pub trait Service: Debug + Send {
    /// Returns whether there are credentials to sign with.
    fn is_ready(&self) -> bool;

    /// Returns the address of the service, and the proxy in front of it, for the log.
    fn address(&self) -> String;

    /// Waits until the credentials have changed. If the future is dropped, a later call still
    /// reports the change.
    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Signs a request with `body`, and returns the future that sends it. `body_sha256` is the
    /// SHA-256 of `body`.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no credentials, or if the request cannot be signed with them.
    fn call(&self, body: RequestBody, body_sha256: &[u8; 32]) -> Result<CallFuture, StartError>;

    /// Requests new credentials from their source, without waiting for them.
    fn renew_credentials(&self);

    /// Sets the clock for signatures: the service's clock shows `service_time` at this moment. All
    /// later requests are signed with the service's time.
    fn set_time(&self, service_time: SystemTime);

    /// Drops all open connections. Later requests look up the host name again and open new
    /// connections.
    fn forget_connections(&mut self);
}

impl Service for Route {
    fn is_ready(&self) -> bool {
        self.identity.is_ready()
    }

    fn address(&self) -> String {
        let endpoint = self.signer.endpoint();
        format!("{endpoint}{}", self.client.way(&endpoint.uri("/")))
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
