//! Keeps refused documents for the page: documents that break a rule, and spans that were not
//! taken.
//!
//! In: the broken rule and the text of each refused document. Out: [`Kind`]s, the newest first, and
//! the refused documents of a trace. Documents that break the same rule at the same field of the
//! same service are one kind: one faulty line of code makes thousands of them. Bound:
//! [`KIND_COUNT_MAX`] kinds, [`SAMPLE_COUNT_MAX`] documents of each with [`START_BYTES_MAX`] of
//! their text, and [`MENTION_COUNT_MAX`] documents by trace. When full: the kind or the document
//! that was refused longest ago is dropped; the number of all refused documents stays right. No
//! I/O, no clock; the caller holds the lock of the sandbox and passes the time.

use crate::model::document::Violation;
use serde::Serialize;
use std::collections::VecDeque;

/// Largest number of kinds.
pub const KIND_COUNT_MAX: usize = 100;

/// Largest number of refused documents that each kind shows.
pub const SAMPLE_COUNT_MAX: usize = 5;

/// Largest part of a refused document that is kept: its start, in bytes.
pub const START_BYTES_MAX: usize = 2 * 1024;

/// Largest number of refused documents that are known by their trace.
pub const MENTION_COUNT_MAX: usize = 10_000;

/// Refused documents that break the same rule at the same field of the same service.
#[derive(Debug, Clone, Serialize)]
pub struct Kind {
    /// Number of the kind. It never changes and no other kind has it.
    pub number: u64,
    /// Error code, such as `InvalidName`.
    pub code: &'static str,
    /// Path of the field, without places in lists: `subsegments[].name`. Empty for a whole
    /// document.
    pub field: String,
    /// Name of the segment or subsegment of the documents. Empty if they have none.
    pub name: String,
    /// Number of documents.
    pub count: u64,
    /// Time of the first document, in seconds since 1970.
    pub first_at: f64,
    /// Time of the last document, in seconds since 1970.
    pub last_at: f64,
    /// The last documents, the newest first.
    pub samples: VecDeque<Sample>,
}

/// A refused document.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Time at which it was refused, in seconds since 1970.
    pub at: f64,
    /// Id of the segment or subsegment, if it has a valid one.
    pub id: Option<String>,
    /// Id of the trace, if it has a valid one.
    pub trace_id: Option<String>,
    /// The broken rule, as a sentence.
    pub sentence: String,
    /// How to mend the document.
    pub mend: String,
    /// Path of the field in this document.
    pub field: String,
    /// Start of the value of the field. `None` if the field is missing.
    pub value: Option<String>,
    /// Start of the text of the document.
    pub start: String,
    /// Size of the whole document, in bytes.
    pub size_bytes: usize,
}

/// A refused document of a trace.
#[derive(Debug, Clone, Serialize)]
pub struct Mention {
    /// Id of the trace.
    #[serde(skip)]
    trace_id: String,
    /// Number of the [`Kind`].
    pub kind: u64,
    /// Error code.
    pub code: &'static str,
    /// Path of the field, without places in lists.
    pub field: String,
    /// Id of the segment or subsegment, if it has a valid one.
    pub id: Option<String>,
}

/// The refused documents. See the module.
#[derive(Debug, Default)]
pub struct Refused {
    /// The kind with the newest document is last.
    kinds: Vec<Kind>,
    mentions: VecDeque<Mention>,
    count: u64,
    dropped_kind_count: u64,
    last_number: u64,
}

impl Refused {
    /// Adds a document that breaks a rule.
    pub fn add(&mut self, violation: &Violation, text: &str, now_seconds: f64) {
        let sample = Sample {
            at: now_seconds,
            id: violation.id.clone(),
            trace_id: violation.trace_id.clone(),
            sentence: violation.detail.clone(),
            mend: violation.mend(),
            field: violation.field.clone(),
            value: violation.value.clone(),
            start: start_of(text).to_owned(),
            size_bytes: text.len(),
        };
        self.put(violation.code, &general(&violation.field), &violation.name, 1, sample);
    }

    /// Adds spans of OpenTelemetry that were not taken.
    pub fn add_spans(&mut self, count: u64, why: &str, now_seconds: f64) {
        let sample = Sample {
            at: now_seconds,
            id: None,
            trace_id: None,
            sentence: format!("The span was not taken: {why}"),
            mend:
                "The limits of spans are in docs/sandbox.md. Attributes that are too large can be \
                   cut by the SDK: OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT."
                    .to_owned(),
            field: String::new(),
            value: None,
            start: String::new(),
            size_bytes: 0,
        };
        self.put("RejectedSpan", "", "", count, sample);
    }

    fn put(&mut self, code: &'static str, field: &str, name: &str, count: u64, sample: Sample) {
        self.count += count;
        let is_it = |kind: &Kind| kind.code == code && kind.field == field && kind.name == name;
        let mut kind = match self.kinds.iter().position(is_it) {
            Some(index) => self.kinds.remove(index),
            None => self.new_kind(code, field, name, sample.at),
        };
        kind.count += count;
        kind.last_at = sample.at;
        if let Some(trace_id) = sample.trace_id.clone() {
            let (field, id) = (field.to_owned(), sample.id.clone());
            self.mentions.push_back(Mention { trace_id, kind: kind.number, code, field, id });
            self.mentions.drain(..self.mentions.len().saturating_sub(MENTION_COUNT_MAX));
        }
        kind.samples.push_front(sample);
        kind.samples.truncate(SAMPLE_COUNT_MAX);
        self.kinds.push(kind);
        if self.kinds.len() > KIND_COUNT_MAX {
            self.kinds.remove(0);
            self.dropped_kind_count += 1;
        }
    }

