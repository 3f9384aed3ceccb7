//! The newest traces, in bounded memory.
//!
//! In: documents and the time of their arrival. Out: the documents of a trace, summaries for the
//! listing, and the traces that have become quiet. Bounds: [`Limits`]. When full, the trace that
//! was touched longest ago gives way as a whole, and inside one trace that is too large its oldest
//! documents; both are counted. Pure code without a clock: the caller holds the lock and says what
//! time it is.

use super::document::{Document, Flags};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Services named in a summary; a trace that meets more of them is no longer read at a glance.
const SERVICE_NAME_COUNT_MAX: usize = 8;

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
    fn default() -> Self {
        Self {
            trace_count_max: 1_000,
            size_bytes_max: 16 * 1024 * 1024,
            trace_document_count_max: 1_000,
            trace_size_bytes_max: 1024 * 1024,
        }
    }
}

/// What the listing says about a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The trace's id.
    pub id: String,
    /// Earliest start, in seconds since 1970.
    pub start_time: f64,
    /// From the earliest start to the latest end, when anything has ended.
    pub duration_seconds: Option<f64>,
    /// Segments, without the subsegments that were sent on their own.
    pub segment_count: usize,
    /// Names of the segments, each once, the first eight.
    pub services: Vec<String>,
    /// Flags set anywhere in the trace.
    pub flags: Flags,
    /// Whether a segment of it is still in progress.
    pub in_progress: bool,
}

/// The documents of one trace, for the time after the lock.
pub type Documents = Vec<Arc<Document>>;

#[derive(Debug)]
struct Trace {
    documents: VecDeque<Arc<Document>>,
    size_bytes: usize,
    /// Position in the order of touching; the key in [`Store::by_touch`].
    touch: u64,
    touched_at: Instant,
}

/// The store; see the module.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    traces: HashMap<String, Trace>,
    /// Trace ids by their last touch, the oldest first.
    by_touch: BTreeMap<u64, String>,
    /// Touches of the traces that were not shown since.
    unshown: BTreeSet<u64>,
    touch_next: u64,
    size_bytes: usize,
    evicted_trace_count: u64,
    evicted_document_count: u64,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            traces: HashMap::new(),
            by_touch: BTreeMap::new(),
            unshown: BTreeSet::new(),
            touch_next: 0,
            size_bytes: 0,
            evicted_trace_count: 0,
            evicted_document_count: 0,
        }
    }

    /// Traces given up to keep the bounds.
    pub fn evicted_trace_count(&self) -> u64 {
        self.evicted_trace_count
    }

    /// Documents given up to keep the bounds, those of evicted traces included.
    pub fn evicted_document_count(&self) -> u64 {
        self.evicted_document_count
    }

    /// Keeps `document`; it replaces an earlier one with the same id in its trace, except that a
    /// document in progress that arrives late does not replace the completed one.
    pub fn insert(&mut self, document: Document, now: Instant) {
        let id = document.trace_id.clone();
        let touch = self.touch_next;
        self.touch_next += 1;
        let trace = self.traces.entry(id.clone()).or_insert_with(|| Trace {
            documents: VecDeque::new(),
            size_bytes: 0,
            touch,
            touched_at: now,
        });
        self.by_touch.remove(&trace.touch);
        self.unshown.remove(&trace.touch);
        self.by_touch.insert(touch, id);
        self.unshown.insert(touch);
        trace.touch = touch;
        trace.touched_at = now;

        self.size_bytes -= trace.size_bytes;
        trace.put(document);
        self.evicted_document_count += trace.shrink(&self.limits);
        self.size_bytes += trace.size_bytes;
        while self.traces.len() > self.limits.trace_count_max
            || self.size_bytes > self.limits.size_bytes_max
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let (touch, id) = self.by_touch.pop_first().expect("over a bound, so there is a trace");
        self.unshown.remove(&touch);
        if let Some(trace) = self.traces.remove(&id) {
            self.size_bytes -= trace.size_bytes;
            self.evicted_trace_count += 1;
            self.evicted_document_count += trace.documents.len() as u64;
        }
    }

    /// The documents of a trace, in the order of their arrival.
    pub fn documents(&self, trace_id: &str) -> Option<Documents> {
        self.traces.get(trace_id).map(|trace| trace.documents.iter().cloned().collect())
    }

    /// Summaries of the traces touched last, the newest first, `count_max` at most.
    pub fn newest(&self, count_max: usize) -> Vec<Summary> {
        let ids = self.by_touch.values().rev().take(count_max);
        ids.filter_map(|id| self.traces.get(id).map(|trace| trace.summary(id))).collect()
    }

    /// Takes the traces that were not shown since their last document and got none for
    /// `quiet_time`, the oldest first. A trace that gets another document later is taken again.
    pub fn take_quiet(&mut self, now: Instant, quiet_time: Duration) -> Vec<(String, Documents)> {
        let mut taken = Vec::new();
        while self.next_quiet(quiet_time).is_some_and(|quiet_at| quiet_at <= now) {
            taken.extend(self.take_first_unshown());
        }
        taken
    }

    /// Takes every trace that was not shown since its last document, the oldest first.
    pub fn take_all(&mut self) -> Vec<(String, Documents)> {
        std::iter::from_fn(|| self.take_first_unshown()).collect()
    }

    fn take_first_unshown(&mut self) -> Option<(String, Documents)> {
        let touch = self.unshown.pop_first()?;
        let id = self.by_touch.get(&touch)?;
        Some((id.clone(), self.documents(id)?))
    }

    /// When the next trace becomes quiet, if nothing more arrives for it.
    pub fn next_quiet(&self, quiet_time: Duration) -> Option<Instant> {
        let id = self.by_touch.get(self.unshown.first()?)?;
        self.traces.get(id).map(|trace| trace.touched_at + quiet_time)
    }
}

