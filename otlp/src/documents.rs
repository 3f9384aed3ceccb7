//! Divides a request into documents, as AWS's UDP exporters for OpenTelemetry write them.
//!
//! In: the body of an `ExportTraceServiceRequest`. Out: documents with as many spans as fit, each
//! with its resource and scope; and the spans that no document holds. Bound: the length of a
//! document, beside which one resource and one scope are held; and the length of all documents, see
//! [`GROWTH_MAX`]. The bytes of a span of a protobuf request are not changed. A JSON request is
//! written as protobuf.

use crate::datagram;
use crate::protobuf::{Fields, Value};
use crate::request::{DecodeError, Encoding, Received, Request, Source, SpanError};
use prost::encoding::{bytes, encoded_len_varint, message};
use std::rc::Rc;

// The levels of a request, from the outside: the request, its `ResourceSpans`, their `ScopeSpans`.
const REQUEST: usize = 0;
const RESOURCE_SPANS: usize = 1;
const SCOPE_SPANS: usize = 2;

/// The number of the field that has the children of a message, by the level of the message.
const CHILDREN: [u32; 3] = [1, 2, 2];

/// The number of the field that has the resource, and of the one that has the scope.
const HEAD: u32 = 1;

/// Each document repeats the resource and scope of its spans. Where these fill most of a document,
/// no further document begins once the protobuf of all documents has this many times the bytes of
/// the request: 10,000 small spans could become 640 MB.
const GROWTH_MAX: usize = 2;

/// A part of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A document with this many spans.
    Document(String, u32),
    /// A span that no document holds, and why.
    Rejected(String),
}

/// Passes the parts of a request to `put`, in the order of the request. A document has up to
/// `bytes_max`.
///
/// # Errors
///
/// Returns an error if the body is cut off or is not what `encoding` says. `put` may have been
/// called before.
pub fn documents(
    encoding: Encoding,
    body: &[u8],
    bytes_max: usize,
    put: impl FnMut(Part),
) -> Result<(), DecodeError> {
    let mut writer = Writer::new(bytes_max, body.len(), put);
    let result = match encoding {
        Encoding::Protobuf => writer.add_message(REQUEST, body),
        Encoding::Json => writer.add_json(body),
    };
    writer.finish();
    result
}

/// An open message of a document.
#[derive(Debug, Default)]
struct Message {
    /// The fields that are repeated in each document: all but the children.
    head: Vec<u8>,
    /// The children that are complete, as fields.
    children: Vec<u8>,
}

/// Writes documents span by span.
struct Writer<P> {
    /// Largest length of the protobuf of a document, in bytes.
    raw_max: usize,
    /// Length that all documents may reach if resources and scopes are large, in bytes.
    written_max: usize,
    /// Length of all documents so far, in bytes.
    written_bytes: usize,
    put: P,
    /// The open message of each level.
    open: [Message; 3],
    span_count: u32,
}

impl<P: FnMut(Part)> Writer<P> {
    /// Writes documents of up to `bytes_max` for a request of `body_bytes`.
    fn new(bytes_max: usize, body_bytes: usize, put: P) -> Self {
        // Four characters of base64 stand for three bytes.
        let raw_max = bytes_max.saturating_sub(datagram::PREFIX.len()) / 4 * 3;
        let written_max = GROWTH_MAX * body_bytes;
        Self {
            raw_max,
            written_max,
            written_bytes: 0,
            put,
            open: Default::default(),
            span_count: 0,
        }
    }

    /// Adds the spans of a message in protobuf.
    fn add_message(&mut self, level: usize, message: &[u8]) -> Result<(), DecodeError> {
        let mut head = Vec::new();
        // The resource may stand behind its spans.
        each_field(level, message, |field, child| {
            if child.is_none() {
                head.extend_from_slice(field);
            }
            Ok(())
        })?;
        self.open(level, head);
        each_field(level, message, |field, child| match child {
            None => Ok(()),
            Some(_) if level == SCOPE_SPANS => {
                self.add_span(field);
                Ok(())
            }
            Some(child) => self.add_message(level + 1, child),
        })
    }

