//! Tests of the tree: its text, its bounds, and hostile documents.

use super::*;
use serde_json::{Value, json};

fn documents(values: &[Value]) -> Vec<Arc<Document>> {
    let with_defaults = |value: &Value| {
        let mut full = json!({"trace_id": "t", "name": "n", "start_time": 0.0});
        for (key, field) in value.as_object().unwrap() {
            full[key] = field.clone();
        }
        Arc::new(Document::unchecked(&full.to_string()))
    };
    values.iter().map(with_defaults).collect()
}

fn drawn(values: &[Value]) -> String {
    render("1-2-3", &documents(values), Colours::Off)
}

#[test]
fn a_trace_is_drawn_with_timings_calls_and_flags() {
    let tree = drawn(&[
        json!({"id": "f", "parent_id": "e", "name": "stock", "start_time": 0.1, "end_time": 0.2}),
        json!({"id": "a", "name": "shop.example", "start_time": 0.0, "end_time": 0.482,
        "http": {"request": {"method": "GET", "url": "https://shop.example/checkout?key=x"},
            "response": {"status": 200}},
        "subsegments": [
            {"id": "d", "name": "DynamoDB", "start_time": 0.3, "end_time": 0.335,
                "error": true, "throttle": true, "aws": {"operation": "GetItem"}},
            {"id": "e", "name": "inventory", "start_time": 0.08, "end_time": 0.2,
                "fault": true, "cause": {"exceptions": [{"type": "E", "message": "m"}]}},
        ]}),
        json!({"id": "g", "parent_id": "a", "type": "subsegment", "name": "db", "start_time": 0.4,
            "in_progress": true, "sql": {"sanitized_query": "SELECT 1"}}),
    ]);
    let expected = "1-2-3  482 ms  2 segments, 3 subsegments
└─ shop.example  482 ms  GET /checkout 200
   ├─ inventory  120 ms  fault  E: m
   │  └─ stock  100 ms
   ├─ DynamoDB  35 ms  GetItem  throttle
   └─ db  in progress  SELECT 1";
    assert_eq!(tree, expected, "\n{tree}");
}

#[test]
fn a_subsegment_without_its_parent_stands_alone() {
    let tree = drawn(&[
        json!({"id": "b", "parent_id": "gone", "type": "subsegment", "end_time": 1.5}),
        json!({"id": "c", "name": "later", "start_time": 2.0}),
    ]);
    assert_eq!(tree, "1-2-3  1.50 s  1 segment, 1 subsegment\n├─ n  1.50 s\n└─ later  ?");
}

#[test]
fn rings_of_parents_are_cut_and_everything_is_drawn_once() {
    let node = |id: &str, parent: &str| json!({"id": id, "name": id, "parent_id": parent});
    for ring in [
        vec![node("a", "a")],
        vec![node("a", "b"), node("b", "a")],
        vec![node("x", "a"), node("a", "b"), node("b", "c"), node("c", "a"), node("y", "x")],
        vec![node("a", "b"), node("b", "a"), node("c", "d"), node("d", "c")],
    ] {
        let tree = drawn(&ring);
        assert_eq!(tree.lines().count(), ring.len() + 1, "{tree}");
        for node in &ring {
            let name = format!("─ {}  ?", node["id"].as_str().unwrap());
            assert_eq!(tree.matches(&name).count(), 1, "{tree}");
        }
    }
}

#[test]
fn a_ring_through_an_embedded_subsegment_is_cut() {
    let tree =
        drawn(&[json!({"id": "a", "parent_id": "b", "subsegments": [{"id": "b", "name": "in"}]})]);
    assert_eq!(tree.lines().count(), 3, "{tree}");
}

#[test]
fn names_cannot_drive_the_terminal() {
    let nasty = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}└─ forged";
    let tree = drawn(&[json!({"id": "a", "name": nasty, "aws": {"operation": nasty},
        "http": {"request": {"method": nasty, "url": nasty}}, "sql": {"sanitized_query": nasty},
        "cause": {"exceptions": [{"type": nasty, "message": nasty}]},
        "subsegments": [{"name": nasty}]})]);
    assert_eq!(tree.lines().count(), 3, "{tree}");
    assert!(!tree.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{tree}");
}

