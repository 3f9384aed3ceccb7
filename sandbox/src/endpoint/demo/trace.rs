//! Makes the segments and subsegments of a trace of the demo.
//!
//! In: the start of the trace, and for each part its name, its times and its other fields. Out:
//! JSON. No I/O, no clock, but random ids.

use serde_json::{Value, json};
use std::time::Duration;

/// Origin of the shop's segments. The service graph identifies a service by name and origin, so
/// every segment of the shop must have the same origin.
pub(super) const ORIGIN: &str = "AWS::EC2::Instance";

/// The two hosts of the shop: instance and availability zone.
const HOSTS: [(&str, &str); 2] =
    [("i-0a1f6c2b9d3e47a51", "eu-central-1a"), ("i-0c84e7d15b6f2a093", "eu-central-1b")];

/// Start and end of a part, in milliseconds since the start of the trace.
pub(super) type FromTo = (u32, u32);

/// The id and the start of a trace, and the host that serves it.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: String,
    start_seconds: f64,
    host: usize,
}

impl Trace {
    /// Returns a trace with a new random id. `host` is the number of a host of the shop.
    pub(super) fn new(start_seconds: f64, host: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let epoch = start_seconds.max(0.0) as u64 & 0xffff_ffff;
        let unique = fastrand::u128(..) >> 32;
        Self { id: format!("1-{epoch:08x}-{unique:024x}"), start_seconds, host }
    }

    /// Returns a time of the trace, in nanoseconds since 1970.
    pub(super) fn nanoseconds(&self, ms: u32) -> u64 {
        let since_1970 = Duration::from_secs_f64(self.start_seconds.max(0.0) + f64::from(ms) / 1e3);
        u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns a segment or subsegment with the additional fields `more`. Without an end, it is in
    /// progress.
    fn timed(&self, id: &str, name: &str, from_ms: u32, to_ms: Option<u32>, more: Value) -> Value {
        // Whole microseconds, as SDKs write them.
        let seconds = |ms: u32| ((self.start_seconds + f64::from(ms) / 1e3) * 1e6).round() / 1e6;
        let mut part = more;
        part["id"] = json!(id);
        part["name"] = json!(name);
        part["start_time"] = json!(seconds(from_ms));
        match to_ms {
            Some(to_ms) => part["end_time"] = json!(seconds(to_ms)),
            None => part["in_progress"] = json!(true),
        }
        part
    }

    /// Returns an embedded subsegment with a given id.
    pub(super) fn part(&self, id: &str, name: &str, (from, to): FromTo, more: Value) -> Value {
        self.timed(id, name, from, Some(to), more)
    }

    /// Returns an embedded subsegment.
    pub(super) fn step(&self, name: &str, from_to_ms: FromTo, more: Value) -> Value {
        self.part(&id(), name, from_to_ms, more)
    }

    /// Returns a segment, or a subsegment in a document of its own.
    pub(super) fn document(&self, id: &str, name: &str, from_to: FromTo, more: Value) -> Value {
        let mut document = self.part(id, name, from_to, more);
        document["trace_id"] = json!(self.id);
        document
    }

    /// Returns the segment of a service below the shop, which runs in a container.
    pub(super) fn service(&self, id: &str, name: &str, from_to: FromTo, more: Value) -> Value {
        let mut document = self.document(id, name, from_to, more);
        document["origin"] = json!("AWS::ECS::Container");
        document
    }

    /// Returns a segment in progress.
    pub(super) fn open(&self, id: &str, name: &str, from_ms: u32, more: Value) -> Value {
        let mut document = self.timed(id, name, from_ms, None, more);
        document["trace_id"] = json!(self.id);
        document
    }

    /// Adds the fields that the plugin of an SDK adds on the shop's host.
    pub(super) fn on_host(&self, mut fields: Value) -> Value {
        let (instance, zone) = HOSTS[self.host % HOSTS.len()];
        fields["origin"] = json!(ORIGIN);
        fields["aws"] = json!({"ec2": {"instance_id": instance, "availability_zone": zone}});
        fields
    }
}

/// Returns a random id for a segment: 16 hexadecimal digits.
pub(super) fn id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Returns the field `http`.
pub(super) fn http(method: &str, url: &str, status: u16) -> Value {
    json!({"request": {"method": method, "url": url}, "response": {"status": status}})
}

/// Returns the fields of a call of another service.
pub(super) fn call(method: &str, url: &str, status: u16) -> Value {
    let call = json!({"namespace": "remote", "http": http(method, url, status)});
    with_flags(call, status)
}

/// Returns the fields of a segment that answered a request.
pub(super) fn served(method: &str, url: &str, status: u16) -> Value {
    with_flags(json!({"http": http(method, url, status)}), status)
}

/// Sets the flags that SDKs set for an HTTP status.
fn with_flags(mut fields: Value, status: u16) -> Value {
    match status {
        429 => {
            fields["error"] = json!(true);
            fields["throttle"] = json!(true);
        }
        400..500 => fields["error"] = json!(true),
        500.. => fields["fault"] = json!(true),
        _ => {}
    }
    fields
}

/// Returns the fields of a call of an AWS service with a table.
pub(super) fn table(operation: &str, table: &str) -> Value {
    json!({
        "namespace": "aws",
        "aws": {"operation": operation, "table_name": table, "region": "eu-central-1",
            "request_id": id().to_uppercase()},
        "http": {"response": {"status": 200}},
    })
}

/// Returns the fields of an SQL query.
pub(super) fn query(text: &str) -> Value {
    json!({
        "namespace": "remote",
        "sql": {"database_type": "PostgreSQL", "database_version": "16.4", "user": "app",
            "sanitized_query": text},
    })
}

/// Adds fields to an object.
pub(super) fn with(mut fields: Value, more: &Value) -> Value {
    if let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) {
        fields.extend(more.clone());
    }
    fields
}
