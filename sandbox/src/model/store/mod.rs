//! The documents held, by trace.
//!
//! In: documents that were taken. Out: [`Snapshot`]s, all or those of the traces that have changed
//! since a revision, and the traces that have become quiet. Bounds: [`Limits`]. When full, the
//! trace that was touched longest ago gives way as a whole, and inside one trace that is too large
//! its oldest documents; both are counted. Pure code that asks no clock: the caller holds the lock
//! and says what time it is.

mod trace;

pub use trace::Snapshot;

use super::document::Document;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trace::Trace;

/// What the sandbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Traces held.
    pub trace_count_max: usize,
    /// Bytes of all documents held, with their fields.
    pub size_bytes_max: usize,
    /// Documents held of one trace.
    pub trace_document_count_max: usize,
    /// Bytes of the documents held of one trace; the service keeps about 500 kB of one.
    pub trace_size_bytes_max: usize,
}

impl Default for Limits {
    /// Ten thousand traces with 25 KiB each: several services, with what their SDKs say of them.
    fn default() -> Self {
        Self {
            trace_count_max: 10_000,
            size_bytes_max: 256 * 1024 * 1024,
            trace_document_count_max: 1_000,
            trace_size_bytes_max: 1024 * 1024,
        }
    }
}

/// When something came.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For what becomes quiet.
    pub arrival: Instant,
    /// In seconds since 1970.
    pub wall_seconds: f64,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { arrival: Instant::now(), wall_seconds: since_1970.as_secs_f64() }
    }
}

/// How full the store is, and what it has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The revision of the last change.
    pub revision: u64,
    /// Traces held.
    pub trace_count: usize,
    /// Documents held.
    pub document_count: usize,
    /// Bytes of the documents held, with their fields.
    pub size_bytes: usize,
    /// Traces held at most.
    pub trace_count_max: usize,
    /// Traces given up to keep the bounds.
    pub evicted_trace_count: u64,
    /// Those of them that had not been taken as quiet.
    pub evicted_unshown_count: u64,
    /// Documents given up to keep the bounds, those of evicted traces included.
    pub evicted_document_count: u64,
}

/// The store; see the module.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    traces: HashMap<Arc<str>, Trace>,
    /// Trace ids by the revision of their last change, the oldest first.
    by_revision: BTreeMap<u64, Arc<str>>,
    /// Revisions of the traces that were not shown since.
    unshown: BTreeSet<u64>,
    /// The first revision; an earlier one is not from here.
    first_revision: u64,
    revision: u64,
    document_count: usize,
    size_bytes: usize,
    evicted_trace_count: u64,
    evicted_unshown_count: u64,
    evicted_document_count: u64,
}

impl Store {
    /// An empty store whose revisions begin with `first_revision`, 1 at least.
    pub fn new(limits: Limits, first_revision: u64) -> Self {
        let first_revision = first_revision.max(1);
        Self {
            limits,
            traces: HashMap::new(),
            by_revision: BTreeMap::new(),
            unshown: BTreeSet::new(),
            first_revision,
            revision: first_revision,
            document_count: 0,
            size_bytes: 0,
            evicted_trace_count: 0,
            evicted_unshown_count: 0,
            evicted_document_count: 0,
        }
    }

    /// How full it is.
    pub fn status(&self) -> Status {
        Status {
            revision: self.revision,
            trace_count: self.traces.len(),
            document_count: self.document_count,
            size_bytes: self.size_bytes,
            trace_count_max: self.limits.trace_count_max,
            evicted_trace_count: self.evicted_trace_count,
            evicted_unshown_count: self.evicted_unshown_count,
            evicted_document_count: self.evicted_document_count,
        }
    }

