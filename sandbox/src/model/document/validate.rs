//! Checks a segment document against the published rules.
//!
//! In: the JSON object of a document. Out: nothing, or the first [`Violation`] found, with the
//! error code of the service. The rules are from
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>. Only the
//! rules of this page are checked: for example, an end may be before its start, and `http` may
//! contain anything. The time in a trace id is not checked, because the page says that it "is not
//! required or validated". One rule is from the field: the service refuses the same characters in
//! the names of subsegments, see <https://github.com/aws/aws-xray-daemon/issues/184>. No I/O, no
//! clock, no recursion.

use super::{NAME_LENGTH_MAX, Violation, seconds, string, subsegments};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Longest name of a subsegment, in characters. The page says: "Values must be strings (up to 250
/// characters) unless noted otherwise."
const TEXT_LENGTH_MAX: usize = 250;

/// The symbols of a name besides letters, numbers and spaces.
const NAME_SYMBOLS: &str = "_.:/%&#=+\\-@";

/// Largest number of refused characters that a message names.
const NAMED_CHARACTER_COUNT_MAX: usize = 5;

/// Longest part of a wrong value that a [`Violation`] has, in characters.
const VALUE_LENGTH_MAX: usize = 200;

/// A segment or subsegment that is to be checked. The place is that in the list of its parent.
struct Part<'a> {
    object: &'a Map<String, Value>,
    parent: usize,
    place: usize,
}

/// Checks a whole document, including all embedded subsegments.
pub(super) fn check(root: &Map<String, Value>) -> Result<(), Box<Violation>> {
    let is_segment = string(root, "type") != Some("subsegment");
    check_root(root, is_segment).map_err(|wrong| violation(root, wrong, String::new(), None))?;
    let mut parts = vec![Part { object: root, parent: 0, place: 0 }];
    let mut at = 0;
    while at < parts.len() {
        let object = parts[at].object;
        if at > 0 {
            check_subsegment(object)
                .map_err(|wrong| violation(root, wrong, path_of(&parts, at), Some(object)))?;
        }
        let below = subsegments(object).enumerate();
        parts.extend(below.map(|(place, object)| Part { object, parent: at, place }));
        at += 1;
    }
    Ok(())
}

/// A broken rule: the error code, the field, and a description.
type Wrong = (&'static str, &'static str, String);

fn wrong<T>(code: &'static str, field: &'static str, detail: &str) -> Result<T, Wrong> {
    Err((code, field, detail.to_owned()))
}

/// Describes a broken rule of a document. `part` is the embedded subsegment that breaks it.
fn violation(
    root: &Map<String, Value>,
    (code, field, mut detail): Wrong,
    path: String,
    part: Option<&Map<String, Value>>,
) -> Box<Violation> {
    if let Some(part) = part {
        detail = format!("In the subsegment {}: {detail}", shown(part));
    }
    let value = part.unwrap_or(root).get(field).map(|value| match value {
        Value::String(text) => text.chars().take(VALUE_LENGTH_MAX).collect(),
        other => other.to_string().chars().take(VALUE_LENGTH_MAX).collect(),
    });
    Box::new(Violation {
        id: string(root, "id").filter(|id| is_hexadecimal(id, 16)).map(str::to_owned),
        trace_id: string(root, "trace_id").filter(|id| is_trace_id(id)).map(str::to_owned),
        name: string(root, "name").unwrap_or_default().chars().take(NAME_LENGTH_MAX).collect(),
        is_subsegment: part.is_some() || string(root, "type") == Some("subsegment"),
        field: path + field,
        value,
        code,
        detail,
    })
}

/// Returns the path of an embedded subsegment in the document, such as `subsegments[2].`.
fn path_of(parts: &[Part<'_>], mut at: usize) -> String {
    let mut places = Vec::new();
    while at > 0 {
        places.push(parts[at].place);
        at = parts[at].parent;
    }
    let mut path = String::new();
    for place in places.iter().rev() {
        let _ = write!(path, "subsegments[{place}].");
    }
    path
}

fn check_root(root: &Map<String, Value>, is_segment: bool) -> Result<(), Wrong> {
    check_id(root)?;
    check_trace_id(root)?;
    check_name(root, is_segment)?;
    check_times(root)?;
    check_parent(root, is_segment)?;
    check_annotations(root)?;
    check_children(root)
}

/// Returns the value of `key`, or `None` if it is missing or null.
fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn check_id(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "id") {
        None => wrong("MissingId", "id", "No id"),
        Some(Value::String(id)) if is_hexadecimal(id, 16) => Ok(()),
        Some(_) => wrong("InvalidId", "id", "The id is not 16 hexadecimal digits"),
    }
}