    /// Adds the spans of a request in JSON.
    fn add_json(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let mut last: Option<Rc<Source>> = None;
        Request::parse(Encoding::Json, body)?.spans(|received: Result<_, SpanError>| {
            let Received { source, span } = match received {
                Ok(received) => received,
                Err(error) => return (self.put)(Part::Rejected(error.to_string())),
            };
            if last.as_ref().is_none_or(|last| !Rc::ptr_eq(last, &source)) {
                let (mut resource, mut scope) = (Vec::new(), Vec::new());
                message::encode(HEAD, &source.resource, &mut resource);
                message::encode(HEAD, &source.scope, &mut scope);
                // Otherwise each scope would repeat its resource.
                if self.open[RESOURCE_SPANS].head != resource {
                    self.open(RESOURCE_SPANS, resource);
                }
                self.open(SCOPE_SPANS, scope);
                last = Some(source);
            }
            let mut field = Vec::new();
            message::encode(CHILDREN[SCOPE_SPANS], &span, &mut field);
            self.add_span(&field);
        });
        Ok(())
    }

    /// Begins a message. The messages of this level and below are complete.
    fn open(&mut self, level: usize, head: Vec<u8>) {
        self.close(level.max(RESOURCE_SPANS));
        self.open[level].head = head;
    }

    /// Adds a span, which is a field of the open `ScopeSpans`.
    fn add_span(&mut self, field: &[u8]) {
        let alone_bytes = self.length_with(field.len(), |message| message.head.len());
        if alone_bytes > self.raw_max {
            return (self.put)(Part::Rejected(format!(
                "with its resource and scope it has {alone_bytes} bytes, and a document takes {}",
                self.raw_max
            )));
        }
        let together = |message: &Message| message.head.len() + message.children.len();
        if self.length_with(field.len(), together) > self.raw_max {
            self.finish();
        }
        let repeated_bytes = alone_bytes - field.len();
        let begins = self.span_count == 0;
        if begins && repeated_bytes > self.raw_max / 2 && self.written_bytes > self.written_max {
            return (self.put)(Part::Rejected(format!(
                "its resource and scope have {repeated_bytes} bytes: repeated in each document, they \
                 would make the documents more than {GROWTH_MAX} times as large as the request"
            )));
        }
        self.open[SCOPE_SPANS].children.extend_from_slice(field);
        self.span_count += 1;
    }

    /// Returns the length of the document with one more span of `span_bytes`, where the open
    /// messages have `length` without it.
    fn length_with(&self, span_bytes: usize, length: impl Fn(&Message) -> usize) -> usize {
        let [request, outer @ ..] = &self.open;
        let inside = outer.iter().rev().fold(span_bytes, |inside, message| {
            let length_bytes = length(message) + inside;
            // Both fields have a key of one byte.
            1 + encoded_len_varint(length_bytes as u64) + length_bytes
        });
        length(request) + inside
    }

    /// Writes the open messages of `level` and below into those above, if they have spans.
    fn close(&mut self, level: usize) {
        for level in (level..=SCOPE_SPANS).rev() {
            let Message { head, children } = &mut self.open[level];
            if children.is_empty() {
                continue;
            }
            let whole = [head.as_slice(), children].concat();
            children.clear();
            bytes::encode(CHILDREN[level - 1], &whole, &mut self.open[level - 1].children);
        }
    }

    /// Passes the document on, if it has spans. The open messages stay open.
    fn finish(&mut self) {
        self.close(RESOURCE_SPANS);
        let Message { head, children } = &mut self.open[REQUEST];
        if self.span_count > 0 {
            let raw = [head.as_slice(), children].concat();
            children.clear();
            self.written_bytes += raw.len();
            (self.put)(Part::Document(datagram::encode(&raw), self.span_count));
            self.span_count = 0;
        }
    }
}

