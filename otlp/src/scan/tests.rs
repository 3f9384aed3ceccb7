//! Tests of the walks with bodies that real exporters sent, with generated requests, and with
//! hostile bodies. The decoder says what a request contains.

use super::*;
use crate::message::{Any, AnyValue, KeyValue, Resource, Scope, Span};
use crate::recorded::{bodies, datagrams};
use crate::{Received, Request};
use proptest::prelude::*;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use std::fmt::Write;

/// Returns the spans of a request, each with its resource and scope, as the decoder finds them.
fn decoded(encoding: Encoding, body: &[u8]) -> Vec<(String, Span)> {
    let mut spans = Vec::new();
    Request::parse(encoding, body).unwrap().spans(|received| {
        let Received { source, span } = received.unwrap();
        spans.push((format!("{source:?}"), span));
    });
    spans
}

fn found(encoding: Encoding, body: &[u8]) -> Result<Vec<FoundSpan>, DecodeError> {
    let mut all = Vec::new();
    scan(encoding, body, |span| all.push(*span)).map(|()| all)
}

fn kept(encoding: Encoding, body: &[u8], keeps: impl Fn(&FoundSpan) -> bool) -> Vec<u8> {
    let mut kept = Vec::new();
    cut(encoding, body, keeps, |piece| kept.extend_from_slice(piece)).unwrap();
    kept
}

fn all_bodies() -> Vec<(String, Encoding, Vec<u8>)> {
    let of_datagram = |(name, body)| (name, Encoding::Protobuf, body);
    let of_body = |(name, encoding, body): (_, _, bytes::Bytes)| (name, encoding, body.to_vec());
    bodies().into_iter().map(of_body).chain(datagrams().into_iter().map(of_datagram)).collect()
}

#[test]
fn the_spans_of_real_exporters_are_found_with_their_times() {
    for (name, encoding, body) in all_bodies() {
        let (found, decoded) = (found(encoding, &body).unwrap(), decoded(encoding, &body));
        assert_eq!(found.len(), decoded.len(), "{name}");
        for (index, (found, (_, span))) in found.iter().zip(&decoded).enumerate() {
            let (start_ns, end_ns) = (span.start_time_unix_nano, span.end_time_unix_nano);
            assert_eq!(found.times, Some(SpanTimes { start_ns, end_ns }), "{name}");
            assert!(start_ns > 0 && found.index == index, "{name}");
            // Exporters for Node.js write fields without a value too.
            let is_protobuf = encoding == Encoding::Protobuf;
            assert!(!is_protobuf || found.size_bytes >= span.encoded_len(), "{name}");
        }
    }
}

#[test]
fn a_request_of_which_everything_is_kept_has_its_own_bytes() {
    for (name, encoding, body) in all_bodies() {
        assert!(kept(encoding, &body, |_| true) == body, "{name}");
    }
}