fn check_trace_id(root: &Map<String, Value>) -> Result<(), Wrong> {
    match present(root, "trace_id") {
        None => wrong("MissingTraceId", "trace_id", "No trace_id"),
        Some(Value::String(id)) if is_trace_id(id) => Ok(()),
        Some(_) => {
            let example = "1-58406520-a006649127e371903a2de979";
            let detail = format!("The trace_id does not have the form of {example}");
            wrong("InvalidTraceId", "trace_id", &detail)
        }
    }
}

fn check_name(object: &Map<String, Value>, is_segment: bool) -> Result<(), Wrong> {
    let invalid = |detail: &str| wrong("InvalidName", "name", detail);
    let length_max = if is_segment { NAME_LENGTH_MAX } else { TEXT_LENGTH_MAX };
    match present(object, "name") {
        None => wrong("MissingName", "name", "No name"),
        Some(Value::String(name)) if name.is_empty() => invalid("The name is empty"),
        Some(Value::String(name)) if name.chars().nth(length_max).is_some() => {
            invalid(&format!("The name has more than {length_max} characters"))
        }
        Some(Value::String(name)) if !name.chars().all(is_of_a_name) => invalid(&format!(
            "The name contains {}. A name may have letters, numbers, spaces and {NAME_SYMBOLS}",
            refused_characters(name)
        )),
        Some(Value::String(_)) => Ok(()),
        Some(_) => invalid("The name is not a string"),
    }
}

/// Lists the characters of a name that are not allowed, each once: `"(" ")" and U+0007`.
fn refused_characters(name: &str) -> String {
    let mut found: Vec<char> = Vec::new();
    for character in name.chars().filter(|character| !is_of_a_name(*character)) {
        if !found.contains(&character) {
            found.push(character);
        }
    }
    let more_count = found.len().saturating_sub(NAMED_CHARACTER_COUNT_MAX);
    found.truncate(NAMED_CHARACTER_COUNT_MAX);
    let shown = found.iter().map(|character| match character {
        '!'..='~' => format!("\"{character}\""),
        _ => format!("U+{:04X}", u32::from(*character)),
    });
    let mut shown: Vec<String> = shown.collect();
    if more_count > 0 {
        shown.push(format!("{more_count} others"));
    }
    let last = shown.pop().unwrap_or_default();
    if shown.is_empty() { last } else { format!("{} and {last}", shown.join(" ")) }
}

/// Returns `name` without the characters that are not allowed, and not longer than a name may be.
/// Returns `None` if nothing is left.
pub fn mended_name(name: &str) -> Option<String> {
    let good: String = name.chars().filter(|character| is_of_a_name(*character)).collect();
    let good: String = good.trim().chars().take(NAME_LENGTH_MAX).collect();
    (!good.is_empty()).then_some(good)
}

fn check_times(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "start_time") {
        None => return wrong("MissingStartTime", "start_time", "No start_time"),
        Some(value) if is_time(value) => {}
        Some(_) => {
            let detail = "The start_time is not a number of seconds";
            return wrong("InvalidStartTime", "start_time", detail);
        }
    }
    let in_progress = match present(object, "in_progress") {
        None => false,
        // The Python SDK sends `"in_progress": false` with the completed document.
        Some(Value::Bool(in_progress)) => *in_progress,
        Some(_) => {
            let detail = "in_progress is neither true nor false";
            return wrong("InvalidInProgress", "in_progress", detail);
        }
    };
    match present(object, "end_time") {
        None if in_progress => Ok(()),
        None => wrong("MissingEndTime", "end_time", "Neither an end_time nor in_progress"),
        Some(value) if is_time(value) => Ok(()),
        Some(_) => wrong("InvalidEndTime", "end_time", "The end_time is not a number of seconds"),
    }
}

fn check_parent(root: &Map<String, Value>, is_segment: bool) -> Result<(), Wrong> {
    match present(root, "parent_id") {
        None if is_segment => Ok(()),
        None => wrong("MissingParentId", "parent_id", "A subsegment document without a parent_id"),
        Some(Value::String(id)) if is_hexadecimal(id, 16) => Ok(()),
        Some(_) => {
            wrong("InvalidParentId", "parent_id", "The parent_id is not 16 hexadecimal digits")
        }
    }
}

fn check_annotations(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "annotations") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => wrong("InvalidAnnotations", "annotations", "The annotations are not an object"),
    }
}

