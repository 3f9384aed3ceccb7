//! The spans of a simulation: each has its number in it, and can be checked byte for byte.
//!
//! In: the numbers and the sizes of spans. Out: the request of a client that carries them; or, from
//! the body of a request to the service, the numbers of its spans. The body is a request of
//! OpenTelemetry, or one of `PutTraceSegments` with spans in its documents. A body with any other
//! byte in a span is an error, and so is a merge that X-Ray would refuse.

use serde_json::value::RawValue;
use std::collections::BTreeSet;
use xrayd_otlp::{Encoding, datagram};

/// The limits of X-Ray's endpoint for one request, with half of the time between two spans.
const SPAN_COUNT_MAX: usize = 10_000;
const MERGED_BYTES_MAX: usize = 1024 * 1024;
const GAP_HOURS_MAX: u64 = 12;

/// The largest size of a span, in bytes, that a document of `PutTraceSegments` can carry in base64
/// with its resource.
pub const IN_DOCUMENT_BYTES_MAX: usize = 47_000;

/// The largest number of documents in a request of `PutTraceSegments`.
const DOCUMENT_COUNT_MAX: usize = 50;

/// Some requests have spans of another half of the day, and are not merged with others.
const OTHER_HALF_EVERY: u32 = 40;
const OTHER_HALF_HOURS: u64 = 13;

/// One request of this many is in JSON, which is not merged with others.
const JSON_EVERY: u32 = 5;

/// The hour of the usual spans, since 1970.
const HOUR: u64 = 500_000;

/// Returns the hour of a span, since 1970. A single request may have spans of both halves.
pub fn hour(number: u32) -> u64 {
    let is_other = (number / 10).is_multiple_of(OTHER_HALF_EVERY);
    HOUR + if is_other { OTHER_HALF_HOURS } else { 0 }
}

/// Returns the nanoseconds since 1970 of an hour.
pub fn nanoseconds(hour: u64) -> u64 {
    hour * 3_600 * 1_000_000_000
}

fn varint(mut number: usize, to: &mut Vec<u8>) {
    while number >= 128 {
        to.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    to.push(u8::try_from(number).unwrap());
}

/// Returns a field of protobuf with these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(bytes.len(), &mut field);
    field.extend_from_slice(bytes);
    field
}

/// Returns a span: ids with its number, its times, and a name that fills it up to about
/// `size_bytes`.
pub fn span(number: u32, size_bytes: usize) -> Vec<u8> {
    let time = nanoseconds(hour(number)).to_le_bytes();
    let id = (u64::from(number) + 1).to_be_bytes();
    let mut span = field(1, &[id, id].concat());
    span.extend(field(2, &id));
    span.extend(field(5, &vec![b'x'; size_bytes.saturating_sub(60)]));
    for number in [7, 8] {
        span.push(number << 3 | 1);
        span.extend(time);
    }
    span
}

/// Returns a span in JSON with the same ids, times and name.
fn json_span(number: u32, size_bytes: usize) -> String {
    let (id, time) = (u64::from(number) + 1, nanoseconds(hour(number)));
    let name = "x".repeat(size_bytes.saturating_sub(60));
    format!(
        r#"{{"traceId":"{id:016x}{id:016x}","spanId":"{id:016x}","name":"{name}","startTimeUnixNano":"{time}","endTimeUnixNano":{time}}}"#
    )
}

/// Returns the request of a client with these spans of one size. Some are in JSON.
pub fn request(numbers: &[u32], size_bytes: usize) -> (Encoding, Vec<u8>) {
    let is_json = numbers.first().is_some_and(|number| number % JSON_EVERY == 0);
    if is_json { json(numbers, size_bytes) } else { protobuf(numbers, size_bytes) }
}

fn protobuf(numbers: &[u32], size_bytes: usize) -> (Encoding, Vec<u8>) {
    let spans: Vec<u8> =
        numbers.iter().flat_map(|&number| field(2, &span(number, size_bytes))).collect();
    (Encoding::Protobuf, field(1, &[field(1, b"\x10\x01"), field(2, &spans)].concat()))
}

fn json(numbers: &[u32], size_bytes: usize) -> (Encoding, Vec<u8>) {
    let spans: Vec<String> = numbers.iter().map(|&number| json_span(number, size_bytes)).collect();
    let spans = spans.join(", ");
    let body = format!(
        r#"{{"resourceSpans": [{{"resource": {{}}, "scopeSpans": [{{"spans": [{spans}]}}]}}]}}"#
    );
    (Encoding::Json, body.into_bytes())
}

/// Returns the number and the bytes of the first field, and the rest.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (key, mut rest) = bytes.split_first()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            break;
        }
    }
    let (field, rest) = (*key & 7 == 2).then(|| rest.split_at_checked(length))??;
    Some((key >> 3, field, rest))
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, field, rest) = first(bytes)?;
        fields.push((number, field));
        bytes = rest;
    }
    Some(fields)
}

/// Returns the form of a body.
pub fn encoding_of(body: &[u8]) -> Encoding {
    if body.starts_with(b"{") { Encoding::Json } else { Encoding::Protobuf }
}

/// Returns the spans of a body in protobuf, and how many requests are merged in it.
fn protobuf_spans(body: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let mut spans = Vec::new();
    let resources = fields(body)?;
    for (_, resource) in resources.iter().filter(|it| it.0 == 1) {
        for (_, scope) in fields(resource)?.iter().filter(|it| it.0 == 2) {
            spans.extend(fields(scope)?.iter().filter(|it| it.0 == 2).map(|it| it.1));
        }
    }
    Some((spans, resources.len()))
}