#[test]
fn long_names_and_odd_values_keep_lines_short() {
    let long = "x".repeat(10_000);
    let tree =
        drawn(&[json!({"id": "a", "name": long, "end_time": 1e308, "aws": {"operation": long},
        "http": {"request": {"method": 7, "url": long}, "response": {"status": 1e99}},
        "sql": {"sanitized_query": long}, "cause": {"exceptions": [{"message": long}]}})]);
    assert!(tree.lines().all(|line| line.chars().count() < 500), "{tree}");
    assert!(tree.contains("…"));
    for odd in [
        json!({"id": "a", "cause": "an id", "http": [], "aws": 1, "sql": null, "subsegments": {}}),
        json!({"id": "a", "cause": {"exceptions": {}}, "subsegments": [1, null, []]}),
    ] {
        assert_eq!(drawn(&[odd]).lines().last(), Some("└─ n  ?"));
    }
}

#[test]
fn a_chain_of_ten_thousand_documents_is_cut_at_the_depth() {
    let chain: Vec<Value> = (0..10_000)
        .map(|index| json!({"id": format!("s{index}"), "parent_id": format!("s{}", index + 1)}))
        .collect();
    let tree = drawn(&chain);
    assert_eq!(tree.lines().count(), 1 + DEPTH_MAX + 1, "{tree}");
    assert!(tree.ends_with(&format!("\n... {} more", 10_000 - DEPTH_MAX)), "{tree}");
}

#[test]
fn a_wide_trace_is_cut_at_the_lines_and_says_how_many_are_left() {
    let children = vec![json!({}); 5_000];
    let parents: Vec<Value> =
        (0..3).map(|index| json!({"id": format!("s{index}"), "subsegments": children})).collect();
    let tree = drawn(&parents);
    assert_eq!(tree.lines().count(), 1 + LINE_COUNT_MAX + 1);
    assert!(tree.starts_with("1-2-3  in progress  3 segments, 15000 subsegments\n"), "{tree}");
    assert!(tree.ends_with(&format!("\n... {} more", 15_003 - LINE_COUNT_MAX)), "{tree}");
}

#[test]
fn siblings_and_roots_stand_in_the_order_of_their_starts() {
    let tree = drawn(&[
        json!({"id": "c", "name": "third", "start_time": 3.0}),
        json!({"id": "a", "name": "first", "start_time": 1.0, "subsegments": [
            {"name": "unknown"}, {"name": "late", "start_time": 1.5}, {"name": "soon", "start_time": 1.2},
        ]}),
        json!({"id": "b", "name": "second", "start_time": 2.0}),
    ]);
    let words = tree.split_whitespace().filter(|word| word.chars().all(char::is_alphabetic));
    let names: Vec<&str> = words.skip_while(|word| *word != "first").collect();
    assert_eq!(names, ["first", "soon", "late", "unknown", "second", "third"], "{tree}");
}

#[test]
fn states_and_the_frame_are_in_colour_where_the_terminal_has_it() {
    let nasty = "\u{1b}[31mforged";
    let documents = documents(&[json!({"id": "a", "name": nasty, "end_time": 0.1, "fault": true,
        "subsegments": [{"name": "quiet", "start_time": 0.0, "end_time": 0.05},
            {"name": "busy", "start_time": 0.0, "end_time": 0.05, "throttle": true}]})]);
    let tree = render("1-2-3", &documents, Colours::On);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("\u{1b}[1m1-2-3\u{1b}[0m  100 ms"), "{tree:?}");
    assert!(lines[1].ends_with("  \u{1b}[31mfault\u{1b}[0m"), "{tree:?}");
    assert!(lines[1].contains("\\u{1b}[31mforged"), "{tree:?}");
    assert!(lines[3].ends_with("  \u{1b}[35mthrottle\u{1b}[0m"), "{tree:?}");
    // Without the colours, the text is the same.
    let mut plain = tree.clone();
    for code in ["0", "1", "2", "31", "35"] {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, render("1-2-3", &documents, Colours::Off));
}
