//! Collects the texts of a document that the search of the page finds.
//!
//! In: the JSON object of a segment or subsegment. Out: lines of [`Words`]: names, HTTP, AWS, SQL,
//! exceptions, annotations and users. Metadata is not among them, because it may be as large as all
//! the rest. Bound: the size of the document; a text that repeats is there once. The store counts
//! the memory. No I/O, no clock, no recursion.

use super::{string, whole};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The kind of a text of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names explain the variants")]
pub enum WordKind {
    Name,
    Http,
    Aws,
    Sql,
    Exception,
    Annotation,
    User,
}

/// The kinds, with the byte at the start of their lines. No text of a document begins a line with
/// such a byte, because line breaks inside of texts become spaces.
const MARKS: &[(u8, WordKind)] = &[
    (1, WordKind::Name),
    (2, WordKind::Http),
    (3, WordKind::Aws),
    (4, WordKind::Sql),
    (5, WordKind::Exception),
    (6, WordKind::Annotation),
    (7, WordKind::User),
];

/// The fields of `aws` that the search finds. Others, such as the version of the SDK, are the same
/// in all documents.
const AWS_FIELDS: &[&str] = &[
    "operation",
    "table_name",
    "table_names",
    "bucket_name",
    "key",
    "queue_url",
    "topic_arn",
    "function_name",
    "function_arn",
    "request_id",
    "id_2",
    "region",
    "account_id",
    "resource_names",
    "message_id",
];

const SQL_FIELDS: &[&str] =
    &["sanitized_query", "url", "connection_string", "database_type", "user", "preparation"];

/// The texts of a document, one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(Box<str>);

impl Words {
    /// Returns the lines, each with its kind.
    pub fn lines(&self) -> impl Iterator<Item = (WordKind, &str)> {
        self.0.split_terminator('\n').filter_map(|line| {
            let (mark, kind) =
                MARKS.iter().find(|(mark, _)| line.as_bytes().first() == Some(mark))?;
            Some((*kind, line.strip_prefix(char::from(*mark))?))
        })
    }

