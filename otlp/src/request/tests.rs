//! Tests of the decoders with bodies that real exporters sent, and with hostile ones.

use super::*;
use crate::message::{Any, AnyValue, KeyValue, Kind};
use crate::recorded::{bodies, datagrams};
use crate::span_json;
use proptest::prelude::*;

fn decoded(encoding: Encoding, body: &[u8]) -> Result<Vec<Received>, String> {
    let request = Request::parse(encoding, body).map_err(|error| error.to_string())?;
    let (mut spans, mut first_error) = (Vec::new(), None);
    request.spans(|received| match received {
        Ok(received) => spans.push(received),
        Err(error) => first_error = first_error.take().or(Some(error.to_string())),
    });
    first_error.map_or(Ok(spans), Err)
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

#[test]
fn each_exporter_over_http_is_read_with_all_parts_of_its_spans() {
    let bodies = bodies();
    assert_eq!(bodies.len(), 9);
    for (name, encoding, body) in bodies {
        let spans = decoded(encoding, &body).unwrap();
        assert!(spans.len() >= 2, "{name}");
        let server = spans.iter().find(|it| it.span.kind() == Kind::Server).expect(&name);
        assert_eq!(server.span.name, "GET /cart", "{name}");
        assert!(server.span.parent_span_id.is_empty(), "{name}");
        let status = attribute(&server.span.attributes, "http.response.status_code");
        assert!(matches!(status, Some(Any::Int(200..=599))), "{name}: {status:?}");
        let service = attribute(&server.source.resource.attributes, "service.name");
        assert!(matches!(service, Some(Any::Text(_))), "{name}: {service:?}");
        for Received { span, source } in &spans {
            assert_eq!(span.trace_id, server.span.trace_id, "{name}");
            assert!(span.start_time_unix_nano > 1_700_000_000_000_000_000, "{name}");
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
            assert_eq!(source.scope.name, "scope", "{name}");
            let is_child = span.kind() != Kind::Server;
            assert!(!is_child || span.parent_span_id == server.span.span_id, "{name}");
        }
    }
}

#[test]
fn json_and_protobuf_of_one_exporter_have_the_same_attributes() {
    let bodies = bodies();
    let of = |name: &str| {
        let (_, encoding, body) = bodies.iter().find(|(own, ..)| own == name).unwrap();
        decoded(*encoding, body).unwrap()
    };
    for language in ["python", "node"] {
        let (json, protobuf) = (of(&format!("{language}-json")), of(&format!("{language}-proto")));
        let shape = |spans: &[Received]| {
            let of_span = |it: &Received| {
                let counts = (it.span.events.len(), it.span.links.len());
                (it.span.name.clone(), it.span.kind, it.span.attributes.clone(), counts)
            };
            spans.iter().map(of_span).collect::<Vec<_>>()
        };
        assert_eq!(shape(&json), shape(&protobuf), "{language}");
    }
}

#[test]
fn each_datagram_of_a_udp_exporter_is_read() {
    let datagrams = datagrams();
    assert!(datagrams.len() >= 7, "{}", datagrams.len());
    for (name, protobuf) in datagrams {
        let spans = decoded(Encoding::Protobuf, &protobuf).unwrap();
        assert!(!spans.is_empty(), "{name}");
    }
}

#[test]
fn a_span_is_the_same_after_it_was_written_as_json() {
    let protobuf =
        datagrams().into_iter().map(|(name, body)| (name, Encoding::Protobuf, body.into()));
    for (name, encoding, body) in bodies().into_iter().chain(protobuf) {
        for received in decoded(encoding, &body).unwrap() {
            let text = span_json(&received.source, &received.span).to_string();
            let again = decoded(Encoding::Json, text.as_bytes()).unwrap();
            assert_eq!(again.len(), 1, "{name}");
            assert_eq!(again[0].source, received.source, "{name}");
            assert_eq!(again[0].span, received.span, "{name}");
        }
    }
}

#[test]
fn numbers_of_json_are_text_or_numbers_and_null_is_a_missing_value() {
    let body = r#"{"resourceSpans":[{"unknown":[{}],"scopeSpans":[{"scope":null,"spans":[{
        "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
        "parentSpanId":null,"name":null,"kind":2,"startTimeUnixNano":1544712660000000000,
        "endTimeUnixNano":"1544712661000000000","more":{"a":1},"events":null,"status":null,
        "attributes":[
            {"key":"text","value":{"intValue":"-7"}},{"key":"number","value":{"intValue":7}},
            {"key":"large","value":{"intValue":"9223372036854775807"}},
            {"key":"double","value":{"doubleValue":"NaN"}},{"key":"one","value":{"doubleValue":1}},
            {"key":"bytes","value":{"bytesValue":"AAEC"}},{"key":"empty","value":{}},
            {"key":"missing"},
            {"key":"list","value":{"arrayValue":{"values":[{"boolValue":true}]}}},
            {"key":"map","value":{"kvlistValue":{"values":[{"key":"a","value":{"stringValue":""}}]}}}
        ]}]}]}]}"#;
    let spans = decoded(Encoding::Json, body.as_bytes()).unwrap();
    let span = &spans[0].span;
    assert_eq!(hex::encode(&span.trace_id), "5b8efff798038103d269b633813fc60c");
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_000_000_000);
    let of = |key| attribute(&span.attributes, key);
    assert_eq!((of("text"), of("number")), (Some(&Any::Int(-7)), Some(&Any::Int(7))));
    assert_eq!(of("large"), Some(&Any::Int(i64::MAX)));
    assert!(matches!(of("double"), Some(Any::Double(value)) if value.is_nan()));
    assert_eq!((of("one"), of("empty")), (Some(&Any::Double(1.0)), None));
    assert_eq!((of("bytes"), of("missing")), (Some(&Any::Bytes(vec![0, 1, 2])), None));
    assert!(matches!(of("list"), Some(Any::List(list)) if list.values.len() == 1));
    assert!(matches!(of("map"), Some(Any::Object(object)) if object.values.len() == 1));
}

