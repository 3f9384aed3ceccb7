//! Parses the JSON body of an answer.
//!
//! In: the decompressed body. Out: typed fields. A field of an unexpected type counts as missing.
//! Bound: [`DOCUMENT_COUNT_MAX`] unprocessed documents, and a length for each text. The parser
//! skips all other JSON values without storing them, so a body with very many values does not need
//! more memory. Thread: any. No I/O, no clock.

use super::DOCUMENT_COUNT_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Longest segment id or error code that is kept, in characters. A segment id has 16 characters.
const NAME_CHARACTERS_MAX: usize = 100;

/// Longest error message of the service that is kept, in characters. The rest is cut off.
const MESSAGE_CHARACTERS_MAX: usize = 500;

/// A document that the service did not process. Any of its fields may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprocessed {
    /// Id of the segment in the document.
    pub id: Option<String>,
    /// Error code of the service, for example `InvalidTraceId`.
    pub error_code: Option<String>,
    /// Error message of the service.
    pub message: Option<String>,
}

/// The body of an answer with a success status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SuccessBody {
    /// Whether the body looks like an answer to `PutTraceSegments`: it is a JSON object with the
    /// field `UnprocessedTraceSegments`, or a JSON object without fields.
    pub is_from_x_ray: bool,
    /// The unprocessed documents, at most [`DOCUMENT_COUNT_MAX`].
    pub unprocessed: Vec<Unprocessed>,
    /// Number of all unprocessed documents in the body. It can be larger than
    /// [`DOCUMENT_COUNT_MAX`].
    pub unprocessed_count: usize,
}

/// The body of an answer with an error status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    /// Error code of the service, for example `ThrottledException`.
    pub code: Option<String>,
    /// Error message of the service.
    pub message: Option<String>,
}

#[derive(Deserialize)]
struct SuccessFields<'a> {
    // The function `present` makes a field with the value `null` count as present.
    #[serde(borrow, default, rename = "UnprocessedTraceSegments", deserialize_with = "present")]
    unprocessed: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UnprocessedFields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorFields<'a> {
    #[serde(borrow, rename = "__type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow, rename = "Code")]
    upper_code: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "Message")]
    upper_message: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl SuccessBody {
    /// Parses a body. Returns `None` if it is not a JSON object.
    pub fn read(body: &[u8]) -> Option<Self> {
        let fields: SuccessFields<'_> = object(body)?;
        let Some(list) = fields.unprocessed else {
            let inner = body.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?;
            return Some(Self { is_from_x_ray: inner.trim_ascii().is_empty(), ..Self::default() });
        };
        let mut deserializer = serde_json::Deserializer::from_str(list.get());
        let read = deserializer.deserialize_seq(Entries).unwrap_or_default();
        Some(Self { is_from_x_ray: true, ..read })
    }
}

impl ErrorBody {
    /// Parses a body. Returns `None` if it is not a JSON object.
    pub fn read(body: &[u8]) -> Option<Self> {
        let fields: ErrorFields<'_> = object(body)?;
        let codes = [fields.kind, fields.code, fields.upper_code];
        let messages = [fields.message, fields.upper_message];
        Some(Self {
            code: codes.into_iter().find_map(|it| text(it, NAME_CHARACTERS_MAX)),
            message: messages.into_iter().find_map(|it| text(it, MESSAGE_CHARACTERS_MAX)),
        })
    }
}

/// Parses a JSON object. Returns `None` for any other text. The check for `{` is needed because
/// serde would also accept a JSON list, and use its values as the fields of the struct in order.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok())?
}

/// Returns the first `character_count_max` characters of a JSON string. Returns `None` if the value
/// is not a string.
fn text(value: Option<&RawValue>, character_count_max: usize) -> Option<String> {
    let mut text: String = serde_json::from_str(value?.get()).ok()?;
    if let Some((end, _)) = text.char_indices().nth(character_count_max) {
        text.truncate(end);
        text.shrink_to_fit();
    }
    Some(text)
}

impl Unprocessed {
    fn read(entry: &RawValue) -> Self {
        let fields: UnprocessedFields<'_> = object(entry.get().as_bytes()).unwrap_or_default();
        Self {
            id: text(fields.id, NAME_CHARACTERS_MAX),
            error_code: text(fields.error_code, NAME_CHARACTERS_MAX),
            message: text(fields.message, MESSAGE_CHARACTERS_MAX),
        }
    }
}

