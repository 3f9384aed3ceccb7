//! Turns a datagram into a segment: checks its header line and finds fields in its document.
//!
//! In: the bytes of one datagram. Out: a [`Segment`], which is the unchanged document and the
//! places of its trace id and id. Bound: one datagram (65,507 bytes). Thread: `receive-N`; each
//! receiver has a [`Parser`]. No I/O, no clock. The parser does not allocate memory once its
//! buffers have the size of the largest document.
//!
//! ```text
//!  {"format":"json","version":1}\n{"trace_id":"1-...","id":"...", ...}
//!  └─────────── header ────────┘   └──────────── document ──────────┘
//! ```
//!
//! A document is neither validated nor changed. A document that is not JSON has no fields and is
//! forwarded like any other, because the service decides whether it accepts a document.
//!
//! simd-json parses the documents. The project is required to use this package. A benchmark of this
//! repository (`benches/segment.rs`; `perf/results/2026-11-25-stages.md`, Intel Xeon) compares it
//! with serde_json, which reads the same two fields: 0.941 us against 0.900 us with serde_json for
//! 1,000 bytes, 2.71 us against 2.07 us for 10,000 bytes.

mod types;

pub use types::{Fields, Form, Segment, Span};

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use simd_json::{Buffers, Node, Tape};
use std::fmt;

/// The header that the SDKs for Python, Node.js, .NET and Ruby write.
const HEADER_COMPACT: &[u8] = br#"{"format":"json","version":1}"#;
/// The header that the SDKs for Java and Go write.
const HEADER_SPACED: &[u8] = br#"{"format": "json", "version": 1}"#;

/// Largest size of the tape, in JSON values, that the parser keeps for the next document. A usual
/// large document has about 3,000 values. A document of 64 KiB that is made to fill memory can have
/// 65,000 values.
const TAPE_NODES_KEPT: usize = 8 * 1024;

/// Why a datagram is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Invalid header: the first line is not the JSON object that X-Ray SDKs send
    #[error(r#"Invalid header: the first line must be {{"format":"json","version":1}}"#)]
    Header,
    /// Missing header or segment
    #[error("Missing header or segment: a datagram is a header line, a newline and a document")]
    NoDocument,
}

/// Turns datagrams into segments.
pub struct Parser {
    /// A copy of the document, which simd-json rewrites.
    scratch: Vec<u8>,
    buffers: Buffers,
    /// The JSON values of the document; empty between two documents.
    tape: Tape<'static>,
}

impl fmt::Debug for Parser {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Parser").field("scratch_bytes", &self.scratch.capacity()).finish()
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self { scratch: Vec::new(), buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }
}

impl Parser {
    /// Splits `datagram` into header and document, checks the header, and finds the fields of the
    /// document.
    ///
    /// # Errors
    ///
    /// Returns which part of the datagram is missing or invalid.
    pub fn parse<'a>(&mut self, datagram: &'a [u8]) -> Result<Segment<'a>, Rejection> {
        let document = split(datagram)?;
        Ok(Segment { document, fields: self.look_into(document) })
    }

    /// Returns the fields of `document`. It parses a copy, because simd-json rewrites its input.
    fn look_into(&mut self, document: &[u8]) -> Fields {
        let length = document.len();
        self.scratch.clear();
        self.scratch.extend_from_slice(document);
        self.scratch.resize(length + simd_json::INPUT_PADDING, 0);
        let start = self.scratch.as_ptr() as usize;

        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed =
            simd_json::fill_tape_padded(&mut self.scratch, length, &mut self.buffers, &mut tape);
        let fields = match parsed {
            Ok(()) => fields_of(&tape.0, document, start),
            Err(_) if std::str::from_utf8(document).is_ok() => {
                Fields { form: Form::Text, ..Fields::default() }
            }
            Err(_) => Fields { form: Form::Bytes, ..Fields::default() },
        };
        self.tape = tape.reset();
        if self.tape.0.capacity() > TAPE_NODES_KEPT {
            *self = Self::default();
        }
        fields
    }
}

