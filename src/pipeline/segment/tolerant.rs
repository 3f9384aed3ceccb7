//! Finds the fields of a document that is good JSON by its grammar but that simd-json refuses.
//!
//! In: a document that simd-json refused. Out: the places of its trace id and id, or `None` if it
//! is not JSON by the grammar either. Bound: the size of the document. serde_json keeps one byte
//! for each level of nesting that is open, and does not recurse. Thread: `receive-N`. No I/O, no
//! clock. This second parser allocates memory, so it looks only at documents that the first one
//! refused.
//!
//! RFC 8259 limits neither the size of a number nor the escape sequences of a string. simd-json
//! refuses integers beyond 64 bits, numbers beyond a double, lone surrogates such as `\ud83d`
//! (JavaScript's `slice()` leaves them when it cuts an emoji), and deep nesting. serde_json checks
//! only the grammar of a value that it ignores (`Deserializer::ignore_value`, version 1.0.154).

use super::{Fields, Form, Span};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Returns the fields of `document`, or `None` if the document is not JSON.
///
/// A document that begins with neither `{` nor `[` is not looked into. OpenTelemetry's form for
/// Lambda is such a document.
pub fn fields(document: &str) -> Option<Fields> {
    match document.trim_ascii_start().as_bytes().first()? {
        b'{' => {
            let values: Values<'_> = serde_json::from_str(document).ok()?;
            let place = |value| string_within(value, document);
            let (trace_id, id) = (place(values.trace_id), place(values.id));
            Some(Fields { trace_id, id, form: Form::Json })
        }
        b'[' => {
            serde_json::from_str::<IgnoredAny>(document).ok()?;
            Some(Fields::default())
        }
        _ => None,
    }
}

/// The last value of each key, as it is written in the document.
#[derive(Debug, Default)]
struct Values<'a> {
    trace_id: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Values<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValuesVisitor;
        impl<'de> Visitor<'de> for ValuesVisitor {
            type Value = Values<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values<'de>, A::Error> {
                let mut values = Values::default();
                // A key is read like a value that is ignored, because serde_json refuses a lone
                // surrogate in a string, and takes control characters in bytes.
                while let Some(key) = map.next_key::<&RawValue>()? {
                    match unescaped(key.get()).as_ref() {
                        "trace_id" => values.trace_id = Some(map.next_value()?),
                        "id" => values.id = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(values)
            }
        }
        deserializer.deserialize_map(ValuesVisitor)
    }
}

/// Returns a key without its quotes and its escape sequences. It is empty if it has a lone
/// surrogate, because it is then neither of the keys that matter.
fn unescaped(quoted: &str) -> Cow<'_, str> {
    match quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Cow::Borrowed(text),
        _ => Cow::Owned(serde_json::from_str(quoted).unwrap_or_default()),
    }
}

/// Returns the place of a string without its quotes. It is empty if the value is no string.
fn string_within(value: Option<&RawValue>, document: &str) -> Span {
    let inside = value.and_then(|value| value.get().strip_prefix('"')?.strip_suffix('"'));
    let place = inside.and_then(|text| {
        let offset = u16::try_from(text.as_ptr() as usize - document.as_ptr() as usize).ok()?;
        Some(Span { offset, length: u16::try_from(text.len()).ok()? })
    });
    place.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the trace id and the id of a document, or `None` if it is not JSON.
    fn found(document: &str) -> Option<(&str, &str)> {
        let fields = fields(document)?;
        let text = |span: Span| {
            let bytes = span.of(document.as_bytes()).unwrap_or_default();
            std::str::from_utf8(bytes).expect("a field ends at a quote")
        };
        Some((text(fields.trace_id), text(fields.id)))
    }

    #[test]
    fn neither_the_size_of_a_number_nor_a_lone_surrogate_hides_the_ids() {
        for odd in [
            "18446744073709551616",
            "-9223372036854775809",
            "123e4567",
            "-1E+400",
            "0.1e-99999",
            r#""Ann \ud83d""#,
            r#""\udc00\ud800""#,
            r#"{"\ud83d":[{"\udfff":1e999}]}"#,
        ] {
            let document = format!(r#" {{"x":{odd},"trace_id":"t","y":[{odd}],"id":"i"}}"#);
            assert_eq!(found(&document), Some(("t", "i")), "{document}");
        }
    }

    #[test]
    fn keys_are_compared_after_their_escape_sequences_are_decoded() {
        assert_eq!(found(r#"{"trace\u005fid":"t","\u0069d":"i","n":1e999}"#), Some(("t", "i")));
        assert_eq!(found(r#"{"id\ud800":"no","\ud800":"no","ID":"no"}"#), Some(("", "")));
        assert_eq!(found(r#"{"x":{"id":"no","trace_id":"no"}}"#), Some(("", "")));
    }

    #[test]
    fn the_last_value_of_a_key_counts_and_only_a_string_is_a_field() {
        assert_eq!(found(r#"{"id":"a","id":"b","trace_id":1e999}"#), Some(("", "b")));
        assert_eq!(found(r#"{"id":"a","id":["b"],"trace_id":{"a":"b"}}"#), Some(("", "")));
        assert_eq!(found(r#"{"trace_id":"cut \ud83d","id":"\"q\""}"#).unwrap().0, r"cut \ud83d");
    }

    #[test]
    fn a_hundred_times_the_usual_nesting_overflows_no_stack() {
        // Miri has a stack of its own, and takes a thousand times as long.
        let levels = if cfg!(miri) { 300 } else { 30_000 };
        let deep = format!("{}1e999{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(found(&format!(r#"{{"x":{deep},"id":"i"}}"#)), Some(("", "i")));
        assert_eq!(found(&deep), Some(("", "")));
        assert_eq!(found(&r#"{"id":"#.repeat(levels / 3)), None);
    }

    #[test]
    fn what_breaks_the_grammar_is_not_json() {
        for document in [
            "",
            " ",
            "T1SAAECAw==",
            "1e999",
            "{",
            "{}x",
            "{'a':1}",
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1,}"#,
            "[1,]",
            r#"{"a":"\x"}"#,
            r#"{"a":"\ud8"}"#,
            "{\"a\nid\":1}",
            "{\"\0\":1}",
            "{\"a\":\"\n\"}",
            r#"{"a" 1}"#,
            r#"{1:1}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(found(document), None, "{document}");
        }
    }
}
