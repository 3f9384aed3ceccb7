//! Summarizes a trace for lists and filters.
//!
//! In: a [`Snapshot`]. Out: a [`Summary`] that borrows from the snapshot. Bound: the documents of
//! the trace. No I/O, no clock.

use crate::model::document::seconds_between;
use crate::model::document::{ANNOTATION_COUNT_MAX, Annotation, Document, Flags, Http, Part};
use crate::model::store::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The summary of a trace.
#[derive(Debug)]
pub struct Summary<'a> {
    /// The summarized trace.
    pub trace: &'a Snapshot,
    /// Earliest start of a document, in seconds since 1970.
    pub start_time: f64,
    /// Latest end of a document, in seconds since 1970. `None` if no document has an end.
    pub end_time: Option<f64>,
    /// Root segment: the earliest segment without a parent. If every segment has a parent, the
    /// earliest segment.
    pub root: Option<&'a Document>,
    /// Number of segments. Subsegments in separate documents are not counted.
    pub segment_count: usize,
    /// Status flags that are set in any segment or subsegment of the trace.
    pub flags: Flags,
    /// Whether a document of the trace is in progress.
    pub in_progress: bool,
}

impl<'a> Summary<'a> {
    /// Summarizes a trace.
    pub fn of(trace: &'a Snapshot) -> Self {
        let documents = || trace.documents.iter().map(Arc::as_ref);
        let start = documents().map(|document| document.start_time).reduce(f64::min);
        let end_time = documents().filter_map(|document| document.end_time).reduce(f64::max);
        let segments = || documents().filter(|document| !document.is_subsegment);
        let root = segments().min_by(|one, other| {
            let key = |document: &Document| document.facts.parent_id.is_some();
            (key(one).cmp(&key(other))).then(one.start_time.total_cmp(&other.start_time))
        });
        Self {
            trace,
            start_time: start.unwrap_or_default(),
            end_time,
            root,
            segment_count: segments().count(),
            flags: documents().map(|document| document.flags).fold(Flags::default(), Flags::or),
            in_progress: documents().any(|document| document.in_progress),
        }
    }

    /// Returns the time from the earliest start to the latest end.
    pub fn duration_seconds(&self) -> Option<f64> {
        self.end_time.map(|end| seconds_between(self.start_time, end))
    }

    /// Returns the extracted fields of the root segment, without its subsegments.
    pub fn root_part(&self) -> Option<&'a Part> {
        self.root.and_then(|root| root.facts.parts.first())
    }

    /// Returns the time from the start to the end of the root segment, in seconds.
    pub fn response_time_seconds(&self) -> Option<f64> {
        self.root_part().and_then(Part::duration_seconds)
    }

    /// Returns the HTTP request that the root segment served.
    pub fn http(&self) -> Option<&'a Http> {
        self.root_part().and_then(|part| part.http.as_deref())
    }

    /// Returns the segments. Subsegments in separate documents are left out.
    pub fn segments(&self) -> impl Iterator<Item = &'a Document> + use<'a> {
        let documents = self.trace.documents.iter().map(Arc::as_ref);
        documents.filter(|document| !document.is_subsegment)
    }

    /// Returns the distinct names of the segments, at most `count_max`.
    pub fn services(&self, count_max: usize) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for segment in self.segments() {
            if names.len() == count_max {
                break;
            }
            if !names.contains(&segment.name.as_str()) {
                names.push(&segment.name);
            }
        }
        names
    }

    /// Returns the distinct users, each with the first document that names the user.
    pub fn users(&self) -> BTreeMap<&'a str, &'a Document> {
        let mut users = BTreeMap::new();
        for document in &self.trace.documents {
            if let Some(user) = &document.facts.user {
                users.entry(&**user).or_insert(&**document);
            }
        }
        users
    }

    /// Returns the indexed annotations with their documents, in the order in which the documents
    /// arrived. There are at most [`ANNOTATION_COUNT_MAX`].
    pub fn annotations(
        &self,
    ) -> impl Iterator<Item = (&'a str, &'a Annotation, &'a Document)> + use<'a> {
        let of_document = |document: &'a Arc<Document>| {
            let own = document.facts.annotations.iter();
            own.map(move |(key, value)| (&**key, value, &**document))
        };
        self.trace.documents.iter().flat_map(of_document).take(ANNOTATION_COUNT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trace(values: &[Value]) -> Snapshot {
        let document = |value: &Value| Arc::new(Document::unchecked(&value.to_string()));
        Snapshot {
            id: "t".into(),
            revision: 1,
            updated_at: 0.0,
            evicted_document_count: 0,
            replaced_document_count: 0,
            documents: values.iter().map(document).collect(),
        }
    }

    #[test]
    fn a_summary_spans_the_trace_and_names_each_service_once() {
        let trace = trace(&[
            json!({"name": "shop", "start_time": 11.0, "end_time": 14.5, "user": "b"}),
            json!({"name": "shop", "start_time": 10.0, "fault": true, "user": "a"}),
            json!({"name": "sub", "type": "subsegment", "start_time": 12, "end_time": 13.0}),
            json!({"name": "stock", "start_time": 12, "throttle": true, "user": "b"}),
        ]);
        let summary = Summary::of(&trace);
        assert_eq!((summary.start_time, summary.duration_seconds()), (10.0, Some(4.5)));
        assert_eq!((summary.segment_count, summary.in_progress), (3, false));
        assert_eq!(summary.services(8), ["shop", "stock"]);
        assert_eq!(summary.services(1), ["shop"]);
        assert_eq!(summary.flags, Flags { fault: true, error: false, throttle: true });
        assert_eq!(summary.users().into_keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_root_is_the_earliest_segment_that_no_other_has_called() {
        let called = json!({"name": "called", "start_time": 1.0, "parent_id": "00000000000000aa"});
        let late = json!({"name": "late", "start_time": 3.0});
        let first = json!({"name": "first", "start_time": 2.0, "end_time": 2.5});
        let sub = json!({"name": "sub", "type": "subsegment", "start_time": 0.5});
        let whole = trace(&[called.clone(), late, first, sub.clone()]);
        let summary = Summary::of(&whole);
        assert_eq!(summary.root.unwrap().name, "first");
        assert_eq!(summary.response_time_seconds(), Some(0.5));
        let part = trace(&[called, sub.clone()]);
        assert_eq!(Summary::of(&part).root.unwrap().name, "called");
        let rootless = trace(&[sub]);
        assert!(Summary::of(&rootless).root.is_none());
    }

    #[test]
    fn fifty_annotations_of_a_trace_are_indexed() {
        let document = |from: usize| {
            let pairs = (from..from + 30).map(|number| (format!("k{number}"), json!(number)));
            json!({"annotations": pairs.collect::<serde_json::Map<_, _>>()})
        };
        let trace = trace(&[document(0), document(100)]);
        assert_eq!(Summary::of(&trace).annotations().count(), 50);
    }
}