    /// Returns all lines as one text, with a byte for the kind before each of them.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the line around the byte `at` of [`text`](Self::text), with its kind and the
    /// position of the byte in it.
    pub fn line_at(&self, at: usize) -> Option<(WordKind, &str, usize)> {
        let start = self.0[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = self.0[at..].find('\n').map_or(self.0.len(), |length| at + length);
        let line = &self.0[start..end];
        let (_, kind) = MARKS.iter().find(|(mark, _)| line.as_bytes().first() == Some(mark))?;
        Some((*kind, &line[1..], at.checked_sub(start + 1)?))
    }

    /// Returns the size in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

/// Collects the texts of the segments and subsegments of a document.
#[derive(Debug, Default)]
pub struct Collector<'a> {
    text: String,
    /// The texts that are there already. Only names, statements and the like repeat.
    seen: HashSet<(u8, &'a str)>,
}

impl<'a> Collector<'a> {
    /// Adds the texts of one segment or subsegment.
    pub fn add(&mut self, object: &'a Map<String, Value>) {
        self.add_field(WordKind::Name, object.get("name"));
        self.add_field(WordKind::User, object.get("user"));
        if let Some(http) = object.get("http") {
            let request = http.get("request");
            for field in ["method", "url", "client_ip", "user_agent"] {
                self.add_field(WordKind::Http, request.and_then(|request| request.get(field)));
            }
            let status = http.get("response").and_then(|response| response.get("status"));
            if let Some(status) = whole(status) {
                self.push(WordKind::Http, &[&status.to_string()]);
            }
        }
        if let Some(aws) = object.get("aws") {
            for field in AWS_FIELDS {
                self.add_field(WordKind::Aws, aws.get(field));
            }
        }
        if let Some(sql) = object.get("sql") {
            for field in SQL_FIELDS {
                self.add_field(WordKind::Sql, sql.get(field));
            }
        }
        self.add_exceptions(object);
        let annotations = object.get("annotations").and_then(Value::as_object);
        for (key, value) in annotations.into_iter().flatten() {
            match value {
                Value::String(text) => self.push(WordKind::Annotation, &[key, "=", text]),
                Value::Number(_) | Value::Bool(_) => {
                    self.push(WordKind::Annotation, &[key, "=", &value.to_string()]);
                }
                _ => {}
            }
        }
    }

    fn add_exceptions(&mut self, object: &'a Map<String, Value>) {
        let cause = object.get("cause");
        let exceptions = cause.and_then(|cause| cause.get("exceptions")?.as_array());
        for exception in exceptions.into_iter().flatten().filter_map(Value::as_object) {
            match (string(exception, "type"), string(exception, "message")) {
                (Some(name), Some(text)) => self.push(WordKind::Exception, &[name, ": ", text]),
                (Some(text), None) | (None, Some(text)) => self.push(WordKind::Exception, &[text]),
                (None, None) => {}
            }
        }
    }

    /// Adds a text, or each text of a list.
    fn add_field(&mut self, kind: WordKind, value: Option<&'a Value>) {
        match value {
            Some(Value::String(text)) => self.push_new(kind, text),
            Some(Value::Array(list)) => {
                for text in list.iter().filter_map(Value::as_str) {
                    self.push_new(kind, text);
                }
            }
            _ => {}
        }
    }

    fn push_new(&mut self, kind: WordKind, text: &'a str) {
        if self.seen.insert((mark_of(kind), text)) {
            self.push(kind, &[text]);
        }
    }

    fn push(&mut self, kind: WordKind, texts: &[&str]) {
        self.text.push(char::from(mark_of(kind)));
        for text in texts {
            self.text.extend(text.chars().map(|it| if it == '\n' { ' ' } else { it }));
        }
        self.text.push('\n');
    }

    /// Returns all texts that were added.
    pub fn finish(self) -> Words {
        Words(self.text.into_boxed_str())
    }
}

fn mark_of(kind: WordKind) -> u8 {
    let found = MARKS.iter().find(|(_, known)| *known == kind);
    found.map_or(0, |(mark, _)| *mark)
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;
    use serde_json::json;

    fn words_of(value: &Value) -> Words {
        Document::unchecked(&value.to_string()).facts.words
    }

    #[test]
    fn the_texts_of_all_parts_are_found_with_their_kinds() {
        let words = words_of(&json!({
            "name": "shop", "user": "ana",
            "http": {"request": {"method": "GET", "url": "/tea"}, "response": {"status": 502.0}},
            "annotations": {"size": "large", "items": 3, "new": true, "odd": [1]},
            "metadata": {"secret": "unfindable"},
            "subsegments": [
                {"name": "charge", "cause": {"exceptions": [
                    {"type": "Timeout", "message": "no\nanswer"}, {"message": "alone"}, 7]}},
                {"name": "db", "sql": {"sanitized_query": "SELECT 1"}},
                {"name": "db", "aws": {"operation": "GetItem", "table_names": ["A", "B"]}},
            ],
        }));
        let lines: Vec<_> = words.lines().collect();
        for expected in [
            (WordKind::Name, "shop"),
            (WordKind::User, "ana"),
            (WordKind::Http, "GET"),
            (WordKind::Http, "/tea"),
            (WordKind::Http, "502"),
            (WordKind::Annotation, "size=large"),
            (WordKind::Annotation, "items=3"),
            (WordKind::Annotation, "new=true"),
            (WordKind::Name, "charge"),
            (WordKind::Exception, "Timeout: no answer"),
            (WordKind::Exception, "alone"),
            (WordKind::Sql, "SELECT 1"),
            (WordKind::Aws, "GetItem"),
            (WordKind::Aws, "A"),
            (WordKind::Aws, "B"),
        ] {
            assert!(lines.contains(&expected), "{expected:?} in {lines:?}");
        }
        assert_eq!(lines.iter().filter(|line| line.1 == "db").count(), 1);
        assert!(!words.text().contains("unfindable"));
    }

    #[test]
    fn the_line_around_a_place_is_found() {
        let words = words_of(&json!({"name": "größe", "user": "ana", "sql": {"url": "db"}}));
        let at = words.text().find("na").unwrap();
        assert_eq!(words.line_at(at), Some((WordKind::User, "ana", 1)));
        let at = words.text().find("db").unwrap();
        assert_eq!(words.line_at(at), Some((WordKind::Sql, "db", 0)));
        assert_eq!(words.line_at(1), Some((WordKind::Name, "größe", 0)));
    }
}
