//! Divides a request into documents, as AWS's UDP exporters for OpenTelemetry write them.
//!
//! In: the body of an `ExportTraceServiceRequest`. Out: documents with as many spans as fit, each
//! with its resource and scope; and the spans that are too large for a document. Bound: the length
//! of a document. The bytes of a span of a protobuf request are not changed. A JSON request is
//! written as protobuf first, in pieces of about [`PIECE_BYTES`]: each scope repeats its resource,
//! so the whole could need far more memory than the request.

use crate::datagram;
use crate::message::Span;
use crate::request::{DecodeError, Encoding, Received, Request, Source, SpanError};
use crate::scan::{FoundSpan, cut, scan};
use prost::encoding::{bytes, message};
use std::ops::Range;
use std::rc::Rc;

// The numbers of fields in a request.
const RESOURCE_SPANS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SCOPE: u32 = 1;
const SPANS: u32 = 2;

/// A piece is complete when it has this many bytes and a scope ends.
const PIECE_BYTES: usize = 1024 * 1024;

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
    if encoding == Encoding::Protobuf {
        return divide(body, bytes_max, &mut put);
    }
    let (mut written, mut result) = (Written::default(), Ok(()));
    Request::parse(encoding, body)?.spans(|received: Result<Received, SpanError>| match received {
        Ok(Received { source, span }) => {
            if let Some(piece) = written.add(&source, &span) {
                let divided = divide(&piece, bytes_max, &mut put);
                if result.is_ok() {
                    result = divided;
                }
            }
        }
        Err(error) => put(Part::Rejected(error.to_string())),
    });
    result.and(divide(&written.finish(), bytes_max, &mut put))
}

/// Passes the parts of a protobuf request to `put`.
fn divide(body: &[u8], bytes_max: usize, put: &mut impl FnMut(Part)) -> Result<(), DecodeError> {
    let mut sizes = Vec::new();
    scan(Encoding::Protobuf, body, |span| sizes.push(span.size_bytes))?;
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
            let raw = cut_out(body, start..start + count)?;
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

/// A request in protobuf that is being written span by span.
#[derive(Default)]
struct Written {
    body: Vec<u8>,
    /// The source of the last spans.
    source: Option<Rc<Source>>,
    /// The encoded spans of this source.
    spans: Vec<u8>,
}

impl Written {
    /// Adds a span. Returns what was written before, if that is a whole piece.
    fn add(&mut self, source: &Rc<Source>, span: &Span) -> Option<Vec<u8>> {
        let mut piece = None;
        if self.source.as_ref().is_none_or(|last| !Rc::ptr_eq(last, source)) {
            self.close();
            piece = (self.body.len() >= PIECE_BYTES).then(|| std::mem::take(&mut self.body));
            self.source = Some(Rc::clone(source));
        }
        message::encode(SPANS, span, &mut self.spans);
        piece
    }

    /// Returns the last piece.
    fn finish(mut self) -> Vec<u8> {
        self.close();
        self.body
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

    /// In one piece, this request of 200 kB would need 30 MB.
    #[test]
    fn a_large_resource_with_many_scopes_is_written_in_pieces() {
        let resource = format!(
            r#"{{"attributes":[{{"key":"k","value":{{"stringValue":"{}"}}}}]}}"#,
            "x".repeat(20_000)
        );
        let scopes: Vec<String> = (1..1_501).map(|it| json_scope("s", it..it + 1)).collect();
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{}]}}]}}"#,
            scopes.join(",")
        );
        let (found, _) = in_documents(&json);
        assert_eq!(found, received(Encoding::Json, json.as_bytes()));
        let (mut written, mut piece_count) = (Written::default(), 0);
        Request::parse(Encoding::Json, json.as_bytes()).unwrap().spans(|received| {
            let Received { source, span } = received.unwrap();
            if let Some(piece) = written.add(&source, &span) {
                assert!(piece.len() < PIECE_BYTES + 30_000, "{}", piece.len());
                piece_count += 1;
            }
        });
        assert!(piece_count > 25, "{piece_count}");
    }
}
