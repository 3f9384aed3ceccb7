//! Tests of the store: order, bounds, revisions, and quiet traces.

use super::*;
use serde_json::{Value, json};

const QUIET: Duration = Duration::from_millis(700);

fn now() -> Moment {
    Moment { arrival: Instant::now(), wall_seconds: 1.8e9 }
}

fn document(trace_id: &str, id: &str, more: &Value) -> Document {
    let mut value = json!({"trace_id": trace_id, "id": id, "name": id, "start_time": 10.0});
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    Document::unchecked(&value.to_string())
}

fn plain(trace_id: &str, id: &str) -> Document {
    document(trace_id, id, &json!({}))
}

fn ids(store: &Store) -> Vec<String> {
    store.all().iter().map(|trace| trace.id.to_string()).collect()
}

#[test]
fn beyond_the_count_of_traces_the_one_changed_longest_ago_is_evicted() {
    let now = now();
    let mut store = Store::new(Limits { trace_count_max: 2, ..Limits::default() }, 1);
    for (trace, id) in [("t1", "a"), ("t2", "b"), ("t1", "c"), ("t3", "d")] {
        store.insert(plain(trace, id), now);
    }
    assert_eq!(ids(&store), ["t3", "t1"]);
    assert_eq!((store.evicted_trace_count, store.evicted_document_count), (1, 1));
    assert_eq!(store.by_revision.len(), 2);
    assert_eq!(store.unshown.len(), 2);
}

#[test]
fn bytes_are_counted_and_bounded_whatever_arrives() {
    let now = now();
    let limits = Limits {
        size_bytes_max: 40_000,
        trace_size_bytes_max: 9_000,
        trace_document_count_max: 5,
        trace_count_max: 30,
    };
    let mut store = Store::new(limits, 1);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5_000 {
        let trace = format!("t{}", random.u32(..60));
        let id = format!("s{}", random.u32(..9));
        let padding = "x".repeat(random.usize(..3_000));
        let more = json!({"padding": padding, "in_progress": random.bool()});
        store.insert(document(&trace, &id, &more), now);
        let all = store.all();
        let held = || all.iter();
        let size: usize =
            held().flat_map(|trace| &trace.documents).map(|held| held.size_bytes()).sum();
        assert_eq!(size, store.size_bytes);
        assert_eq!(held().map(|trace| trace.documents.len()).sum::<usize>(), store.document_count);
        assert!(size <= limits.size_bytes_max && held().count() <= 30);
        let is_within = |trace: &Snapshot| {
            let size: usize = trace.documents.iter().map(|held| held.size_bytes()).sum();
            trace.documents.len() <= 5 && size <= 9_000
        };
        assert!(held().all(is_within));
    }
    assert!(store.evicted_trace_count > 100);
    assert!(store.evicted_document_count > store.evicted_trace_count);
}

#[test]
fn a_document_larger_than_the_store_is_evicted_and_does_not_hang_the_store() {
    let limits = Limits { size_bytes_max: 10, ..Limits::default() };
    let mut store = Store::new(limits, 1);
    store.insert(plain("t", "a"), now());
    assert_eq!((ids(&store).len(), store.size_bytes, store.unshown.len()), (0, 0, 0));
    assert_eq!(store.evicted_trace_count, 1);
}

