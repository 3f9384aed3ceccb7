//! Checks the header line of a datagram.
//!
//! In: the bytes of one datagram. Out: the document behind the header line, or the reason why the
//! datagram is no segment ([`Rejection`]). Bound: one datagram (65,507 bytes). Thread: `receive-N`.
//! No I/O, no clock, no allocation for the header lines of the SDKs.

use super::header_rules;
use std::fmt;

/// The header that the SDKs for Python, Node.js, .NET and Ruby write.
pub const HEADER: &str = r#"{"format":"json","version":1}"#;
/// The header that the SDKs for Java and Go write.
const HEADER_SPACED: &[u8] = br#"{"format": "json", "version": 1}"#;

/// The largest number of characters of a header line that the log shows.
const SHOWN_LENGTH_MAX: usize = 100;

/// Why a datagram is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Invalid header: the first line is not the JSON object that X-Ray SDKs send
    #[error("Invalid header")]
    Header,
    /// Missing header or segment
    #[error("Missing header or segment")]
    NoDocument,
}

/// Checks the header line of a datagram and returns the document after it.
///
/// # Errors
///
/// Returns which part of the datagram is missing or invalid.
pub fn split(datagram: &[u8]) -> Result<&[u8], Rejection> {
    for header in [HEADER.as_bytes(), HEADER_SPACED] {
        if let Some([b'\n', document @ ..]) = datagram.strip_prefix(header) {
            return if document.is_empty() { Err(Rejection::NoDocument) } else { Ok(document) };
        }
    }
    let newline = datagram.iter().position(|&byte| byte == b'\n').ok_or(Rejection::NoDocument)?;
    let (header, document) = (&datagram[..newline], &datagram[newline + 1..]);
    if document.is_empty() {
        return Err(Rejection::NoDocument);
    }
    if header_rules::is_valid(header) { Ok(document) } else { Err(Rejection::Header) }
}

/// The first line of a rejected datagram, for the log. A line that can be part of a document is not
/// shown, because documents may have secrets: only its length is. The log escapes control
/// characters.
#[derive(Debug, Clone, Copy)]
pub struct FirstLine<'a>(pub &'a [u8]);

impl fmt::Display for FirstLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.0.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let names_a_trace =
            |name: &[u8]| line.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name));
        let is_like_a_header = line.trim_ascii_start().starts_with(b"{");
        if !is_like_a_header || names_a_trace(b"trace_id") || names_a_trace(b"traceid") {
            return write!(out, "a first line of {} bytes, which is not shown", line.len());
        }
        // A character has at most four bytes.
        let start = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_LENGTH_MAX + 4)]);
        let start = start.trim();
        match start.char_indices().nth(SHOWN_LENGTH_MAX) {
            Some((end, _)) => write!(out, "{}…", &start[..end]),
            None => out.write_str(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::{self, Deserialize, MapAccess, Visitor};

    const GOOD: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

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
            // A value of another type does not replace an earlier value.
            r#"{"version":"2","format":"json","version":1,"format":{},"version":1.5}"#,
            r#"{"format":"json","version":1,"\ud800":"\ud800"}"#,
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
        let deep = [&b"[".repeat(if cfg!(miri) { 200 } else { 10_000 }), &b"\nX"[..]].concat();
        assert_eq!(split(&deep), Err(Rejection::Header));
    }

    #[test]
    fn a_datagram_without_newline_or_document_is_missing_its_segment() {
        for datagram in [&b""[..], b"x", &GOOD[..GOOD.len() - 1], GOOD, b"\n", b"junk\n"] {
            assert_eq!(split(datagram), Err(Rejection::NoDocument));
        }
    }

    #[test]
    fn a_first_line_is_shown_unless_it_can_be_part_of_a_document() {
        let shown = |datagram: &str| FirstLine(datagram.as_bytes()).to_string();
        for (datagram, expected) in [
            ("{\"format\":\"xml\"}\n{\"trace_id\":1}", "{\"format\":\"xml\"}"),
            (" {\"format\": \"json\"}\r\n{}", "{\"format\": \"json\"}"),
            ("{}", "{}"),
            ("junk\n{}", "a first line of 4 bytes, which is not shown"),
            ("\n{}", "a first line of 0 bytes, which is not shown"),
            ("{\"TRACE_ID\":1}\n{}", "a first line of 14 bytes, which is not shown"),
            ("{\"x\":[{\"traceId\":1}]}", "a first line of 21 bytes, which is not shown"),
            ("[{}]\n{}", "a first line of 4 bytes, which is not shown"),
        ] {
            assert_eq!(shown(datagram), expected, "{datagram}");
        }
        assert_eq!(shown(&format!("{{{}\n", "é".repeat(99))), format!("{{{}", "é".repeat(99)));
        assert_eq!(shown(&format!("{{{}\n", "😀".repeat(200))), format!("{{{}…", "😀".repeat(99)));
        assert_eq!(FirstLine(b"{\xff\xff").to_string(), "{\u{fffd}\u{fffd}");
        // Miri takes a thousand times as long.
        let long = [b"{", &[0xff; if cfg!(miri) { 1_000 } else { 60_000 }][..]].concat();
        assert_eq!(FirstLine(&long).to_string().chars().count(), SHOWN_LENGTH_MAX + 1);
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
