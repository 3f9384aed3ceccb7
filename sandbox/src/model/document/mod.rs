//! Parses and checks one segment document.
//!
//! In: the text of one document of a `PutTraceSegments` request. Out: a [`Document`] with the text
//! byte for byte and the [`Facts`] that lists, filters and the service graph need, or a
//! [`Violation`] with an error code of the service ([`validate`]). Bound:
//! [`DOCUMENT_SIZE_BYTES_MAX`], and [`NESTING_MAX`] levels of JSON. With the second bound a hostile
//! document cannot overflow the stack. Other JSON that is good by its grammar is taken
//! ([`lenient`]). No I/O, no clock.

mod facts;
mod lenient;
mod mend;
mod validate;
mod words;

pub use facts::{ANNOTATION_COUNT_MAX, Annotation, Facts, Http, Kind, Part, number_of};
pub use lenient::NESTING_MAX;
pub use words::{WordKind, Words};

use serde_json::{Map, Value};
use std::sync::Arc;

/// Largest document that the service accepts, in bytes: "maximum size of segment documents 64 kB",
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>.
pub const DOCUMENT_SIZE_BYTES_MAX: usize = 64 * 1024;

/// Longest name of a segment, in characters. A longer name is cut in the parsed fields, and stays
/// unchanged in the text.
const NAME_LENGTH_MAX: usize = 200;

/// A parsed document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Id of the trace that the document belongs to.
    pub trace_id: String,
    /// Id of the segment or subsegment.
    pub id: String,
    /// Name of the segment or subsegment, cut to 200 characters. It may contain control characters.
    pub name: String,
    /// Start of the segment, in seconds since 1970.
    pub start_time: f64,
    /// End of the segment, in seconds since 1970. `None` if the document has no end.
    pub end_time: Option<f64>,
    /// Whether the segment is in progress. If so, the application sends a completed document later.
    pub in_progress: bool,
    /// Whether the document is a separate subsegment and not a segment.
    pub is_subsegment: bool,
    /// Flags that are set in the document or in any embedded subsegment.
    pub flags: Flags,
    /// Fields for filters, summaries and the service graph.
    pub facts: Facts,
    /// The received text, byte for byte. For a span of OpenTelemetry, a text in X-Ray's terms.
    pub text: String,
    /// For a span of OpenTelemetry: its OTLP JSON, as a request that contains only this span. The
    /// documents of one span share it.
    pub otlp: Option<Arc<str>>,
}

/// The status flags of a segment or subsegment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// The server failed (5xx).
    pub fault: bool,
    /// The client made an error (4xx).
    pub error: bool,
    /// The server throttled the request (429).
    pub throttle: bool,
}

impl Flags {
    /// Returns the flags that `object` sets. Flags of embedded subsegments are not included.
    pub fn of(object: &Map<String, Value>) -> Self {
        let is_set = |key: &str| object.get(key) == Some(&Value::Bool(true));
        Self { fault: is_set("fault"), error: is_set("error"), throttle: is_set("throttle") }
    }

    /// Returns the flags that are set in `self` or in `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            fault: self.fault || other.fault,
            error: self.error || other.error,
            throttle: self.throttle || other.throttle,
        }
    }
}

/// A broken rule. The endpoint reports the document as unprocessed for this reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {}. ErrorCode: {code}. {detail}", self.kind())]
pub struct Violation {
    /// Id of the segment. `None` if the document has no valid id.
    pub id: Option<String>,
    /// Id of the trace. `None` if the document has no valid trace id.
    pub trace_id: Option<String>,
    /// Name in the document, cut to 200 characters. Empty if it has none.
    pub name: String,
    /// Whether a subsegment breaks the rule and not a segment.
    pub is_subsegment: bool,
    /// Path of the field that breaks the rule, such as `subsegments[2].name`. Empty if the whole
    /// document breaks it.
    pub field: String,
    /// Value of the field, cut to 200 characters. `None` if the field is missing.
    pub value: Option<String>,
    /// Error code, such as `ParseError` or `MissingId`.
    pub code: &'static str,
    /// Description of the broken rule.
    pub detail: String,
}