/// Checks the header line of a datagram and returns the document after it.
///
/// # Errors
///
/// Returns which part of the datagram is missing or invalid.
pub fn split(datagram: &[u8]) -> Result<&[u8], Rejection> {
    for header in [HEADER_COMPACT, HEADER_SPACED] {
        if let Some([b'\n', document @ ..]) = datagram.strip_prefix(header) {
            return if document.is_empty() { Err(Rejection::NoDocument) } else { Ok(document) };
        }
    }
    let newline = datagram.iter().position(|&byte| byte == b'\n').ok_or(Rejection::NoDocument)?;
    let (header, document) = (&datagram[..newline], &datagram[newline + 1..]);
    if document.is_empty() {
        return Err(Rejection::NoDocument);
    }
    match serde_json::from_slice(header) {
        Ok(Header { format: Some(format), version: Some(1) })
            if format.eq_ignore_ascii_case("json") =>
        {
            Ok(document)
        }
        _ => Err(Rejection::Header),
    }
}

/// A header line that differs from the two header lines of the SDKs, for example in its spaces. As
/// with the original daemon, keys may be in upper or lower case and may be repeated. The last value
/// of a key counts.
#[derive(Debug, Default)]
struct Header {
    format: Option<String>,
    version: Option<i64>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object with format and version")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(key) = map.next_key::<String>()? {
                    // A null does not replace an earlier value, as with the original daemon.
                    if key.eq_ignore_ascii_case("format") {
                        header.format = map.next_value::<Option<_>>()?.or(header.format);
                    } else if key.eq_ignore_ascii_case("version") {
                        header.version = map.next_value::<Option<_>>()?.or(header.version);
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Returns the fields at the top level of the tape. `start` is the address of the parsed copy.
fn fields_of(tape: &[Node<'_>], document: &[u8], start: usize) -> Fields {
    let mut fields = Fields::default();
    let Some(Node::Object { len, .. }) = tape.first() else { return fields };
    let mut index = 1;
    for _ in 0..*len {
        let (Some(Node::String(key)), Some(value)) = (tape.get(index), tape.get(index + 1)) else {
            return fields;
        };
        match (*key, value) {
            ("trace_id", Node::String(text)) => fields.trace_id = span(text, document, start),
            ("id", Node::String(text)) => fields.id = span(text, document, start),
            _ => {}
        }
        index += 2 + match value {
            Node::Object { count, .. } | Node::Array { count, .. } => *count,
            _ => 0,
        };
    }
    fields
}

/// Returns the place in `document` of a string that simd-json found in the copy.
///
/// simd-json unescapes strings in place. So a string starts at the same offset in the copy and in
/// the document, but may be longer in the document. Its end is then searched in the document.
fn span(text: &str, document: &[u8], start: usize) -> Span {
    let offset = text.as_ptr() as usize - start;
    let mut end = offset + text.len();
    if document.get(end) != Some(&b'"') || text.as_bytes() != &document[offset..end] {
        end = offset;
        while let Some(&byte) = document.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
    }
    match (u16::try_from(offset), u16::try_from(end - offset)) {
        (Ok(offset), Ok(length)) => Span { offset, length },
        _ => Span::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

    fn datagram(document: &[u8]) -> Vec<u8> {
        [GOOD, document].concat()
    }

    /// Returns the fields of a document as text: trace id, id, form.
    fn fields(document: &str) -> (String, String, Form) {
        let datagram = datagram(document.as_bytes());
        let segment = Parser::default().parse(&datagram).expect("the header is good");
        assert_eq!(segment.document, document.as_bytes());
        let text = |span: Span| {
            String::from_utf8_lossy(span.of(segment.document).unwrap_or_default()).into_owned()
        };
        let fields = segment.fields;
        (text(fields.trace_id), text(fields.id), fields.form)
    }

    #[test]
    fn headers_in_every_spelling_that_the_original_takes_are_taken() {
        for header in [
            r#"{"format":"json","version":1}"#,
            r#"{"format": "json", "version": 1}"#,
            r#"{"version":1,"format":"json"}"#,
            "{\"format\":\"json\",\"version\":1}\r",
            "  { \"format\" : \"json\" , \"version\" : 1 }\t",
            r#"{"FORMAT":"JSON","Version":1}"#,
            r#"{"format":"xml","format":"json","version":2,"version":1}"#,
            r#"{"format":"json","version":1,"extra":{"deep":[1,2]}}"#,
            r#"{"format":"json","version":1,"version":null}"#,
            r#"{"for\u006dat":"json","version":1}"#,
        ] {
            let datagram = [header.as_bytes(), b"\nX"].concat();
            assert_eq!(split(&datagram), Ok(&b"X"[..]), "{header}");
        }
    }

    #[test]
    fn other_headers_are_rejected_as_such() {
        for header in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"format":"json"}"#,
            r#"{"version":1}"#,
            r#"{"format":"json","version":"1"}"#,
            r#"{"format":"json","version":1.5}"#,
            r#"{"format":"json","version":1.0}"#,
            r#"{"format":"json","version":2}"#,
            r#"{"format":"json","version":1,"version":2}"#,
            r#"{"format":"xml","version":1}"#,
            r#"{"format":1,"version":1}"#,
            r#"{"format":"json","version":1"#,
            r#"{"format":"json","version":1} x"#,
            "\u{feff}{\"format\":\"json\",\"version\":1}",
        ] {
            let datagram = [header.as_bytes(), b"\nX"].concat();
            assert_eq!(split(&datagram), Err(Rejection::Header), "{header}");
        }
        let deep = [&b"[".repeat(10_000), &b"\nX"[..]].concat();
        assert_eq!(split(&deep), Err(Rejection::Header));
    }

    #[test]
    fn a_datagram_without_newline_or_document_is_missing_its_segment() {
        for datagram in [&b""[..], b"x", &GOOD[..GOOD.len() - 1], GOOD, b"\n", b"junk\n"] {
            assert_eq!(split(datagram), Err(Rejection::NoDocument));
        }
    }

    #[test]
    fn fields_are_found_at_the_top_level_only() {
        let document = r#"{"subsegments":[{"id":"x","trace_id":"y"}],
            "metadata":{"id":"z"},"id":"70de5b6f19ff9a0a","name":"shop",
            "trace_id":"1-581cf771-a006649127e371903a2de979","n":[1,[2,{"id":3}]]}"#;
        let expected =
            ("1-581cf771-a006649127e371903a2de979".into(), "70de5b6f19ff9a0a".into(), Form::Json);
        assert_eq!(fields(document), expected);
    }

    #[test]
    fn a_field_with_escape_sequences_keeps_its_place_in_the_document() {
        let (trace_id, id, _) =
            fields(r#"{"trace_id":"a\"b\\ \u00e9 \ud83e\udd80","id":"\u0061b"}"#);
        assert_eq!(trace_id, r#"a\"b\\ \u00e9 \ud83e\udd80"#);
        assert_eq!(id, r"\u0061b");
    }

    #[test]
    fn fields_of_another_type_and_documents_of_another_kind_are_no_fields() {
        let none = (String::new(), String::new(), Form::Json);
        for document in [r#"{"id":1,"trace_id":{"a":"b"}}"#, r#"{"id":null}"#, "[1]", "1"] {
            assert_eq!(fields(document), none, "{document}");
        }
    }

    #[test]
    fn what_is_not_json_is_forwarded_as_text_or_bytes() {
        for document in ["T1SAAECAw==", "{\"a\":", " ", "{'a':1}", "nul", "{}x"] {
            assert_eq!(fields(document).2, Form::Text, "{document}");
        }
        let datagram = datagram(b"{\"a\":\"\xff\"}");
        let segment = Parser::default().parse(&datagram).expect("the header is good");
        assert_eq!(segment.fields.form, Form::Bytes);
    }

    #[test]
    fn ten_thousand_levels_of_nesting_overflow_no_stack() {
        let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(fields(&nested).2, Form::Text, "deeper than the parser goes: not looked into");
        assert_eq!(fields(&"{\"a\":".repeat(10_000)).2, Form::Text);
    }

    #[test]
    fn the_parser_gives_back_what_a_hostile_document_made_it_take() {
        let mut parser = Parser::default();
        let hostile = datagram(format!("[{}1]", "1,".repeat(32_000)).as_bytes());
        parser.parse(&hostile).expect("the header is good");
        assert!(parser.tape.0.capacity() <= TAPE_NODES_KEPT);
        parser.parse(&datagram(br#"{"id":"a"}"#)).expect("it goes on");
    }

    proptest! {
        #[test]
        fn any_datagram_is_split_as_a_naive_reader_would(
            header in prop_oneof![
                Just(r#"{"format":"json","version":1}"#.to_string()),
                Just(r#"{"format": "json", "version": 1}"#.to_string()),
                r#"\{ ?"(format|version|FORMAT|x)" ?: ?("json"|"JSON"|1|2|"1"|1\.5|null) ?(, ?"(version|format)" ?: ?(1|"json"))? ?\}\r?"#,
                ".{0,40}",
            ],
            newline in any::<bool>(),
            document in prop_oneof![Just(String::new()), ".{0,20}"],
        ) {
            let datagram = format!("{header}{}{document}", if newline { "\n" } else { "" });
            prop_assert_eq!(split(datagram.as_bytes()).ok(), naive(&datagram));
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = Parser::default().parse(&bytes);
            let datagram = datagram(&bytes);
            if let Ok(segment) = Parser::default().parse(&datagram) {
                prop_assert_eq!(segment.document, &bytes[..]);
            }
        }

        #[test]
        fn the_fields_equal_what_serde_json_reads(trace_id in ".{0,30}", id in "[0-9a-f]{16}", before in 0usize..80) {
            let document = serde_json::json!({"a": "x".repeat(before), "id": id, "trace_id": trace_id});
            let document = document.to_string();
            let (found_trace_id, found_id, _) = fields(&document);
            let decoded: String = serde_json::from_str(&format!("\"{found_trace_id}\"")).expect("a span is a JSON string's inside");
            prop_assert_eq!(decoded, trace_id);
            prop_assert_eq!(found_id, id);
        }
    }

    /// The header rules of the original daemon, written as simply as possible.
    fn naive(datagram: &str) -> Option<&[u8]> {
        let (header, document) = datagram.split_once('\n')?;
        if document.is_empty() {
            return None;
        }
        // Keys that differ only in case are the same key here. A map of serde_json would keep both,
        // so this reads pairs.
        let pairs: Vec<(String, serde_json::Value)> = pairs(header)?;
        let mut format = None;
        let mut version = None;
        for (key, value) in pairs {
            match (key.to_ascii_lowercase().as_str(), value) {
                ("format" | "version", serde_json::Value::Null) => {}
                ("format", serde_json::Value::String(text)) => format = Some(text),
                ("version", serde_json::Value::Number(number)) => version = Some(number.as_i64()?),
                ("format" | "version", _) => return None,
                _ => {}
            }
        }
        let good = format?.eq_ignore_ascii_case("json") && version? == 1;
        good.then_some(document.as_bytes())
    }

    fn pairs(header: &str) -> Option<Vec<(String, serde_json::Value)>> {
        struct Pairs(Vec<(String, serde_json::Value)>);
        impl<'de> Deserialize<'de> for Pairs {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct PairsVisitor;
                impl<'de> Visitor<'de> for PairsVisitor {
                    type Value = Pairs;
                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str("an object")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                        let mut pairs = Vec::new();
                        while let Some(pair) = map.next_entry()? {
                            pairs.push(pair);
                        }
                        Ok(Pairs(pairs))
                    }
                }
                deserializer.deserialize_map(PairsVisitor)
            }
        }
        serde_json::from_str::<Pairs>(header).ok().map(|pairs| pairs.0)
    }
}
