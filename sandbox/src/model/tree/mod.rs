//! Draws a trace as a short tree for a terminal.
//!
//! In: the documents of one trace. Out: lines of text, ready to print. Bound: [`LINE_COUNT_MAX`]
//! lines, [`DEPTH_MAX`] levels and [`NODE_COUNT_MAX`] segments and subsegments; long names and
//! notes are cut. When full: the last line shows how many segments and subsegments are left out. If
//! the links from children to parents form a ring, one link is removed. Every text from a document
//! goes through [`text::clean`]. No I/O, no clock, no recursion.

use super::document::{self, Document, Flags, seconds, string};
use super::text;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Largest number of drawn segments and subsegments. Each of them takes one line.
pub const LINE_COUNT_MAX: usize = 40;
/// Largest number of levels that are drawn. Deeper segments are only counted.
pub const DEPTH_MAX: usize = 16;
/// Largest number of segments and subsegments that are held while a tree is drawn.
pub const NODE_COUNT_MAX: usize = 10_000;

/// Longest name of a segment in the tree, in characters.
const NAME_LENGTH_MAX: usize = 60;
/// Longest note after the name of a segment, in characters. See [`notes`].
const NOTE_LENGTH_MAX: usize = 80;

/// One segment or subsegment. Nodes refer to each other by their index in [`Forest::nodes`].
#[derive(Debug, Default)]
struct Node {
    id: Option<String>,
    name: String,
    start_time: Option<f64>,
    end_time: Option<f64>,
    in_progress: bool,
    notes: Vec<String>,
    parent: Option<usize>,
    /// Id of the parent in another document. `None` for an embedded subsegment.
    parent_id: Option<String>,
    children: Vec<usize>,
}

#[derive(Debug, Default)]
struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    segment_count: usize,
    /// Number of nodes that were left out because of [`NODE_COUNT_MAX`].
    omitted_count: usize,
}

/// Draws the tree of a trace. The text does not end with a newline.
pub fn render(trace_id: &str, documents: &[Arc<Document>]) -> String {
    let mut forest = Forest::default();
    for document in documents {
        forest.add(document);
    }
    forest.link();
    forest.cut_rings();
    forest.sort();
    forest.draw(trace_id)
}

impl Forest {
    /// Adds the nodes of one document: its segment or subsegment, and the embedded subsegments.
    fn add(&mut self, document: &Document) {
        let root = document.object();
        self.segment_count += usize::from(!document.is_subsegment);
        let mut waiting = vec![(&root, None)];
        while let Some((object, parent)) = waiting.pop() {
            if self.nodes.len() == NODE_COUNT_MAX {
                self.omitted_count += 1;
            } else {
                let mut node = Node::of(object, parent);
                if parent.is_none() {
                    node.parent_id = string(object, "parent_id").map(str::to_owned);
                }
                self.nodes.push(node);
            }
            let index = self.nodes.len() - 1;
            waiting.extend(document::subsegments(object).rev().map(|child| (child, Some(index))));
        }
    }

    /// Links the root node of each document to its parent, which is in another document.
    fn link(&mut self) {
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(id) = &node.id {
                by_id.entry(id.clone()).or_insert(index);
            }
        }
        for node in &mut self.nodes {
            let parent_id = node.parent_id.as_ref();
            node.parent = node.parent.or_else(|| by_id.get(parent_id?).copied());
        }
    }

    /// Breaks every ring of parents, so that one node of the ring becomes a root.
    ///
    /// The function walks from each node to its parent, and so on. If a walk comes back to a node
    /// that it has visited, the function removes the last link of the walk.
    fn cut_rings(&mut self) {
        let mut seen_in_walk = vec![usize::MAX; self.nodes.len()];
        for walk in 0..self.nodes.len() {
            let mut at = walk;
            while seen_in_walk[at] == usize::MAX {
                seen_in_walk[at] = walk;
                let Some(parent) = self.nodes[at].parent else { break };
                if seen_in_walk[parent] == walk {
                    self.nodes[at].parent = None;
                    break;
                }
                at = parent;
            }
        }
    }

    /// Collects the roots and the children of each node, both sorted by their start.
    fn sort(&mut self) {
        for index in 0..self.nodes.len() {
            match self.nodes[index].parent {
                Some(parent) => self.nodes[parent].children.push(index),
                None => self.roots.push(index),
            }
        }
        let starts: Vec<f64> =
            self.nodes.iter().map(|node| node.start_time.unwrap_or(f64::MAX)).collect();
        let by_start = |one: &usize, other: &usize| starts[*one].total_cmp(&starts[*other]);
        for node in &mut self.nodes {
            node.children.sort_by(by_start);
        }
        self.roots.sort_by(by_start);
    }

    fn draw(&self, trace_id: &str) -> String {
        let mut tree = self.headline(trace_id);
        let mut drawn_count = 0;
        // Each entry: index of the node, text to the left of its branch, depth of the node, and
        // whether the node is the last of its siblings.
        let mut waiting: Vec<(usize, String, usize, bool)> = Vec::new();
        push_siblings(&mut waiting, &self.roots, "", 0);
        while let Some((index, before, depth, is_last)) = waiting.pop() {
            if drawn_count == LINE_COUNT_MAX {
                break;
            }
            drawn_count += 1;
            let node = &self.nodes[index];
            tree.push('\n');
            tree.push_str(&before);
            tree.push_str(if is_last { "└─ " } else { "├─ " });
            tree.push_str(&node.line());
            if depth + 1 < DEPTH_MAX {
                let below = format!("{before}{}", if is_last { "   " } else { "│  " });
                push_siblings(&mut waiting, &node.children, &below, depth + 1);
            }
        }
        let left_out_count = self.nodes.len() - drawn_count + self.omitted_count;
        if left_out_count > 0 {
            tree.push_str(&format!("\n... {left_out_count} more"));
        }
        tree
    }

    fn headline(&self, trace_id: &str) -> String {
        let starts = self.nodes.iter().filter_map(|node| node.start_time);
        let ends = self.nodes.iter().filter_map(|node| node.end_time);
        let duration = match starts.reduce(f64::min).zip(ends.reduce(f64::max)) {
            Some((start, end)) => text::duration(end - start),
            None => "in progress".to_owned(),
        };
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let segments = self.segment_count;
        let subsegments = self.nodes.len() + self.omitted_count - segments;
        let mut line = text::clean(trace_id, NAME_LENGTH_MAX);
        line.push_str(&format!("  {duration}  {segments} segment{}", plural(segments)));
        if subsegments > 0 {
            line.push_str(&format!(", {subsegments} subsegment{}", plural(subsegments)));
        }
        line
    }
}

