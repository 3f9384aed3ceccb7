//! Writes the body of an answer over HTTP.
//!
//! In: how many spans were rejected, or why a request was refused. Out: an
//! `ExportTraceServiceResponse` or a `google.rpc.Status`, as protobuf or JSON: an answer has the
//! encoding of its request, see <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>.

use crate::request::Encoding;
use bytes::Bytes;
use prost::Message;
use serde_json::json;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Returns the body of an answer with status 200. `rejected_count` spans were not taken; `why` says
/// the reason of the first one.
pub fn accepted(encoding: Encoding, rejected_count: usize, why: &str) -> Bytes {
    let rejected_spans = i64::try_from(rejected_count).unwrap_or(i64::MAX);
    let partial_success = (rejected_count > 0)
        .then(|| PartialSuccess { rejected_spans, error_message: why.to_owned() });
    match encoding {
        Encoding::Protobuf => ExportTraceServiceResponse { partial_success }.encode_to_vec().into(),
        Encoding::Json => match partial_success {
            None => Bytes::from_static(b"{}"),
            Some(partial) => {
                let rejected = partial.rejected_spans.to_string();
                let partial = json!({"rejectedSpans": rejected, "errorMessage": why});
                json!({"partialSuccess": partial}).to_string().into()
            }
        },
    }
}

/// Returns the body of an answer to a refused request. `code` is a status code of gRPC.
pub fn refused(encoding: Encoding, code: i32, message: &str) -> Bytes {
    match encoding {
        Encoding::Protobuf => Status { code, message: message.to_owned() }.encode_to_vec().into(),
        Encoding::Json => json!({"code": code, "message": message}).to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_rejected_spans_only_if_there_are_some() {
        assert_eq!(accepted(Encoding::Protobuf, 0, ""), Bytes::new());
        assert_eq!(accepted(Encoding::Json, 0, ""), "{}");
        assert_eq!(accepted(Encoding::Protobuf, 3, "no"), Bytes::from("\n\x06\x08\x03\x12\x02no"));
        assert_eq!(
            accepted(Encoding::Json, 3, "no"),
            r#"{"partialSuccess":{"errorMessage":"no","rejectedSpans":"3"}}"#
        );
    }

    #[test]
    fn a_refusal_is_a_status_in_the_encoding_of_the_request() {
        assert_eq!(refused(Encoding::Protobuf, 3, "no"), Bytes::from("\x08\x03\x12\x02no"));
        assert_eq!(refused(Encoding::Json, 3, "no"), r#"{"code":3,"message":"no"}"#);
    }
}
