//! Takes the spans of OpenTelemetry: over HTTP (`POST /v1/traces`), over gRPC, and in documents of
//! UDP exporters.
//!
//! In: a request for export. Out: an answer in the encoding of the request; spans that were not
//! taken are a partial success, and if none was taken, an error. Metrics and logs are refused by
//! name. Such requests need no signature: exporters do not sign them.

use super::super::answer::{Answer, Failure};
use super::super::{Sandbox, guard};
use crate::model::document::Document;
use crate::model::span::{self, Spans};
use crate::model::store::Moment;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use xrayd_otlp::coding::{self, CodingError};
use xrayd_otlp::grpc::{self, Refusal, code};
use xrayd_otlp::{BODY_BYTES_MAX, Encoding, answer};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Returns the encoding that the content type of a request names.
pub fn encoding_of(head: &Parts) -> Option<Encoding> {
    head.headers.get(CONTENT_TYPE).and_then(|value| Encoding::of(value.as_bytes()))
}

impl Sandbox {
    /// Answers `POST /v1/traces`.
    pub(in super::super) fn export(
        &self,
        head: &Parts,
        body: &Bytes,
        now: Moment,
    ) -> Result<Answer, Failure> {
        let encoding = encoding_of(head).ok_or_else(|| {
            let known = "application/x-protobuf and application/json";
            unsupported(format!("The content type is not supported; {known} are"))
        })?;
        let mut buffer = Vec::new();
        let body = inflated(head, body, &mut buffer)?;
        let spans =
            span::read(encoding, body).map_err(|error| Failure::invalid(error.to_string()))?;
        let (taken_count, rejected_count, why) =
            (spans.taken_count, spans.rejected_count, spans.why.clone());
        self.keep(spans, now);
        if taken_count == 0 && rejected_count > 0 {
            return Err(Failure::invalid(why));
        }
        let body = answer::accepted(encoding, rejected_count, &why);
        Ok(Answer { content_type: encoding.content_type(), body, is_asset: false })
    }

    /// Answers a request for the metrics or the logs of OpenTelemetry.
    pub(in super::super) fn refuse_signal(signal: &str) -> Failure {
        let message = format!(
            "The sandbox takes traces only, at /v1/traces, and no {signal}. Switch their exporter \
             off: OTEL_{}_EXPORTER=none",
            signal.to_uppercase()
        );
        Failure::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    /// Answers the call of gRPC that exports spans. `body` is the body of the call.
    ///
    /// # Errors
    ///
    /// Returns a refusal if another website caused the call, or the call is not the one that
    /// exports spans, or its spans cannot be read.
    pub fn export_grpc(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
        if let Err(refused) = guard::check(head, &self.about.own_hosts) {
            return Err(Refusal::new(code::PERMISSION_DENIED, refused.message()));
        }
        if head.uri.path() != grpc::EXPORT_PATH {
            let only = "the sandbox takes traces only, with TraceService/Export";
            return Err(Refusal::new(code::UNIMPLEMENTED, only));
        }
        let encoding = head.headers.get(GRPC_ENCODING).map(|value| value.as_bytes());
        let mut buffer = Vec::new();
        let message = grpc::message(body, encoding, BODY_BYTES_MAX, &mut buffer)?;
        let invalid = |why: String| Refusal::new(code::INVALID_ARGUMENT, why);
        let spans =
            span::read(Encoding::Protobuf, message).map_err(|error| invalid(error.to_string()))?;
        let (taken_count, rejected_count, why) =
            (spans.taken_count, spans.rejected_count, spans.why.clone());
        self.keep(spans, Moment::now());
        if taken_count == 0 && rejected_count > 0 {
            return Err(invalid(why));
        }
        Ok(answer::accepted(Encoding::Protobuf, rejected_count, &why))
    }

    /// Adds the documents of spans to the store, and counts the spans that were rejected.
    fn keep(&self, spans: Spans, now: Moment) {
        let mut state = self.lock();
        if spans.rejected_count > 0 {
            state.reject_spans(spans.rejected_count as u64, spans.why, now);
        }
        state.keep(spans.documents, now);
    }
}

fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaTypeException", message)
}

/// Decompresses the body of a request.
fn inflated<'a>(
    head: &Parts,
    body: &'a [u8],
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], Failure> {
    let mut encodings = head.headers.get_all(CONTENT_ENCODING).iter();
    let encoding = encodings.next().map(|value| value.as_bytes());
    let decoded = match encodings.next() {
        None => coding::decode(encoding, body, BODY_BYTES_MAX, buffer),
        Some(_) => Err(CodingError::Unknown),
    };
    decoded.map_err(|error| match error {
        CodingError::Unknown => unsupported(error.to_string()),
        CodingError::Broken(_) => Failure::invalid(error.to_string()),
        CodingError::TooLarge(_) => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLargeException",
            error.to_string(),
        ),
    })
}

/// Reads the documents of a text from the trace file.
pub fn read_stored(text: &str) -> Vec<Document> {
    if text.starts_with("{\"resourceSpans\"") {
        let spans = span::read(Encoding::Json, text.as_bytes());
        return spans.map_or_else(|_| Vec::new(), |spans| spans.documents);
    }
    Document::parse(text).into_iter().collect()
}