/// Pushes siblings on the stack in reverse order, so that the first sibling is drawn first.
fn push_siblings(
    waiting: &mut Vec<(usize, String, usize, bool)>,
    siblings: &[usize],
    before: &str,
    depth: usize,
) {
    let last = siblings.len().saturating_sub(1);
    let entries = siblings.iter().enumerate().rev();
    waiting.extend(
        entries.map(|(position, &index)| (index, before.to_owned(), depth, position == last)),
    );
}

impl Node {
    fn of(object: &Map<String, Value>, parent: Option<usize>) -> Self {
        Self {
            id: string(object, "id").map(str::to_owned),
            name: text::clean(string(object, "name").unwrap_or("?"), NAME_LENGTH_MAX),
            start_time: seconds(object.get("start_time")),
            end_time: seconds(object.get("end_time")),
            in_progress: object.get("in_progress") == Some(&Value::Bool(true)),
            notes: notes(object),
            parent,
            ..Self::default()
        }
    }

    fn line(&self) -> String {
        let duration = match self.start_time.zip(self.end_time) {
            _ if self.in_progress => "in progress".to_owned(),
            Some((start, end)) => text::duration(end - start),
            None => "?".to_owned(),
        };
        let mut line = format!("{}  {duration}", self.name);
        for note in &self.notes {
            line.push_str("  ");
            line.push_str(note);
        }
        line
    }
}

/// Returns the notes that follow the name and the duration of a segment: the HTTP call, the AWS
/// operation, the SQL query, the status flag and the first exception.
fn notes(object: &Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    let clean = |note: &str| text::clean(note, NOTE_LENGTH_MAX);
    notes.extend(http_note(object).as_deref().map(clean));
    if let Some(operation) = object.get("aws").and_then(|aws| aws.get("operation")?.as_str()) {
        notes.push(clean(operation));
    }
    if let Some(query) = object.get("sql").and_then(|sql| sql.get("sanitized_query")?.as_str()) {
        notes.push(clean(query));
    }
    let flags = Flags::of(object);
    // Only the most serious flag is shown. A throttled call also has the flag `error`.
    let flag = [(flags.fault, "fault"), (flags.throttle, "throttle"), (flags.error, "error")];
    notes.extend(flag.iter().find(|(is_set, _)| *is_set).map(|(_, word)| (*word).to_owned()));
    let exception = object.get("cause").and_then(|cause| cause.get("exceptions")?.get(0));
    if let Some(exception) = exception {
        let part = |key: &str| exception.get(key).and_then(Value::as_str);
        let parts = [part("type"), part("message")];
        let words: Vec<&str> = parts.into_iter().flatten().collect();
        notes.extend((!words.is_empty()).then(|| clean(&words.join(": "))));
    }
    notes
}

/// Returns method, path and status of an HTTP call, for example `GET /checkout 200`. Missing values
/// are left out. Returns `None` if all three are missing.
fn http_note(object: &Map<String, Value>) -> Option<String> {
    let http = object.get("http")?;
    let part = |group: &str, key: &str| http.get(group).and_then(|group| group.get(key));
    let mut words = Vec::new();
    words.extend(part("request", "method").and_then(Value::as_str).map(str::to_owned));
    let url = part("request", "url").and_then(Value::as_str);
    words.extend(url.map(|url| path_of(url).to_owned()));
    words.extend(
        part("response", "status").and_then(Value::as_u64).map(|status| status.to_string()),
    );
    (!words.is_empty()).then(|| words.join(" "))
}

/// Returns the path of a URL.
///
/// The host is left out because the name of the segment shows it. The query is left out because it
/// may contain secrets.
fn path_of(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    }
}

#[cfg(test)]
mod tests;
