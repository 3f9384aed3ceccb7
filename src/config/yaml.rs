//! Reads the YAML of `cfg.yaml` by the rules of the original daemon, which reads YAML 1.1.
//!
//! In: the text of a file. Out: its keys with their values, in the order of the file. A repeated
//! key is no error here. A number or boolean keeps its text as written, for settings that expect a
//! text: `Region: 0x10` is the region `0x10`. Bound: the limits of the library for aliases and
//! depth. No I/O, no clock.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use serde_saphyr::UserMessageFormatter;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use std::fmt;

/// A key with its value. For a value that is a list of keys and values, `value` is an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// The key with its section: `Socket.UDPAddress`.
    pub key: String,
    /// The value. It is null for an empty value.
    pub value: Value,
    /// The value as written, if it is a number or a boolean.
    pub written: Option<String>,
}

/// Returns the entries of the first document in `text`. `is_section` says whether a key without a
/// section is the name of a section.
///
/// # Errors
///
/// Returns the place in the text and what is wrong there, or that the text is not a list of keys
/// and values.
pub(super) fn entries(text: &str, is_section: impl Fn(&str) -> bool) -> Result<Vec<Entry>, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    let tree: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let reason = error.without_snippet().render_with_formatter(&UserMessageFormatter);
        format!("it is not valid YAML: {reason}")
    })?;
    let sections = match tree {
        Node::Plain(Value::Null) => return Ok(Vec::new()),
        Node::Plain(_) | Node::NotFinite(_) => {
            return Err("it is not a list of keys and values".to_owned());
        }
        Node::Keys(sections) => sections,
    };
    let mut entries = Vec::new();
    for (name, node) in sections {
        match node.value {
            Node::Keys(keys) if is_section(&name) => entries.extend(
                keys.into_iter().map(|(key, node)| entry(format!("{name}.{key}"), node, text)),
            ),
            _ => entries.push(entry(name, node, text)),
        }
    }
    Ok(entries)
}

fn entry(key: String, node: Spanned<Node>, text: &str) -> Entry {
    let span = node.defined.span();
    let has_text = match &node.value {
        Node::Plain(value) => value.is_number() || value.is_boolean(),
        Node::NotFinite(_) => true,
        Node::Keys(_) => false,
    };
    let written = || {
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        let written = text.get(start..start.checked_add(length)?)?;
        // A value with a tag may be in quotes.
        Some(written.trim().trim_matches(['"', '\'']).to_owned())
    };
    Entry { key, value: node.value.into(), written: has_text.then(written).flatten() }
}

/// A value of the file, or the keys and values of a section.
#[derive(Debug)]
enum Node {
    /// A null, boolean, number, text or list.
    Plain(Value),
    /// An infinite number or none, such as `.inf` and `1e400`.
    NotFinite(f64),
    /// Keys with their values. A key may be repeated.
    Keys(Vec<(String, Spanned<Node>)>),
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        match node {
            Node::Plain(value) => value,
            Node::NotFinite(number) => number.to_string().into(),
            Node::Keys(keys) => {
                keys.into_iter().map(|(key, node)| (key, Self::from(node.value))).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value, or keys and values")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(if value.is_finite() { Node::Plain(value.into()) } else { Node::NotFinite(value) })
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut values = Vec::new();
        while let Some(node) = list.next_element::<Node>()? {
            values.push(Value::from(node));
        }
        Ok(Node::Plain(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut keys = Vec::new();
        while let Some(entry) = map.next_entry()? {
            keys.push(entry);
        }
        Ok(Node::Keys(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Entry> {
        entries(text, |name| name == "S").unwrap()
    }

    #[test]
    fn numbers_and_booleans_are_those_of_yaml_1_1_and_keep_their_text() {
        for (text, value) in [
            ("0x10", Value::from(16)),
            ("010", 8.into()),
            ("0o17", 15.into()),
            ("0b11", 3.into()),
            ("1_000", 1000.into()),
            ("+5", 5.into()),
            ("-5", (-5).into()),
            ("24.0", 24.0.into()),
            ("1e3", 1e3.into()),
            ("yes", true.into()),
            ("Off", false.into()),
        ] {
            let found = read(&format!("S: {{k: {text} }}\n"));
            let written = Some(text.to_owned());
            assert_eq!(found, [Entry { key: "S.k".into(), value, written }], "{text}");
        }
        for (text, value, written) in [
            ("'8'", Value::from("8"), None),
            ("~", Value::Null, None),
            (".inf", "inf".into(), Some(".inf")),
            ("!!int '8'", 8.into(), Some("8")),
        ] {
            let found = read(&format!("k: {text}\n"));
            assert_eq!((&found[0].value, found[0].written.as_deref()), (&value, written), "{text}");
        }
    }

    #[test]
    fn repeated_keys_are_all_returned_in_their_order() {
        let keys: Vec<_> = read("S: {k: 1}\na: 2\nS: {k: 3, k: 4}\n")
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect();
        let expected = [("S.k", 1), ("a", 2), ("S.k", 3), ("S.k", 4)];
        assert_eq!(keys, expected.map(|(key, value)| (key.to_owned(), Value::from(value))));
    }

    #[test]
    fn anchors_and_merged_keys_have_their_effect() {
        let found = read("a: &a 0x1F\nb: *a\nc: &c {k: 1}\nS:\n  <<: *c\n");
        assert_eq!(found[1].written.as_deref(), Some("0x1F"));
        assert!(found.iter().any(|entry| entry.key == "S.k"), "{found:?}");
    }
}
