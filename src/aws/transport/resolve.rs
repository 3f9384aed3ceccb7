//! Looks up host names with the system's resolver, on two separate threads.
//!
//! In: a host name. Out: its addresses. Bound: [`LOOKUP_COUNT_MAX`] waiting lookups. When full: a
//! further lookup fails immediately. If a caller stops waiting before its lookup has begun, the
//! lookup is skipped. Thread: `resolve-0` and `resolve-1`.
//!
//! There are two threads, so that one hanging lookup does not delay all other lookups. Both threads
//! are created at the start of the daemon, because later the system may refuse to create threads.

use crate::base::log::LogLimit;
use crate::base::panics;
use hyper_util::client::legacy::connect::dns::Name;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::vec;
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::error;

/// Number of threads that look up host names.
const THREAD_COUNT: usize = 2;

/// Largest number of lookups that wait for one of the threads.
const LOOKUP_COUNT_MAX: usize = 64;

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// The lookup of a host name, as a function that one of the threads runs.
type Lookup = Box<dyn FnOnce() + Send>;

/// Looks up host names. Clones share the threads, which end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Resolver {
    lookups: SyncSender<Lookup>,
}

impl Resolver {
    /// Creates the threads that look up host names.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses to create a thread.
    pub fn start() -> io::Result<Self> {
        let (lookups, waiting) = mpsc::sync_channel::<Lookup>(LOOKUP_COUNT_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..THREAD_COUNT {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("resolve-{index}")).spawn(move || {
                loop {
                    // This thread holds the lock while it waits for a lookup. If the other thread
                    // is idle too, it waits for the lock.
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(lookup) = next else { return };
                    lookup();
                }
            })?;
        }
        Ok(Self { lookups })
    }

    /// Runs the blocking function `look_up` on one of the threads and returns its result.
    ///
    /// # Errors
    ///
    /// Returns the error of `look_up`, or an error if it panics or if too many lookups wait.
    pub async fn run<T: Send + 'static>(
        &self,
        look_up: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, answer) = oneshot::channel();
        let lookup = Box::new(move || {
            if sender.is_closed() {
                return;
            }
            let found = panics::catch(look_up);
            let found = found.unwrap_or_else(|panicked| {
                PANICKED.log(|more| error!("A name lookup met {panicked}{more}"));
                Err(io::Error::other(panicked))
            });
            // The error is ignored: it means that the caller no longer waits for the result.
            let _ = sender.send(found);
        });
        self.lookups.try_send(lookup).map_err(|error| match error {
            TrySendError::Full(_) => {
                io::Error::other(format!("{LOOKUP_COUNT_MAX} name lookups wait already"))
            }
            TrySendError::Disconnected(_) => io::Error::other("the resolver's threads have ended"),
        })?;
        answer.await.unwrap_or_else(|_| Err(io::Error::other("the lookup was not run")))
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            // The caller, `HttpConnector`, replaces the port of the returned addresses.
            let look_up = move || {
                panics::inject("host_lookup");
                Ok((name.as_str(), 0).to_socket_addrs()?.collect::<Vec<_>>())
            };
            Ok(resolver.run(look_up).await?.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn a_name_has_its_addresses_and_an_unknown_one_is_an_error() {
        let mut resolver = Resolver::start().unwrap();
        let found = resolver.call("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().any(|address| address.ip().is_loopback()));
        assert!(resolver.call("name.invalid".parse().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_does_not_delay_others() {
        let resolver = Resolver::start().unwrap();
        let (release, hung) = channel::<()>();
        let hanging = resolver.run(move || Ok(hung.recv().is_ok()));
        let other = async {
            let found = resolver.run(|| Ok(7)).await.unwrap();
            release.send(()).unwrap();
            found
        };
        let (hanging, other) = tokio::join!(biased; hanging, other);
        assert_eq!((hanging.unwrap(), other), (true, 7));
    }

    #[tokio::test]
    async fn a_lookup_that_panics_is_an_error_and_the_threads_live_on() {
        let resolver = Resolver::start().unwrap();
        for _ in 0..2 * THREAD_COUNT {
            let error = resolver.run::<()>(|| panic!("x")).await.unwrap_err();
            assert!(error.to_string().contains("a fault in the program"), "{error}");
        }
        assert_eq!(resolver.run(|| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn too_many_lookups_are_an_error_and_abandoned_ones_are_skipped() {
        let resolver = Resolver::start().unwrap();
        let (release, hung) = channel::<()>();
        let hung = Arc::new(Mutex::new(hung));
        let mut hanging = Vec::new();
        while hanging.len() < THREAD_COUNT + LOOKUP_COUNT_MAX {
            let hung = Arc::clone(&hung);
            let lookup = resolver.run(move || Ok(hung.lock().unwrap().recv().is_ok()));
            let mut lookup = Box::pin(lookup);
            // The threads may not have taken a lookup out of the queue yet. If the queue is full,
            // the new lookup fails.
            match poll_once(lookup.as_mut()) {
                Poll::Pending => hanging.push(lookup),
                Poll::Ready(_) => thread::yield_now(),
            }
        }
        let error = resolver.run(|| Ok(7)).await.unwrap_err();
        assert!(error.to_string().contains("lookups wait already"), "{error}");
        drop(hanging);
        for _ in 0..THREAD_COUNT {
            release.send(()).unwrap();
        }
        // The futures of the waiting lookups were dropped, so the threads skip these lookups.
        while resolver.run(|| Ok(7)).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// Polls `future` once.
    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
