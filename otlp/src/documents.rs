//! Divides a request into documents, as AWS's UDP exporters for OpenTelemetry write them.
//!
//! In: the body of an `ExportTraceServiceRequest`. Out: documents with as many spans as fit, each
//! with its resource and scope; and the spans that are too large for a document. Bound: the length
//! of a document. The bytes of a span of a protobuf request are not changed. A JSON request is
//! written as protobuf first.

use crate::datagram;
use crate::message::Span;
use crate::request::{DecodeError, Encoding, Received, Request, Source, SpanError};
use crate::scan::{FoundSpan, cut, scan};
use prost::encoding::{bytes, message};
use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

// The numbers of fields in a request.
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SCOPE: u32 = 1;
const SPANS: u32 = 2;

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
/// Returns an error if the body is cut off or is not what `encoding` says.
pub fn documents(
    encoding: Encoding,
    body: &[u8],
    bytes_max: usize,
    mut put: impl FnMut(Part),
) -> Result<(), DecodeError> {
    let body = match encoding {
        Encoding::Protobuf => Cow::Borrowed(body),
        Encoding::Json => Cow::Owned(protobuf(body, &mut put)?),
    };
    let mut sizes = Vec::new();
    scan(Encoding::Protobuf, &body, |span| sizes.push(span.size_bytes))?;
    // Four characters of base64 stand for three bytes.
    let raw_max = bytes_max.saturating_sub(datagram::PREFIX.len()) / 4 * 3;
    let mut start = 0;
    while start < sizes.len() {
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= raw_max
        };
        let mut count = sizes[start..].iter().take_while(fits).count().max(1);
        // Resources, scopes and lengths take room too: how much is known only after the cut.
        let raw = loop {
            let raw = cut_out(&body, start..start + count)?;
            if raw.len() <= raw_max || count == 1 {
                break raw;
            }
            count = (count * raw_max / raw.len()).clamp(1, count - 1);
        };
        if raw.len() > raw_max {
            put(Part::Rejected(format!(
                "with its resource and scope it has {} bytes, and a document takes {raw_max}",
                raw.len()
            )));
        } else {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            put(Part::Document(datagram::encode(&raw), count));
        }
        start += count;
    }
    Ok(())
}

/// Returns a request with only these spans.
fn cut_out(body: &[u8], spans: Range<usize>) -> Result<Vec<u8>, DecodeError> {
    let mut taken = Vec::new();
    let keeps = |span: &FoundSpan| spans.contains(&span.index);
    cut(Encoding::Protobuf, body, keeps, |piece| taken.extend_from_slice(piece))?;
    Ok(taken)
}

/// Returns a JSON request as protobuf. Spans that cannot be read are passed to `put`.
///
/// Decodes one span at a time: decoded spans may need much more memory than their text.
fn protobuf(body: &[u8], put: &mut impl FnMut(Part)) -> Result<Vec<u8>, DecodeError> {
    let mut written = Written::default();
    Request::parse(Encoding::Json, body)?.spans(|received: Result<Received, SpanError>| {
        match received {
            Ok(Received { source, span }) => written.add(&source, &span),
            Err(error) => put(Part::Rejected(error.to_string())),
        }
    });
    written.close();
    Ok(written.body)
}

/// A request in protobuf that is being written.
#[derive(Default)]
struct Written {
    body: Vec<u8>,
    /// The source of the last spans.
    source: Option<Rc<Source>>,
    /// The encoded spans of this source.
    spans: Vec<u8>,
}

impl Written {
    fn add(&mut self, source: &Rc<Source>, span: &Span) {
        if self.source.as_ref().is_none_or(|last| !Rc::ptr_eq(last, source)) {
            self.close();
            self.source = Some(Rc::clone(source));
        }
        message::encode(SPANS, span, &mut self.spans);
    }

    /// Writes the spans of the last source, with its resource and scope.
    fn close(&mut self) {
        let Some(source) = self.source.take() else { return };
        let mut scope_spans = Vec::with_capacity(self.spans.len());
        message::encode(SCOPE, &source.scope, &mut scope_spans);
        scope_spans.append(&mut self.spans);
        let mut resource_spans = Vec::with_capacity(scope_spans.len());
        message::encode(RESOURCE, &source.resource, &mut resource_spans);
        bytes::encode(SCOPE_SPANS, &scope_spans, &mut resource_spans);
        bytes::encode(RESOURCE_SPANS, &resource_spans, &mut self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn spans_of_a_json_request_keep_their_own_resource_and_scope() {
        let spans = |number: u8| {
            format!(r#"{{"traceId":"{number:02x}{:030x}","spanId":"{number:016x}"}}"#, 1)
        };
        let scope = |name: &str, spans: &[String]| {
            format!(r#"{{"scope":{{"name":"{name}"}},"spans":[{}]}}"#, spans.join(","))
        };
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{{"droppedAttributesCount":7}},"scopeSpans":[{},{}]}},{{"scopeSpans":[{}]}}]}}"#,
            scope("a", &[spans(1), spans(2)]),
            scope("b", &[spans(3)]),
            scope("c", &[spans(4)]),
        );
        let sources = |encoding: Encoding, body: &[u8]| {
            let mut all = Vec::new();
            Request::parse(encoding, body).unwrap().spans(|received| {
                let Received { source, span } = received.unwrap();
                all.push((format!("{source:?}"), span));
            });
            all
        };
        let body = protobuf(json.as_bytes(), &mut |part| panic!("{part:?}")).unwrap();
        let found = sources(Encoding::Protobuf, &body);
        assert_eq!(found.len(), 4);
        assert_eq!(found, sources(Encoding::Json, json.as_bytes()));
    }
}