/// Parses the list of unprocessed documents. The first [`DOCUMENT_COUNT_MAX`] documents are kept.
/// Further documents are only counted.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = SuccessBody;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SuccessBody, A::Error> {
        let mut body = SuccessBody::default();
        while body.unprocessed.len() < DOCUMENT_COUNT_MAX {
            let Some(entry) = list.next_element::<&RawValue>()? else { break };
            body.unprocessed.push(Unprocessed::read(entry));
        }
        body.unprocessed_count = body.unprocessed.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            body.unprocessed_count += 1;
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(body: &str) -> Option<SuccessBody> {
        SuccessBody::read(body.as_bytes())
    }

    /// Parses a body in a second, simpler way: over a tree of `serde_json` values. The test
    /// compares the result with that of the real parser.
    fn through_a_tree(body: &str) -> Option<Vec<Unprocessed>> {
        let text = |value: &Value, name| value.get(name)?.as_str().map(str::to_owned);
        let answer: Value = serde_json::from_str(body).ok()?;
        let list = answer.as_object()?.get("UnprocessedTraceSegments").and_then(Value::as_array);
        let one = |entry: &Value| Unprocessed {
            id: text(entry, "Id"),
            error_code: text(entry, "ErrorCode"),
            message: text(entry, "Message"),
        };
        Some(list.map(|entries| entries.iter().map(one).collect()).unwrap_or_default())
    }

    #[test]
    fn only_an_object_with_the_list_or_without_fields_is_x_rays() {
        for body in [
            "{}",
            " { \n} ",
            r#"{"UnprocessedTraceSegments":[]}"#,
            r#"{"UnprocessedTraceSegments":null}"#,
            r#"{"UnprocessedTraceSegments":5,"a":[{}]}"#,
        ] {
            let read = read(body).unwrap_or_else(|| panic!("{body}"));
            assert!(read.is_from_x_ray && read.unprocessed.is_empty(), "{body}");
        }
        for body in [r#"{"error":"please log in"}"#, r#"{"unprocessedTraceSegments":[]}"#] {
            assert!(!read(body).unwrap().is_from_x_ray, "{body}");
        }
        for body in ["", "[]", "5", "null", "{", "{}{}", "{}x", "<html>", "[[]]"] {
            assert_eq!(read(body), None, "{body}");
        }
        assert_eq!(SuccessBody::read(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn a_field_of_another_type_is_missing_and_a_list_is_not_an_object() {
        let body = r#"{"UnprocessedTraceSegments":[null,5,"x",["1","2","3"],{"Id":{"a":[]}},
            {"Id":"1","ErrorCode":[],"Message":"caf\u00e9"}]}"#;
        let read = read(body).unwrap();
        assert_eq!(read.unprocessed_count, 6);
        let (last, others) = read.unprocessed.split_last().unwrap();
        let nothing = Unprocessed { id: None, error_code: None, message: None };
        assert!(others.iter().all(|entry| *entry == nothing), "{others:?}");
        let (id, message) = (Some("1".into()), Some("café".into()));
        assert_eq!(*last, Unprocessed { id, error_code: None, message });
    }

    #[test]
    fn as_many_entries_are_kept_as_a_request_has_documents_and_the_others_are_counted() {
        let entries = vec![r#"{"Id":"1"}"#; 70].join(",");
        let read = read(&format!(r#"{{"UnprocessedTraceSegments":[{entries}]}}"#)).unwrap();
        assert_eq!((read.unprocessed.len(), read.unprocessed_count), (50, 70));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(10_000);
        let entry = json!({"Id": long, "ErrorCode": long, "Message": long});
        let body = json!({"UnprocessedTraceSegments": [entry]}).to_string();
        let [one] = read(&body).unwrap().unprocessed.try_into().unwrap();
        let count = |text: Option<String>| text.unwrap().chars().count();
        assert_eq!((count(one.id), count(one.error_code), count(one.message)), (100, 100, 500));
        let body = json!({"__type": long, "message": long}).to_string();
        let error = ErrorBody::read(body.as_bytes()).unwrap();
        assert_eq!((count(error.code), count(error.message)), (100, 500));
    }

    #[test]
    fn an_error_has_the_first_code_and_message_that_are_texts() {
        let error = |body: &str| ErrorBody::read(body.as_bytes());
        let of = |code: &str, message: &str| {
            Some(ErrorBody { code: Some(code.into()), message: Some(message.into()) })
        };
        assert_eq!(error(r#"{"__type":"A","code":"B","Message":"m"}"#), of("A", "m"));
        assert_eq!(error(r#"{"__type":5,"Code":"C","message":[],"Message":"m"}"#), of("C", "m"));
        assert_eq!(error("{}"), Some(ErrorBody::default()));
        for body in ["", "[]", "[1,2,3,4,5]", "<html>", "{\"code\":"] {
            assert_eq!(error(body), None, "{body}");
        }
    }

    /// Generates nested JSON values. Their objects use the field names that the parser looks for.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\é]{0,6}".prop_map(Value::from),
        ];
        let name = prop_oneof!["UnprocessedTraceSegments", "Id", "ErrorCode", "Message", "[a-z]"];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let pairs = proptest::collection::vec((name.clone(), inner.clone()), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(Value::from),
                pairs.prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_result_is_that_of_a_tree_of_values(list in value(), is_named in any::<bool>()) {
            let body = if is_named {
                json!({"UnprocessedTraceSegments": list}).to_string()
            } else {
                list.to_string()
            };
            prop_assert_eq!(read(&body).map(|read| read.unprocessed), through_a_tree(&body));
        }
    }
}
