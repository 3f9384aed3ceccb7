//! Answers calls for export over gRPC.
//!
//! In: calls of the port. Out: an `ExportTraceServiceResponse`, or a status. A client tries again
//! after UNAVAILABLE, and after RESOURCE_EXHAUSTED if its details have a delay, see
//! <https://opentelemetry.io/docs/specs/otlp/#failures>. Bound: that of the server. Thread: `otlp`.

use super::Door;
use crate::base::account::Export;
use crate::base::grpc_server::Unary;
use crate::base::http_server::sent_by_web_page;
use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use std::sync::Arc;
use xrayd_otlp::grpc::{self, EXPORT_PATH, Refusal, code};
use xrayd_otlp::{Encoding, answer};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The handler of the port for OTLP over gRPC.
#[derive(Debug)]
pub struct GrpcDoor {
    door: Arc<Door>,
}

impl GrpcDoor {
    /// Returns the handler.
    pub fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    /// Returns an error if the call is not the one that exports spans.
    fn find(&self, head: &Parts) -> Result<(), Refusal> {
        let path = head.uri.path();
        if let Some(signal) = other_signal(path) {
            self.door.count(Export::OtherSignal);
            return Err(Refusal::new(code::UNIMPLEMENTED, self.door.refuse_signal(signal)));
        }
        let refusal = if let Some(header) = sent_by_web_page(head) {
            let why = format!("requests of web pages ({header}) are refused");
            Refusal::new(code::PERMISSION_DENIED, why)
        } else if path != EXPORT_PATH {
            let why = "this daemon takes traces only, with TraceService/Export";
            Refusal::new(code::UNIMPLEMENTED, why)
        } else if let Err(refusal) = self.door.look() {
            refusal
        } else {
            return Ok(());
        };
        self.door.count_result(&Err(refusal.clone()));
        Err(refusal)
    }
}

/// Returns the signal of a path of OTLP that is not the one of traces.
fn other_signal(path: &str) -> Option<&'static str> {
    let service = path.strip_prefix("/opentelemetry.proto.collector.")?;
    ["metrics", "logs"].into_iter().find(|signal| service.starts_with(signal))
}

impl Unary for GrpcDoor {
    fn check(&self, head: &Parts) -> Result<(), Refusal> {
        self.find(head)
    }

    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
        let encoding = head.headers.get(GRPC_ENCODING).map(|value| value.as_bytes());
        let result = self.door.with_buffer(|buffer| {
            let inflate = |limit_bytes, buffer| {
                let limit_bytes = grpc::MESSAGE_BYTES_MAX.min(limit_bytes);
                grpc::message(body, encoding, limit_bytes, buffer)
            };
            self.door.export(Encoding::Protobuf, inflate, buffer)
        });
        self.door.count_result(&result);
        let (refused_count, why) = result?;
        Ok(answer::accepted(Encoding::Protobuf, refused_count, &why))
    }
}
