//! Makes the datagrams of the demo: four traces of a small web shop from the last two seconds.
//!
//! In: the time. Out: datagrams (header line and document) of four traces with new random ids. The
//! first trace is a checkout that succeeds. The second trace is an order that fails in another
//! service. The third trace is a request for a cart. A DynamoDB table throttles this request, and
//! its segment is first sent in progress. The fourth trace crosses from an X-Ray SDK to a service
//! with OpenTelemetry, whose spans come in the form of AWS's UDP exporters. Bound: ten datagrams.
//! No I/O, no clock, but random ids. The caller sends the datagrams through UDP, so that the daemon
//! handles them like those of an SDK.

use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xrayd_otlp::message::{Any, AnyValue, Event, KeyValue as Pair, Resource, Scope, Span, Status};
use xrayd_otlp::{Source, datagram};

const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// Origin of the shop's segments. The service graph identifies a service by name and origin, so
/// every segment of the shop must have the same origin.
const ORIGIN: &str = "AWS::ECS::Container";

/// Returns the datagrams, in the order in which the services would have sent them.
pub fn datagrams(now: SystemTime) -> Vec<Vec<u8>> {
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
    let at = |seconds_ago: f64| Trace::new(since_1970 - seconds_ago);
    let documents = [checkout(&at(2.0)), order(&at(1.5)), cart(&at(1.0))].concat();
    let mut texts: Vec<String> = documents.iter().map(Value::to_string).collect();
    texts.extend(recommendations(&at(0.6)));
    texts.into_iter().map(|text| format!("{HEADER}{text}").into_bytes()).collect()
}

/// The id and the start of a trace.
struct Trace {
    id: String,
    start_seconds: f64,
}

impl Trace {
    fn new(start_seconds: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let epoch = start_seconds.max(0.0) as u64 & 0xffff_ffff;
        let unique = fastrand::u128(..) >> 32;
        Self { id: format!("1-{epoch:08x}-{unique:024x}"), start_seconds }
    }

