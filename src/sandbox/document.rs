//! One segment document: what the sandbox checks and what it remembers of it.
//!
//! In: the text of one document of a `PutTraceSegments` request. Out: a [`Document`] with the text
//! byte for byte and the few fields that the store and the listing need, or a [`Fault`] in the
//! words of the service. Bound: [`DOCUMENT_SIZE_BYTES_MAX`], and 128 levels of nesting
//! (serde_json's own limit, which is what keeps a hostile document off the stack). Pure code.

use serde_json::{Map, Value};

/// Largest document that the service takes, in bytes: "maximum size of segment documents 64 kB",
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>.
pub const DOCUMENT_SIZE_BYTES_MAX: usize = 64 * 1024;

/// Longest id of a trace or a segment, in bytes; real ones have 35 and 16.
const ID_SIZE_BYTES_MAX: usize = 128;

/// Longest name kept beside the text, in characters; the service's own limit for a name is 200.
const NAME_LENGTH_MAX: usize = 200;

/// A document that was kept.
#[derive(Debug, Clone)]
pub struct Document {
    /// The trace that it belongs to.
    pub trace_id: String,
    /// Its own id.
    pub id: String,
    /// Its name, cut to 200 characters; not cleaned for a terminal.
    pub name: String,
    /// Start, in seconds since 1970.
    pub start_time: f64,
    /// End, in seconds since 1970, when it has one.
    pub end_time: Option<f64>,
    /// Whether a completed version of it is still to come.
    pub in_progress: bool,
    /// Whether it is a subsegment sent on its own.
    pub is_subsegment: bool,
    /// Flags set in it or in any of its subsegments.
    pub flags: Flags,
    /// The document as it came.
    pub text: String,
}

/// The status flags of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// A fault of the server (5xx).
    pub fault: bool,
    /// An error of the client (4xx).
    pub error: bool,
    /// The call was throttled (429).
    pub throttle: bool,
}

impl Flags {
    /// The flags that `object` itself sets.
    pub fn of(object: &Map<String, Value>) -> Self {
        let is_set = |key: &str| object.get(key) == Some(&Value::Bool(true));
        Self { fault: is_set("fault"), error: is_set("error"), throttle: is_set("throttle") }
    }

    /// The flags set in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            fault: self.fault || other.fault,
            error: self.error || other.error,
            throttle: self.throttle || other.throttle,
        }
    }
}

/// Why a document is reported as unprocessed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid segment. ErrorCode: {code}. {detail}")]
pub struct Fault {
    /// The id of the segment, where the document tells it.
    pub id: Option<String>,
    /// The code, such as `ParseError` or `MissingId`.
    pub code: &'static str,
    /// What is wrong, in a sentence.
    pub detail: String,
}

impl Document {
    /// Checks `text` leniently: a JSON object with `trace_id`, `id`, `name` and `start_time`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] with the code that the service would give.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |id: Option<&str>, code: &'static str, detail: &str| Fault {
            id: id.map(str::to_owned),
            code,
            detail: detail.to_owned(),
        };
        if text.len() > DOCUMENT_SIZE_BYTES_MAX {
            let detail = format!("{} bytes, at most {DOCUMENT_SIZE_BYTES_MAX}", text.len());
            return Err(fault(None, "DocumentTooLarge", &detail));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| fault(None, "ParseError", &format!("Not JSON: {error}")))?;
        let Value::Object(object) = value else {
            return Err(fault(None, "ParseError", "Not a JSON object"));
        };
        let id = match object.get("id") {
            None | Some(Value::Null) => return Err(fault(None, "MissingId", "No id")),
            Some(Value::String(id)) if is_id(id) => id.as_str(),
            Some(_) => return Err(fault(None, "InvalidId", "The id is not one")),
        };
        let trace_id = match object.get("trace_id") {
            None | Some(Value::Null) => {
                return Err(fault(Some(id), "MissingTraceId", "No trace_id"));
            }
            Some(Value::String(trace_id)) if is_id(trace_id) => trace_id.as_str(),
            Some(_) => return Err(fault(Some(id), "InvalidTraceId", "The trace_id is not one")),
        };
        let name = match object.get("name") {
            None | Some(Value::Null) => return Err(fault(Some(id), "MissingName", "No name")),
            Some(Value::String(name)) if !name.is_empty() => name.as_str(),
            Some(_) => return Err(fault(Some(id), "InvalidName", "The name is not one")),
        };
        let start_time = match object.get("start_time") {
            None | Some(Value::Null) => {
                return Err(fault(Some(id), "MissingStartTime", "No start_time"));
            }
            Some(value) => seconds(Some(value)).ok_or_else(|| {
                fault(Some(id), "InvalidStartTime", "The start_time is not a number")
            })?,
        };
        let end_time = seconds(object.get("end_time"));
        Ok(Self {
            trace_id: trace_id.to_owned(),
            id: id.to_owned(),
            name: name.chars().take(NAME_LENGTH_MAX).collect(),
            start_time,
            end_time,
            // The Python SDK sends `"in_progress": false` with the completed document.
            in_progress: object.get("in_progress") == Some(&Value::Bool(true)),
            is_subsegment: object.get("type").and_then(Value::as_str) == Some("subsegment"),
            flags: flags_of_all(&object),
            text: text.to_owned(),
        })
    }

    /// What the document costs the store, in bytes: its text and fields.
    pub fn size_bytes(&self) -> usize {
        let strings = self.trace_id.len() + self.id.len() + self.name.len() + self.text.len();
        strings + size_of::<Self>()
    }
}

