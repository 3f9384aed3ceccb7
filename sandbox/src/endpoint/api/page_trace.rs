//! Makes the rows of a trace for the page.
//!
//! In: the documents of a trace. Out: JSON with a row for each segment and subsegment, in the order
//! of the waterfall. A field that has its usual value (null, false, 0 or an empty text) is left
//! out. Each row names its document and the path to its object in it, where the page reads the
//! details of the selected row.

use crate::model::document::Document;
use crate::model::forest::{Forest, Node, Orphan};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Returns the forest of the documents for the page.
pub fn rows_json(documents: &[Arc<Document>]) -> Value {
    let forest = Forest::of(documents);
    json!({
        "rows": forest.nodes.iter().map(row_json).collect::<Vec<_>>(),
        "services": forest.services,
        "segment_count": forest.segment_count,
        "omitted_count": forest.omitted_count,
        "skewed_count": forest.skewed_count,
        "failed": forest.failed(),
    })
}

fn row_json(node: &Node) -> Value {
    let notes = &node.notes;
    let exception = notes.exception.iter().find(|text| !text.is_empty());
    let texts = [&notes.http, &notes.aws, &notes.sql].into_iter().chain(exception);
    let note: Vec<&str> = texts.map(String::as_str).filter(|text| !text.is_empty()).collect();
    let orphan = match node.orphan {
        Some(Orphan::Missing) => "missing",
        Some(Orphan::Ring) => "ring",
        None => "",
    };
    let mut row = Map::new();
    let mut set = |key: &str, value: Value, is_usual: bool| {
        if !is_usual {
            row.insert(key.to_owned(), value);
        }
    };
    set("document", json!(node.document), false);
    set("path", json!(node.path), node.path.is_empty());
    set("id", json!(node.id), node.id.is_empty());
    set("name", json!(node.name), false);
    set("parent", json!(node.parent), node.parent.is_none());
    set("parent_id", json!(node.parent_id), node.parent_id.is_none());
    set("orphan", json!(orphan), orphan.is_empty());
    set("depth", json!(node.depth), node.depth == 0);
    set("service", json!(node.service), node.service.is_none());
    set("is_segment", json!(true), !node.is_segment);
    set("namespace", json!(node.namespace), node.namespace.is_empty());
    set("start", json!(node.start_time), node.start_time.is_none());
    set("end", json!(node.end_time), node.end_time.is_none());
    set("is_open", json!(true), !node.is_open);
    set("shift", json!(node.shift_seconds), node.shift_seconds == 0.0);
    set("state", json!(node.state.word()), false);
    set("has_cause", json!(true), !node.has_cause);
    set("note", json!(note.join("  ")), note.is_empty());
    row.into()
}
