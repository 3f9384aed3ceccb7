//! Draws a trace as a short tree for a terminal.
//!
//! In: the documents of one trace. Out: lines of text, ready to print, in colour if asked for.
//! Bound: [`LINE_COUNT_MAX`] lines, [`DEPTH_MAX`] levels and the nodes of a [`Forest`]; long names
//! and notes are cut. When full: the last line shows how many segments and subsegments are left
//! out. Every text from a document goes through [`text::clean`]. No I/O, no clock, no recursion.

mod colours;

pub use colours::Colours;

use super::document::Document;
use super::forest::{Forest, Node};
use super::text;
use colours::Ink;
use std::sync::Arc;

/// Largest number of drawn segments and subsegments. Each of them takes one line.
pub const LINE_COUNT_MAX: usize = 40;
/// Largest number of levels that are drawn. Deeper segments are only counted.
pub const DEPTH_MAX: usize = 16;

/// Longest name of a segment in the tree, in characters.
const NAME_LENGTH_MAX: usize = 60;
/// Longest note after the name of a segment, in characters.
const NOTE_LENGTH_MAX: usize = 80;

/// Draws the tree of a trace. The text does not end with a newline.
pub fn render(trace_id: &str, documents: &[Arc<Document>], colours: Colours) -> String {
    draw(trace_id, &Forest::of(documents), colours)
}

fn draw(trace_id: &str, forest: &Forest, colours: Colours) -> String {
    let mut tree = headline(trace_id, forest, colours);
    let is_last = last_siblings(forest);
    let mut drawn_count = 0;
    // For each level, the text to the left of the branches below it.
    let mut before = [const { String::new() }; DEPTH_MAX + 1];
    for (node, is_last) in forest.nodes.iter().zip(is_last) {
        if drawn_count == LINE_COUNT_MAX {
            break;
        }
        if node.depth >= DEPTH_MAX {
            continue;
        }
        drawn_count += 1;
        let left = &before[node.depth];
        let branch = format!("{left}{}", if is_last { "└─ " } else { "├─ " });
        let below = format!("{left}{}", if is_last { "   " } else { "│  " });
        before[node.depth + 1] = below;
        tree.push('\n');
        tree.push_str(&colours.paint(Ink::Dim, &branch));
        tree.push_str(&line(node, colours));
    }
    let left_out_count = forest.nodes.len() - drawn_count + forest.omitted_count;
    if left_out_count > 0 {
        tree.push_str(&format!("\n... {left_out_count} more"));
    }
    tree
}

/// Returns for each node whether it is the last of its siblings.
fn last_siblings(forest: &Forest) -> Vec<bool> {
    let count = forest.nodes.len();
    // The last place stands for the parent of the roots.
    let mut has_later = vec![false; count + 1];
    let mut is_last = vec![false; count];
    for (index, node) in forest.nodes.iter().enumerate().rev() {
        is_last[index] = !std::mem::replace(&mut has_later[node.parent.unwrap_or(count)], true);
    }
    is_last
}

fn headline(trace_id: &str, forest: &Forest, colours: Colours) -> String {
    let starts = forest.nodes.iter().filter_map(|node| node.start_time);
    let ends = forest.nodes.iter().filter_map(|node| node.end_time);
    let duration = match starts.reduce(f64::min).zip(ends.reduce(f64::max)) {
        Some((start, end)) => text::duration(end - start),
        None => "in progress".to_owned(),
    };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let segments = forest.segment_count;
    let subsegments = forest.nodes.len() + forest.omitted_count - segments;
    let mut line = colours.paint(Ink::Strong, &text::clean(trace_id, NAME_LENGTH_MAX));
    line.push_str(&format!("  {duration}  {segments} segment{}", plural(segments)));
    if subsegments > 0 {
        line.push_str(&format!(", {subsegments} subsegment{}", plural(subsegments)));
    }
    line
}

/// Returns the line of a node: its name, its duration, what it did, its state if it failed, and its
/// first exception.
fn line(node: &Node, colours: Colours) -> String {
    let duration = match node.start_time.zip(node.end_time) {
        _ if node.is_open => "in progress".to_owned(),
        Some((start, end)) => text::duration(end - start),
        None => "?".to_owned(),
    };
    let state = Ink::of(node.state);
    let of_name = if node.is_segment { Ink::Strong } else { Ink::Plain };
    let name = text::clean(&node.name, NAME_LENGTH_MAX);
    let mut words = vec![colours.paint(of_name, &name), colours.paint(Ink::Dim, &duration)];
    let clean = |note: &str| text::clean(note, NOTE_LENGTH_MAX);
    let notes = [&node.notes.http, &node.notes.aws, &node.notes.sql];
    words.extend(notes.into_iter().filter(|it| !it.is_empty()).map(|note| clean(note)));
    if node.state.is_failed() {
        words.push(colours.paint(state, node.state.word()));
    }
    let parts: Vec<&str> =
        node.notes.exception.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
    if !parts.is_empty() {
        words.push(colours.paint(state, &clean(&parts.join(": "))));
    }
    words.join("  ")
}

#[cfg(test)]
mod tests;
