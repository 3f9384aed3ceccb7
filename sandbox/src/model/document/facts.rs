//! Extracts the fields of a document that filters, summaries and the service graph need.
//!
//! In: the JSON object of a document. Out: [`Facts`]. With them, a list of thousands of traces does
//! not need to parse the documents again. Bound: the size of the document, and
//! [`ANNOTATION_COUNT_MAX`]. The store counts the memory of the facts. No I/O, no clock, no
//! recursion.

use super::words::{Collector, Words};
use super::{Flags, seconds, seconds_between, string, subsegments, whole};
use serde_json::{Map, Value};

/// Largest number of indexed annotations of one trace. The service indexes "up to 50 annotations
/// per trace", <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html>.
pub const ANNOTATION_COUNT_MAX: usize = 50;

/// Longest key of an indexed annotation, in characters. The source is the page of
/// [`ANNOTATION_COUNT_MAX`].
const KEY_LENGTH_MAX: usize = 500;
/// Longest string value of an indexed annotation, in characters. The source is the page of
/// [`ANNOTATION_COUNT_MAX`].
const VALUE_LENGTH_MAX: usize = 1_000;

/// The extracted fields of a document.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The segment or subsegment of the document, then all subsegments that are embedded in it.
    pub parts: Vec<Part>,
    /// Id of the parent: a segment or subsegment of another document.
    pub parent_id: Option<u64>,
    /// Annotations of the segment and its subsegments, at most [`ANNOTATION_COUNT_MAX`].
    pub annotations: Vec<(Box<str>, Annotation)>,
    /// User who made the request.
    pub user: Option<Box<str>>,
    /// EC2 instance that the segment ran on.
    pub instance_id: Option<Box<str>>,
    /// Availability zone that the segment ran in.
    pub availability_zone: Option<Box<str>>,
    /// ARN of the resource that the segment ran on.
    pub resource_arn: Option<Box<str>>,
    /// The texts that the search of the page finds.
    pub words: Words,
}

/// The role of a segment or subsegment in the service graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The work of a service for one request.
    Segment,
    /// A call from a service to another service.
    Call,
    /// Work inside a service. The service graph ignores a subsegment of this kind.
    Local,
}

/// The extracted fields of one segment or subsegment.
#[derive(Debug, Clone)]
pub struct Part {
    /// Id of the segment or subsegment, as a number. `None` if the id does not consist of 16
    /// hexadecimal digits.
    pub id: Option<u64>,
    /// Role of the segment or subsegment in the service graph.
    pub kind: Kind,
    /// For [`Kind::Segment`]: name of the service. For [`Kind::Call`]: name of the called service.
    /// Empty for [`Kind::Local`].
    pub name: Box<str>,
    /// For [`Kind::Segment`]: the origin, such as `AWS::EC2::Instance`. For [`Kind::Call`]: type of
    /// the called service, such as `AWS::S3`. Empty for [`Kind::Local`].
    pub type_name: Box<str>,
    /// Start of the segment or subsegment, in seconds since 1970.
    pub start_time: f64,
    /// End of the segment or subsegment, in seconds since 1970. `None` if it has no end.
    pub end_time: Option<f64>,
    /// Whether the segment or subsegment is marked as in progress.
    pub in_progress: bool,
    /// Status flags of the segment or subsegment, without those of embedded subsegments.
    pub flags: Flags,
    /// HTTP request and response of the segment or subsegment.
    pub http: Option<Box<Http>>,
}

impl Part {
    /// Returns the time from start to end, or `None` if the segment or subsegment has no end.
    pub fn duration_seconds(&self) -> Option<f64> {
        self.end_time.map(|end| seconds_between(self.start_time, end))
    }
}

/// The extracted fields of an HTTP request and its response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http {
    /// Method, such as `GET`.
    pub method: Option<Box<str>>,
    /// URL of the request.
    pub url: Option<Box<str>>,
    /// User agent of the client.
    pub user_agent: Option<Box<str>>,
    /// IP address of the client.
    pub client_ip: Option<Box<str>>,
    /// Status code, such as 200.
    pub status: Option<u32>,
}

/// The value of an annotation.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// An annotation with a boolean value.
    Boolean(bool),
    /// An annotation with a number as value.
    Number(f64),
    /// An annotation with a string as value.
    Text(Box<str>),
}

impl Annotation {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Boolean(*value)),
            Value::Number(value) => value.as_f64().map(Self::Number),
            Value::String(text) if text.chars().count() <= VALUE_LENGTH_MAX => {
                Some(Self::Text(text.as_str().into()))
            }
            _ => None,
        }
    }
}

