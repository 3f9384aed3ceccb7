//! Stores documents by trace.
//!
//! In: checked documents. Out: [`Snapshot`]s of all traces, of the traces that changed after a
//! revision, or of the traces that have become quiet. Bound: [`Limits`]. When full: the store
//! evicts the trace that has received no document for the longest time. If a single trace is too
//! large, the store evicts the oldest documents of that trace. Both evictions are counted. Thread:
//! any. The caller holds the lock of the store and passes the current time.

mod trace;

pub use trace::Snapshot;

use super::document::Document;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trace::Trace;

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest number of traces that a store may contain.
    pub trace_count_max: usize,
    /// Largest size of all documents with their parsed fields, in bytes.
    pub size_bytes_max: usize,
    /// Largest number of documents in one trace.
    pub trace_document_count_max: usize,
    /// Largest size of the documents of one trace with their parsed fields, in bytes. The service
    /// stores about 500 kB of a trace.
    pub trace_size_bytes_max: usize,
}

impl Default for Limits {
    /// Returns limits for ten thousand traces of 25 KiB on average. A trace has about this size if
    /// it contains several services and the metadata that SDKs add.
    fn default() -> Self {
        Self {
            trace_count_max: 10_000,
            size_bytes_max: 256 * 1024 * 1024,
            trace_document_count_max: 1_000,
            trace_size_bytes_max: 1024 * 1024,
        }
    }
}

/// The time at which a document arrived, on two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time on the monotonic clock. It decides when a trace becomes quiet.
    pub arrival: Instant,
    /// Time on the wall clock, in seconds since 1970.
    pub wall_seconds: f64,
}

impl Moment {
    /// Returns the current time of both clocks.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { arrival: Instant::now(), wall_seconds: since_1970.as_secs_f64() }
    }
}

/// Counts of what a store contains and of what it has evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Revision of the store. It grows by one with each change.
    pub revision: u64,
    /// Number of traces in the store.
    pub trace_count: usize,
    /// Number of documents in the store.
    pub document_count: usize,
    /// Size of the documents with their parsed fields, in bytes.
    pub size_bytes: usize,
    /// Largest number of traces that the store may contain.
    pub trace_count_max: usize,
    /// Number of traces evicted so far.
    pub evicted_trace_count: u64,
    /// Number of traces evicted before they were drawn with all of their documents.
    pub evicted_unshown_count: u64,
    /// Number of documents evicted so far, including the documents of evicted traces.
    pub evicted_document_count: u64,
}

/// A bounded store of documents by trace. See the module.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    traces: HashMap<Arc<str>, Trace>,
    /// Id of each trace, by the revision at which the trace changed last. The oldest is first.
    by_revision: BTreeMap<u64, Arc<str>>,
    /// The keys of `by_revision` of all traces that were not drawn since their last change.
    unshown: BTreeSet<u64>,
    /// First valid revision of this store. A smaller number comes from another process, or from
    /// before the store was cleared.
    first_revision: u64,
    revision: u64,
    document_count: usize,
    size_bytes: usize,
    evicted_trace_count: u64,
    evicted_unshown_count: u64,
    evicted_document_count: u64,
}

impl Store {
    /// Returns an empty store. Its revision is `first_revision`, or 1 if `first_revision` is 0.
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

    /// Returns the counts of the store.
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

    /// Adds `document` to its trace.
    ///
    /// Of two documents with the same id in the same trace, the completed one is kept, and of two
    /// completed ones that with the later end, whichever arrives first.
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
        let entry = self.by_revision.pop_first();
        let (revision, id) = entry.expect("a store above a bound has at least one trace");
        self.evicted_unshown_count += u64::from(self.unshown.remove(&revision));
        if let Some(trace) = self.traces.remove(&id) {
            self.size_bytes -= trace.size_bytes();
            self.document_count -= trace.document_count();
            self.evicted_trace_count += 1;
            self.evicted_document_count += trace.document_count() as u64;
        }
    }

    /// Removes all traces. [`Self::since`] then returns `None` for every earlier revision except 0.
    pub fn clear(&mut self) {
        self.traces.clear();
        self.by_revision.clear();
        self.unshown.clear();
        self.document_count = 0;
        self.size_bytes = 0;
        self.revision += 1;
        self.first_revision = self.revision;
    }

    /// Returns a trace as it is now, or `None` if the store does not have it.
    pub fn get(&self, trace_id: &str) -> Option<Snapshot> {
        self.traces.get_key_value(trace_id).map(|(id, trace)| trace.snapshot(id))
    }

    /// Returns the traces that changed after `revision`, the last changed trace first. Revision 0
    /// returns all traces.
    ///
    /// Returns `None` if `revision` is not a revision of this store, or is from before the store
    /// was cleared.
    pub fn since(&self, revision: u64) -> Option<Vec<Snapshot>> {
        let is_known = (self.first_revision..=self.revision).contains(&revision);
        if revision != 0 && !is_known {
            return None;
        }
        let changed = self.by_revision.range((Bound::Excluded(revision), Bound::Unbounded));
        Some(changed.rev().filter_map(|(_, id)| self.get(id)).collect())
    }

    /// Returns all traces, the last changed trace first.
    pub fn all(&self) -> Vec<Snapshot> {
        self.newest(usize::MAX)
    }

    /// Returns at most `count_max` traces, the last changed trace first.
    pub fn newest(&self, count_max: usize) -> Vec<Snapshot> {
        let ids = self.by_revision.values().rev().take(count_max);
        ids.filter_map(|id| self.get(id)).collect()
    }

    /// Returns quiet traces for drawing, the oldest first, and marks them as shown.
    ///
    /// A trace is quiet if it received no document for `quiet_time`. The result has at most
    /// `count_max` traces. A trace that was returned before is returned again only if another
    /// document has arrived for it.
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

    /// Returns every trace that has a document since it was shown last, and marks these traces as
    /// shown. The oldest trace is first.
    pub fn take_all(&mut self) -> Vec<Snapshot> {
        std::iter::from_fn(|| self.take_first_unshown()).collect()
    }

    fn take_first_unshown(&mut self) -> Option<Snapshot> {
        let revision = self.unshown.pop_first()?;
        self.get(self.by_revision.get(&revision)?)
    }

    /// Returns the time at which the next trace becomes quiet if no other document arrives for it.
    /// Returns `None` if [`take_quiet`](Self::take_quiet) and [`take_all`](Self::take_all) have
    /// already returned every trace with its last document.
    pub fn next_quiet(&self, quiet_time: Duration) -> Option<Instant> {
        let id = self.by_revision.get(self.unshown.first()?)?;
        self.traces.get(id).map(|trace| trace.touched_at() + quiet_time)
    }
}

#[cfg(test)]
mod tests;