/// Returns the spans of a body in JSON, and how many requests are merged in it.
fn json_spans(body: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        #[serde(borrow)]
        resource_spans: Vec<ResourceSpans<'a>>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ResourceSpans<'a> {
        #[serde(borrow)]
        scope_spans: Vec<ScopeSpans<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct ScopeSpans<'a> {
        #[serde(borrow)]
        spans: Vec<&'a RawValue>,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let scopes = body.resource_spans.iter().flat_map(|it| &it.scope_spans);
    let spans = scopes.flat_map(|it| it.spans.iter().map(|span| span.get().as_bytes()));
    Some((spans.collect(), body.resource_spans.len()))
}

/// Returns the numbers of the spans in a body. `size_of` returns the size of a span.
///
/// # Errors
///
/// Returns a text if the body is not made of spans of the simulation, byte for byte, or if requests
/// are merged in it that X-Ray would not take together.
pub fn numbers(body: &[u8], size_of: impl Fn(u32) -> Option<usize>) -> Result<Vec<u32>, String> {
    match documents(body) {
        Some(documents) if documents.len() > DOCUMENT_COUNT_MAX => {
            Err(format!("a request has {} documents", documents.len()))
        }
        Some(documents) => {
            let numbers = documents.iter().map(|text| numbers_in_document(text, &size_of));
            Ok(numbers.collect::<Result<Vec<_>, _>>()?.concat())
        }
        None => numbers_of(body, &size_of),
    }
}

/// Returns the documents in the body of a request of `PutTraceSegments`, or the single document in
/// quotes; `None` for a request of OpenTelemetry.
fn documents(body: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Body {
        trace_segment_documents: Vec<String>,
    }
    let single = || serde_json::from_slice(body).map(|text| vec![text]).ok();
    let body: Option<Body> = serde_json::from_slice(body).ok();
    body.map(|body| body.trace_segment_documents).or_else(single)
}

/// Returns the numbers of the spans in a document.
fn numbers_in_document(
    text: &str,
    size_of: &impl Fn(u32) -> Option<usize>,
) -> Result<Vec<u32>, String> {
    let request = text.strip_prefix(datagram::PREFIX).and_then(datagram::decode);
    numbers_of(&request.ok_or("a document has no spans")?, size_of)
}

/// Returns the numbers of the spans in a request of OpenTelemetry.
fn numbers_of(body: &[u8], size_of: &impl Fn(u32) -> Option<usize>) -> Result<Vec<u32>, String> {
    let encoding = encoding_of(body);
    let found = match encoding {
        Encoding::Protobuf => protobuf_spans(body),
        Encoding::Json => json_spans(body),
    };
    let (found, request_count) = found.ok_or("the body is no request")?;
    let (mut numbers, mut hours) = (Vec::new(), BTreeSet::new());
    for found in found {
        let number = number_of(encoding, found).ok_or("a span has no number")?;
        let size_bytes = size_of(number).ok_or_else(|| format!("{number} was never received"))?;
        let is_same = match encoding {
            Encoding::Protobuf => found == span(number, size_bytes),
            Encoding::Json => found == json_span(number, size_bytes).as_bytes(),
        };
        if !is_same {
            return Err(format!("span {number} is not the one that was received"));
        }
        numbers.push(number);
        hours.insert(hour(number));
    }
    let gap = hours.last().unwrap_or(&0) - hours.first().unwrap_or(&0);
    let is_merged = request_count > 1;
    if numbers.len() > SPAN_COUNT_MAX || (is_merged && gap > GAP_HOURS_MAX) {
        return Err(format!("a request has {} spans of {gap} hours", numbers.len()));
    }
    if is_merged && body.len() > MERGED_BYTES_MAX {
        return Err(format!("a merged request has {} bytes", body.len()));
    }
    Ok(numbers)
}

/// Returns the number in the ids of a span.
fn number_of(encoding: Encoding, span: &[u8]) -> Option<u32> {
    let id = match encoding {
        Encoding::Protobuf => u64::from_be_bytes(*span.get(2..)?.first_chunk()?),
        Encoding::Json => {
            let digits = span.strip_prefix(br#"{"traceId":""#)?.get(..16)?;
            u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
        }
    };
    u32::try_from(id.checked_sub(1)?).ok()
}

#[test]
fn the_numbers_of_a_body_are_those_of_its_spans_and_a_changed_byte_is_noticed() {
    let size_of = |number: u32| (number < 500).then_some(200);
    let requests = |all: &[&[u32]]| all.iter().flat_map(|it| protobuf(it, 200).1).collect();
    let merged: Vec<u8> = requests(&[&[411, 412], &[420]]);
    for mut body in [merged, json(&[411, 412, 420], 200).1] {
        assert_eq!(numbers(&body, size_of), Ok(vec![411, 412, 420]));
        let end = body.len() - 30;
        body[end] ^= 1;
        assert!(numbers(&body, size_of).is_err());
    }
    let other_half: Vec<u8> = requests(&[&[1], &[411]]);
    assert!(numbers(&other_half, size_of).unwrap_err().contains("13 hours"));
    let document = |it: &[u32]| format!("\"{}\"", datagram::encode(&protobuf(it, 200).1));
    let (first, second) = (document(&[411, 412]), document(&[420]));
    let body = format!("{{\"TraceSegmentDocuments\":[{first},{second}]}}");
    assert_eq!(numbers(body.as_bytes(), size_of), Ok(vec![411, 412, 420]));
    assert_eq!(numbers(second.as_bytes(), size_of), Ok(vec![420]));
    let twice = json(&[411], 200).1.repeat(2);
    assert!(numbers(&twice, size_of).is_err(), "JSON cannot be merged");
}
