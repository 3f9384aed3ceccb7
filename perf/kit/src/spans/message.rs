//! The spans of a batch, as a web shop with a database would make them: 64 traces of 8 spans with
//! about 10 attributes, from two instrumentations of one process.

use super::ids;
use fastrand::Rng;
use prost::Message;
use xrayd_otlp::message::{Any, AnyValue, Event, KeyValue, Resource, Scope, Span, Status};

/// Number of spans of a trace, and of traces of a batch.
pub const TRACE_SPAN_COUNT: usize = 8;
pub const TRACE_COUNT: usize = 64;

/// An `ExportTraceServiceRequest`. The crate of the protocol never builds one as a whole.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// The kinds of spans in the protocol.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// One span of this many has an exception.
const EXCEPTION_EVERY: usize = 64;

const ROUTES: [(&str, &str); 5] = [
    ("GET", "/api/v1/products/{id}"),
    ("GET", "/api/v1/customers/{id}/orders"),
    ("POST", "/api/v1/carts/{id}/items"),
    ("PUT", "/api/v1/customers/{id}/address"),
    ("GET", "/api/v1/search"),
];
const TABLES: [&str; 6] = ["products", "orders", "carts", "customers", "addresses", "prices"];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/17.6 Safari/605.1.15",
    "okhttp/4.12.0",
];

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Any::Text(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Any::Int(value))
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
}

/// Returns a request with the spans of a batch, whose times are around `now_ns` since 1970. The
/// first scope has the server spans with their exceptions, the second the calls of the database.
pub fn request(now_ns: u64, random: &mut Rng) -> Request {
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for trace in 0..TRACE_COUNT {
        let trace_id = ids::trace_id(now_ns, trace).to_vec();
        let start_ns = now_ns - random.u64(20_000_000..2_000_000_000);
        for place in 0..TRACE_SPAN_COUNT {
            let mut span = Span {
                trace_id: trace_id.clone(),
                span_id: vec![0xff; 8],
                start_time_unix_nano: start_ns + random.u64(0..2_000_000),
                end_time_unix_nano: start_ns + random.u64(3_000_000..19_000_000),
                flags: 0x101,
                ..Span::default()
            };
            if place == 0 {
                server(&mut span, trace, random);
                servers.push(span);
            } else {
                span.parent_span_id = vec![0xff; 8];
                client(&mut span, random);
                clients.push(span);
            }
        }
    }
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(Scope {
            name: name.into(),
            version: "2.10.0-alpha".into(),
            ..Scope::default()
        }),
        spans,
    };
    let scopes = vec![
        scope("io.opentelemetry.tomcat-10.0", servers),
        scope("io.opentelemetry.jdbc", clients),
    ];
    Request { resources: vec![ResourceSpans { resource: Some(resource()), scopes }] }
}

fn resource() -> Resource {
    let attributes = vec![
        text("service.name", "shop"),
        text("service.version", "4.17.2"),
        text("service.instance.id", "c8f3ed20-7a5e-4f39-9b18-6f0b0dd2f9a1"),
        text("deployment.environment.name", "production"),
        text("host.name", "ip-10-0-12-31.eu-central-1.compute.internal"),
        text("os.type", "linux"),
        number("process.pid", 1),
        text("process.runtime.name", "OpenJDK Runtime Environment"),
        text("process.runtime.version", "21.0.5+11-LTS"),
        text("telemetry.sdk.language", "java"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.version", "1.44.1"),
    ];
    Resource { attributes, ..Resource::default() }
}

fn server(span: &mut Span, trace: usize, random: &mut Rng) {
    let (method, route) = ROUTES[random.usize(..ROUTES.len())];
    let is_error = trace % EXCEPTION_EVERY == EXCEPTION_EVERY - 1;
    span.name = format!("{method} {route}");
    span.kind = SERVER;
    span.attributes = vec![
        text("http.request.method", method),
        text("http.route", route),
        text("url.scheme", "https"),
        text("url.path", route.replace("{id}", &random.u32(..).to_string())),
        text("server.address", "shop.example.com"),
        number("server.port", 443),
        text("client.address", format!("203.0.113.{}", random.u8(..))),
        text("network.protocol.version", "1.1"),
        text("user_agent.original", AGENTS[random.usize(..AGENTS.len())]),
        number("http.response.status_code", if is_error { 500 } else { 200 }),
        number("thread.id", random.i64(20..90)),
        text("thread.name", format!("http-nio-8080-exec-{}", random.u8(1..64))),
    ];
    if is_error {
        span.status = Some(Status { message: String::new(), code: ERROR });
        span.events = vec![exception(span.end_time_unix_nano)];
    }
}

fn client(span: &mut Span, random: &mut Rng) {
    let table = TABLES[random.usize(..TABLES.len())];
    span.name = format!("SELECT shop.{table}");
    span.kind = CLIENT;
    span.attributes = vec![
        text("db.system.name", "postgresql"),
        text("db.namespace", "shop"),
        text("db.operation.name", "SELECT"),
        text("db.collection.name", table),
        text(
            "db.query.text",
            format!("SELECT id, name, changed FROM {table} WHERE owner = ? AND state = ? LIMIT ?"),
        ),
        text("server.address", "shop.cluster-cxyz.eu-central-1.rds.amazonaws.com"),
        number("server.port", 5432),
        text("network.peer.address", format!("10.0.7.{}", random.u8(..))),
        number("thread.id", random.i64(20..90)),
        text("thread.name", format!("http-nio-8080-exec-{}", random.u8(1..64))),
    ];
}

fn exception(time_unix_nano: u64) -> Event {
    let frames = "\n\tat com.example.shop.Orders.find(Orders.java:117)".repeat(12);
    let attributes = vec![
        text("exception.type", "java.lang.IllegalStateException"),
        text("exception.message", "the order has no customer"),
        text("exception.stacktrace", format!("java.lang.IllegalStateException{frames}")),
    ];
    Event { time_unix_nano, name: "exception".into(), attributes, dropped_attributes_count: 0 }
}
