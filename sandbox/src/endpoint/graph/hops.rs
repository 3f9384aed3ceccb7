//! Who called whom in one trace.
//!
//! In: the documents of a trace. Out: [`Hop`]s: one for each segment and for each call of what
//! sends no segments. Bound: the trace. Linear in its parts, without recursion; links that form a
//! ring lead nowhere and end there. Pure code.

use crate::model::document::{Document, Kind, Part};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Type of the nodes that traces come from.
const CLIENT: &str = "client";

/// A node of the service graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type; empty where a segment tells no origin.
    pub type_name: &'a str,
}

impl<'a> Service<'a> {
    /// The node that a part stands for.
    pub fn of(part: &'a Part) -> Self {
        Self { name: &part.name, type_name: &part.type_name }
    }
}

/// Where a hop comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A service of the trace.
    Service(Service<'a>),
    /// From outside: the trace begins here.
    Client,
    /// From something that the trace does not hold, or not yet.
    Unknown,
}

/// One service reached.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Who called.
    pub source: Source<'a>,
    /// Who was called.
    pub target: Service<'a>,
    /// The call as the caller saw it.
    pub call: Option<&'a Part>,
    /// What the called service says of it, if it sends segments.
    pub segment: Option<&'a Document>,
}

impl<'a> Hop<'a> {
    /// The called service's own part.
    pub fn own(&self) -> Option<&'a Part> {
        self.segment.and_then(|segment| segment.facts.parts.first()).or(self.call)
    }

    /// The node that stands for those outside who call the target.
    pub fn client(&self) -> Service<'a> {
        Service { name: self.target.name, type_name: CLIENT }
    }

    /// What the caller saw, or else what the called service says.
    pub fn seen(&self) -> Option<&'a Part> {
        self.call.or(self.own())
    }
}

/// The hops of a trace.
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

/// The segment that each document belongs to, by index: itself, or for a subsegment that was sent
/// on its own the one that is found on the way up.
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
        // A ring comes back to a document that is done, with nothing found.
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