/// A finite number of seconds.
pub fn seconds(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64).filter(|seconds| seconds.is_finite())
}

/// The subsegments embedded in `object`, in their order.
pub fn subsegments(
    object: &Map<String, Value>,
) -> impl DoubleEndedIterator<Item = &Map<String, Value>> {
    let list = object.get("subsegments").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// The flags of `root` and everything below it; a stack of our own rather than recursion.
fn flags_of_all(root: &Map<String, Value>) -> Flags {
    let mut flags = Flags::default();
    let mut waiting = vec![root];
    while let Some(object) = waiting.pop() {
        flags = flags.or(Flags::of(object));
        waiting.extend(subsegments(object));
    }
    flags
}

/// Ids end up in paths, maps and terminals, so they are held to plain characters.
fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_SIZE_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(text: &str) -> (&'static str, Option<String>) {
        let fault = Document::parse(text).unwrap_err();
        assert!(fault.to_string().contains(fault.code), "{fault}");
        (fault.code, fault.id)
    }

    #[test]
    fn a_good_document_is_kept_byte_for_byte() {
        let text = " {\"id\":\"a1\", \"trace_id\":\"1-2-3\",\"name\":\"n\",\"start_time\":1.5E9,\
                    \"end_time\":1500000001.5,\"x\":1}\n";
        let document = Document::parse(text).unwrap();
        assert_eq!(document.text, text);
        assert_eq!((document.id.as_str(), document.trace_id.as_str()), ("a1", "1-2-3"));
        assert_eq!((document.start_time, document.end_time), (1.5e9, Some(1_500_000_001.5)));
        assert!(!document.in_progress && !document.is_subsegment);
    }

    #[test]
    fn a_document_that_is_not_a_json_object_is_a_parse_error_without_an_id() {
        for text in ["T1SAAECAw==", "", "[]", "1", "{\"id\":\"a\"", "{} {}"] {
            assert_eq!(code(text), ("ParseError", None), "{text}");
        }
    }

    #[test]
    fn each_missing_or_unusable_field_has_its_own_code() {
        let good = json!({"id": "a", "trace_id": "t", "name": "n", "start_time": 1});
        assert!(Document::parse(&good.to_string()).is_ok());
        for (field, missing, bad, invalid, id) in [
            ("id", "MissingId", json!("a\u{1b}[2J"), "InvalidId", None),
            ("trace_id", "MissingTraceId", json!("x".repeat(129)), "InvalidTraceId", Some("a")),
            ("name", "MissingName", json!(""), "InvalidName", Some("a")),
            ("start_time", "MissingStartTime", json!("now"), "InvalidStartTime", Some("a")),
        ] {
            let id = id.map(str::to_owned);
            let mut document = good.clone();
            document[field] = bad;
            assert_eq!(code(&document.to_string()), (invalid, id.clone()));
            document.as_object_mut().unwrap().remove(field);
            assert_eq!(code(&document.to_string()), (missing, id));
        }
    }

    #[test]
    fn the_largest_document_is_kept_and_one_byte_more_is_not() {
        let document = json!({"id": "a", "trace_id": "t", "name": "n", "start_time": 1});
        let mut text = document.to_string();
        text.push_str(&" ".repeat(DOCUMENT_SIZE_BYTES_MAX - text.len()));
        assert!(Document::parse(&text).is_ok());
        text.push(' ');
        assert_eq!(code(&text).0, "DocumentTooLarge");
    }

    #[test]
    fn a_long_name_is_held_in_short_and_the_text_in_full() {
        let name = "é".repeat(10_000);
        let text = json!({"id": "a", "trace_id": "t", "name": name, "start_time": 1}).to_string();
        let document = Document::parse(&text).unwrap();
        assert_eq!(document.name, "é".repeat(200));
        assert_eq!(document.text, text);
    }

    #[test]
    fn ten_thousand_nested_subsegments_are_a_parse_error_and_no_stack_overflow() {
        let mut text = r#"{"id":"a","trace_id":"t","name":"n","start_time":1,"m":"#.to_owned();
        text.push_str(&"[".repeat(10_000));
        text.push_str(&"]".repeat(10_000));
        text.push('}');
        assert_eq!(code(&text), ("ParseError", None));
    }

    #[test]
    fn flags_of_embedded_subsegments_count() {
        let text = json!({"id": "a", "trace_id": "t", "name": "n", "start_time": 1, "error": false,
            "subsegments": [{"subsegments": [{"throttle": true, "error": "yes"}]}, 7]});
        let flags = Document::parse(&text.to_string()).unwrap().flags;
        assert_eq!(flags, Flags { fault: false, error: false, throttle: true });
    }
}
