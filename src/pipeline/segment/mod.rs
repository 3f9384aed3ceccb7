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
//! forwarded like any other, because the service decides whether it accepts a document. JSON is
//! what the grammar of RFC 8259 allows: [`tolerant`] looks again at a document that simd-json
//! refuses, for example because of an integer beyond 64 bits.
//!
//! simd-json parses the documents. The project is required to use this package. A benchmark of this
//! repository (`benches/segment.rs`; `perf/results/2026-11-25-stages.md`, Intel Xeon) compares it
//! with serde_json, which reads the same two fields: 0.941 us against 0.900 us with serde_json for
//! 1,000 bytes, 2.71 us against 2.07 us for 10,000 bytes.

mod header;
mod header_rules;
mod tolerant;
mod types;

pub use header::{FirstLine, HEADER, Rejection, split};
pub use types::{Fields, Form, Segment, Span};

use simd_json::{Buffers, Node, Tape};
use std::fmt;

/// Largest size of the tape, in JSON values, that the parser keeps for the next document. A usual
/// large document has about 3,000 values. A document of 64 KiB that is made to fill memory can have
/// 65,000 values.
const TAPE_NODES_KEPT: usize = 8 * 1024;

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
            Err(_) => look_again(document),
        };
        self.tape = tape.reset();
        if self.tape.0.capacity() > TAPE_NODES_KEPT {
            *self = Self::default();
        }
        fields
    }
}

/// Prefixes of the documents of AWS's UDP exporters: sampled spans, other spans, metrics.
const EXPORTER_PREFIXES: [&[u8]; 3] = [b"T1S", b"T1U", b"M1"];

/// Returns whether a document has the form of AWS's UDP exporters for OpenTelemetry. Its base64 is
/// not decoded, because the service decides whether it accepts the document.
fn is_of_exporter(document: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let mut bodies = EXPORTER_PREFIXES.iter().filter_map(|prefix| document.strip_prefix(*prefix));
    bodies.any(|body| body.trim_ascii_end().iter().all(is_base64))
}

/// Returns the fields of a document that simd-json refused.
#[cold]
fn look_again(document: &[u8]) -> Fields {
    if is_of_exporter(document) {
        return Fields { form: Form::Spans, ..Fields::default() };
    }
    if let Ok(text) = std::str::from_utf8(document) {
        let text_only = Fields { form: Form::Text, ..Fields::default() };
        return tolerant::fields(text).unwrap_or(text_only);
    }
    // The service gets U+FFFD in place of the invalid bytes, and the rest may be good JSON. Here
    // each of these bytes is replaced by one byte, so that every field keeps its place.
    let mut text = String::with_capacity(document.len());
    for chunk in document.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n('?', chunk.invalid().len()));
    }
    Fields { form: Form::Bytes, ..tolerant::fields(&text).unwrap_or_default() }
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
        // The last value of a repeated key counts. Only a string is a field.
        let place = || match value {
            Node::String(text) => span(text, document, start),
            _ => Span::default(),
        };
        match *key {
            "trace_id" => fields.trace_id = place(),
            "id" => fields.id = place(),
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
        assert_eq!(fields(r#"{"id":"a","id":"b","trace_id":"t"}"#).1, "b");
        assert_eq!(fields(r#"{"id":"a","trace_id":"t","trace_id":1}"#).0, "");
    }

    #[test]
    fn documents_that_only_simd_json_refuses_are_json_with_their_fields() {
        for odd in ["18446744073709551616", "1e400", r#""\ud83d""#, r#"{"\udc00":1}"#] {
            let document = format!(r#"{{"x":{odd},"trace_id":"t","id":"i"}}"#);
            assert_eq!(fields(&document), ("t".into(), "i".into(), Form::Json), "{document}");
        }
    }

    #[test]
    fn what_is_not_json_is_forwarded_as_text_or_bytes() {
        for document in ["T1SAAECAw==", "T1UAAECAw==\n", "M1AAEC"] {
            assert_eq!(fields(document).2, Form::Spans, "{document}");
        }
        for document in ["T1S AAEC", "T2SAAEC", "m1AAEC", "{\"a\":", " ", "{'a':1}", "nul", "{}x"] {
            assert_eq!(fields(document).2, Form::Text, "{document}");
        }
        let datagram = datagram(b"{\"\xff\":\"a\xc3\xff\",\"id\":\"i\"}");
        let segment = Parser::default().parse(&datagram).expect("the header is good");
        assert_eq!(segment.fields.form, Form::Bytes);
        assert_eq!(segment.fields.id.of(segment.document), Some(&b"i"[..]));
    }

    #[test]
    fn ten_thousand_levels_of_nesting_overflow_no_stack() {
        // Miri has a stack of its own, and takes a thousand times as long.
        let levels = if cfg!(miri) { 200 } else { 10_000 };
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(fields(&nested).2, Form::Json);
        assert_eq!(fields(&"{\"a\":".repeat(levels)).2, Form::Text);
    }

    #[test]
    fn the_parser_gives_back_what_a_hostile_document_made_it_take() {
        let mut parser = Parser::default();
        let values = if cfg!(miri) { TAPE_NODES_KEPT } else { 32_000 };
        let hostile = datagram(format!("[{}1]", "1,".repeat(values)).as_bytes());
        parser.parse(&hostile).expect("the header is good");
        assert!(parser.tape.0.capacity() <= TAPE_NODES_KEPT);
        parser.parse(&datagram(br#"{"id":"a"}"#)).expect("it goes on");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..if cfg!(miri) { 80 } else { 500 }),
        ) {
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
}