fn check_subsegment(subsegment: &Map<String, Value>) -> Result<(), Wrong> {
    check_id(subsegment)?;
    check_name(subsegment, false)?;
    check_times(subsegment)?;
    check_annotations(subsegment)?;
    check_children(subsegment)
}

/// Checks that all directly embedded subsegments are objects.
fn check_children(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "subsegments") {
        None => Ok(()),
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => Ok(()),
        Some(_) => {
            let detail = "The subsegments are not a list of objects";
            wrong("InvalidSubsegments", "subsegments", detail)
        }
    }
}

/// Returns the id of a subsegment for an error message. An invalid id is not repeated, because it
/// may be long or contain unsafe characters.
fn shown(subsegment: &Map<String, Value>) -> &str {
    string(subsegment, "id").filter(|id| is_hexadecimal(id, 16)).unwrap_or("without a valid id")
}

fn is_time(value: &Value) -> bool {
    seconds(Some(value)).is_some_and(|seconds| seconds >= 0.0)
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns whether `text` has the form of a trace id: `1-58406520-a006649127e371903a2de979`.
pub(super) fn is_trace_id(text: &str) -> bool {
    let mut parts = text.split('-');
    parts.next() == Some("1")
        && parts.next().is_some_and(|time| is_hexadecimal(time, 8))
        && parts.next().is_some_and(|unique| is_hexadecimal(unique, 24))
        && parts.next().is_none()
}

/// Returns whether a name may contain the character. The rules say: "Names can contain Unicode
/// letters, numbers, and whitespace, and the following symbols".
fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character.is_whitespace() || NAME_SYMBOLS.contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({"id": "70de5b6f19ff9a0a", "trace_id": "1-581cf771-a006649127e371903a2de979",
            "name": "www.example.com", "start_time": 1.5e9, "end_time": 1.5e9})
    }

    fn code(value: &Value) -> Option<&'static str> {
        check(value.as_object().unwrap()).err().map(|fault| fault.code)
    }

    /// Changes one field of a valid document and returns the error code, or `None` if the document
    /// is still valid.
    fn code_with(field: &str, value: Value) -> Option<&'static str> {
        let mut document = good();
        document[field] = value;
        code(&document)
    }

    #[test]
    fn each_missing_or_unusable_field_has_its_own_code() {
        assert_eq!(code(&good()), None);
        let name_of = |count: usize| json!("é".repeat(count));
        for (field, value, expected) in [
            ("id", Value::Null, Some("MissingId")),
            ("id", json!("70de5b6f19ff9a0"), Some("InvalidId")),
            ("id", json!("70de5b6f19ff9a0g"), Some("InvalidId")),
            ("id", json!("70DE5B6F19FF9A0A"), None),
            ("trace_id", Value::Null, Some("MissingTraceId")),
            ("trace_id", json!("2-581cf771-a006649127e371903a2de979"), Some("InvalidTraceId")),
            ("trace_id", json!("1-581cf77-1a006649127e371903a2de979"), Some("InvalidTraceId")),
            ("trace_id", json!("1-581cf771-a006649127e371903a2de979-"), Some("InvalidTraceId")),
            ("trace_id", json!("1-00000000-a006649127e371903a2de979"), None),
            ("name", Value::Null, Some("MissingName")),
            ("name", json!(""), Some("InvalidName")),
            ("name", json!("<script>"), Some("InvalidName")),
            ("name", json!("größe 価格 _.:/%&#=+\\-@"), None),
            ("name", name_of(200), None),
            ("name", name_of(201), Some("InvalidName")),
            ("start_time", Value::Null, Some("MissingStartTime")),
            ("start_time", json!("1.5"), Some("InvalidStartTime")),
            ("start_time", json!(-1), Some("InvalidStartTime")),
            ("end_time", Value::Null, Some("MissingEndTime")),
            ("end_time", json!([]), Some("InvalidEndTime")),
            ("in_progress", json!(false), None),
            ("in_progress", json!("yes"), Some("InvalidInProgress")),
            ("type", json!("subsegment"), Some("MissingParentId")),
            ("parent_id", json!("x"), Some("InvalidParentId")),
            ("annotations", json!([1]), Some("InvalidAnnotations")),
            ("namespace", json!("local"), None),
            ("subsegments", json!({}), Some("InvalidSubsegments")),
            ("subsegments", json!([7]), Some("InvalidSubsegments")),
        ] {
            assert_eq!(code_with(field, value.clone()), expected, "{field}: {value}");
        }
    }

    #[test]
    fn a_segment_is_in_progress_or_has_an_end() {
        let mut open = good();
        open["end_time"] = Value::Null;
        open["in_progress"] = json!(true);
        assert_eq!(code(&open), None);
        open["in_progress"] = json!(false);
        assert_eq!(code(&open), Some("MissingEndTime"));
    }

    #[test]
    fn the_name_of_a_subsegment_may_be_longer_but_has_the_same_characters() {
        let mut sub = good();
        sub["type"] = json!("subsegment");
        sub["parent_id"] = json!("70de5b6f19ff9a0b");
        for (name, expected) in [
            ("mysql at RouteBinding:?".to_owned(), Some("InvalidName")),
            ("Query()".to_owned(), Some("InvalidName")),
            ("$Proxy12.save".to_owned(), Some("InvalidName")),
            ("stock@inventory-db".to_owned(), None),
            ("x".repeat(250), None),
            ("x".repeat(251), Some("InvalidName")),
        ] {
            sub["name"] = json!(name);
            assert_eq!(code(&sub), expected, "{name}");
        }
    }

    #[test]
    fn embedded_subsegments_are_held_to_the_rules_at_any_depth() {
        let sub = json!({"id": "70de5b6f19ff9a0b", "name": "x", "start_time": 1, "end_time": 2});
        let deep = |inner: Value| {
            let mut middle = sub.clone();
            middle["subsegments"] = json!([sub, inner]);
            json!([middle])
        };
        assert_eq!(code_with("subsegments", deep(sub.clone())), None);
        for (field, expected) in [
            ("id", "MissingId"),
            ("name", "MissingName"),
            ("start_time", "MissingStartTime"),
            ("end_time", "MissingEndTime"),
        ] {
            let mut inner = sub.clone();
            inner[field] = Value::Null;
            assert_eq!(code_with("subsegments", deep(inner)), Some(expected));
        }
        let mut document = good();
        document["subsegments"] = json!([{"id": "<script>"}]);
        let fault = check(document.as_object().unwrap()).unwrap_err();
        assert_eq!((fault.code, fault.id.as_deref()), ("InvalidId", Some("70de5b6f19ff9a0a")));
        assert!(!fault.to_string().contains('<'), "{fault}");
    }
    #[test]
    fn a_violation_names_the_field_its_value_and_the_trace() {
        let sub = |name: &str| json!({"id": "70de5b6f19ff9a0b", "name": name, "start_time": 1, "end_time": 2});
        let mut outer = sub("outer");
        outer["subsegments"] = json!([sub("good"), sub("a"), sub("Query()\u{7}")]);
        let mut document = good();
        document["subsegments"] = json!([sub("first"), outer]);
        let fault = check(document.as_object().unwrap()).unwrap_err();
        assert_eq!(fault.field, "subsegments[1].subsegments[2].name");
        assert_eq!(fault.value.as_deref(), Some("Query()\u{7}"));
        assert_eq!(fault.trace_id.as_deref(), Some("1-581cf771-a006649127e371903a2de979"));
        assert_eq!((&*fault.name, fault.is_subsegment), ("www.example.com", true));
        assert!(
            fault.detail.contains(r#"contains "(" ")" and U+0007. A name may have"#),
            "{fault}"
        );
        assert!(fault.to_string().starts_with("Invalid subsegment. ErrorCode: InvalidName"));
        let mut document = good();
        document["end_time"] = json!(["x".repeat(1_000)]);
        let fault = check(document.as_object().unwrap()).unwrap_err();
        assert_eq!((&*fault.field, fault.is_subsegment), ("end_time", false));
        assert_eq!(fault.value.unwrap().chars().count(), VALUE_LENGTH_MAX);
    }

    #[test]
    fn a_mended_name_passes_the_rules() {
        for (name, expected) in [
            ("Query()", Some("Query")),
            ("mysql at RouteBinding:?", Some("mysql at RouteBinding:")),
            ("<>", None),
        ] {
            assert_eq!(mended_name(name).as_deref(), expected);
        }
        let long = mended_name(&"é(".repeat(500)).unwrap();
        assert_eq!(code_with("name", json!(long)), None);
    }

    #[test]
    fn many_refused_characters_are_not_all_named() {
        assert_eq!(refused_characters("(a)(b)"), r#""(" and ")""#);
        assert_eq!(refused_characters("<>!?*^~"), r#""<" ">" "!" "?" "*" and 2 others"#);
        assert_eq!(refused_characters("a'"), r#""'""#);
    }
}