impl Facts {
    /// Extracts the facts from the JSON object of a document.
    pub fn of(root: &Map<String, Value>) -> Self {
        let is_segment = string(root, "type") != Some("subsegment");
        let aws = |group: &str, key: &str| {
            root.get("aws").and_then(|aws| aws.get(group)?.get(key)?.as_str()).map(Box::from)
        };
        let zone = || aws("ec2", "availability_zone").or_else(|| aws("ecs", "availability_zone"));
        let mut facts = Self {
            parent_id: string(root, "parent_id").and_then(number_of),
            user: string(root, "user").map(Box::from),
            instance_id: aws("ec2", "instance_id").filter(|_| is_segment),
            availability_zone: zone().filter(|_| is_segment),
            resource_arn: string(root, "resource_arn").map(Box::from),
            ..Self::default()
        };
        let mut words = Collector::default();
        let mut waiting = vec![(root, is_segment)];
        while let Some((object, is_segment)) = waiting.pop() {
            facts.parts.push(Part::of(object, is_segment));
            facts.add_annotations(object);
            words.add(object);
            waiting.extend(subsegments(object).rev().map(|child| (child, false)));
        }
        facts.words = words.finish();
        facts
    }

    fn add_annotations(&mut self, object: &Map<String, Value>) {
        let annotations = object.get("annotations").and_then(Value::as_object);
        for (key, value) in annotations.into_iter().flatten() {
            if self.annotations.len() == ANNOTATION_COUNT_MAX {
                return;
            }
            if !key.is_empty() && key.chars().count() <= KEY_LENGTH_MAX {
                let annotation = Annotation::of(value).map(|value| (Box::from(&**key), value));
                self.annotations.extend(annotation);
            }
        }
    }

    /// Returns the size of the facts in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        let texts = |texts: &[&Option<Box<str>>]| -> usize {
            texts.iter().filter_map(|text| text.as_deref()).map(str::len).sum()
        };
        let part_size = |part: &Part| {
            let http = part.http.as_deref().map_or(0, |http| {
                let all = [&http.method, &http.url, &http.user_agent, &http.client_ip];
                size_of::<Http>() + texts(&all)
            });
            size_of::<Part>() + part.name.len() + part.type_name.len() + http
        };
        let annotation_size = |(key, value): &(Box<str>, Annotation)| {
            let text = if let Annotation::Text(text) = value { text.len() } else { 0 };
            size_of::<(Box<str>, Annotation)>() + key.len() + text
        };
        let own = [&self.user, &self.instance_id, &self.availability_zone, &self.resource_arn];
        self.parts.iter().map(part_size).sum::<usize>()
            + self.annotations.iter().map(annotation_size).sum::<usize>()
            + texts(&own)
            + self.words.size_bytes()
    }
}

impl Part {
    fn of(object: &Map<String, Value>, is_segment: bool) -> Self {
        let name = string(object, "name").unwrap_or_default();
        let (kind, name, type_name) = if is_segment {
            (Kind::Segment, name, string(object, "origin").unwrap_or_default().into())
        } else {
            match string(object, "namespace") {
                Some("aws") => {
                    let (name, type_name) = aws_resource(object, name);
                    (Kind::Call, name, type_name)
                }
                Some("remote") => (Kind::Call, name, remote_type(object).into()),
                _ => (Kind::Local, "", String::new()),
            }
        };
        Self {
            id: string(object, "id").and_then(number_of),
            kind,
            name: name.chars().take(super::NAME_LENGTH_MAX).collect(),
            type_name: type_name.chars().take(super::NAME_LENGTH_MAX).collect(),
            start_time: seconds(object.get("start_time")).unwrap_or_default(),
            end_time: seconds(object.get("end_time")),
            in_progress: object.get("in_progress") == Some(&Value::Bool(true)),
            flags: Flags::of(object),
            http: http(object).map(Box::new),
        }
    }
}

/// Returns the name and the type of the AWS resource that is called.
///
/// The API reference says about the type: "AWS::DynamoDB::Table for an Amazon DynamoDB table",
/// "AWS::DynamoDB for downstream calls that didn't target a specific table", see
/// <https://docs.aws.amazon.com/xray/latest/api/API_Service.html>.
fn aws_resource<'a>(object: &'a Map<String, Value>, name: &'a str) -> (&'a str, String) {
    let table = object.get("aws").and_then(|aws| aws.get("table_name")?.as_str());
    match table {
        Some(table) if name == "DynamoDB" => (table, "AWS::DynamoDB::Table".to_owned()),
        _ => (name, format!("AWS::{name}")),
    }
}