impl Violation {
    fn kind(&self) -> &'static str {
        if self.is_subsegment { "subsegment" } else { "segment" }
    }

    /// Returns a violation of a text that is not a document.
    pub fn of_text(code: &'static str, detail: String) -> Box<Self> {
        Box::new(Self { code, detail, ..Self::default() })
    }
}

impl Document {
    /// Parses a document and checks it against the published rules, see [`validate`].
    ///
    /// # Errors
    ///
    /// Returns the first [`Violation`] found, with the error code of the service.
    pub fn parse(text: &str) -> Result<Self, Box<Violation>> {
        let object = object_of(text)?;
        validate::check(&object)?;
        Ok(Self::of(&object, text))
    }

    /// Builds a document from its parsed JSON object.
    fn of(object: &Map<String, Value>, text: &str) -> Self {
        let owned = |key: &str| string(object, key).unwrap_or_default().to_owned();
        let facts = Facts::of(object);
        let flags = facts.parts.iter().map(|part| part.flags);
        Self {
            trace_id: owned("trace_id"),
            id: owned("id"),
            name: owned("name").chars().take(NAME_LENGTH_MAX).collect(),
            start_time: seconds(object.get("start_time")).unwrap_or_default(),
            end_time: seconds(object.get("end_time")),
            // The Python SDK sends `"in_progress": false` with the completed document.
            in_progress: object.get("in_progress") == Some(&Value::Bool(true)),
            is_subsegment: string(object, "type") == Some("subsegment"),
            flags: flags.fold(Flags::default(), Flags::or),
            facts,
            text: text.to_owned(),
            otlp: None,
        }
    }

    /// Builds a document of a span of OpenTelemetry, in X-Ray's terms.
    pub fn of_span(object: &Map<String, Value>, otlp: &Arc<str>) -> Self {
        let text = Value::Object(object.clone()).to_string();
        Self { otlp: Some(Arc::clone(otlp)), ..Self::of(object, &text) }
    }

    /// Returns the text from which the document can be read again.
    pub fn source(&self) -> &str {
        self.otlp.as_deref().unwrap_or(&self.text)
    }

    /// Parses a document without checking the rules. Returns `None` if the text is not a JSON
    /// object, or is longer than [`DOCUMENT_SIZE_BYTES_MAX`].
    pub fn read(text: &str) -> Option<Self> {
        object_of(text).ok().map(|object| Self::of(&object, text))
    }

    /// Parses a document in a test, without checking the rules.
    ///
    /// # Panics
    ///
    /// Panics if the text is not a JSON object.
    #[cfg(test)]
    pub fn unchecked(text: &str) -> Self {
        Self::read(text).unwrap()
    }

    /// Parses the text again. The store does not hold the JSON values, because they would take more
    /// memory than the text.
    pub fn object(&self) -> Map<String, Value> {
        match lenient::parse(&self.text) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }

    /// Returns the size of the document in memory, in bytes: its text and its parsed fields.
    pub fn size_bytes(&self) -> usize {
        let strings = self.trace_id.len() + self.id.len() + self.name.len() + self.text.len();
        let otlp_bytes = self.otlp.as_deref().map_or(0, str::len);
        strings + otlp_bytes + size_of::<Self>() + self.facts.size_bytes()
    }
}

/// Returns the value as a number of seconds, or `None` if it is not a finite number.
pub fn seconds(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64).filter(|seconds| seconds.is_finite())
}

/// Returns the time from `start` to `end`, in seconds, rounded to microseconds.
///
/// A time since 1970 has digits below a microsecond only from the rounding of doubles. In a
/// difference they would be seen: 0.4820001125335693.
pub fn seconds_between(start: f64, end: f64) -> f64 {
    rounded(end - start)
}

/// Returns a number of seconds, rounded to microseconds.
pub fn rounded(seconds: f64) -> f64 {
    let us = (seconds * 1e6).round();
    // Above 2^53 microseconds, a double has no digits after the point.
    if us.abs() < 9e15 { us / 1e6 } else { seconds }
}

