//! The route of the signing proxy to the service, and when it opens new connections.
//!
//! In: the route, once the region is known, and the begin and the end of each call. Out: the route.
//! Thread: main.
//!
//! All calls share a connection of HTTP/2. If the service stops answering on this connection, but
//! keeps it open, all later calls on it would time out too. So after a slow call without an
//! answer, later calls open a new connection.

use crate::aws::Route;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A call that ends without an answer after this time is slow. Many SDKs give up a call after one
/// or two seconds.
const SLOW: Duration = Duration::from_millis(500);

/// The route to the service.
#[derive(Debug)]
pub(super) struct CurrentRoute {
    route: watch::Sender<Option<Arc<Route>>>,
    /// When connections were last given up.
    given_up_at: Mutex<Option<Instant>>,
}

impl CurrentRoute {
    /// Returns a route that is not known yet.
    pub(super) fn unknown() -> Self {
        Self { route: watch::channel(None).0, given_up_at: Mutex::default() }
    }

    /// Sets the route.
    pub(super) fn set(&self, route: Route) {
        self.route.send_replace(Some(Arc::new(route)));
    }

    /// Returns the route as a value whose changes can be waited for.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Route>>> {
        self.route.subscribe()
    }

    /// Notes that a call begins.
    pub(super) fn begin(self: &Arc<Self>) -> OpenCall {
        OpenCall { route: Arc::clone(self), began_at: Instant::now(), is_answered: false }
    }

    /// Gives up all connections, unless this has happened since `began_at`: then the call that
    /// began at this time has used connections that are given up already. Calls in progress keep
    /// their connections.
    fn give_up_connections(&self, began_at: Instant) {
        let mut given_up_at = self.given_up_at.lock().unwrap_or_else(PoisonError::into_inner);
        if given_up_at.is_some_and(|at| at > began_at) {
            return;
        }
        *given_up_at = Some(Instant::now());
        self.route.send_if_modified(|current| {
            if let Some(route) = current {
                let client = route.client.with_own_connections();
                let (signer, identity) = (route.signer.clone(), route.identity.clone());
                *current = Some(Arc::new(Route { client, signer, identity }));
            }
            current.is_some()
        });
    }
}

/// A call whose answer is not complete yet. If it is dropped without an answer and was slow, later
/// calls open new connections.
#[derive(Debug)]
pub(super) struct OpenCall {
    route: Arc<CurrentRoute>,
    began_at: Instant,
    is_answered: bool,
}

impl OpenCall {
    /// Notes that the answer is complete.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.is_answered && self.began_at.elapsed() >= SLOW {
            self.route.give_up_connections(self.began_at);
        }
    }
}