#[test]
fn every_cut_of_a_real_request_has_the_other_spans_unchanged() {
    for (name, encoding, body) in all_bodies() {
        let spans = decoded(encoding, &body);
        for mask in 0..1_u32 << spans.len() {
            let is_kept = |index: usize| mask >> index & 1 == 1;
            let cut = kept(encoding, &body, |span| is_kept(span.index));
            let expected = spans.iter().enumerate().filter(|(index, _)| is_kept(*index));
            let expected: Vec<_> = expected.map(|(_, span)| span.clone()).collect();
            assert_eq!(decoded(encoding, &cut), expected, "{name} {mask:b}");
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

fn span(number: u8, name_bytes: usize) -> Span {
    Span {
        trace_id: vec![number | 1; 16],
        span_id: vec![number | 1; 8],
        name: "n".repeat(name_bytes),
        start_time_unix_nano: 1_000 + u64::from(number),
        end_time_unix_nano: 2_000 + u64::from(number),
        ..Span::default()
    }
}

fn resource(name: &str) -> Resource {
    let value = Some(AnyValue { value: Some(Any::Text(name.to_owned())) });
    Resource { attributes: vec![KeyValue { key: "k".into(), value }], ..Resource::default() }
}

/// Requests with lengths around 128 and 16,384, where the varint of a length grows.
fn exports() -> impl Strategy<Value = Export> {
    let span = (any::<u8>(), prop_oneof![0..200_usize, 16_300..16_500_usize])
        .prop_map(|(number, name_bytes)| span(number, name_bytes));
    let scope_spans =
        (proptest::collection::vec(span, 0..4), "[a-c]{0,2}").prop_map(|(spans, name)| {
            let scope = (!name.is_empty()).then(|| Scope { name, ..Scope::default() });
            ScopeSpans { scope, spans, schema_url: "s".into() }
        });
    let resource_spans = (proptest::collection::vec(scope_spans, 0..3), "[a-c]{0,2}").prop_map(
        |(scope_spans, name)| {
            let resource = (!name.is_empty()).then(|| resource(&name));
            ResourceSpans { resource, scope_spans, schema_url: String::new() }
        },
    );
    proptest::collection::vec(resource_spans, 0..3)
        .prop_map(|resource_spans| Export { resource_spans })
}

/// Returns the JSON form of a request, with spaces of different widths.
fn to_json(export: &Export) -> String {
    let mut text = String::from(" {\"x\":[],\"resourceSpans\" :[");
    for (index, resource_spans) in export.resource_spans.iter().enumerate() {
        text.push_str(["", " ,\n"][usize::from(index > 0)]);
        text.push_str("{\"scopeSpans\": [ ");
        for (index, scope_spans) in resource_spans.scope_spans.iter().enumerate() {
            text.push_str(["", ","][usize::from(index > 0)]);
            text.push_str("{ \"spans\":[\t");
            for (index, span) in scope_spans.spans.iter().enumerate() {
                text.push_str(["", " , "][usize::from(index > 0)]);
                let (trace_id, id) = (hex::encode(&span.trace_id), hex::encode(&span.span_id));
                let (name, start) = (&span.name, span.start_time_unix_nano);
                let _ = write!(
                    text,
                    r#"{{"traceId":"{trace_id}", "spanId":"{id}","name":"{name}",
                    "startTimeUnixNano":"{start}","endTimeUnixNano":{}}}"#,
                    span.end_time_unix_nano
                );
            }
            let name = scope_spans.scope.as_ref().map_or("", |scope| &scope.name);
            let _ = write!(text, " ],\"scope\":{{\"name\":\"{name}\"}} }}");
        }
        text.push_str(" ]}");
    }
    text + "]} "
}

proptest! {
    #[test]
    fn a_cut_request_has_exactly_the_kept_spans_with_their_resource_and_scope(
        export in exports(),
        is_kept in proptest::collection::vec(any::<bool>(), 24),
    ) {
        let (protobuf, json) = (export.encode_to_vec(), to_json(&export));
        for (encoding, body) in
            [(Encoding::Protobuf, &protobuf[..]), (Encoding::Json, json.as_bytes())]
        {
            let cut = kept(encoding, body, |span| is_kept[span.index]);
            let spans = decoded(encoding, body).into_iter().zip(&is_kept);
            let expected: Vec<_> = spans.filter(|(_, is_kept)| **is_kept).map(|it| it.0).collect();
            prop_assert_eq!(decoded(encoding, &cut), expected);
            prop_assert!(cut.len() <= body.len());
            prop_assert!(found(encoding, &cut).unwrap().iter().all(|span| span.times.is_some()));
        }
    }

    #[test]
    fn two_requests_one_behind_the_other_are_one_request(first in exports(), second in exports()) {
        let (first, second) = (first.encode_to_vec(), second.encode_to_vec());
        let of = |body: &[u8]| decoded(Encoding::Protobuf, body);
        let both = [&first[..], &second].concat();
        prop_assert_eq!(of(&both), [of(&first), of(&second)].concat());
    }

    #[test]
    fn changed_bytes_of_a_real_body_are_walked_or_refused(
        which in 0..9_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        mask: u32,
    ) {
        let (_, encoding, body) = bodies().swap_remove(which);
        let mut body = body.to_vec();
        for (place, byte) in changes {
            let at = place.index(body.len());
            body[at] = byte;
        }
        let is_kept = |span: &FoundSpan| mask.rotate_right(u32::try_from(span.index % 32).unwrap()) & 1 == 1;
        let Ok(before) = found(encoding, &body) else { return Ok(()) };
        let after = found(encoding, &kept(encoding, &body, is_kept)).unwrap();
        let expected: Vec<_> = before.iter().filter(|it| is_kept(it)).map(|it| it.times).collect();
        prop_assert_eq!(after.iter().map(|it| it.times).collect::<Vec<_>>(), expected);
    }
}

/// Returns a field with a length.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    encode_varint(value.len() as u64, &mut field);
    [field, value.to_vec()].concat()
}

#[test]
fn fields_that_are_not_known_stay_where_they_are() {
    let span = |number| field(2, &span(number, 3).encode_to_vec());
    let unknown = [&field(15, b"new")[..], &[0x50, 7]].concat();
    // The length of the first span's field is written with two bytes, where one would do.
    let mut long = span(1);
    (long[1], long[0]) = (long[1] | 0x80, 0x12);
    long.insert(2, 0);
    let scope = [&unknown[..], &long, &span(2), &field(3, b"url")].concat();
    let resource = [&field(2, &scope)[..], &unknown, &field(1, b"")].concat();
    let body = [&unknown[..], &field(1, &resource), &field(9, b"end")].concat();
    assert_eq!(decoded(Encoding::Protobuf, &body).len(), 2);
    for (index, rest) in [span(2), long].into_iter().enumerate() {
        let scope = [&unknown[..], &rest, &field(3, b"url")].concat();
        let resource = [&field(2, &scope)[..], &unknown, &field(1, b"")].concat();
        let expected = [&unknown[..], &field(1, &resource), &field(9, b"end")].concat();
        assert_eq!(kept(Encoding::Protobuf, &body, |span| span.index != index), expected);
    }
    assert_eq!(
        kept(Encoding::Protobuf, &body, |_| false),
        [&unknown[..], &field(9, b"end")].concat()
    );
}

