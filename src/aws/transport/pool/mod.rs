//! A pool of connections to services, over HTTP/1.1 or HTTP/2.
//!
//! In: requests. Out: their answers. Over HTTP/2, requests share a connection as far as the server
//! allows, and a further connection is opened when it is full. Over HTTP/1.1, each request has a
//! connection of its own. A request takes the first connection that becomes free, also while a new
//! one is being opened for it. Bound: connections are opened one after the other (or a few at a
//! time, see [`PoolSettings`]), and closed after a time without a request. Thread: the caller's.
//!
//! The client of hyper-util has one connection over HTTP/2 for a host. It queues what the server
//! does not allow at a time, and gives no way to open a second one; RFC 9113 advises against it,
//! but load balancers set their limit for a connection. Its connections over HTTP/1.1 are opened
//! all at once.

mod connections;
mod error;
mod form;
mod gather;
mod host;
mod settings;
#[cfg(test)]
mod tests;

pub use error::PoolError;
pub use settings::PoolSettings;

use super::Connector;
use crate::aws::body::RequestBody;
use crate::base::clock::Clock;
use connections::{Connections, Lease, Place};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor as _;
use settings::Key;
use std::sync::Arc;
use std::time::Duration;

/// How an answer came. It is an extension of the answer. Over HTTP/2 the stream counts as free when
/// the last copy is dropped, so `ReceivedBody` keeps a copy until the body is read.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The time that the request waited for a connection.
    pub waited: Duration,
    _place: Option<Arc<Place>>,
}

/// A pool of connections. Clones share the connections.
#[derive(Debug, Clone)]
pub struct ConnectionPool(Arc<Connections>);

impl ConnectionPool {
    /// Returns a pool without connections, which opens them with `connector`.
    pub fn new(connector: Connector, settings: PoolSettings) -> Self {
        Self(Connections::new(connector, settings))
    }

    /// Sends `request` and returns the answer, with a body that is not read yet. A request that a
    /// kept connection has not sent because it was closed meanwhile is sent over another one.
    ///
    /// # Errors
    ///
    /// Returns an error if no connection can be opened, or if the connection breaks. The service
    /// may have processed the request in the second case.
    pub async fn request(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, PoolError> {
        let uri = request.uri().clone();
        let key = Key::of(&uri).ok_or(PoolError::Address)?;
        let began_at = Clock::instant();
        loop {
            let lease = self.0.lease(&key).await.map_err(PoolError::Connect)?;
            let waited = Clock::instant().saturating_duration_since(began_at);
            let (sent, is_reused) = match lease {
                Lease::Http2(mut sender, place, is_reused) => {
                    let sent = sender.try_send_request(request).await.map(|mut answer| {
                        let place = Some(Arc::new(place));
                        answer.extensions_mut().insert(Sent { waited, _place: place });
                        answer
                    });
                    (sent, is_reused)
                }
                Lease::Http1(mut http1, place) => {
                    form::prepare(&mut request, http1.is_forward_proxy);
                    let is_reused = std::mem::replace(&mut http1.is_reused, true);
                    let sent = http1.sender.try_send_request(request).await.map(|mut answer| {
                        answer.extensions_mut().insert(Sent { waited, _place: None });
                        put_back(http1, place);
                        answer
                    });
                    (sent, is_reused)
                }
            };
            match sent {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_reused => request = unsent,
                    _ => return Err(PoolError::Send(error.into_error())),
                },
            }
            *request.uri_mut() = uri.clone();
        }
    }
}

/// Gives a connection over HTTP/1.1 back once the answer's body is read.
fn put_back(mut http1: host::Http1, place: Place) {
    if http1.sender.is_ready() {
        place.put_back(http1);
        return;
    }
    super::Executor.execute(async move {
        if http1.sender.ready().await.is_ok() {
            place.put_back(http1);
        }
    });
}
