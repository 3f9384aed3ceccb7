//! Tests of the forest: links, order, clocks, services, and hostile documents.

use super::node::path_of;
use super::*;
use serde_json::json;

fn forest(values: &[Value]) -> Forest {
    let document = |value: &Value| Arc::new(Document::unchecked(&value.to_string()));
    Forest::of(&values.iter().map(document).collect::<Vec<_>>())
}

fn names(forest: &Forest) -> Vec<&str> {
    forest.nodes.iter().map(|node| node.name.as_str()).collect()
}

fn node<'a>(forest: &'a Forest, name: &str) -> &'a Node {
    forest.nodes.iter().find(|node| node.name == name).unwrap()
}

#[test]
fn rows_follow_the_starts_and_each_parent_is_before_its_children() {
    let forest = forest(&[
        json!({"id": "s", "parent_id": "c", "name": "stock", "start_time": 0.2, "end_time": 0.3}),
        json!({"id": "a", "name": "shop", "start_time": 0.0, "end_time": 1.0, "subsegments": [
            7, {"id": "z", "name": "last", "start_time": 0.9},
            {"id": "b", "name": "first", "start_time": 0.1, "subsegments": [
                null, {"id": "c", "name": "call", "start_time": 0.15}]}]}),
        json!({"id": "d", "parent_id": "a", "type": "subsegment", "name": "db", "start_time": 0.5}),
    ]);
    assert_eq!(names(&forest), ["shop", "first", "call", "stock", "db", "last"]);
    let depths: Vec<usize> = forest.nodes.iter().map(|node| node.depth).collect();
    assert_eq!(depths, [0, 1, 2, 3, 1, 1]);
    let parents: Vec<_> = forest.nodes.iter().map(|node| node.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(1), Some(2), Some(0), Some(0)]);
    // The path leads to the node in its document. It counts what is not an object too.
    assert_eq!((node(&forest, "call").document, &*node(&forest, "call").path), (1, &[2, 1][..]));
    assert_eq!((node(&forest, "last").document, &*node(&forest, "last").path), (1, &[1][..]));
    assert_eq!((node(&forest, "stock").document, &*node(&forest, "stock").path), (0, &[][..]));
    assert_eq!((forest.segment_count, forest.omitted_count), (2, 0));
}

#[test]
fn a_node_belongs_to_the_service_of_the_segment_around_it() {
    let forest = forest(&[
        json!({"id": "a", "name": "shop", "start_time": 0.0, "subsegments": [
            {"id": "c", "name": "stock", "namespace": "remote", "start_time": 0.1}]}),
        json!({"id": "s", "parent_id": "c", "name": "stock", "start_time": 0.2, "subsegments": [
            {"name": "query", "start_time": 0.25}]}),
        json!({"id": "o", "parent_id": "gone", "type": "subsegment", "name": "alone",
            "start_time": 0.5}),
        json!({"id": "b", "name": "shop", "start_time": 0.6}),
    ]);
    assert_eq!(forest.services, ["shop", "stock"]);
    let services: Vec<_> = forest.nodes.iter().map(|node| node.service).collect();
    assert_eq!(services, [Some(0), Some(0), Some(1), Some(1), None, Some(0)]);
    assert_eq!(node(&forest, "alone").orphan, Some(Orphan::Missing));
}

#[test]
fn rings_of_parents_are_cut_and_each_node_is_there_once() {
    let node = |id: &str, parent: &str| json!({"id": id, "name": id, "parent_id": parent});
    for ring in [
        vec![node("a", "a")],
        vec![node("a", "b"), node("b", "a")],
        vec![node("x", "a"), node("a", "b"), node("b", "c"), node("c", "a"), node("y", "x")],
        vec![node("a", "b"), node("b", "a"), node("c", "d"), node("d", "c")],
    ] {
        let forest = forest(&ring);
        let mut names = names(&forest);
        names.sort_unstable();
        let mut expected: Vec<&str> = ring.iter().map(|it| it["id"].as_str().unwrap()).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        let cut = forest.nodes.iter().filter(|node| node.orphan == Some(Orphan::Ring));
        assert_eq!(cut.count(), forest.nodes.iter().filter(|node| node.parent.is_none()).count());
    }
}

#[test]
fn a_segment_with_another_clock_is_moved_into_its_caller_with_all_below_it() {
    let forest = forest(&[
        json!({"id": "a", "name": "caller", "start_time": 10.0, "end_time": 11.0, "subsegments": [
            {"id": "c", "name": "call", "start_time": 10.2, "end_time": 10.8}]}),
        json!({"id": "s", "parent_id": "c", "name": "called", "start_time": 5.0, "end_time": 5.4,
            "subsegments": [{"name": "work", "start_time": 5.1, "end_time": 5.2}]}),
    ]);
    assert_eq!(forest.skewed_count, 1);
    assert!((node(&forest, "called").shift_seconds - 5.3).abs() < 1e-9);
    assert_eq!(node(&forest, "work").shift_seconds, node(&forest, "called").shift_seconds);
    assert_eq!(node(&forest, "call").shift_seconds, 0.0);
}

