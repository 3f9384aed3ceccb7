//! Reads what a row shows from the JSON object of a segment or subsegment.
//!
//! In: the object. Out: a [`Node`] without links. Bound: [`TEXT_LENGTH_MAX`] characters of each
//! text. The texts may contain control characters.

use super::super::document::{Flags, seconds, string};
use serde_json::{Map, Value};

/// Longest text of a node, in characters. Longer texts are cut. The document has the whole text.
const TEXT_LENGTH_MAX: usize = 500;

/// The state of a segment or subsegment. The most serious state is the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has ended without a failure.
    #[default]
    Ok,
    /// It has not ended.
    Progress,
    /// The client made an error (4xx).
    Error,
    /// The server throttled the request (429).
    Throttle,
    /// The server failed (5xx).
    Fault,
}

impl State {
    /// Returns the word for this state: `ok`, `progress`, `error`, `throttle` or `fault`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Progress => "progress",
            Self::Error => "error",
            Self::Throttle => "throttle",
            Self::Fault => "fault",
        }
    }

    /// Returns whether the state is an error, a throttle or a fault.
    pub fn is_failed(self) -> bool {
        self >= Self::Error
    }

    fn of(object: &Map<String, Value>, in_progress: bool) -> Self {
        let flags = Flags::of(object);
        let http = object.get("http").and_then(|http| http.get("response"));
        let status = http.and_then(|response| response.get("status")?.as_f64()).unwrap_or(0.0);
        let is_throttled = (429.0..430.0).contains(&status);
        if flags.fault {
            Self::Fault
        } else if flags.throttle || (is_throttled && (flags.error || status >= 400.0)) {
            Self::Throttle
        } else if flags.error {
            Self::Error
        } else if status >= 500.0 {
            Self::Fault
        } else if status >= 400.0 {
            Self::Error
        } else if in_progress {
            Self::Progress
        } else {
            Self::Ok
        }
    }
}

/// Why a node is not placed below its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    /// The trace has no segment with the id of the parent.
    Missing,
    /// The links to parents form a ring.
    Ring,
}

/// Short notes about what a segment or subsegment did. A note that does not apply is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Method, path and status of the HTTP call, such as `GET /checkout 200`.
    pub http: String,
    /// Operation of the AWS service and its table, bucket or queue.
    pub aws: String,
    /// The SQL query.
    pub sql: String,
    /// Type and message of the first exception.
    pub exception: [String; 2],
}

/// One segment or subsegment.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Index of the document that contains it.
    pub document: usize,
    /// Positions in the lists of subsegments that lead to it from the root of the document.
    pub path: Vec<usize>,
    /// Its id. Empty if the document has none.
    pub id: String,
    /// Its name. `?` if the document has none.
    pub name: String,
    /// Whether it is a segment and not a subsegment.
    pub is_segment: bool,
    /// `sql`, `aws`, `remote`, or empty for work inside the service.
    pub namespace: &'static str,
    /// Start by its own clock, in seconds since 1970.
    pub start_time: Option<f64>,
    /// End by its own clock, in seconds since 1970.
    pub end_time: Option<f64>,
    /// Whether it is marked as in progress.
    pub is_open: bool,
    /// Its state.
    pub state: State,
    /// Notes about its work.
    pub notes: Notes,
    /// Whether it has an exception, or names the exception of another node.
    pub has_cause: bool,
    /// Index of the parent. `None` for a root.
    pub parent: Option<usize>,
    /// Id of the parent in another document. `None` for an embedded subsegment.
    pub parent_id: Option<String>,
    /// Why it is not below its parent.
    pub orphan: Option<Orphan>,
    /// Number of nodes above it.
    pub depth: usize,
    /// Seconds to add to its times, so that its clock fits the caller's.
    pub shift_seconds: f64,
    /// Index of the service that it belongs to. `None` if its segment is missing.
    pub service: Option<usize>,
}

impl Node {
    /// Returns the node of an object. `is_root` says that it is not an embedded subsegment.
    pub(super) fn of(object: &Map<String, Value>, is_root: bool) -> Self {
        let end_time = seconds(object.get("end_time"));
        let in_progress = object.get("in_progress") == Some(&Value::Bool(true));
        let namespace = match string(object, "namespace") {
            _ if object.get("sql").is_some_and(Value::is_object) => "sql",
            Some("aws") => "aws",
            Some("remote") => "remote",
            // The SDK for Python writes `local`, which is what every subsegment without a namespace
            // is.
            _ => "",
        };
        Self {
            id: cut(string(object, "id").unwrap_or_default()),
            name: cut(string(object, "name").filter(|name| !name.is_empty()).unwrap_or("?")),
            is_segment: is_root && string(object, "type") != Some("subsegment"),
            namespace,
            start_time: seconds(object.get("start_time")),
            end_time,
            is_open: in_progress,
            state: State::of(object, in_progress || end_time.is_none()),
            notes: Notes::of(object),
            has_cause: object.get("cause").is_some_and(|cause| !cause.is_null()),
            ..Self::default()
        }
    }
}

impl Notes {
    fn of(object: &Map<String, Value>) -> Self {
        let sql = object.get("sql").and_then(|sql| sql.get("sanitized_query")?.as_str());
        let exception = object.get("cause").and_then(|cause| cause.get("exceptions")?.get(0));
        let of_exception = |key: &str| {
            let text = exception.and_then(|exception| exception.get(key)?.as_str());
            cut(text.unwrap_or_default())
        };
        Self {
            http: http(object),
            aws: aws(object),
            sql: cut(sql.unwrap_or_default()),
            exception: [of_exception("type"), of_exception("message")],
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_LENGTH_MAX).collect()
}

/// Joins the words that are not empty.
fn join(words: &[String]) -> String {
    let filled: Vec<&str> = words.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
    filled.join(" ")
}

fn http(object: &Map<String, Value>) -> String {
    let Some(http) = object.get("http") else { return String::new() };
    let part = |group: &str, key: &str| http.get(group).and_then(|group| group.get(key));
    let text = |key: &str| part("request", key).and_then(Value::as_str).unwrap_or_default();
    let status = part("response", "status").and_then(Value::as_f64);
    let status = status.filter(|status| (0.0..1e4).contains(status));
    join(&[
        cut(text("method")),
        cut(path_of(text("url"))),
        status.map_or_else(String::new, |status| status.to_string()),
    ])
}

fn aws(object: &Map<String, Value>) -> String {
    let Some(aws) = object.get("aws") else { return String::new() };
    let text = |key: &str| aws.get(key).and_then(Value::as_str);
    let queue = || text("queue_url").and_then(|url| path_of(url).rsplit('/').next());
    let resource = text("table_name").or_else(|| text("bucket_name")).or_else(queue);
    join(&[cut(text("operation").unwrap_or_default()), cut(resource.unwrap_or_default())])
}

/// Returns the path of a URL.
///
/// The host is left out because the name of the segment shows it. The query is left out because it
/// may contain secrets.
pub(super) fn path_of(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => url,
    }
}
