//! Reads the documents of AWS's UDP exporters for OpenTelemetry.
//!
//! In: the document of a datagram (behind the header line). It has a prefix, `T1S` for sampled
//! spans, `T1U` for unsampled spans or `M1` for metrics, and then the base64 of the protobuf of the
//! request for export. The prefix decides, and not the flags of the spans: one exporter leaves the
//! flag for sampled spans out. Out: the prefix, and the decoded bytes. Bound: the length of the
//! document.

use crate::message::{Resource, Scope, Span};
use crate::request::Source;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::Message;

/// The content of a document of a UDP exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Spans that the application sampled.
    SampledSpans,
    /// Spans that the application did not sample.
    UnsampledSpans,
    /// Metrics.
    Metrics,
}

/// The prefix of a document of sampled spans.
pub const PREFIX: &str = PREFIXES[0].0;

/// The prefix of each form.
const PREFIXES: [(&str, Form); 3] =
    [("T1S", Form::SampledSpans), ("T1U", Form::UnsampledSpans), ("M1", Form::Metrics)];

/// Returns the form of a document and its base64, or `None` if it has no such prefix.
pub fn form(document: &str) -> Option<(Form, &str)> {
    let of = |&(prefix, form): &(&str, Form)| Some((form, document.strip_prefix(prefix)?));
    PREFIXES.iter().find_map(of)
}

/// Decodes the base64 of a document. Returns `None` if it is not base64.
pub fn decode(base64: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(base64.trim_end()).ok()
}

/// Returns the document of sampled spans with this protobuf.
pub fn encode(protobuf: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64_STANDARD.encode(protobuf))
}

/// `ExportTraceServiceRequest` with the spans of one resource and one scope.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Export {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// Returns the document of sampled spans, as a UDP exporter writes it.
pub fn document(source: &Source, spans: Vec<Span>) -> String {
    let scope_spans = vec![ScopeSpans { scope: Some(source.scope.clone()), spans }];
    let resource = Some(source.resource.clone());
    let export = Export { resource_spans: vec![ResourceSpans { resource, scope_spans }] };
    encode(&export.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, Request};

    #[test]
    fn the_prefix_decides_about_the_form() {
        assert_eq!(form("T1SAAEC"), Some((Form::SampledSpans, "AAEC")));
        assert_eq!(form("T1UAAEC"), Some((Form::UnsampledSpans, "AAEC")));
        assert_eq!(form("M1AAEC"), Some((Form::Metrics, "AAEC")));
        for other in ["", "T1", "T1X", "t1sAAEC", "{\"id\":1}", " T1S"] {
            assert_eq!(form(other), None, "{other}");
        }
        assert_eq!(decode("AAEC\n"), Some(vec![0, 1, 2]));
        assert_eq!(decode("AAE*"), None);
    }

    #[test]
    fn a_written_document_is_read_again() {
        let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
        let text = document(&Source::default(), vec![span.clone(), span.clone()]);
        let (form, base64) = form(&text).unwrap();
        assert_eq!(form, Form::SampledSpans);
        let protobuf = decode(base64).unwrap();
        let request = Request::parse(Encoding::Protobuf, &protobuf).unwrap();
        let mut spans = Vec::new();
        request.spans(|received| spans.push(received.unwrap().span));
        assert_eq!(spans, [span.clone(), span]);
    }
}
