//! Reads the body of a server's answer over HTTP.
//!
//! In: the body of an answer. Out: how many spans the server rejected, or why it refused the
//! request. Bound: the body.

use crate::answer::{ExportTraceServiceResponse, Status};
use crate::request::Encoding;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;

/// The answer of a server to a request that it accepted. By default it took all spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartialSuccess {
    /// Number of spans that the server rejected.
    pub rejected_count: u64,
    /// Why it rejected them; or a warning, if it rejected none.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    partial_success: Option<JsonPartial>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JsonPartial {
    /// A number, or a text with it.
    rejected_spans: Value,
    error_message: Option<String>,
}

/// Reads an `ExportTraceServiceResponse`. Returns `None` if `body` is none.
pub fn accepted(encoding: Encoding, body: &[u8]) -> Option<PartialSuccess> {
    match encoding {
        Encoding::Protobuf => {
            let partial =
                ExportTraceServiceResponse::decode(body).ok()?.partial_success.unwrap_or_default();
            let rejected_count = u64::try_from(partial.rejected_spans).unwrap_or_default();
            Some(PartialSuccess { rejected_count, message: partial.error_message })
        }
        Encoding::Json => {
            if !body.trim_ascii_start().starts_with(b"{") {
                return None;
            }
            let partial = serde_json::from_slice::<JsonResponse>(body).ok()?.partial_success;
            let JsonPartial { rejected_spans, error_message } = partial.unwrap_or_default();
            let of_text = || rejected_spans.as_str()?.parse().ok();
            let rejected_count = rejected_spans.as_u64().or_else(of_text).unwrap_or_default();
            Some(PartialSuccess { rejected_count, message: error_message.unwrap_or_default() })
        }
    }
}

/// Reads the message of a `google.rpc.Status`. Returns `None` if `body` is none, or has no message.
pub fn refused(encoding: Encoding, body: &[u8]) -> Option<String> {
    let message = match encoding {
        Encoding::Protobuf => Status::decode(body).ok()?.message,
        Encoding::Json => {
            let status: Value = serde_json::from_slice(body).ok()?;
            status.get("message")?.as_str()?.to_owned()
        }
    };
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;
    use crate::grpc::Refusal;

    #[test]
    fn what_the_server_has_written_is_read() {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let whole = accepted(encoding, &answer::accepted(encoding, 0, ""));
            assert_eq!(whole, Some(PartialSuccess::default()), "{encoding:?}");
            let part = accepted(encoding, &answer::accepted(encoding, 3, "no")).unwrap();
            assert_eq!((part.rejected_count, part.message.as_str()), (3, "no"));
            let refusal = Refusal::new(3, "no");
            let why = refused(encoding, &answer::refused(encoding, &refusal));
            assert_eq!(why.as_deref(), Some("no"));
        }
    }

    #[test]
    fn other_bodies_are_no_answers() {
        for body in [&b"<html>"[..], b"[]", b"\xff\xff"] {
            assert_eq!(accepted(Encoding::Json, body), None);
            assert_eq!(refused(Encoding::Json, body), None);
        }
        assert_eq!(accepted(Encoding::Protobuf, b"<html>"), None);
        assert_eq!(refused(Encoding::Protobuf, b""), None);
        let negative = accepted(Encoding::Json, br#"{"partialSuccess":{"rejectedSpans":-1}}"#);
        assert_eq!(negative, Some(PartialSuccess::default()));
    }
}
