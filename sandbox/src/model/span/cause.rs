//! Makes the field `cause` of a document, and its status flags.
//!
//! An exception is an event with the name `exception`. Its stack is text, in the form of the
//! language (`stack.rs`).

use super::attributes::Attributes;
use super::{http, names, stack};
use crate::model::document::Flags;
use serde_json::{Map, Value, json};
use xrayd_otlp::message::{Event, Kind, Span};

/// Name of the event that is an exception.
pub const EXCEPTION: &str = "exception";
/// Name of the event of an AWS SDK for an attempt that failed.
const FAILED_ATTEMPT: &str = "HTTP request failure";

/// Largest number of exceptions of a span.
const EXCEPTION_COUNT_MAX: usize = 50;

/// Code of a status that is an error.
const ERROR: i32 = 2;

/// Returns the status flags of a span. The status code of HTTP counts first: some SDKs set no
/// status of the span.
pub fn flags(span: &Span, attributes: &Attributes<'_>) -> Flags {
    match attributes.integer(http::STATUS) {
        Some(code @ 400..=499) => Flags { error: true, throttle: code == 429, fault: false },
        Some(500..=599) => Flags { fault: true, ..Flags::default() },
        _ => Flags { fault: is_error(span), ..Flags::default() },
    }
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == ERROR)
}

/// Returns the field `cause`, or `None` if the span has no exception and no error with a message.
pub fn make(span: &Span, attributes: &Attributes<'_>, resource: &Attributes<'_>) -> Option<Value> {
    let language = resource.text("telemetry.sdk.language").unwrap_or_default();
    let is_of_sdk = names::is_of_aws_sdk(attributes);
    let mut exceptions = Exceptions { span_id: &span.span_id, list: Vec::new() };
    for event in &span.events {
        if exceptions.list.len() >= EXCEPTION_COUNT_MAX {
            break;
        }
        if event.name == EXCEPTION {
            exceptions.add_event(event, span.kind(), language);
        } else if is_of_sdk && event.name == FAILED_ATTEMPT {
            exceptions.add_attempt(event);
        }
    }
    if exceptions.list.is_empty() && is_error(span) {
        let message = span.status.as_ref().map(|status| status.message.as_str());
        let message = message.filter(|message| !message.is_empty());
        let message = message.or_else(|| attributes.take(&["http.status_text"]))?;
        exceptions.add(None, Some(message), None);
    }
    exceptions.list.truncate(EXCEPTION_COUNT_MAX);
    (!exceptions.list.is_empty()).then(|| json!({"exceptions": exceptions.list}))
}

/// The exceptions of a span, in the form of X-Ray.
struct Exceptions<'a> {
    span_id: &'a [u8],
    list: Vec<Value>,
}

impl Exceptions<'_> {
    /// Returns the id of the exception that is added next. The id is the same if the span is sent
    /// again.
    fn next_id(&self) -> String {
        let own = <[u8; 8]>::try_from(self.span_id).map_or(0, u64::from_be_bytes);
        let number = self.list.len() as u64 + 1;
        format!("{:016x}", own ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn add(&mut self, type_name: Option<&str>, message: Option<&str>, remote: Option<bool>) {
        let mut exception = Map::new();
        exception.insert("id".to_owned(), self.next_id().into());
        exception.extend(type_name.map(|it| ("type".to_owned(), it.into())));
        exception.extend(message.map(|it| ("message".to_owned(), it.into())));
        exception.extend(remote.map(|it| ("remote".to_owned(), it.into())));
        self.list.push(exception.into());
    }

    fn add_event(&mut self, event: &Event, kind: Kind, language: &str) {
        let attributes = Attributes::new(&event.attributes);
        let remote = Some(matches!(kind, Kind::Client | Kind::Producer));
        let text = attributes.text("exception.stacktrace").unwrap_or_default();
        let (type_name, message) =
            (attributes.text("exception.type"), attributes.text("exception.message"));
        self.add(type_name, message, remote);
        for (index, part) in stack::parse(language, text).into_iter().enumerate() {
            if index > 0 {
                let id = self.next_id();
                if let Some(last) = self.list.last_mut() {
                    last["cause"] = id.into();
                }
                self.add(Some(part.type_name), Some(&part.message), remote);
            }
            if let Some(last) = self.list.last_mut().filter(|_| !part.frames.is_empty()) {
                last["stack"] = part.frames.into();
                if part.truncated_count > 0 {
                    last["truncated"] = part.truncated_count.into();
                }
            }
        }
    }

    /// Adds an attempt of an AWS SDK that failed.
    fn add_attempt(&mut self, event: &Event) {
        let attributes = Attributes::new(&event.attributes);
        let code = attributes.take_shown(http::STATUS);
        if let Some((code, text)) = code.zip(attributes.text("aws.http.error_message")) {
            let micros = event.time_unix_nano / 1_000;
            let time = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            let message = format!("{code}@{time}@{text}");
            self.add(Some("aws.http.error.event"), Some(&message), Some(true));
        }
    }
}
