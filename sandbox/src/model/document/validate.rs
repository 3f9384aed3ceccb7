//! Checks a segment document against the published rules.
//!
//! In: the JSON object of a document. Out: nothing, or the first [`Violation`] found, with the
//! error code of the service. The rules are from
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>. Only the
//! rules of this page are checked: for example, an end may be before its start, and `http` may
//! contain anything. The time in a trace id is not checked, because the page says that it "is not
//! required or validated". No I/O, no clock, no recursion.

use super::{NAME_LENGTH_MAX, Violation, seconds, string, subsegments};
use serde_json::{Map, Value};

/// Longest name of a subsegment, in characters. The page says: "Values must be strings (up to 250
/// characters) unless noted otherwise."
const TEXT_LENGTH_MAX: usize = 250;

/// Checks a whole document, including all embedded subsegments.
pub(super) fn check(root: &Map<String, Value>) -> Result<(), Violation> {
    let id = check_id(root)?;
    let fault = |(code, detail)| Violation { id: Some(id.to_owned()), code, detail };
    check_trace_id(root).map_err(fault)?;
    let is_segment = string(root, "type") != Some("subsegment");
    check_name(root, is_segment).map_err(fault)?;
    check_times(root).map_err(fault)?;
    check_parent(root, is_segment).map_err(fault)?;
    check_annotations(root).map_err(fault)?;
    let mut waiting: Vec<_> = children(root).map_err(fault)?;
    while let Some(subsegment) = waiting.pop() {
        check_subsegment(subsegment).map_err(|(code, detail)| {
            fault((code, format!("In the subsegment {}: {detail}", shown(subsegment))))
        })?;
        waiting.extend(subsegments(subsegment));
    }
    Ok(())
}

/// A broken rule: the error code, and a description.
type Wrong = (&'static str, String);

fn wrong<T>(code: &'static str, detail: &str) -> Result<T, Wrong> {
    Err((code, detail.to_owned()))
}

/// Returns the value of `key`, or `None` if it is missing or null.
fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn check_id(root: &Map<String, Value>) -> Result<&str, Violation> {
    let fault = |code, detail: &str| Err(Violation { id: None, code, detail: detail.to_owned() });
    match present(root, "id") {
        None => fault("MissingId", "No id"),
        Some(Value::String(id)) if is_hexadecimal(id, 16) => Ok(id),
        Some(_) => fault("InvalidId", "The id is not 16 hexadecimal digits"),
    }
}

fn check_trace_id(root: &Map<String, Value>) -> Result<(), Wrong> {
    match present(root, "trace_id") {
        None => wrong("MissingTraceId", "No trace_id"),
        Some(Value::String(id)) if is_trace_id(id) => Ok(()),
        Some(_) => {
            let example = "1-58406520-a006649127e371903a2de979";
            wrong("InvalidTraceId", &format!("The trace_id does not have the form of {example}"))
        }
    }
}

fn check_name(object: &Map<String, Value>, is_segment: bool) -> Result<(), Wrong> {
    let length_max = if is_segment { NAME_LENGTH_MAX } else { TEXT_LENGTH_MAX };
    match present(object, "name") {
        None => wrong("MissingName", "No name"),
        Some(Value::String(name)) if name.is_empty() => wrong("InvalidName", "The name is empty"),
        Some(Value::String(name)) if name.chars().nth(length_max).is_some() => {
            wrong("InvalidName", &format!("The name has more than {length_max} characters"))
        }
        Some(Value::String(name)) if is_segment && !name.chars().all(is_of_a_name) => wrong(
            "InvalidName",
            "The name contains a character other than letters, numbers, spaces and _.:/%&#=+\\-@",
        ),
        Some(Value::String(_)) => Ok(()),
        Some(_) => wrong("InvalidName", "The name is not a string"),
    }
}

fn check_times(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "start_time") {
        None => return wrong("MissingStartTime", "No start_time"),
        Some(value) if is_time(value) => {}
        Some(_) => return wrong("InvalidStartTime", "The start_time is not a number of seconds"),
    }
    let in_progress = match present(object, "in_progress") {
        None => false,
        // The Python SDK sends `"in_progress": false` with the completed document.
        Some(Value::Bool(in_progress)) => *in_progress,
        Some(_) => return wrong("InvalidInProgress", "in_progress is neither true nor false"),
    };
    match present(object, "end_time") {
        None if in_progress => Ok(()),
        None => wrong("MissingEndTime", "Neither an end_time nor in_progress"),
        Some(value) if is_time(value) => Ok(()),
        Some(_) => wrong("InvalidEndTime", "The end_time is not a number of seconds"),
    }
}

fn check_parent(root: &Map<String, Value>, is_segment: bool) -> Result<(), Wrong> {
    match present(root, "parent_id") {
        None if is_segment => Ok(()),
        None => wrong("MissingParentId", "A subsegment document without a parent_id"),
        Some(Value::String(id)) if is_hexadecimal(id, 16) => Ok(()),
        Some(_) => wrong("InvalidParentId", "The parent_id is not 16 hexadecimal digits"),
    }
}

fn check_annotations(object: &Map<String, Value>) -> Result<(), Wrong> {
    match present(object, "annotations") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => wrong("InvalidAnnotations", "The annotations are not an object"),
    }
}

fn check_subsegment(subsegment: &Map<String, Value>) -> Result<(), Wrong> {
    match present(subsegment, "id") {
        None => return wrong("MissingId", "No id"),
        Some(Value::String(id)) if is_hexadecimal(id, 16) => {}
        Some(_) => return wrong("InvalidId", "The id is not 16 hexadecimal digits"),
    }
    check_name(subsegment, false)?;
    check_times(subsegment)?;
    check_annotations(subsegment)?;
    children(subsegment).map(drop)
}

/// Returns the directly embedded subsegments. All of them must be objects.
fn children(object: &Map<String, Value>) -> Result<Vec<&Map<String, Value>>, Wrong> {
    match present(object, "subsegments") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => {
            Ok(subsegments(object).collect())
        }
        Some(_) => wrong("InvalidSubsegments", "The subsegments are not a list of objects"),
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

/// Returns whether a segment's name may contain the character. The rules say: "Names can contain
/// Unicode letters, numbers, and whitespace, and the following symbols".
fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character.is_whitespace() || "_.:/%&#=+\\-@".contains(character)
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
    fn a_subsegment_has_other_names_and_needs_a_parent() {
        let mut sub = good();
        sub["type"] = json!("subsegment");
        sub["parent_id"] = json!("70de5b6f19ff9a0b");
        for (name, expected) in [
            ("SELECT * FROM <t>".to_owned(), None),
            ("x".repeat(250), None),
            ("x".repeat(251), Some("InvalidName")),
        ] {
            sub["name"] = json!(name);
            assert_eq!(code(&sub), expected, "{name}");
        }
    }

    #[test]
    fn embedded_subsegments_are_held_to_the_rules_at_any_depth() {
        let sub = json!({"id": "70de5b6f19ff9a0b", "name": "<x>", "start_time": 1, "end_time": 2});
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
}