    /// Keeps `document`; it replaces an earlier one with the same id in its trace, except that a
    /// document in progress that arrives late does not replace the completed one.
    pub fn insert(&mut self, document: Document, now: Moment) {
        self.revision += 1;
        let revision = self.revision;
        let id: Arc<str> = match self.traces.get_key_value(document.trace_id.as_str()) {
            Some((id, _)) => Arc::clone(id),
            None => document.trace_id.as_str().into(),
        };
        let entry = self.traces.entry(Arc::clone(&id));
        let trace = entry.or_insert_with(|| Trace::new(revision, now));
        self.by_revision.remove(&trace.revision);
        self.unshown.remove(&trace.revision);
        self.by_revision.insert(revision, id);
        self.unshown.insert(revision);
        trace.touch(revision, now);

        self.size_bytes -= trace.size_bytes();
        self.document_count -= trace.document_count();
        trace.put(document);
        self.evicted_document_count += trace.shrink(&self.limits);
        self.size_bytes += trace.size_bytes();
        self.document_count += trace.document_count();
        while self.traces.len() > self.limits.trace_count_max
            || self.size_bytes > self.limits.size_bytes_max
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let (revision, id) = self.by_revision.pop_first().expect("over a bound: there is one");
        self.evicted_unshown_count += u64::from(self.unshown.remove(&revision));
        if let Some(trace) = self.traces.remove(&id) {
            self.size_bytes -= trace.size_bytes();
            self.document_count -= trace.document_count();
            self.evicted_trace_count += 1;
            self.evicted_document_count += trace.document_count() as u64;
        }
    }

    /// Forgets all traces. Whoever asks for what is new since an earlier revision is told to start
    /// again.
    pub fn clear(&mut self) {
        self.traces.clear();
        self.by_revision.clear();
        self.unshown.clear();
        self.document_count = 0;
        self.size_bytes = 0;
        self.revision += 1;
        self.first_revision = self.revision;
    }

    /// A trace as it is now.
    pub fn get(&self, trace_id: &str) -> Option<Snapshot> {
        self.traces.get_key_value(trace_id).map(|(id, trace)| trace.snapshot(id))
    }

    /// The traces that have changed after `revision`, the newest first; all of them for 0. `None`
    /// when that revision is not one of this store, or from before it was cleared.
    pub fn since(&self, revision: u64) -> Option<Vec<Snapshot>> {
        let is_known = (self.first_revision..=self.revision).contains(&revision);
        if revision != 0 && !is_known {
            return None;
        }
        let changed = self.by_revision.range((Bound::Excluded(revision), Bound::Unbounded));
        Some(changed.rev().filter_map(|(_, id)| self.get(id)).collect())
    }

    /// All traces, the one changed last first.
    pub fn all(&self) -> Vec<Snapshot> {
        self.newest(usize::MAX)
    }

    /// The traces changed last, the newest first, `count_max` at most.
    pub fn newest(&self, count_max: usize) -> Vec<Snapshot> {
        let ids = self.by_revision.values().rev().take(count_max);
        ids.filter_map(|id| self.get(id)).collect()
    }

    /// Takes the traces that were not shown since their last document and got none for
    /// `quiet_time`, the oldest first, `count_max` at most. A trace that gets another document
    /// later is taken again.
    pub fn take_quiet(
        &mut self,
        now: Instant,
        quiet_time: Duration,
        count_max: usize,
    ) -> Vec<Snapshot> {
        let mut taken = Vec::new();
        let is_quiet = |store: &Self| store.next_quiet(quiet_time).is_some_and(|at| at <= now);
        while taken.len() < count_max && is_quiet(self) {
            taken.extend(self.take_first_unshown());
        }
        taken
    }

    /// Takes every trace that was not shown since its last document, the oldest first.
    pub fn take_all(&mut self) -> Vec<Snapshot> {
        std::iter::from_fn(|| self.take_first_unshown()).collect()
    }

    fn take_first_unshown(&mut self) -> Option<Snapshot> {
        let revision = self.unshown.pop_first()?;
        self.get(self.by_revision.get(&revision)?)
    }

    /// When the next trace becomes quiet, if nothing more arrives for it.
    pub fn next_quiet(&self, quiet_time: Duration) -> Option<Instant> {
        let id = self.by_revision.get(self.unshown.first()?)?;
        self.traces.get(id).map(|trace| trace.touched_at() + quiet_time)
    }
}

#[cfg(test)]
mod tests;
