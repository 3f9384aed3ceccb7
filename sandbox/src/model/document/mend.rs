//! Says how to mend a document that breaks a rule.
//!
//! In: a [`Violation`]. Out: one or two sentences for the author of the application. No I/O, no
//! clock.

use super::Violation;
use super::validate::mended_name;

const STREAM: &str = "Let the SDK send subsegments on their own: lower its streaming threshold \
    (`streaming_threshold` in Python, `setStreamingThreshold` in Node.js and Java). Keep large \
    values out of metadata.";

const TIME: &str = "Write the seconds since 1970 as a JSON number, such as 1478293361.271: no text, \
    no milliseconds, no value below 0.";

impl Violation {
    /// Says how to mend the document.
    pub fn mend(&self) -> String {
        let text = match self.code {
            "DocumentTooLarge" => STREAM,
            "ParseError" => return self.mend_text(),
            "InvalidName" => return self.mend_name(),
            "MissingId" | "InvalidId" => {
                "Give each segment and subsegment an id of 16 hexadecimal digits, such as \
                 70de5b6f19ff9a0a."
            }
            "MissingTraceId" | "InvalidTraceId" => {
                "A trace id is 1-, 8 hexadecimal digits (the start in seconds), - and 24 random \
                 hexadecimal digits. Write the 32 digits of a W3C trace id as 1-FIRST8-LAST24."
            }
            "MissingName" => {
                "Give each segment the name of its service, and each subsegment the \
                 name of what it calls or does."
            }
            "MissingStartTime" | "InvalidStartTime" | "InvalidEndTime" => TIME,
            "MissingEndTime" => {
                "Close the segment or subsegment before it is sent (`end_segment`, \
                 `end_subsegment`, `close`), also where an exception leaves the code. To show work \
                 that is not done, send \"in_progress\": true, and the whole document later."
            }
            "InvalidInProgress" => {
                "Write \"in_progress\": true until there is an end_time, and leave the field out \
                 then."
            }
            "MissingParentId" => {
                "Give a subsegment that is sent on its own (\"type\": \"subsegment\") the id of its \
                 segment or subsegment as parent_id."
            }
            "InvalidParentId" => {
                "Write the 16 hexadecimal digits of the calling segment or subsegment, or leave the \
                 field out where there is none."
            }
            "InvalidAnnotations" => {
                "Write an object whose values are texts, numbers or booleans, such as \
                 {\"customer\": \"returning\"}."
            }
            "InvalidSubsegments" => "Write a list of objects, or leave the field out.",
            _ => "",
        };
        text.to_owned()
    }

    fn mend_text(&self) -> String {
        let text = if self.detail.contains("OpenTelemetry") {
            "T1S, T1U and M1 are the prefixes of OpenTelemetry's UDP exporters: base64 of a \
             protobuf message has to follow."
        } else if self.detail.contains("nested deeper") {
            "Embed subsegments in at most 128 levels."
        } else if self.detail.contains("EOF") {
            return format!("The text ends in the middle: its sender has cut it. {STREAM}");
        } else {
            "Send one JSON object for each segment. Let a JSON library write it: quotation marks and \
             line breaks in texts have to be escaped, and NaN is no JSON."
        };
        text.to_owned()
    }

    fn mend_name(&self) -> String {
        let name = self.value.as_deref().filter(|_| !self.detail.contains("not a string"));
        match name.and_then(mended_name) {
            Some(good) => format!("Change the name, for example to \"{good}\"."),
            None => "Write a text of letters, numbers, spaces and the symbols above.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use serde_json::{Value, json};

    fn mend_of(field: &str, value: Value) -> String {
        let mut document = json!({"id": "70de5b6f19ff9a0a", "name": "n", "start_time": 1.5e9,
            "trace_id": "1-581cf771-a006649127e371903a2de979", "end_time": 1.5e9});
        document[field] = value;
        Document::parse(&document.to_string()).unwrap_err().mend()
    }

    #[test]
    fn each_rule_has_a_way_to_mend_the_document() {
        for (field, value, expected) in [
            ("id", json!(null), "16 hexadecimal digits"),
            ("id", json!("x"), "16 hexadecimal digits"),
            ("trace_id", json!(null), "W3C"),
            ("trace_id", json!("x"), "1-FIRST8-LAST24"),
            ("name", json!(null), "name of its service"),
            ("name", json!("Query()"), "to \"Query\"."),
            ("name", json!("<>"), "letters, numbers"),
            ("name", json!(7), "letters, numbers"),
            ("start_time", json!(null), "seconds since 1970"),
            ("start_time", json!("x"), "no milliseconds"),
            ("end_time", json!(null), "Close the segment"),
            ("end_time", json!("x"), "seconds since 1970"),
            ("in_progress", json!("x"), "\"in_progress\": true"),
            ("type", json!("subsegment"), "as parent_id"),
            ("parent_id", json!("x"), "leave the field out"),
            ("annotations", json!([1]), "\"customer\""),
            ("subsegments", json!([1]), "list of objects"),
        ] {
            let mend = mend_of(field, value.clone());
            assert!(mend.contains(expected), "{field} {value}: {mend}");
        }
    }

    #[test]
    fn a_text_that_is_no_document_has_a_way_too() {
        for (text, expected) in [
            ("not json", "escaped"),
            ("{\"id\": \"7", "has cut it"),
            (&*"[".repeat(1_000), "128 levels"),
            (&*" ".repeat(70_000), "streaming threshold"),
            ("[]", "16 hexadecimal digits"),
        ] {
            let mend = Document::parse(text).unwrap_err().mend();
            assert!(mend.contains(expected), "{mend}");
        }
    }
}