fn remote_type(object: &Map<String, Value>) -> &'static str {
    if object.contains_key("sql") { "Database::SQL" } else { "remote" }
}

fn http(object: &Map<String, Value>) -> Option<Http> {
    let http = object.get("http")?.as_object()?;
    let request = |key: &str| {
        http.get("request").and_then(|request| request.get(key)?.as_str()).map(Box::from)
    };
    let status = whole(http.get("response").and_then(|response| response.get("status")));
    Some(Http {
        method: request("method"),
        url: request("url"),
        user_agent: request("user_agent"),
        client_ip: request("client_ip"),
        status: status.and_then(|status| u32::try_from(status).ok()),
    })
}

/// Parses an id of 16 hexadecimal digits. Returns `None` for any other text.
pub fn number_of(id: &str) -> Option<u64> {
    let is_plain = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u64::from_str_radix(id, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(value: &Value) -> Facts {
        Facts::of(value.as_object().unwrap())
    }

    #[test]
    fn parts_come_in_the_order_of_the_document_with_what_they_call() {
        let facts = facts(&json!({
            "id": "00000000000000aa", "name": "shop", "origin": "AWS::EC2::Instance",
            "start_time": 1.0, "end_time": 3.5, "user": "u", "parent_id": "00000000000000ff",
            "http": {"request": {"url": "http://s/"}, "response": {"status": 201}},
            "aws": {"ec2": {"instance_id": "i-1", "availability_zone": "z"}},
            "subsegments": [
                {"id": "00000000000000ab", "name": "render", "subsegments": [
                    {"name": "db", "namespace": "remote", "sql": {}}]},
                {"name": "DynamoDB", "namespace": "aws", "aws": {"table_name": "carts"}},
                {"name": "S3", "namespace": "aws", "fault": true},
                {"name": "api", "namespace": "remote", "in_progress": true},
            ],
        }));
        let parts: Vec<_> =
            facts.parts.iter().map(|part| (part.kind, &*part.name, &*part.type_name)).collect();
        assert_eq!(
            parts,
            [
                (Kind::Segment, "shop", "AWS::EC2::Instance"),
                (Kind::Local, "", ""),
                (Kind::Call, "db", "Database::SQL"),
                (Kind::Call, "carts", "AWS::DynamoDB::Table"),
                (Kind::Call, "S3", "AWS::S3"),
                (Kind::Call, "api", "remote"),
            ]
        );
        assert_eq!((facts.parts[0].id, facts.parts[1].id), (Some(0xaa), Some(0xab)));
        assert_eq!(facts.parts[0].duration_seconds(), Some(2.5));
        assert_eq!(facts.parts[0].http.as_ref().unwrap().status, Some(201));
        assert_eq!((facts.parent_id, facts.user.as_deref()), (Some(0xff), Some("u")));
        assert_eq!(facts.instance_id.as_deref(), Some("i-1"));
        assert!(facts.parts[4].flags.fault && facts.parts[5].in_progress);
    }

    #[test]
    fn fifty_annotations_of_the_three_types_are_indexed() {
        let mut annotations = json!({"a": "x", "b": 1.5, "c": true, "list": [], "null": null,
            "long": "x".repeat(1_001), "": 1});
        for number in 0..60 {
            annotations[format!("n{number}")] = json!(number);
        }
        let facts = facts(&json!({"subsegments": [{"annotations": annotations}]}));
        assert_eq!(facts.annotations.len(), ANNOTATION_COUNT_MAX);
        let find = |key: &str| facts.annotations.iter().find(|(held, _)| &**held == key);
        assert_eq!(find("a").unwrap().1, Annotation::Text("x".into()));
        assert_eq!(find("b").unwrap().1, Annotation::Number(1.5));
        assert_eq!(find("c").unwrap().1, Annotation::Boolean(true));
        for key in ["list", "null", "long", ""] {
            assert!(find(key).is_none(), "{key}");
        }
    }

    #[test]
    fn odd_values_are_no_facts() {
        let facts = facts(&json!({"id": "xyz", "name": 1, "start_time": "now", "http": [],
            "subsegments": [{"http": {"request": 5, "response": {"status": 1e30}}}, 7],
            "annotations": "none", "aws": {"ec2": 1}, "user": {}}));
        assert_eq!(facts.parts.len(), 2);
        assert_eq!((facts.parts[0].id, facts.user), (None, None));
        assert_eq!(*facts.parts[1].http.as_ref().unwrap().as_ref(), Http::default());
    }
}
