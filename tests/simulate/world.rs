//! The world around the daemon: its clocks, its service, its disk, and the ledger of all documents.
//!
//! In: the plan's draw. Out: one shared world for the tasks of a simulation, which all run on one
//! thread.

use super::disk::MemoryDisk;
use super::history::History;
use super::ledger::Ledger;
use super::service::ServiceState;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xrayd::aws::SpansTo;
use xrayd::base::account::Signal;

/// The true date at the start of each simulation, in seconds since 1970.
const START_UNIX_SECONDS: i64 = 1_790_000_000;

/// The world. Clones share it.
#[derive(Debug, Clone)]
pub struct World {
    /// The signal that applications send.
    pub signal: Signal,
    /// Where the daemon sends spans.
    pub to: SpansTo,
    pub history: History,
    pub disk: MemoryDisk,
    ledger: Arc<Mutex<Ledger>>,
    service: Arc<Mutex<ServiceState>>,
    suspended_seconds: Arc<AtomicI64>,
    /// The host's date minus the true date, in seconds.
    host_error_seconds: Arc<AtomicI64>,
}

impl World {
    /// A world in which all works. `random` is its source of chance.
    pub fn new((signal, to): (Signal, SpansTo), mut random: fastrand::Rng) -> Self {
        let history = History::start();
        Self {
            signal,
            to,
            disk: MemoryDisk::new(4096, random.fork(), Some(history.clone())),
            history,
            ledger: Arc::default(),
            service: Arc::new(Mutex::new(ServiceState::new(random.fork()))),
            suspended_seconds: Arc::default(),
            host_error_seconds: Arc::default(),
        }
    }

    /// Returns whether the service gets documents, in requests of `PutTraceSegments`.
    pub fn gets_documents(&self) -> bool {
        self.signal == Signal::Segments || self.to == SpansTo::Segments
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Returns the state of the service.
    pub fn service(&self) -> MutexGuard<'_, ServiceState> {
        self.service.lock().unwrap()
    }

    /// Returns the true time in seconds since the start, with the time in which the machine was
    /// suspended.
    pub fn seconds(&self) -> i64 {
        let seconds = i64::try_from(self.history.now_ms() / 1_000).unwrap();
        seconds + self.suspended_seconds.load(Ordering::Relaxed)
    }

    /// Suspends the machine for this time.
    pub fn suspend(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap();
        self.suspended_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sets the date of the host wrong by this many seconds.
    pub fn set_host_error(&self, seconds: i64) {
        self.host_error_seconds.store(seconds, Ordering::Relaxed);
    }

    /// Returns whether the date of the host is wrong.
    pub fn has_wrong_date(&self) -> bool {
        self.host_error_seconds.load(Ordering::Relaxed) != 0
    }

    /// Returns the true date, which the service shows.
    pub fn true_date(&self) -> SystemTime {
        date(START_UNIX_SECONDS + self.seconds())
    }

    /// Returns the date of the host.
    pub fn host_date(&self) -> SystemTime {
        let error = self.host_error_seconds.load(Ordering::Relaxed);
        date(START_UNIX_SECONDS + self.seconds() + error)
    }
}

fn date(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or_default())
}