    fn new_kind(&mut self, code: &'static str, field: &str, name: &str, at: f64) -> Kind {
        self.last_number += 1;
        Kind {
            number: self.last_number,
            code,
            field: field.to_owned(),
            name: name.to_owned(),
            count: 0,
            first_at: at,
            last_at: at,
            samples: VecDeque::new(),
        }
    }

    /// Returns the kinds, the one with the newest document first.
    pub fn kinds(&self) -> Vec<Kind> {
        self.kinds.iter().rev().cloned().collect()
    }

    /// Returns the refused documents of a trace, in the order in which they arrived.
    pub fn of_trace(&self, trace_id: &str) -> Vec<Mention> {
        self.mentions.iter().filter(|mention| mention.trace_id == trace_id).cloned().collect()
    }

    /// Returns the number of refused documents and spans.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number of kinds that were dropped because there are too many.
    pub fn dropped_kind_count(&self) -> u64 {
        self.dropped_kind_count
    }

    /// Forgets all refused documents. The numbers of kinds go on.
    pub fn clear(&mut self) {
        *self = Self { last_number: self.last_number, ..Self::default() };
    }
}

/// Returns the start of a document, at most [`START_BYTES_MAX`] bytes of whole characters.
fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(START_BYTES_MAX)]
}

/// Returns a path without places in lists: `subsegments[].name` for `subsegments[2].name`. Several
/// levels of subsegments count as one.
fn general(path: &str) -> String {
    let field = path.rsplit_once('.').map_or(path, |(_, field)| field);
    if field.len() == path.len() { field.to_owned() } else { format!("subsegments[].{field}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::document::Document;
    use serde_json::json;

    const TRACE: &str = "1-581cf771-a006649127e371903a2de979";

    fn refuse(refused: &mut Refused, name: &str, sub: &str, at: f64) {
        let sub = json!({"id": "70de5b6f19ff9a0b", "name": sub, "start_time": 1, "end_time": 2});
        let text = json!({"id": "70de5b6f19ff9a0a", "trace_id": TRACE, "name": name,
            "start_time": 1, "end_time": 2, "subsegments": [sub]})
        .to_string();
        refused.add(&Document::parse(&text).unwrap_err(), &text, at);
    }

    #[test]
    fn documents_with_the_same_fault_are_one_kind_and_the_newest_kind_is_first() {
        let mut refused = Refused::default();
        for at in 0..20 {
            refuse(&mut refused, "shop", &format!("Query({at})"), f64::from(at));
        }
        refuse(&mut refused, "stock", "Query()", 30.0);
        refuse(&mut refused, "shop", "<>", 40.0);
        let kinds = refused.kinds();
        let told: Vec<_> = kinds.iter().map(|it| (it.code, &*it.name, it.count)).collect();
        assert_eq!(told, [("InvalidName", "shop", 21), ("InvalidName", "stock", 1)]);
        let shop = &kinds[0];
        assert_eq!((&*shop.field, shop.first_at, shop.last_at), ("subsegments[].name", 0.0, 40.0));
        assert_eq!(shop.samples.len(), SAMPLE_COUNT_MAX);
        let newest = &shop.samples[1];
        assert_eq!((newest.at, newest.value.as_deref()), (19.0, Some("Query(19)")));
        assert_eq!(newest.field, "subsegments[0].name");
        assert_eq!(newest.trace_id.as_deref(), Some(TRACE));
        assert!(newest.start.starts_with('{') && newest.mend.contains("Query19"));
        assert_eq!(refused.count(), 22);
        assert_eq!(refused.of_trace(TRACE).len(), 22);
        assert_eq!(refused.of_trace(TRACE)[20].kind, kinds[1].number);
        assert!(refused.of_trace("another").is_empty());
        refused.clear();
        assert_eq!((refused.count(), refused.kinds().len()), (0, 0));
        assert!(refused.of_trace(TRACE).is_empty());
    }

    #[test]
    fn the_memory_is_bounded_and_the_count_stays_right() {
        let mut refused = Refused::default();
        let text = format!("{{\"x\": \"{}", "é".repeat(30_000));
        for index in 0..MENTION_COUNT_MAX + 50 {
            refuse(&mut refused, &format!("service {}", index % 150), "<>", 1.0);
        }
        refused.add(&Document::parse(&text).unwrap_err(), &text, 2.0);
        refused.add_spans(7, "it is too large", 3.0);
        assert_eq!(refused.kinds().len(), KIND_COUNT_MAX);
        assert!(refused.dropped_kind_count() > 0);
        assert_eq!(refused.of_trace(TRACE).len(), MENTION_COUNT_MAX);
        assert_eq!(refused.count(), MENTION_COUNT_MAX as u64 + 58);
        let kinds = refused.kinds();
        assert_eq!((kinds[0].code, kinds[0].count), ("RejectedSpan", 7));
        let start = &kinds[1].samples[0].start;
        assert!((START_BYTES_MAX - 1..=START_BYTES_MAX).contains(&start.len()));
        assert_eq!(kinds[1].samples[0].size_bytes, text.len());
    }
}
