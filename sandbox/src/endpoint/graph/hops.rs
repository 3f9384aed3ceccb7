//! Finds the calls between the services of one trace.
//!
//! In: the documents of a trace. Out: a list of [`Hop`]s. There is one hop for each segment, and
//! one hop for each call that has no segment of the called service. Bound: the size of the trace;
//! the time is linear in the number of segments and subsegments. If the parents of a subsegment
//! form a ring, the subsegment belongs to no segment. No I/O, no clock, no recursion.

use crate::model::document::{Document, Kind, Part};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Type of the nodes that stand for clients outside the trace.
const CLIENT: &str = "client";

/// A node of the service graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service<'a> {
    /// Name of the service.
    pub name: &'a str,
    /// Type of the service. Empty if the segment has no origin.
    pub type_name: &'a str,
}

impl<'a> Service<'a> {
    /// Returns the service that `part` names: the service of a segment, or the service that a
    /// subsegment calls.
    pub fn of(part: &'a Part) -> Self {
        Self { name: &part.name, type_name: &part.type_name }
    }
}

/// The caller of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// The caller is a service of the trace.
    Service(Service<'a>),
    /// The caller is a client outside the trace: the segment has no parent, so the trace begins
    /// here.
    Client,
    /// The caller is not known: the trace does not contain the parent (or not yet).
    Unknown,
}

/// One call to a service, by a client or by another service.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The caller of the service.
    pub source: Source<'a>,
    /// The called service.
    pub target: Service<'a>,
    /// The subsegment in which the caller recorded the call. `None` if there is none.
    pub call: Option<&'a Part>,
    /// The segment of the called service. `None` if the called service sent no segment.
    pub segment: Option<&'a Document>,
}

impl<'a> Hop<'a> {
    /// Returns the segment of the called service. Without a segment, returns the subsegment of the
    /// caller.
    pub fn own(&self) -> Option<&'a Part> {
        self.segment.and_then(|segment| segment.facts.parts.first()).or(self.call)
    }

    /// Returns the node that stands for the clients of the target outside the trace.
    pub fn client(&self) -> Service<'a> {
        Service { name: self.target.name, type_name: CLIENT }
    }

    /// Returns the subsegment of the caller. Without a subsegment, returns the segment of the
    /// called service.
    pub fn seen(&self) -> Option<&'a Part> {
        self.call.or(self.own())
    }
}

/// Returns the hops of a trace.
pub fn hops(documents: &[Arc<Document>]) -> Vec<Hop<'_>> {
    let mut places: HashMap<u64, (usize, &Part)> = HashMap::new();
    for (index, document) in documents.iter().enumerate() {
        for part in &document.facts.parts {
            if let Some(id) = part.id {
                places.entry(id).or_insert((index, part));
            }
        }
    }
    let segment_of = segments_of(documents, &places);
    let service_of = |index: usize| {
        let part = segment_of[index].and_then(|index| documents[index].facts.parts.first());
        part.map_or(Source::Unknown, |part| Source::Service(Service::of(part)))
    };
    let mut hops = Vec::new();
    let mut answered = HashSet::new();
    for (index, segment) in documents.iter().enumerate().filter(|(_, it)| !it.is_subsegment) {
        let Some(own) = segment.facts.parts.first() else { continue };
        let parent = segment.facts.parent_id;
        answered.extend(parent);
        let (source, call) = match (parent, parent.and_then(|id| places.get(&id))) {
            (None, _) => (Source::Client, None),
            (_, Some(&(caller, part))) if segment_of[caller] != Some(index) => {
                (service_of(caller), Some(part).filter(|part| part.kind == Kind::Call))
            }
            _ => (Source::Unknown, None),
        };
        hops.push(Hop { source, target: Service::of(own), call, segment: Some(segment) });
    }
    for (index, document) in documents.iter().enumerate() {
        let is_answered = |part: &Part| part.id.is_some_and(|id| answered.contains(&id));
        let calls = document.facts.parts.iter().filter(|part| part.kind == Kind::Call);
        hops.extend(calls.filter(|part| !is_answered(part)).map(|part| Hop {
            source: service_of(index),
            target: Service::of(part),
            call: Some(part),
            segment: None,
        }));
    }
    hops
}

/// Returns for each document the index of its segment, or `None` if the segment is not known.
///
/// For a segment, this is its own index. For a subsegment in a separate document, the function
/// follows the parents up to the first segment.
fn segments_of(
    documents: &[Arc<Document>],
    places: &HashMap<u64, (usize, &Part)>,
) -> Vec<Option<usize>> {
    let mut found: Vec<Option<usize>> = documents
        .iter()
        .enumerate()
        .map(|(index, it)| (!it.is_subsegment).then_some(index))
        .collect();
    let mut is_done: Vec<bool> = documents.iter().map(|document| !document.is_subsegment).collect();
    for start in 0..documents.len() {
        let mut way = Vec::new();
        let mut at = Some(start);
        // If the parents form a ring, the walk ends at a document that it has visited already. For
        // this document, no segment is known.
        while let Some(index) = at.filter(|&index| !is_done[index]) {
            is_done[index] = true;
            way.push(index);
            let parent = documents[index].facts.parent_id;
            at = parent.and_then(|id| places.get(&id)).map(|&(index, _)| index);
        }
        let segment = at.and_then(|index| found[index]);
        for index in way {
            found[index] = segment;
        }
    }
    found
}
