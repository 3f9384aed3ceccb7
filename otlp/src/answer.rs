//! Writes the body of an answer over HTTP.
//!
//! In: how many spans were rejected, or why a request was refused. Out: an
//! `ExportTraceServiceResponse` or a `google.rpc.Status`, as protobuf or JSON: an answer has the
//! encoding of its request, see <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>.

use crate::grpc::Refusal;
use crate::request::Encoding;
use bytes::Bytes;
use prost::Message;
use serde_json::json;
use std::time::Duration;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The type of a detail that has the time after which a client may try again.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(time: Duration) -> Detail {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time.subsec_nanos()).unwrap_or(0);
    let value = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) }.encode_to_vec();
    Detail { type_url: RETRY_INFO.to_owned(), value }
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

/// Returns the body of an answer to a refused request: its `google.rpc.Status`.
pub fn refused(encoding: Encoding, refusal: &Refusal) -> Bytes {
    let Refusal { code, message, retry_after } = refusal;
    match encoding {
        Encoding::Protobuf => {
            let details = retry_after.map(retry_info).into_iter().collect();
            Status { code: *code, message: message.clone(), details }.encode_to_vec().into()
        }
        Encoding::Json => {
            let mut status = json!({"code": code, "message": message});
            if let Some(time) = retry_after {
                let delay = format!("{}s", time.as_secs_f64());
                status["details"] = json!([{"@type": RETRY_INFO, "retryDelay": delay}]);
            }
            status.to_string().into()
        }
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
        let no = Refusal::new(3, "no");
        assert_eq!(refused(Encoding::Protobuf, &no), Bytes::from("\x08\x03\x12\x02no"));
        assert_eq!(refused(Encoding::Json, &no), r#"{"code":3,"message":"no"}"#);
        let later = no.retry_after(Duration::from_millis(1_500));
        let status = Status::decode(refused(Encoding::Protobuf, &later)).unwrap();
        let [detail] = &status.details[..] else { panic!("{status:?}") };
        assert_eq!(detail.type_url, RETRY_INFO);
        let info = RetryInfo::decode(&detail.value[..]).unwrap();
        assert_eq!(info.retry_delay, Some(Delay { seconds: 1, nanos: 500_000_000 }));
        let json = r#"{"code":3,"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}],"message":"no"}"#;
        assert_eq!(refused(Encoding::Json, &later), json);
    }
}