/// Passes each field of a message to `take`, and the message of the next level, or the span, that
/// the field has.
fn each_field<'a>(
    level: usize,
    message: &'a [u8],
    mut take: impl FnMut(&'a [u8], Option<&'a [u8]>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        let child = match field.value {
            Value::Bytes(value) if field.number == CHILDREN[level] => Some(value),
            _ => None,
        };
        take(field.bytes, child)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Span;
    use std::ops::Range;

    fn span(number: u8, name_bytes: usize) -> Span {
        let (trace_id, span_id) = (vec![number; 16], vec![number; 8]);
        Span { trace_id, span_id, name: "x".repeat(name_bytes), ..Span::default() }
    }

    fn request(spans: Vec<Span>) -> Vec<u8> {
        let document = datagram::document(&Source::default(), spans);
        datagram::decode(document.strip_prefix(datagram::PREFIX).unwrap()).unwrap()
    }

    fn parts(encoding: Encoding, body: &[u8], bytes_max: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        documents(encoding, body, bytes_max, |part| parts.push(part)).unwrap();
        parts
    }

    #[test]
    fn a_document_has_as_many_spans_as_fit_and_a_span_that_is_too_large_is_rejected() {
        let spans: Vec<Span> = (1..=100).map(|number| span(number, 100)).collect();
        let mut sent = spans.clone();
        sent.insert(50, span(200, 2_000));
        let (mut found, mut rejected_count) = (Vec::new(), 0);
        let parts = parts(Encoding::Protobuf, &request(sent), 2_000);
        for part in &parts {
            let Part::Document(document, count) = part else {
                rejected_count += 1;
                continue;
            };
            assert!(document.len() <= 2_000);
            let body = datagram::decode(document.strip_prefix("T1S").unwrap()).unwrap();
            let before = found.len();
            Request::parse(Encoding::Protobuf, &body)
                .unwrap()
                .spans(|received| found.push(received.unwrap().span));
            assert_eq!(found.len() - before, *count as usize);
        }
        assert_eq!((found == spans, rejected_count), (true, 1));
        // 1,497 bytes for about 11 spans of 130 bytes.
        assert!(parts.len() <= 12, "{}", parts.len());
    }

    #[test]
    fn a_json_request_becomes_the_same_documents() {
        let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[
            {"traceId":"01010101010101010101010101010101","spanId":"0101010101010101"},
            {"traceId":"00000000000000000000000000000000","spanId":"0101010101010101"}]}]}]}"#;
        let parts = parts(Encoding::Json, json, 64_000);
        let [Part::Rejected(why), Part::Document(document, 1)] = &parts[..] else {
            panic!("{parts:?}")
        };
        assert!(why.contains("trace id"), "{why}");
        assert_eq!(*document, datagram::document(&Source::default(), vec![span(1, 0)]));
    }

    fn json_span(number: usize) -> String {
        format!(r#"{{"traceId":"{number:032x}","spanId":"{number:016x}"}}"#)
    }

    fn json_scope(name: &str, numbers: Range<usize>) -> String {
        let spans: Vec<String> = numbers.map(json_span).collect();
        format!(r#"{{"scope":{{"name":"{name}"}},"spans":[{}]}}"#, spans.join(","))
    }

    /// Returns the spans of a request, each with its resource and scope.
    fn received(encoding: Encoding, body: &[u8]) -> Vec<(String, Span)> {
        let mut all = Vec::new();
        Request::parse(encoding, body).unwrap().spans(|received| {
            let Received { source, span } = received.unwrap();
            all.push((format!("{source:?}"), span));
        });
        all
    }

    /// Returns the same of the documents of a JSON request, and the number of documents.
    fn in_documents(json: &str) -> (Vec<(String, Span)>, usize) {
        let (mut all, parts) = (Vec::new(), parts(Encoding::Json, json.as_bytes(), 64_000));
        for part in &parts {
            let Part::Document(document, count) = part else { panic!("{part:?}") };
            let text = document.strip_prefix(datagram::PREFIX).unwrap();
            let spans = received(Encoding::Protobuf, &datagram::decode(text).unwrap());
            assert_eq!(spans.len(), *count as usize);
            all.extend(spans);
        }
        (all, parts.len())
    }

    #[test]
    fn spans_of_a_json_request_keep_their_own_resource_and_scope() {
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{{"droppedAttributesCount":7}},"scopeSpans":[{},{}]}},{{"scopeSpans":[{}]}}]}}"#,
            json_scope("a", 1..3),
            json_scope("b", 3..4),
            json_scope("c", 4..5),
        );
        let (found, document_count) = in_documents(&json);
        assert_eq!((found.len(), document_count), (4, 1));
        assert_eq!(found, received(Encoding::Json, json.as_bytes()));
    }

    #[test]
    fn many_scopes_with_a_large_resource_keep_it() {
        let resource = format!(
            r#"{{"attributes":[{{"key":"k","value":{{"stringValue":"{}"}}}}]}}"#,
            "x".repeat(20_000)
        );
        let scopes: Vec<String> = (1..1_501).map(|it| json_scope("s", it..it + 1)).collect();
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{}]}}]}}"#,
            scopes.join(",")
        );
        let (found, document_count) = in_documents(&json);
        assert_eq!(found, received(Encoding::Json, json.as_bytes()));
        // 1,500 spans of 60 bytes, and the resource in each document.
        assert!(document_count < 10, "{document_count}");
    }

    /// Writes a message of one field.
    fn field(number: u32, value: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        bytes::encode(number, &value.to_vec(), &mut field);
        field
    }

    #[test]
    fn a_document_has_the_fields_of_each_level_and_spans_in_their_bytes() {
        // The span has a field that is not known and a length that is longer than needed.
        let span = [&[0x12, 0x84, 0x00][..], &field(99, b"x")].concat();
        let spans = [field(1, b"scope"), span.clone(), field(3, b"url"), span].concat();
        let resource_spans = [field(2, &spans), field(1, b"resource"), field(2, &spans)].concat();
        let body = [field(1, &resource_spans), field(7, b"later")].concat();
        let parts = parts(Encoding::Protobuf, &body, 64_000);
        let [Part::Document(document, 4)] = &parts[..] else { panic!("{parts:?}") };
        let scope = [field(1, b"scope"), field(3, b"url"), spans[7..14].repeat(2)].concat();
        let resource = [field(1, b"resource"), field(2, &scope).repeat(2)].concat();
        let expected = [field(7, b"later"), field(1, &resource)].concat();
        let raw = datagram::decode(document.strip_prefix(datagram::PREFIX).unwrap()).unwrap();
        assert_eq!(raw, expected);
    }

    #[test]
    fn a_document_is_never_longer_than_allowed_and_as_long_as_possible() {
        let spans: Vec<Span> = (1..=200).map(|number| span(number, 40)).collect();
        let body = request(spans);
        let mut before = usize::MAX;
        for bytes_max in (300..6_000).step_by(7) {
            let parts = parts(Encoding::Protobuf, &body, bytes_max);
            for part in &parts {
                let Part::Document(document, _) = part else { panic!("{part:?}") };
                assert!(document.len() <= bytes_max, "{} of {bytes_max}", document.len());
            }
            assert!(parts.len() <= before, "{bytes_max}");
            before = parts.len();
        }
        // A document of 6,000 characters has 4,497 bytes, and a span has about 72.
        assert!(before <= 4, "{before}");
    }

    /// Without a bound, the 10,000 spans would become 10,000 documents, 640 MB in all.
    #[test]
    fn a_large_resource_does_not_make_the_documents_many_times_as_large_as_the_request() {
        let of_resource = |resource_bytes: usize, span_count: usize| {
            let spans = field(2, &field(2, b"")).repeat(span_count);
            field(1, &[field(1, &vec![b'x'; resource_bytes]), spans].concat())
        };
        let large = of_resource(47_975, 10_000);
        let parts = parts(Encoding::Protobuf, &[large.clone(), of_resource(9, 5)].concat(), 64_000);
        let (last, others) = parts.split_last().unwrap();
        // Spans with a small resource are not rejected for those with a large one.
        assert!(matches!(last, Part::Document(_, 5)), "{last:?}");
        let written_bytes: usize = (others.iter())
            .map(|part| if let Part::Document(text, _) = part { text.len() } else { 0 })
            .sum();
        let written_max = (GROWTH_MAX * large.len() + 2 * 48_000) / 3 * 4;
        assert!((1..=written_max).contains(&written_bytes), "{written_bytes} of {written_max}");
        let Some(Part::Rejected(why)) = others.last() else { panic!("none is rejected") };
        assert!(why.contains("repeated in each document"), "{why}");
        // A request that needs one document is not concerned.
        let mut alone = Vec::new();
        documents(Encoding::Protobuf, &of_resource(47_000, 1), 64_000, |it| alone.push(it))
            .unwrap();
        assert!(matches!(alone[..], [Part::Document(_, 1)]));
    }

    /// If each span were cut out of the whole request, this would copy 30 GB.
    #[test]
    fn spans_whose_resource_is_too_large_are_rejected_one_by_one() {
        let resource = field(1, &vec![b'x'; 3_000_000]);
        let spans = field(2, &field(2, b"")).repeat(10_000);
        let small = field(1, &field(2, &field(2, b"")));
        let body = [field(1, &[resource, spans].concat()), small].concat();
        let parts = parts(Encoding::Protobuf, &body, 64_000);
        let (last, others) = parts.split_last().unwrap();
        assert!(matches!(last, Part::Document(_, 1)));
        assert_eq!(others.len(), 10_000);
        assert!(
            others.iter().all(|part| matches!(part, Part::Rejected(why) if why.contains("3000")))
        );
    }
}
