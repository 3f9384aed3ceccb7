//! The backend that a receiver uses at this moment, for the metrics.
//!
//! In: the choice at the start, and each change after a failure. Out: a [`Backend`]. Thread:
//! written by the receiver's thread, read by any.

use super::Backend;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The backend that a receiver uses. It changes when the backend fails.
#[derive(Debug)]
pub struct BackendInUse(AtomicUsize);

impl BackendInUse {
    /// Returns a value that names `backend`.
    pub fn new(backend: Backend) -> Self {
        Self(AtomicUsize::new(backend as usize))
    }

    /// Returns the backend.
    pub fn get(&self) -> Backend {
        let index = self.0.load(Ordering::Relaxed);
        Backend::ALL.into_iter().find(|it| *it as usize == index).unwrap_or(Backend::Recvmmsg)
    }

    /// Sets the backend.
    pub fn set(&self, backend: Backend) {
        self.0.store(backend as usize, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_is_kept() {
        for backend in Backend::ALL {
            let in_use = BackendInUse::new(backend);
            assert_eq!(in_use.get(), backend);
            in_use.set(Backend::Recvmmsg);
            assert_eq!(in_use.get(), Backend::Recvmmsg);
        }
    }
}