    /// Returns a time of the trace, in nanoseconds since 1970.
    fn nanoseconds(&self, ms: u32) -> u64 {
        let since_1970 = Duration::from_secs_f64(self.start_seconds.max(0.0) + f64::from(ms) / 1e3);
        u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns a span of OpenTelemetry whose parent is in its own process. `kind` is a number of
    /// the protocol.
    fn span(&self, id: &str, parent: &str, name: &str, kind: i32, from_to_ms: (u32, u32)) -> Span {
        Span {
            trace_id: digits(&self.id.replace('-', "")[1..]),
            span_id: digits(id),
            parent_span_id: digits(parent),
            name: name.to_owned(),
            kind,
            start_time_unix_nano: self.nanoseconds(from_to_ms.0),
            end_time_unix_nano: self.nanoseconds(from_to_ms.1),
            flags: 0x101,
            ..Span::default()
        }
    }

    fn event(&self, name: &str, at_ms: u32) -> Event {
        let time_unix_nano = self.nanoseconds(at_ms);
        Event { time_unix_nano, name: name.to_owned(), ..Event::default() }
    }

    /// Returns a segment or subsegment with the additional fields `more`. `from_to_ms` contains its
    /// start and its end, in milliseconds since the start of the trace.
    fn part(&self, id: &str, name: &str, from_to_ms: (u32, u32), more: Value) -> Value {
        let seconds = |ms: u32| self.start_seconds + f64::from(ms) / 1e3;
        let mut part = more;
        part["id"] = json!(id);
        part["name"] = json!(name);
        part["start_time"] = json!(seconds(from_to_ms.0));
        part["end_time"] = json!(seconds(from_to_ms.1));
        part
    }

    /// Returns a segment or subsegment as a separate document, which contains the id of the trace.
    fn document(&self, id: &str, name: &str, from_to_ms: (u32, u32), more: Value) -> Value {
        let mut document = self.part(id, name, from_to_ms, more);
        document["trace_id"] = json!(self.id);
        document
    }
}

/// Returns a random id for a segment: 16 hexadecimal digits.
fn id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

fn http(method: &str, url: &str, status: u16) -> Value {
    json!({"request": {"method": method, "url": url}, "response": {"status": status}})
}

/// Returns a successful trace with three services, an SQL query and a DynamoDB table.
fn checkout(trace: &Trace) -> Vec<Value> {
    let [shop, stock_call, stock, price_call, price] = std::array::from_fn(|_| id());
    let stock_url = "http://inventory.internal/items/42";
    let price_url = "http://pricing.internal/quote";
    let calls =
        json!([
        trace.part(&stock_call, "inventory", (18, 138), json!({
            "namespace": "remote", "http": http("GET", stock_url, 200),
        })),
        trace.part(&price_call, "pricing", (141, 236), json!({
            "namespace": "remote", "http": http("POST", price_url, 200),
        })),
        trace.part(&id(), "DynamoDB", (240, 275), json!({
            "namespace": "aws",
            "aws": {"operation": "GetItem", "table_name": "carts", "region": "eu-central-1"},
            "http": {"response": {"status": 200}},
        })),
        trace.part(&id(), "render", (280, 471), json!({})),
    ]);
    vec![
        trace.document(
            &stock,
            "inventory",
            (24, 131),
            json!({
                "parent_id": stock_call, "http": http("GET", stock_url, 200),
                "subsegments": [trace.part(&id(), "stock@inventory-db", (31, 118), json!({
                    "namespace": "remote",
                    "sql": {"database_type": "PostgreSQL",
                        "sanitized_query": "SELECT count FROM stock WHERE item = ?"},
                }))],
            }),
        ),
        trace.document(
            &price,
            "pricing",
            (147, 229),
            json!({
                "parent_id": price_call, "http": http("POST", price_url, 200),
            }),
        ),
        trace.document(
            &shop,
            "shop.example",
            (0, 482),
            json!({
                "origin": ORIGIN, "http": http("GET", "https://shop.example/checkout", 200),
                "annotations": {"customer": "returning"}, "subsegments": calls,
            }),
        ),
    ]
}

/// Returns a trace of an order: the payment service throws an exception, so the shop fails too.
fn order(trace: &Trace) -> Vec<Value> {
    let [shop, call, payment] = std::array::from_fn(|_| id());
    let url = "http://payments.internal/charge";
    let cause = json!({"working_directory": "/srv/payments", "exceptions": [{
        "id": id(), "type": "CardDeclined", "message": "the card issuer did not answer",
        "stack": [{"path": "charge.py", "line": 88, "label": "charge"}],
    }]});
    let calls = json!([trace.part(
        &call,
        "payments",
        (12, 318),
        json!({
            "namespace": "remote", "fault": true, "http": http("POST", url, 500),
        })
    )]);
    vec![
        trace.document(
            &payment,
            "payments",
            (19, 310),
            json!({
                "parent_id": call, "fault": true, "cause": cause, "http": http("POST", url, 500),
            }),
        ),
        trace.document(
            &shop,
            "shop.example",
            (0, 325),
            json!({
                "origin": ORIGIN, "fault": true,
                "http": http("POST", "https://shop.example/orders", 502),
                "subsegments": calls,
            }),
        ),
    ]
}

/// Returns the documents of a trace: a segment in progress, a separate subsegment, and the
/// completed segment.
fn cart(trace: &Trace) -> Vec<Value> {
    let shop = id();
    let url = "https://shop.example/cart";
    let mut open = trace.document(
        &shop,
        "shop.example",
        (0, 0),
        json!({
            "origin": ORIGIN, "in_progress": true,
            "http": {"request": {"method": "PUT", "url": url}},
        }),
    );
    if let Some(fields) = open.as_object_mut() {
        fields.remove("end_time");
    }
    vec![
        open,
        trace.document(
            &id(),
            "DynamoDB",
            (9, 164),
            json!({
                "type": "subsegment", "parent_id": shop, "namespace": "aws",
                "error": true, "throttle": true,
                "aws": {"operation": "PutItem", "table_name": "carts", "region": "eu-central-1"},
                "http": {"response": {"status": 400}},
                "cause": {"exceptions": [{"id": id(), "remote": true,
                    "type": "ProvisionedThroughputExceededException",
                    "message": "Rate of requests exceeds the allowed throughput"}]},
            }),
        ),
        trace.document(
            &shop,
            "shop.example",
            (0, 171),
            json!({
                "origin": ORIGIN, "error": true, "throttle": true, "http": http("PUT", url, 429),
            }),
        ),
    ]
}

/// Returns the documents of a trace with an X-Ray SDK and OpenTelemetry: the spans of the called
/// service, and then the segment of the caller.
fn recommendations(trace: &Trace) -> Vec<String> {
    let [shop, call] = std::array::from_fn(|_| id());
    let url = "http://recommendations.internal/for/42";
    let source = Source {
        resource: Resource {
            attributes: vec![
                text("service.name", "recommendations"),
                text("service.version", "1.4.2"),
                text("telemetry.sdk.name", "opentelemetry"),
                text("telemetry.sdk.language", "python"),
            ],
            ..Resource::default()
        },
        scope: Scope { name: "recommend.web".to_owned(), ..Scope::default() },
    };
    let calls = json!([trace.part(
        &call,
        "recommendations",
        (15, 211),
        json!({"namespace": "remote", "http": http("GET", url, 200)})
    )]);
    let page = "https://shop.example/items/42";
    let segment = trace.document(
        &shop,
        "shop.example",
        (0, 229),
        json!({"origin": ORIGIN, "http": http("GET", page, 200), "subsegments": calls}),
    );
    vec![datagram::document(&source, recommending(trace, &call)), segment.to_string()]
}

/// Returns the spans of the service that recommends. Its caller is the subsegment `call`.
fn recommending(trace: &Trace, call: &str) -> Vec<Span> {
    let [server, query, model] = std::array::from_fn(|_| id());
    vec![
        Span {
            attributes: vec![
                text("db.system.name", "postgresql"),
                text("db.namespace", "recommend"),
                text("server.address", "recommend-db"),
                text("db.query.text", "SELECT item FROM seen WHERE customer = $1"),
            ],
            ..trace.span(&query, &server, "SELECT seen", 3, (38, 81))
        },
        Span {
            events: vec![Event {
                attributes: vec![
                    text("exception.type", "ModelTimeout"),
                    text("exception.message", "no answer within 90 ms"),
                    text(
                        "exception.stacktrace",
                        "Traceback (most recent call last):\n  \
                         File \"/srv/recommend/model.py\", line 41, in rank\n    \
                         return self.model.run(items)\nModelTimeout: no answer within 90 ms\n",
                    ),
                ],
                ..trace.event("exception", 188)
            }],
            status: Some(Status { code: 2, message: "no answer within 90 ms".to_owned() }),
            ..trace.span(&model, &server, "rank", 1, (97, 189))
        },
        Span {
            attributes: vec![
                text("http.request.method", "GET"),
                text("url.scheme", "http"),
                text("server.address", "recommendations.internal"),
                text("url.path", "/for/42"),
                Pair { key: "http.response.status_code".to_owned(), value: any(Any::Int(200)) },
                text("fallback", "bestsellers"),
            ],
            events: vec![Event {
                attributes: vec![text("cache.key", "customer/42")],
                ..trace.event("cache miss", 37)
            }],
            // The parent is in another process.
            flags: 0x301,
            ..trace.span(&server, call, "GET /for/{customer}", 2, (22, 203))
        },
    ]
}

/// Returns the bytes of hexadecimal digits.
fn digits(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

/// Returns an attribute with a text.
fn text(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: any(Any::Text(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;
    use crate::model::document::{DOCUMENT_SIZE_BYTES_MAX, Document};
    use crate::model::span::{self, Content};
    use crate::model::store::{Limits, Moment, Store};
    use std::time::Instant;

    const NOW_SECONDS: u64 = 1_700_000_000;

    fn documents() -> Vec<Document> {
        let datagrams = datagrams(UNIX_EPOCH + Duration::from_secs(NOW_SECONDS));
        let parse = |datagram: &Vec<u8>| {
            let text = std::str::from_utf8(datagram).unwrap();
            let (header, document) = text.split_once('\n').unwrap();
            assert_eq!(header, r#"{"format":"json","version":1}"#);
            assert!(text.len() < DOCUMENT_SIZE_BYTES_MAX);
            match span::read_datagram(document) {
                Some(Ok(Content::Spans(spans))) => spans.documents,
                _ => vec![Document::parse(document).unwrap()],
            }
        };
        assert_eq!(datagrams.len(), 10);
        datagrams.iter().flat_map(parse).collect()
    }

    #[test]
    fn there_are_ten_datagrams_of_four_traces_in_the_form_of_the_service() {
        let documents = documents();
        let mut traces: Vec<&str> =
            documents.iter().map(|document| document.trace_id.as_str()).collect();
        traces.dedup();
        assert_eq!((documents.len(), traces.len()), (12, 4));
        for (trace, seconds_ago) in traces.iter().zip([2_u64, 2, 1, 1]) {
            let parts: Vec<&str> = trace.split('-').collect();
            assert_eq!((parts[0], parts[2].len()), ("1", 24));
            let start = u64::from_str_radix(parts[1], 16).unwrap();
            assert_eq!(start, NOW_SECONDS - seconds_ago, "{trace}");
        }
        for document in &documents {
            let end = document.end_time.unwrap_or(document.start_time);
            assert!(document.start_time <= end && end <= 1_700_000_000.0);
            assert_eq!(document.id.len(), 16);
        }
    }

    #[test]
    fn the_shop_is_one_service() {
        let documents = documents();
        let shop = documents.iter().filter(|document| document.name == "shop.example");
        let types: Vec<&str> = shop.map(|it| &*it.facts.parts[0].type_name).collect();
        assert_eq!(types, [ORIGIN; 5]);
    }

    #[test]
    fn every_call_has_fresh_ids() {
        let ids: std::collections::HashSet<String> =
            (0..20).flat_map(|_| documents()).map(|document| document.trace_id).collect();
        assert_eq!(ids.len(), 80);
    }

    #[test]
    fn the_trees_show_the_services_the_fault_and_the_throttle() {
        let mut store = Store::new(Limits::default(), 1);
        for document in documents() {
            store.insert(document, Moment { arrival: Instant::now(), wall_seconds: 0.0 });
        }
        let trees: Vec<String> = store
            .take_all()
            .iter()
            .map(|trace| tree::render(&trace.id, &trace.documents))
            .collect();
        let below = |tree: &str| tree.split_once('\n').unwrap().1.to_owned();
        assert!(trees[0].contains("  482 ms  3 segments, 5 subsegments\n"), "{}", trees[0]);
        assert_eq!(
            below(&trees[0]),
            "\
└─ shop.example  482 ms  GET /checkout 200
   ├─ inventory  120 ms  GET /items/42 200
   │  └─ inventory  107 ms  GET /items/42 200
   │     └─ stock@inventory-db  87 ms  SELECT count FROM stock WHERE item = ?
   ├─ pricing  95 ms  POST /quote 200
   │  └─ pricing  82 ms  POST /quote 200
   ├─ DynamoDB  35 ms  200  GetItem
   └─ render  191 ms"
        );
        assert_eq!(
            below(&trees[1]),
            "\
└─ shop.example  325 ms  POST /orders 502  fault
   └─ payments  306 ms  POST /charge 500  fault
      └─ payments  291 ms  POST /charge 500  fault  CardDeclined: the card issuer did not answer"
        );
        assert!(below(&trees[2]).starts_with("└─ shop.example  171 ms  PUT /cart 429  throttle\n"));
        assert_eq!(
            below(&trees[3]),
            "\
└─ shop.example  229 ms  GET /items/42 200
   └─ recommendations  196 ms  GET /for/42 200
      └─ recommendations  181 ms  GET /for/42 200
         ├─ recommend@recommend-db  43 ms  SELECT item FROM seen WHERE customer = $1
         └─ rank  92 ms  fault  ModelTimeout: no answer within 90 ms"
        );
        assert!(trees[2].contains("   └─ DynamoDB  155 ms  400  PutItem  throttle  Provisioned"));
    }
}