/// Returns the protobuf of a request with these spans.
fn protobuf(spans: &[Span]) -> Vec<u8> {
    #[derive(Clone, PartialEq, Message)]
    struct Spans {
        #[prost(message, repeated, tag = "2")]
        spans: Vec<Span>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Outer {
        #[prost(bytes = "vec", tag = "2")]
        scope_spans: Vec<u8>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Export {
        #[prost(message, optional, tag = "1")]
        resource_spans: Option<Outer>,
    }
    let scope_spans = Spans { spans: spans.to_vec() }.encode_to_vec();
    Export { resource_spans: Some(Outer { scope_spans }) }.encode_to_vec()
}

fn plain() -> Span {
    Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() }
}

#[test]
fn a_bad_span_is_rejected_and_its_neighbours_are_not() {
    let nested = (0..DEPTH_MAX + 1).fold(AnyValue::default(), |value, _| AnyValue {
        value: Some(Any::List(crate::message::ArrayValue { values: vec![value] })),
    });
    let deep = KeyValue { key: "deep".into(), value: Some(nested) };
    let large = KeyValue {
        key: "large".into(),
        value: Some(AnyValue { value: Some(Any::Text("x".repeat(SPAN_BYTES_MAX))) }),
    };
    let spans = [
        plain(),
        Span { trace_id: vec![0; 16], ..plain() },
        Span { span_id: vec![2; 7], ..plain() },
        Span { parent_span_id: vec![2; 9], ..plain() },
        Span { attributes: vec![deep], ..plain() },
        Span { attributes: vec![large], ..plain() },
        Span { parent_span_id: vec![0; 8], ..plain() },
    ];
    let body = protobuf(&spans);
    let request = Request::parse(Encoding::Protobuf, &body).unwrap();
    let mut outcomes = Vec::new();
    request
        .spans(|received| outcomes.push(received.map(|it| it.span).map_err(|it| it.to_string())));
    let ok = |index: usize| outcomes[index].as_ref().is_ok_and(|it| it.parent_span_id.is_empty());
    assert!(ok(0) && ok(6), "{outcomes:?}");
    let error = |index: usize| outcomes[index].as_ref().unwrap_err().as_str();
    assert!(error(1).contains("trace id") && error(2).contains("span id"));
    assert!(error(3).contains("parent id") && error(4).contains("16 levels"));
    assert!(error(5).contains("at most 204800"), "{}", error(5));
}

#[test]
fn a_body_cut_off_anywhere_loses_no_more_than_an_error() {
    for (name, encoding, body) in bodies() {
        for length in 0..body.len() {
            let refused = decoded(encoding, &body[..length]).is_err();
            assert!(refused || encoding == Encoding::Protobuf, "{name} {length}");
        }
    }
}

#[test]
fn lengths_varints_and_depths_of_an_attacker_are_errors() {
    let huge = b"\x0a\xff\xff\xff\xff\x07ab";
    let error = Request::parse(Encoding::Protobuf, huge).unwrap_err().to_string();
    assert!(error.contains("2147483647 bytes, and 2 are left"), "{error}");
    let eleven = [&[0x0a][..], &[0xff; 10], &[1]].concat();
    assert!(Request::parse(Encoding::Protobuf, &eleven).is_err());
    let deep = (0..3_000).fold(Vec::new(), |inner, _| {
        let mut outer = vec![0x2a];
        prost::encoding::encode_varint(inner.len() as u64 + 4, &mut outer);
        [
            outer,
            vec![0x0a],
            {
                let mut length = Vec::new();
                prost::encoding::encode_varint(inner.len() as u64, &mut length);
                length
            },
            inner,
        ]
        .concat()
    });
    let _ = Request::parse(Encoding::Protobuf, &deep);
    assert!(AnyValue::decode(&deep[..]).is_err());
    let open = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":"#;
    let nested = format!("{open}{}", "[".repeat(100_000));
    assert!(Request::parse(Encoding::Json, nested.as_bytes()).is_err());
    for text in ["", "[]", "7", "{\"resourceSpans\":{}}", "{\"resourceSpans\":[7]}", "\u{0}"] {
        assert!(Request::parse(Encoding::Json, text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn empty_messages_in_large_numbers_are_counted_and_not_held() {
    // Two bytes for an empty list of spans, and two bytes for an empty span.
    let lists = [0x0a, 0x00].repeat(1 << 20);
    let request = Request::parse(Encoding::Protobuf, &lists).unwrap();
    assert_eq!((request.groups.len(), request.taken_count), (0, 0));
    let spans = [0x12, 0x00].repeat(1 << 20);
    let length = |bytes: &[u8]| {
        let mut varint = Vec::new();
        prost::encoding::encode_varint(bytes.len() as u64, &mut varint);
        varint
    };
    let scope_spans = [&[0x12][..], &length(&spans), &spans].concat();
    let body = [&[0x0a][..], &length(&scope_spans), &scope_spans].concat();
    let request = Request::parse(Encoding::Protobuf, &body).unwrap();
    assert_eq!(request.taken_count, SPAN_COUNT_MAX);
    assert_eq!(request.left_out_count(), (1 << 20) - SPAN_COUNT_MAX);
    let spans = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(1 << 18)
    );
    let request = Request::parse(Encoding::Json, spans.as_bytes()).unwrap();
    assert_eq!(request.left_out_count(), (1 << 18) + 1 - SPAN_COUNT_MAX);
}

#[test]
fn a_content_type_names_its_encoding() {
    for (content_type, expected) in [
        ("application/x-protobuf", Some(Encoding::Protobuf)),
        ("Application/JSON; charset=utf-8", Some(Encoding::Json)),
        ("application/json;", Some(Encoding::Json)),
        ("application/protobuf", None),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Encoding::of(content_type.as_bytes()), expected, "{content_type}");
    }
}

proptest! {
    #[test]
    fn changed_bytes_of_a_real_body_are_decoded_or_refused(
        which in 0..9_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (_, encoding, body) = bodies().swap_remove(which);
        let mut body = body.to_vec();
        for (place, byte) in changes {
            let at = place.index(body.len());
            body[at] = byte;
        }
        if let Ok(spans) = decoded(encoding, &body) {
            for Received { source, span } in spans {
                let text = span_json(&source, &span).to_string();
                prop_assert!(decoded(Encoding::Json, text.as_bytes()).is_ok());
            }
        }
    }
}