#[test]
fn a_completed_segment_replaces_its_in_progress_one_and_never_the_other_way_round() {
    let now = now();
    let mut store = Store::new(Limits::default(), 1);
    let open = || document("t", "a", &json!({"in_progress": true}));
    store.insert(open(), now);
    store.insert(plain("t", "b"), now);
    assert!(store.newest(1)[0].documents[0].in_progress);
    for late in [document("t", "a", &json!({"end_time": 12.0})), open()] {
        store.insert(late, now);
        let documents = store.get("t").unwrap().documents;
        assert_eq!(documents.iter().map(|held| held.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(documents[0].end_time, Some(12.0));
    }
    assert!(!store.newest(1)[0].documents[0].in_progress);
}

#[test]
fn a_trace_is_taken_once_it_is_quiet_and_again_after_another_document() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let moment = |ms| Moment { arrival: at(ms), wall_seconds: 0.0 };
    let mut store = Store::new(Limits::default(), 1);
    assert_eq!(store.next_quiet(QUIET), None);
    store.insert(plain("t1", "a"), moment(0));
    store.insert(plain("t2", "b"), moment(100));
    store.insert(plain("t1", "c"), moment(300));
    let taken = |store: &mut Store, ms| {
        let traces = store.take_quiet(at(ms), QUIET, 9).into_iter();
        traces.map(|trace| (trace.id.to_string(), trace.documents.len())).collect::<Vec<_>>()
    };
    assert_eq!(store.next_quiet(QUIET), Some(at(800)));
    assert_eq!(taken(&mut store, 799), []);
    assert_eq!(taken(&mut store, 800), [("t2".to_owned(), 1)]);
    assert_eq!(store.next_quiet(QUIET), Some(at(1_000)));
    assert_eq!(taken(&mut store, 1_000), [("t1".to_owned(), 2)]);
    assert_eq!(taken(&mut store, 9_000), []);
    assert_eq!(store.next_quiet(QUIET), None);
    store.insert(plain("t2", "d"), moment(9_000));
    store.insert(plain("t3", "e"), moment(9_000));
    assert_eq!(store.take_quiet(at(9_800), QUIET, 1)[0].documents.len(), 2);
    assert_eq!(&*store.take_all()[0].id, "t3");
    assert!(store.take_all().is_empty());
}

#[test]
fn traces_changed_since_a_revision_come_newest_first() {
    let mut store = Store::new(Limits::default(), 1_000);
    let changed = |store: &Store, since| {
        let traces = store.since(since)?;
        Some(traces.iter().map(|trace| trace.id.to_string()).collect::<Vec<_>>())
    };
    let list = |ids: &[&str]| Some(ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>());
    assert_eq!(changed(&store, 0), list(&[]));
    let before = store.status().revision;
    for (trace, id) in [("t1", "a"), ("t2", "b"), ("t1", "c")] {
        store.insert(plain(trace, id), now());
    }
    assert_eq!(changed(&store, 0), list(&["t1", "t2"]));
    assert_eq!(changed(&store, before), list(&["t1", "t2"]));
    let snapshot = store.get("t2").unwrap();
    assert_eq!((snapshot.updated_at, snapshot.evicted_document_count), (1.8e9, 0));
    assert_eq!(changed(&store, snapshot.revision), list(&["t1"]));
    assert_eq!(changed(&store, store.status().revision), list(&[]));
    // Numbers that were never a revision of this store, for example those of another process.
    assert_eq!(changed(&store, 999), None);
    assert_eq!(changed(&store, store.status().revision + 1), None);
    let before = store.status().revision;
    store.clear();
    assert_eq!(changed(&store, before), None);
    assert_eq!(changed(&store, store.status().revision), list(&[]));
    let status = store.status();
    assert_eq!((status.trace_count, status.document_count, status.size_bytes), (0, 0, 0));
    assert!(store.take_all().is_empty());
}

#[test]
fn traces_that_are_evicted_before_they_were_shown_are_counted() {
    let mut store = Store::new(Limits { trace_count_max: 2, ..Limits::default() }, 1);
    for id in ["t1", "t2", "t3"] {
        store.insert(plain(id, "a"), now());
    }
    store.take_all();
    store.insert(plain("t4", "a"), now());
    let status = store.status();
    assert_eq!((status.evicted_trace_count, status.evicted_unshown_count), (2, 1));
}

#[test]
fn a_trace_that_was_cut_says_so() {
    let mut store = Store::new(Limits { trace_document_count_max: 2, ..Limits::default() }, 1);
    for id in ["a", "b", "c"] {
        store.insert(plain("t", id), now());
    }
    let trace = store.get("t").unwrap();
    assert_eq!((trace.evicted_document_count, trace.documents.len()), (1, 2));
}

#[test]
fn of_two_documents_with_one_id_the_later_by_its_end_is_kept() {
    let sent = |name: &str, more: Value| {
        let mut fields = json!({"name": name});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document("t", "a", &fields)
    };
    let open = sent("open", json!({"in_progress": true}));
    let open_again = sent("open again", json!({"in_progress": true}));
    let first = sent("first", json!({"end_time": 11.0}));
    let second = sent("second", json!({"end_time": 12.0}));
    let equal = sent("equal", json!({"end_time": 12.0}));
    for (arrivals, kept, replaced_count) in [
        (vec![&open, &first], "first", 0),
        (vec![&first, &open], "first", 0),
        (vec![&open, &open_again], "open again", 0),
        (vec![&first, &first], "first", 0),
        (vec![&first, &second], "second", 1),
        (vec![&second, &first], "second", 1),
        (vec![&second, &open, &first], "second", 1),
        (vec![&second, &equal], "equal", 1),
    ] {
        let mut store = Store::new(Limits::default(), 1);
        for document in &arrivals {
            store.insert((*document).clone(), now());
        }
        let trace = store.get("t").unwrap();
        let names: Vec<_> = trace.documents.iter().map(|it| it.name.as_str()).collect();
        let order: Vec<_> = arrivals.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            (names, trace.replaced_document_count),
            (vec![kept], replaced_count),
            "{order:?}"
        );
        assert_eq!(store.size_bytes, trace.documents[0].size_bytes());
    }
}

#[test]
fn five_thousand_traces_of_real_size_fit() {
    let mut store = Store::new(Limits::default(), 1);
    let padding = "x".repeat(1_000);
    for trace in 0..5_000 {
        for id in 0..10 {
            let more = json!({"metadata": padding, "subsegments": [{}, {}, {}, {}]});
            store.insert(document(&format!("t{trace}"), &id.to_string(), &more), now());
        }
    }
    let status = store.status();
    assert_eq!((status.trace_count, status.evicted_document_count), (5_000, 0));
    assert!(status.size_bytes * 2 < Limits::default().size_bytes_max, "{status:?}");
}