impl Trace {
    fn put(&mut self, document: Document) {
        let document = Arc::new(document);
        match self.documents.iter_mut().find(|held| held.id == document.id) {
            Some(held) if document.in_progress && !held.in_progress => {}
            Some(held) => {
                self.size_bytes -= held.size_bytes();
                self.size_bytes += document.size_bytes();
                *held = document;
            }
            None => {
                self.size_bytes += document.size_bytes();
                self.documents.push_back(document);
            }
        }
    }

    /// Gives up the oldest documents beyond the bounds of one trace; returns how many.
    fn shrink(&mut self, limits: &Limits) -> u64 {
        let mut count = 0;
        while self.documents.len() > limits.trace_document_count_max
            || self.size_bytes > limits.trace_size_bytes_max
        {
            let Some(document) = self.documents.pop_front() else { break };
            self.size_bytes -= document.size_bytes();
            count += 1;
        }
        count
    }

    fn summary(&self, id: &str) -> Summary {
        let start = self.documents.iter().map(|document| document.start_time).reduce(f64::min);
        let end = self.documents.iter().filter_map(|document| document.end_time).reduce(f64::max);
        let mut services: Vec<String> = Vec::new();
        let segments = || self.documents.iter().filter(|document| !document.is_subsegment);
        for segment in segments() {
            if services.len() < SERVICE_NAME_COUNT_MAX && !services.contains(&segment.name) {
                services.push(segment.name.clone());
            }
        }
        let flags = self.documents.iter().map(|document| document.flags);
        Summary {
            id: id.to_owned(),
            start_time: start.unwrap_or(0.0),
            duration_seconds: start.zip(end).map(|(start, end)| end - start),
            segment_count: segments().count(),
            services,
            flags: flags.fold(Flags::default(), Flags::or),
            in_progress: self.documents.iter().any(|document| document.in_progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const QUIET: Duration = Duration::from_millis(700);

    fn document(trace_id: &str, id: &str, more: &Value) -> Document {
        let mut value = json!({"trace_id": trace_id, "id": id, "name": id, "start_time": 10.0});
        for (key, field) in more.as_object().unwrap() {
            value[key] = field.clone();
        }
        Document::parse(&value.to_string()).unwrap()
    }

    fn plain(trace_id: &str, id: &str) -> Document {
        document(trace_id, id, &json!({}))
    }

    fn ids(store: &Store) -> Vec<String> {
        store.newest(usize::MAX).into_iter().map(|summary| summary.id).collect()
    }

    #[test]
    fn beyond_the_count_of_traces_the_one_touched_longest_ago_gives_way() {
        let now = Instant::now();
        let mut store = Store::new(Limits { trace_count_max: 2, ..Limits::default() });
        for (trace, id) in [("t1", "a"), ("t2", "b"), ("t1", "c"), ("t3", "d")] {
            store.insert(plain(trace, id), now);
        }
        assert_eq!(ids(&store), ["t3", "t1"]);
        assert_eq!((store.evicted_trace_count(), store.evicted_document_count()), (1, 1));
        assert_eq!(store.by_touch.len(), 2);
        assert_eq!(store.unshown.len(), 2);
    }

    #[test]
    fn bytes_are_counted_and_bounded_whatever_arrives() {
        let now = Instant::now();
        let limits = Limits {
            size_bytes_max: 40_000,
            trace_size_bytes_max: 9_000,
            trace_document_count_max: 5,
            trace_count_max: 30,
        };
        let mut store = Store::new(limits);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            let trace = format!("t{}", random.u32(..60));
            let id = format!("s{}", random.u32(..9));
            let padding = "x".repeat(random.usize(..3_000));
            let more = json!({"padding": padding, "in_progress": random.bool()});
            store.insert(document(&trace, &id, &more), now);
            let held = || store.traces.values();
            let size: usize =
                held().flat_map(|trace| &trace.documents).map(|held| held.size_bytes()).sum();
            assert_eq!(size, store.size_bytes);
            assert!(size <= limits.size_bytes_max && store.traces.len() <= 30);
            assert!(held().all(|trace| trace.documents.len() <= 5 && trace.size_bytes <= 9_000));
        }
        assert!(store.evicted_trace_count() > 100);
        assert!(store.evicted_document_count() > store.evicted_trace_count());
    }

    #[test]
    fn a_document_larger_than_everything_is_given_up_and_does_not_hang_the_store() {
        let limits = Limits { size_bytes_max: 10, ..Limits::default() };
        let mut store = Store::new(limits);
        store.insert(plain("t", "a"), Instant::now());
        assert_eq!((ids(&store).len(), store.size_bytes, store.unshown.len()), (0, 0, 0));
        assert_eq!(store.evicted_trace_count(), 1);
    }

    #[test]
    fn a_completed_segment_replaces_its_in_progress_one_and_never_the_other_way_round() {
        let now = Instant::now();
        let mut store = Store::new(Limits::default());
        let open = || document("t", "a", &json!({"in_progress": true}));
        store.insert(open(), now);
        store.insert(plain("t", "b"), now);
        assert!(store.newest(1)[0].in_progress);
        for late in [document("t", "a", &json!({"end_time": 12.0})), open()] {
            store.insert(late, now);
            let documents = store.documents("t").unwrap();
            assert_eq!(
                documents.iter().map(|held| held.id.as_str()).collect::<Vec<_>>(),
                ["a", "b"]
            );
            assert_eq!(documents[0].end_time, Some(12.0));
        }
        assert!(!store.newest(1)[0].in_progress);
    }

    #[test]
    fn a_trace_is_taken_once_it_is_quiet_and_again_after_another_document() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut store = Store::new(Limits::default());
        assert_eq!(store.next_quiet(QUIET), None);
        store.insert(plain("t1", "a"), at(0));
        store.insert(plain("t2", "b"), at(100));
        store.insert(plain("t1", "c"), at(300));
        let taken = |store: &mut Store, ms| {
            let traces = store.take_quiet(at(ms), QUIET).into_iter();
            traces.map(|(id, documents)| (id, documents.len())).collect::<Vec<_>>()
        };
        assert_eq!(store.next_quiet(QUIET), Some(at(800)));
        assert_eq!(taken(&mut store, 799), []);
        assert_eq!(taken(&mut store, 800), [("t2".to_owned(), 1)]);
        assert_eq!(store.next_quiet(QUIET), Some(at(1_000)));
        assert_eq!(taken(&mut store, 1_000), [("t1".to_owned(), 2)]);
        assert_eq!(taken(&mut store, 9_000), []);
        assert_eq!(store.next_quiet(QUIET), None);
        store.insert(plain("t2", "d"), at(9_000));
        assert_eq!(store.take_all()[0].1.len(), 2);
        assert!(store.take_all().is_empty());
    }

    #[test]
    fn a_summary_spans_the_trace_and_names_each_service_once() {
        let now = Instant::now();
        let mut store = Store::new(Limits::default());
        for (id, more) in [
            ("a", json!({"name": "shop", "start_time": 11.0, "end_time": 14.5})),
            ("b", json!({"name": "shop", "start_time": 10.0, "fault": true})),
            ("c", json!({"name": "sub", "type": "subsegment", "end_time": 13.0})),
            ("d", json!({"name": "stock", "throttle": true})),
        ] {
            store.insert(document("t", id, &more), now);
        }
        assert_eq!(
            store.newest(9),
            [Summary {
                id: "t".to_owned(),
                start_time: 10.0,
                duration_seconds: Some(4.5),
                segment_count: 3,
                services: vec!["shop".to_owned(), "stock".to_owned()],
                flags: Flags { fault: true, error: false, throttle: true },
                in_progress: false,
            }]
        );
    }
}
