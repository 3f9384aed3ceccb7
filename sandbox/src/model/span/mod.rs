//! Turns OpenTelemetry's spans into documents of X-Ray.
//!
//! In: the body of a request for export (protobuf or JSON), or the document of a UDP exporter. Out:
//! [`Document`]s in X-Ray's terms, each with the OTLP JSON of its span. The rules are those of the
//! X-Ray exporter of the OpenTelemetry Collector (`exporter/awsxrayexporter` of
//! opentelemetry-collector-contrib): the parts of this module have the names of its parts. Where
//! the semantic conventions have a newer name for an attribute, both names are read. Bound: that of
//! the decoder, [`TEXT_BYTES_MAX`] for the two texts of a span, and [`REQUEST_TEXT_BYTES_MAX`] for
//! the texts of a request. Spans beyond a bound are rejected, and the others are kept. No I/O, no
//! clock.

mod attributes;
mod aws;
mod cause;
mod http;
mod names;
mod notes;
mod segment;
mod sql;
mod stack;
#[cfg(test)]
mod tests;

use super::document::Document;
use xrayd_otlp::datagram::{self, Form};
use xrayd_otlp::{DecodeError, Encoding, Request};

/// Largest document of a span, and largest OTLP JSON of a span, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Largest sum of the texts that are made of one request, in bytes. A resource of many attributes
/// is in the texts of each of its spans.
const REQUEST_TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The documents made of the spans of a request.
#[derive(Debug, Default)]
pub struct Spans {
    /// The documents, in the order of the spans.
    pub documents: Vec<Document>,
    /// Number of spans that were taken.
    pub taken_count: usize,
    /// Number of spans that were not taken.
    pub rejected_count: usize,
    /// Why the first of them was not taken.
    pub why: String,
}

impl Spans {
    fn reject(&mut self, count: usize, why: impl FnOnce() -> String) {
        if count > 0 && self.rejected_count == 0 {
            self.why = why();
        }
        self.rejected_count += count;
    }
}

/// The content of a document of a UDP exporter.
#[derive(Debug)]
pub enum Content {
    /// Spans.
    Spans(Spans),
    /// Metrics, which have no place in X-Ray.
    Metrics,
}

/// Reads a request for export.
///
/// # Errors
///
/// Returns an error if the body is not what `encoding` says. A span that cannot be read is rejected
/// by itself.
pub fn read(encoding: Encoding, body: &[u8]) -> Result<Spans, DecodeError> {
    let request = Request::parse(encoding, body)?;
    let mut spans = Spans::default();
    let mut text_bytes = 0;
    request.spans(|received| {
        let made = received.map_err(|error| error.to_string()).and_then(|received| {
            let has_room = text_bytes <= REQUEST_TEXT_BYTES_MAX;
            let full = || "the spans of the request take too much memory".to_owned();
            has_room.then(|| segment::documents(&received)).ok_or_else(full)?
        });
        match made {
            Ok(documents) => {
                text_bytes += documents.iter().map(Document::size_bytes).sum::<usize>();
                spans.taken_count += 1;
                spans.documents.extend(documents);
            }
            Err(why) => spans.reject(1, || why),
        }
    });
    spans.reject(request.left_out_count(), || {
        format!("a request may have at most {} spans", xrayd_otlp::SPAN_COUNT_MAX)
    });
    Ok(spans)
}

/// Reads the document of a UDP exporter. Returns `None` if it does not have the form of one. The
/// error says what is wrong with it.
pub fn read_datagram(text: &str) -> Option<Result<Content, String>> {
    let (form, base64) = datagram::form(text)?;
    if form == Form::Metrics {
        return Some(Ok(Content::Metrics));
    }
    let Some(protobuf) = datagram::decode(base64) else {
        return Some(Err("it is not base64 behind its prefix".to_owned()));
    };
    let spans = read(Encoding::Protobuf, &protobuf).map_err(|error| error.to_string());
    Some(spans.and_then(|spans| match spans.taken_count {
        0 if spans.rejected_count > 0 => Err(spans.why),
        _ => Ok(Content::Spans(spans)),
    }))
}
