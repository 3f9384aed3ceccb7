//! What filters, summaries and the service graph need to know of one document.
//!
//! In: the object of a document. Out: [`Facts`], a few strings and numbers, so that a listing of
//! thousands of traces parses nothing again. Bound: the document's own size, which it is counted
//! with, and [`ANNOTATION_COUNT_MAX`]. Pure code without recursion.

use super::{Flags, seconds, string, subsegments};
use serde_json::{Map, Value};

/// Annotations of one trace that are indexed: "up to 50 annotations per trace".
pub const ANNOTATION_COUNT_MAX: usize = 50;

/// Longest key and longest string value that are indexed, in characters; from the same reference.
const KEY_LENGTH_MAX: usize = 500;
const VALUE_LENGTH_MAX: usize = 1_000;

/// What is known of a document.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The segment or subsegment itself, then all that is embedded in it.
    pub parts: Vec<Part>,
    /// The id of the part in another document that it was called from.
    pub parent_id: Option<u64>,
    /// Annotations of all parts, [`ANNOTATION_COUNT_MAX`] at most.
    pub annotations: Vec<(Box<str>, Annotation)>,
    /// Who made the request.
    pub user: Option<Box<str>>,
    /// The instance and the zone that the segment ran in.
    pub instance_id: Option<Box<str>>,
    /// The zone.
    pub availability_zone: Option<Box<str>>,
    /// The resource's ARN.
    pub resource_arn: Option<Box<str>>,
}

/// What a part is to the service graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A service at work.
    Segment,
    /// A call of a service to another one.
    Call,
    /// Work inside of a service.
    Local,
}

/// One segment or subsegment.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its id as a number, where it is one of 16 hexadecimal digits.
    pub id: Option<u64>,
    /// What it is.
    pub kind: Kind,
    /// The service's name, or that of what is called; empty for local work, where nobody asks.
    pub name: Box<str>,
    /// The segment's origin, or the type of what is called.
    pub type_name: Box<str>,
    /// Start, in seconds since 1970.
    pub start_time: f64,
    /// End, in seconds since 1970.
    pub end_time: Option<f64>,
    /// Whether its completed version is still to come.
    pub in_progress: bool,
    /// Its own flags.
    pub flags: Flags,
    /// Its request and response.
    pub http: Option<Box<Http>>,
}

impl Part {
    /// From start to end, when it has ended.
    pub fn duration_seconds(&self) -> Option<f64> {
        self.end_time.map(|end| end - self.start_time)
    }
}

/// What is known of a request and its response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http {
    /// Such as `GET`.
    pub method: Option<Box<str>>,
    /// The whole address.
    pub url: Option<Box<str>>,
    /// What the client calls itself.
    pub user_agent: Option<Box<str>>,
    /// The client's address.
    pub client_ip: Option<Box<str>>,
    /// Such as 200.
    pub status: Option<u32>,
}

/// The value of an annotation.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// True or false.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A text.
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
    /// Collects the facts of a document.
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
        let mut waiting = vec![(root, is_segment)];
        while let Some((object, is_segment)) = waiting.pop() {
            facts.parts.push(Part::of(object, is_segment));
            facts.add_annotations(object);
            waiting.extend(subsegments(object).rev().map(|child| (child, false)));
        }
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

    /// What it costs the store beside the document, in bytes.
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

/// "AWS::DynamoDB::Table for an Amazon DynamoDB table", "AWS::DynamoDB for downstream calls that
/// didn't target a specific table": the reference of `Service` in the API.
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
    let status = http.get("response").and_then(|response| response.get("status")?.as_u64());
    Some(Http {
        method: request("method"),
        url: request("url"),
        user_agent: request("user_agent"),
        client_ip: request("client_ip"),
        status: status.and_then(|status| u32::try_from(status).ok()),
    })
}

/// The number that 16 hexadecimal digits are.
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