/// Returns the value as a whole number, or `None` if it is not one. JSON has one kind of number, so
/// that `404.0` is 404.
pub fn whole(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range")]
    let of_float = |number: f64| {
        (number.fract() == 0.0 && (0.0..=9e15).contains(&number)).then_some(number as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// Returns the subsegments that are directly embedded in `object`, in the order of the document.
pub fn subsegments(
    object: &Map<String, Value>,
) -> impl DoubleEndedIterator<Item = &Map<String, Value>> {
    let list = object.get("subsegments").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// Returns the value of `key` if it is a string.
pub fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// Parses the text of a document as a JSON object.
fn object_of(text: &str) -> Result<Map<String, Value>, Box<Violation>> {
    let fault = Violation::of_text;
    if text.len() > DOCUMENT_SIZE_BYTES_MAX {
        let detail = format!("{} bytes, at most {DOCUMENT_SIZE_BYTES_MAX}", text.len());
        return Err(fault("DocumentTooLarge", detail));
    }
    match lenient::parse(text) {
        Ok(Value::Object(object)) => Ok(object),
        // The service takes an empty list as a document without fields.
        Ok(Value::Array(list)) if list.is_empty() => {
            let detail = "No id: the document is an empty list".to_owned();
            Err(Box::new(Violation { field: "id".to_owned(), ..*fault("MissingId", detail) }))
        }
        Ok(_) => Err(fault("ParseError", "Not a JSON object".to_owned())),
        Err(error) => Err(fault("ParseError", format!("Not JSON: {error}"))),
    }
}

/// Returns whether `text` has the form of a trace id, such as
/// `1-58406520-a006649127e371903a2de979`.
pub fn is_trace_id(text: &str) -> bool {
    validate::is_trace_id(text)
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

    /// Returns a valid document with the fields of `more` added.
    fn good(more: Value) -> String {
        let mut document = json!({"id": "70de5b6f19ff9a0a", "name": "n", "start_time": 1.5e9,
            "trace_id": "1-581cf771-a006649127e371903a2de979", "end_time": 1.5e9});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document.to_string()
    }

    #[test]
    fn a_good_document_is_kept_byte_for_byte() {
        let text = format!(" {}\n", good(json!({"end_time": 1_500_000_001.5, "x": [1, 2]})));
        let document = Document::parse(&text).unwrap();
        assert_eq!(document.text, text);
        assert_eq!(document.id, "70de5b6f19ff9a0a");
        assert_eq!(document.trace_id, "1-581cf771-a006649127e371903a2de979");
        assert_eq!((document.start_time, document.end_time), (1.5e9, Some(1_500_000_001.5)));
        assert!(!document.in_progress && !document.is_subsegment);
    }

    #[test]
    fn a_document_that_is_not_a_json_object_is_a_parse_error_without_an_id() {
        for text in ["T1SAAECAw==", "", "[1]", "[[]]", "1", "null", "{\"id\":\"a\"", "{} {}"] {
            assert_eq!(code(text), ("ParseError", None), "{text}");
        }
    }

    #[test]
    fn an_empty_list_is_a_document_without_an_id() {
        for text in ["[]", " [ ]\n"] {
            assert_eq!(code(text), ("MissingId", None), "{text}");
        }
    }

    #[test]
    fn a_whole_number_may_have_a_decimal_point_or_an_exponent() {
        for (text, expected) in [
            ("404", Some(404)),
            ("404.0", Some(404)),
            ("4.04e2", Some(404)),
            ("404.5", None),
            ("-1.0", None),
            ("1e300", None),
            ("\"404\"", None),
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(whole(Some(&value)), expected, "{text}");
        }
        let text = r#"{"http": {"response": {"status": 404.0}}}"#;
        let http = Document::unchecked(text).facts.parts[0].http.clone().unwrap();
        assert_eq!(http.status, Some(404));
    }

    /// Returns a document with this many levels of subsegments.
    fn nested(levels: usize) -> String {
        let sub = r#"{"id":"70de5b6f19ff9a0b","name":"n","start_time":1,"end_time":2"#;
        let inner = format!(",\"subsegments\":[{sub}").repeat(levels) + &"}]".repeat(levels);
        good(json!({})).strip_suffix('}').unwrap().to_owned() + &inner + "}"
    }

    #[test]
    fn subsegments_may_be_nested_128_levels_deep() {
        // A thread of the daemon has a stack of 2 MiB.
        let thread = std::thread::Builder::new().stack_size(1024 * 1024);
        let checked = thread.spawn(|| {
            for levels in [1, 62, 63, 127, 128] {
                let document = Document::parse(&nested(levels)).unwrap();
                assert_eq!(document.facts.parts.len(), levels + 1);
                assert_eq!(document.object().len(), 6);
            }
            let deepest = "[".repeat(NESTING_MAX - 1) + &"]".repeat(NESTING_MAX - 1);
            let with = |list: &str| good(json!({})).replacen('{', &format!("{{\"m\":{list},"), 1);
            assert!(Document::parse(&with(&deepest)).is_ok());
            let fault = Document::parse(&with(&format!("[{deepest}]"))).unwrap_err();
            assert!(fault.detail.contains(": nested deeper than 320 levels"), "{fault}");
        });
        checked.unwrap().join().unwrap();
    }

    #[test]
    fn numbers_and_strings_that_only_the_grammar_allows_are_kept() {
        let large = "123456789012345678901234567890";
        for (odd, expected) in
            [(large, json!(1.2345678901234568e29)), (r#""Ann \ud83d""#, json!("Ann \u{fffd}"))]
        {
            let text = good(json!({})).replacen('{', &format!("{{\"m\":{odd},"), 1);
            let document = Document::parse(&text).unwrap();
            assert_eq!(document.text, text);
            assert_eq!(document.object()["m"], expected);
        }
    }

    #[test]
    fn the_largest_document_is_kept_and_one_byte_more_is_not() {
        let mut text = good(json!({}));
        text.push_str(&" ".repeat(DOCUMENT_SIZE_BYTES_MAX - text.len()));
        assert!(Document::parse(&text).is_ok());
        text.push(' ');
        assert_eq!(code(&text).0, "DocumentTooLarge");
    }

    #[test]
    fn ten_thousand_nested_values_are_a_parse_error_and_no_stack_overflow() {
        for (open, close) in [("[", "]"), ("{\"subsegments\":[", "]}")] {
            let depth = 3_000;
            let deep = format!("{}{}", open.repeat(depth), close.repeat(depth));
            let text = good(json!({})).replacen('{', &format!("{{\"m\":{deep},"), 1);
            assert_eq!(code(&text), ("ParseError", None));
        }
    }

    #[test]
    fn a_document_full_of_subsegments_costs_what_is_counted_for_it() {
        let subsegments = vec![json!({}); 20_000];
        let text = json!({"id": "70de5b6f19ff9a0a", "subsegments": subsegments}).to_string();
        let document = Document::unchecked(&text);
        assert_eq!(document.facts.parts.len(), 20_001);
        assert!(document.size_bytes() > 20_000 * size_of::<Part>());
    }

    #[test]
    fn a_difference_has_no_digits_below_a_microsecond() {
        assert_eq!(seconds_between(1_700_000_000.1, 1_700_000_000.582), 0.482);
        assert_eq!(seconds_between(1.0, 1.000_000_4), 0.0);
        assert_eq!(seconds_between(2.5, 1.0), -1.5);
        assert_eq!(seconds_between(-1e300, 1e300), 2e300);
        assert!(seconds_between(0.0, f64::NAN).is_nan());
    }

    #[test]
    fn flags_of_embedded_subsegments_count() {
        let text = json!({"error": false,
            "subsegments": [{"subsegments": [{"throttle": true, "error": "yes"}]}, 7]});
        let flags = Document::unchecked(&text.to_string()).flags;
        assert_eq!(flags, Flags { fault: false, error: false, throttle: true });
    }
}