#[test]
fn what_failed_first_is_the_deepest_node_of_the_most_serious_state() {
    let part = |id: &str, more: Value| {
        let mut part = json!({"id": id, "name": id, "start_time": 1.0, "end_time": 2.0});
        part.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        part
    };
    let failed = |documents: &[Value]| {
        let forest = forest(documents);
        forest.failed().map(|index| forest.nodes[index].name.clone())
    };
    assert_eq!(failed(&[part("ok", json!({"subsegments": [part("ok2", json!({}))]}))]), None);
    let chain = part(
        "shop",
        json!({"fault": true, "subsegments": [
            part("quick", json!({"error": true})),
            part("call", json!({"fault": true, "subsegments": [part("db", json!({"fault": true}))]})),
        ]}),
    );
    assert_eq!(failed(std::slice::from_ref(&chain)).as_deref(), Some("db"));
    let handled = part(
        "shop",
        json!({"subsegments": [
            part("first", json!({"throttle": true})),
            part("told", json!({"throttle": true, "cause": {"exceptions": [{"type": "T"}]}})),
        ]}),
    );
    assert_eq!(failed(&[handled]).as_deref(), Some("told"));
    let open = part("open", json!({"in_progress": true, "end_time": null}));
    assert_eq!(failed(&[open]), None);
}

#[test]
fn the_state_is_that_of_the_flags_and_else_of_the_status() {
    let state = |object: Value| forest(&[object]).nodes[0].state;
    let with = |more: Value| {
        let mut object = json!({"id": "a", "name": "n", "start_time": 1.0, "end_time": 2.0});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        state(object)
    };
    let status = |status: f64| json!({"http": {"response": {"status": status}}});
    assert_eq!(with(json!({})), State::Ok);
    assert_eq!(with(json!({"end_time": null})), State::Progress);
    assert_eq!(with(json!({"fault": true, "throttle": true, "error": true})), State::Fault);
    assert_eq!(with(json!({"throttle": true, "error": true})), State::Throttle);
    let mut refused = status(429.0);
    refused["error"] = json!(true);
    assert_eq!(with(refused), State::Throttle);
    assert_eq!(with(status(200.0)), State::Ok);
    assert_eq!(with(status(404.0)), State::Error);
    assert_eq!(with(status(429.0)), State::Throttle);
    assert_eq!(with(status(503.0)), State::Fault);
}

#[test]
fn only_calls_have_a_namespace() {
    let namespace = |more: Value| forest(&[more]).nodes[0].namespace;
    assert_eq!(namespace(json!({"namespace": "remote"})), "remote");
    assert_eq!(namespace(json!({"namespace": "aws"})), "aws");
    assert_eq!(namespace(json!({"namespace": "remote", "sql": {}})), "sql");
    // The SDK for Python marks its own work.
    assert_eq!(namespace(json!({"namespace": "local"})), "");
    assert_eq!(namespace(json!({"namespace": ["<img>"]})), "");
}

#[test]
fn notes_tell_what_a_node_did_without_hosts_and_queries() {
    let forest = forest(&[json!({"id": "a", "name": "n",
        "http": {"request": {"method": "GET", "url": "https://user:pw@h/a/b?token=x"},
            "response": {"status": 200}},
        "aws": {"operation": "SendMessage",
            "queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"},
        "sql": {"sanitized_query": "SELECT 1"},
        "cause": {"exceptions": [{"type": "E", "message": "m"}, {"type": "F"}]}})]);
    let notes = &forest.nodes[0].notes;
    assert_eq!((&*notes.http, &*notes.sql), ("GET /a/b 200", "SELECT 1"));
    assert_eq!(notes.aws, "SendMessage orders");
    assert_eq!(notes.exception, ["E", "m"]);
    assert!(forest.nodes[0].has_cause);
}

#[test]
fn odd_values_make_a_plain_node() {
    let odd = forest(&[
        json!({"id": 7, "name": null, "start_time": "x", "end_time": {}, "http": [], "aws": 1,
            "sql": "x", "cause": [], "subsegments": [1, null, [], {"name": 7}]}),
        json!({"id": "", "parent_id": "", "name": "", "subsegments": {"a": 1}}),
    ]);
    assert_eq!(names(&odd), ["?", "?", "?"]);
    assert!(odd.nodes.iter().all(|node| node.orphan.is_none() && node.start_time.is_none()));
    let long = forest(&[json!({"name": "x".repeat(60_000)})]);
    assert_eq!(long.nodes[0].name.len(), 500);
}

#[test]
fn no_more_nodes_are_held_than_the_bound() {
    let children = vec![json!({"subsegments": [{}]}); 3_000];
    let document = json!({"id": "a", "subsegments": children});
    let forest = forest(&[document.clone(), document]);
    assert_eq!(
        (forest.nodes.len(), forest.omitted_count),
        (NODE_COUNT_MAX, 12_002 - NODE_COUNT_MAX)
    );
}

#[test]
fn the_url_is_reduced_to_its_path() {
    for (url, path) in [
        ("https://user:pw@host:1/a/b?token=x#y", "/a/b"),
        ("http://host", "/"),
        ("/plain?x", "/plain"),
        ("", ""),
    ] {
        assert_eq!(path_of(url), path);
    }
}
