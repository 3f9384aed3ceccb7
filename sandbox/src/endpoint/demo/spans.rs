//! The trace of the demo that crosses from an X-Ray SDK to a service with OpenTelemetry.
//!
//! In: the trace. Out: the document of a UDP exporter with the spans of the called service, and
//! then the segment of the caller. No I/O, no clock.

use super::trace::{Trace, http, id};
use serde_json::json;
use xrayd_otlp::message::{Any, AnyValue, Event, KeyValue as Pair, Resource, Scope, Span, Status};
use xrayd_otlp::{Source, datagram};

/// Returns the documents of a trace with an X-Ray SDK and OpenTelemetry: the spans of the called
/// service, and then the segment of the caller.
pub(super) fn recommendations(trace: &Trace) -> Vec<String> {
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
        trace.on_host(json!({"http": http("GET", page, 200), "user": "ana", "subsegments": calls})),
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
            ..span(trace, &query, &server, "SELECT seen", 3, (38, 81))
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
                ..event(trace, "exception", 188)
            }],
            status: Some(Status { code: 2, message: "no answer within 90 ms".to_owned() }),
            ..span(trace, &model, &server, "rank", 1, (97, 189))
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
                ..event(trace, "cache miss", 37)
            }],
            // The parent is in another process.
            flags: 0x301,
            ..span(trace, &server, call, "GET /for/{customer}", 2, (22, 203))
        },
    ]
}

/// Returns a span whose parent is in its own process. `kind` is a number of the protocol.
fn span(
    trace: &Trace,
    id: &str,
    parent: &str,
    name: &str,
    kind: i32,
    from_to_ms: (u32, u32),
) -> Span {
    Span {
        trace_id: digits(&trace.id.replace('-', "")[1..]),
        span_id: digits(id),
        parent_span_id: digits(parent),
        name: name.to_owned(),
        kind,
        start_time_unix_nano: trace.nanoseconds(from_to_ms.0),
        end_time_unix_nano: trace.nanoseconds(from_to_ms.1),
        flags: 0x101,
        ..Span::default()
    }
}

fn event(trace: &Trace, name: &str, at_ms: u32) -> Event {
    let time_unix_nano = trace.nanoseconds(at_ms);
    Event { time_unix_nano, name: name.to_owned(), ..Event::default() }
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