#[test]
fn a_span_that_cannot_be_read_is_found_without_times_and_can_be_taken_out() {
    let good = span(1, 3).encode_to_vec();
    let cut_off = &good[..good.len() - 1];
    let spans = [&field(2, &good)[..], &field(2, cut_off), &field(2, b"\xff"), &field(2, b"")];
    let body = field(1, &field(2, &spans.concat()));
    let found = found(Encoding::Protobuf, &body).unwrap();
    let times = SpanTimes { start_ns: 1_001, end_ns: 2_001 };
    let expected = [Some(times), None, None, Some(SpanTimes::default())];
    assert_eq!(found.iter().map(|span| span.times).collect::<Vec<_>>(), expected);
    let kept = kept(Encoding::Protobuf, &body, |span| span.times.is_some());
    assert_eq!(kept, field(1, &field(2, &[field(2, &good), field(2, b"")].concat())));
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        7,{"startTimeUnixNano":"x"},{"startTimeUnixNano":1001,"endTimeUnixNano":"2001"},[1,2],
        {"startTimeUnixNano":1,"startTimeUnixNano":1},null]}]}]}"#;
    let found = super::tests::found(Encoding::Json, body.as_bytes()).unwrap();
    let expected = [None, None, Some(times), None, None, None];
    assert_eq!(found.iter().map(|span| span.times).collect::<Vec<_>>(), expected);
    let kept = super::tests::kept(Encoding::Json, body.as_bytes(), |span| span.times.is_some());
    let one = r#"{"startTimeUnixNano":1001,"endTimeUnixNano":"2001"}"#;
    let expected =
        format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[\n        {one}]}}]}}]}}");
    assert_eq!(String::from_utf8(kept).unwrap(), expected);
}

#[test]
fn hostile_bodies_are_errors() {
    let open = field(1, &field(2, b"\x12\xff\xff\xff\xff\x07ab"));
    let groups = [0x0b].repeat(100_000);
    let mut varint = Vec::new();
    encode_varint(u64::MAX, &mut varint);
    assert_eq!(encoded_len_varint(u64::MAX), 10);
    for (what, body) in [
        ("a length beyond the end", &b"\x0a\xff\xff\xff\xff\x07ab"[..]),
        ("a length beyond the end of a list", &open),
        ("a length beyond all memory", &[&[0x0a][..], &varint].concat()),
        ("a varint of 11 bytes", &[&[0x0a][..], &[0xff; 10], &[1]].concat()),
        ("a key of 11 bytes", &[0xff; 11]),
        ("field 0", b"\x02\x00"),
        ("wire type 7", b"\x0f"),
        ("the end of no group", b"\x0c"),
        ("groups without an end", &groups),
        ("half of a number", b"\x09\x01\x02"),
        ("text", b"<html><body>hello</body></html>"),
        ("JSON", br#"{"resourceSpans":[]}"#),
    ] {
        assert!(found(Encoding::Protobuf, body).is_err(), "{what}");
        assert!(cut(Encoding::Protobuf, body, |_| true, |_| {}).is_err(), "{what}");
    }
    let nested = format!(r#"{{"resourceSpans":[{{"scopeSpans":{}"#, "[".repeat(100_000));
    for body in [
        "",
        "[]",
        "7",
        "null",
        "\u{0}",
        "{",
        "{}{}",
        "{} x",
        r#"{"resourceSpans":{}}"#,
        r#"{"resourceSpans":[7]}"#,
        r#"{"resourceSpans":[[]]}"#,
        r#"{"resourceSpans":[null]}"#,
        r#"{"resourceSpans":"text"}"#,
        r#"{"resourceSpans":[],"resourceSpans":[]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":{}}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"a":1,}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{}],"spans":[{}]}]}]}"#,
        "\u{feff}{}",
        &nested,
    ] {
        assert!(found(Encoding::Json, body.as_bytes()).is_err(), "{body}");
        assert!(cut(Encoding::Json, body.as_bytes(), |_| true, |_| {}).is_err(), "{body}");
    }
    assert!(found(Encoding::Json, b"{\"a\":\"\xff\"}").is_ok_and(|it| it.is_empty()));
    assert!(
        found(Encoding::Json, b"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[\"\xff\"]}]}]}")
            .is_err()
    );
    for body in ["{}", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[{"scopeSpans":null}]}"#] {
        assert_eq!(found(Encoding::Json, body.as_bytes()).unwrap(), [], "{body}");
    }
}

#[test]
fn empty_spans_in_large_numbers_are_counted_and_not_held() {
    let spans = [0x12, 0x00].repeat(1 << 20);
    let body = field(1, &field(2, &spans));
    let mut count = 0;
    scan(Encoding::Protobuf, &body, |_| count += 1).unwrap();
    assert_eq!(count, 1 << 20);
    let tenth = kept(Encoding::Protobuf, &body, |span| span.index % 10 == 0);
    assert_eq!(tenth.len(), field(1, &field(2, &spans[..2 * ((1 << 20) / 10 + 1)])).len());
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(1 << 18)
    );
    let mut count = 0;
    scan(Encoding::Json, body.as_bytes(), |_| count += 1).unwrap();
    assert_eq!(count, (1 << 18) + 1);
}
