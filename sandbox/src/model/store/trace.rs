//! Stores the documents of one trace.
//!
//! In: documents of the trace. Out: a [`Snapshot`]. The caller can use it without the lock of the
//! store. Bound: the two fields of [`Limits`] for one trace. When full: the oldest documents are
//! evicted.

use super::super::document::Document;
use super::{Limits, Moment};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A copy of a trace that later changes do not affect. The store and the copy share the documents.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Id of the trace.
    pub id: Arc<str>,
    /// Revision of the store at the last change of the trace.
    pub revision: u64,
    /// Arrival of the last document, in seconds since 1970.
    pub updated_at: f64,
    /// Number of documents that were evicted because the trace was too large.
    pub evicted_document_count: u64,
    /// Number of completed documents in whose place there is another one with the same id.
    pub replaced_document_count: u64,
    /// The documents, in the order of their arrival.
    pub documents: Vec<Arc<Document>>,
}

/// A trace in the store.
#[derive(Debug)]
pub(super) struct Trace {
    documents: VecDeque<Arc<Document>>,
    size_bytes: usize,
    evicted_document_count: u64,
    replaced_document_count: u64,
    /// Revision of the store at the last change of the trace. The store sorts traces by it.
    pub revision: u64,
    touched: Moment,
}

impl Trace {
    pub fn new(revision: u64, now: Moment) -> Self {
        Self {
            documents: VecDeque::new(),
            size_bytes: 0,
            evicted_document_count: 0,
            replaced_document_count: 0,
            revision,
            touched: now,
        }
    }

    pub fn touch(&mut self, revision: u64, now: Moment) {
        self.revision = revision;
        self.touched = now;
    }

    pub fn touched_at(&self) -> Instant {
        self.touched.arrival
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub fn document_count(&self) -> usize {
        self.documents.len()
    }

    pub fn snapshot(&self, id: &Arc<str>) -> Snapshot {
        Snapshot {
            id: Arc::clone(id),
            revision: self.revision,
            updated_at: self.touched.wall_seconds,
            evicted_document_count: self.evicted_document_count,
            replaced_document_count: self.replaced_document_count,
            documents: self.documents.iter().cloned().collect(),
        }
    }

    /// Adds a document, or replaces the document with the same id if the new one is later
    /// ([`is_later`]). The search is linear because a trace has few documents, at most
    /// [`Limits::trace_document_count_max`].
    pub fn put(&mut self, document: Document) {
        let Some(held) = self.documents.iter_mut().find(|held| held.id == document.id) else {
            self.size_bytes += document.size_bytes();
            self.documents.push_back(Arc::new(document));
            return;
        };
        // A document that was sent twice is the same document. One in progress is replaced by
        // design.
        let is_other = !held.in_progress && !document.in_progress && held.text != document.text;
        self.replaced_document_count += u64::from(is_other);
        if is_later(&document, held) {
            self.size_bytes -= held.size_bytes();
            self.size_bytes += document.size_bytes();
            *held = Arc::new(document);
        }
    }

    /// Evicts the oldest documents until the trace is within its bounds. Returns the number of
    /// evicted documents.
    pub fn shrink(&mut self, limits: &Limits) -> u64 {
        let mut count = 0;
        while self.documents.len() > limits.trace_document_count_max
            || self.size_bytes > limits.trace_size_bytes_max
        {
            let Some(document) = self.documents.pop_front() else { break };
            self.size_bytes -= document.size_bytes();
            self.evicted_document_count += 1;
            count += 1;
        }
        count
    }
}

/// Returns whether `document` takes the place of `held`, which has the same id: a completed
/// document that of one in progress, and a later end that of an earlier one. So the order in which
/// documents arrive does not matter. If the ends are equal, the document that arrives later is
/// shown.
fn is_later(document: &Document, held: &Document) -> bool {
    let rank = |it: &Document| (!it.in_progress, it.end_time.unwrap_or(f64::NEG_INFINITY));
    rank(document) >= rank(held)
}
