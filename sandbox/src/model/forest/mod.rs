//! Builds the trees of the segments and subsegments of one trace.
//!
//! In: the documents of a trace. Out: a [`Forest`] with one [`Node`] for each segment and
//! subsegment, in the order of the rows of a waterfall: each parent is before its children, and
//! siblings are sorted by their start. A subsegment in a document of its own is placed below its
//! parent segment, and a segment below the subsegment that called it. If the links from children to
//! parents form a ring, one link is removed. Bound: [`NODE_COUNT_MAX`]; further nodes are only
//! counted. No I/O, no clock, no recursion.
//!
//! The terminal ([`super::tree`]) and the page draw the same forest.

mod node;
#[cfg(test)]
mod tests;

pub use node::{Node, Notes, Orphan, State};

use super::document::{Document, string};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Largest number of nodes of a forest. It is more than the sandbox stores of one trace.
pub const NODE_COUNT_MAX: usize = 10_000;

/// A segment that starts more than this before its parent has a different clock. In seconds.
const SKEW_SECONDS_MIN: f64 = 0.001;

/// The trees of a trace. See the module.
#[derive(Debug, Default)]
pub struct Forest {
    /// The nodes, in the order of their rows. They refer to each other by their index.
    pub nodes: Vec<Node>,
    /// Names of the services that sent the segments, in the order of their first rows.
    pub services: Vec<String>,
    /// Number of documents that are segments.
    pub segment_count: usize,
    /// Number of nodes that were left out because of [`NODE_COUNT_MAX`].
    pub omitted_count: usize,
    /// Number of segments whose clock differs from that of their callers.
    pub skewed_count: usize,
}

impl Forest {
    /// Builds the trees of the documents of one trace.
    pub fn of(documents: &[Arc<Document>]) -> Self {
        let mut forest = Self::default();
        for (index, document) in documents.iter().enumerate() {
            forest.add(index, document);
        }
        forest.link();
        forest.cut_rings();
        forest.sort();
        forest.set_services();
        forest.set_clocks();
        forest
    }

    /// Adds the nodes of one document: its segment or subsegment, and the embedded subsegments.
    fn add(&mut self, document_index: usize, document: &Document) {
        let root = document.object();
        self.segment_count += usize::from(!document.is_subsegment);
        let mut waiting: Vec<(&Map<String, Value>, Option<usize>, usize)> = vec![(&root, None, 0)];
        while let Some((object, parent, position)) = waiting.pop() {
            if self.nodes.len() == NODE_COUNT_MAX {
                self.omitted_count += 1;
                waiting.extend(embedded(object).map(|(at, child)| (child, None, at)));
                continue;
            }
            let mut node = Node::of(object, parent.is_none());
            node.document = document_index;
            node.parent = parent;
            match parent {
                None => node.parent_id = string(object, "parent_id").map(str::to_owned),
                Some(parent) => {
                    node.path.clone_from(&self.nodes[parent].path);
                    node.path.push(position);
                }
            }
            self.nodes.push(node);
            let index = self.nodes.len() - 1;
            waiting.extend(embedded(object).rev().map(|(at, child)| (child, Some(index), at)));
        }
    }

    /// Links the root node of each document to its parent, which is in another document.
    fn link(&mut self) {
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.id.is_empty()) {
            by_id.entry(node.id.clone()).or_insert(index);
        }
        for node in &mut self.nodes {
            let Some(parent_id) = node.parent_id.as_ref().filter(|_| node.parent.is_none()) else {
                continue;
            };
            node.parent = by_id.get(parent_id).copied();
            if node.parent.is_none() && !parent_id.is_empty() {
                node.orphan = Some(Orphan::Missing);
            }
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
                    self.nodes[at].orphan = Some(Orphan::Ring);
                    break;
                }
                at = parent;
            }
        }
    }

    /// Brings the nodes into the order of their rows, and sets their depths.
    fn sort(&mut self) {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        let mut roots = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            match node.parent {
                Some(parent) => children[parent].push(index),
                None => roots.push(index),
            }
        }
        let starts: Vec<f64> =
            self.nodes.iter().map(|node| node.start_time.unwrap_or(f64::MAX)).collect();
        let by_start = |one: &usize, other: &usize| starts[*one].total_cmp(&starts[*other]);
        for siblings in children.iter_mut().chain([&mut roots]) {
            siblings.sort_by(by_start);
        }
        let mut old: Vec<Option<Node>> =
            std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        // Each entry: the old index of a node, the new index of its parent, and its depth.
        let mut waiting: Vec<(usize, Option<usize>, usize)> =
            roots.iter().rev().map(|root| (*root, None, 0)).collect();
        while let Some((index, parent, depth)) = waiting.pop() {
            let Some(node) = old[index].take() else { continue };
            let own = self.nodes.len();
            self.nodes.push(Node { parent, depth, ..node });
            let below = children[index].iter().rev();
            waiting.extend(below.map(|child| (*child, Some(own), depth + 1)));
        }
    }

    /// Finds the service of each node: the name of the segment that it is in.
    fn set_services(&mut self) {
        let mut indexes: HashMap<String, usize> = HashMap::new();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            self.nodes[index].service = if node.is_segment {
                let known = indexes.get(&node.name).copied();
                Some(known.unwrap_or_else(|| {
                    indexes.insert(node.name.clone(), self.services.len());
                    self.services.push(node.name.clone());
                    self.services.len() - 1
                }))
            } else {
                node.parent.and_then(|parent| self.nodes[parent].service)
            };
        }
    }

    /// Adjusts the clocks of segments that start before their callers.
    ///
    /// If a segment starts before its caller, its host has a different clock. The segment is moved
    /// into the time of its caller: to the middle if it is shorter than the caller, otherwise to
    /// the caller's start. All nodes below the segment are moved by the same time.
    fn set_clocks(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(parent) = node.parent.map(|parent| &self.nodes[parent]) else { continue };
            let Some((start, caller_start)) = node.start_time.zip(parent.start_time) else {
                continue;
            };
            let mut shift = parent.shift_seconds;
            let late = caller_start - start;
            if node.is_segment && late > SKEW_SECONDS_MIN {
                let length = |node: &Node, start: f64| node.end_time.unwrap_or(start) - start;
                let room = length(parent, caller_start) - length(node, start);
                shift += late + room.max(0.0) / 2.0;
                self.skewed_count += 1;
            }
            self.nodes[index].shift_seconds = if shift.is_finite() { shift } else { 0.0 };
        }
    }

    /// Returns the node that a reader wants to see first if something failed, or `None`.
    ///
    /// It is the node of the most serious state that has no such node below it: a failure is
    /// reported by each caller, and the deepest node is where it began. A node with an exception is
    /// preferred, and then the earliest row.
    pub fn failed(&self) -> Option<usize> {
        let state =
            self.nodes.iter().map(|node| node.state).max().filter(|state| state.is_failed())?;
        let mut is_passed_on = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if let Some(parent) = node.parent {
                is_passed_on[parent] |= is_passed_on[index] || node.state == state;
            }
        }
        let deepest = (0..self.nodes.len())
            .filter(|index| self.nodes[*index].state == state && !is_passed_on[*index]);
        deepest.min_by_key(|index| !self.nodes[*index].has_cause)
    }
}

/// Returns the embedded subsegments of `object` with their positions in its list.
fn embedded(
    object: &Map<String, Value>,
) -> impl DoubleEndedIterator<Item = (usize, &Map<String, Value>)> {
    let list = object.get("subsegments").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().enumerate().filter_map(|(at, child)| Some((at, child.as_object()?)))
}
