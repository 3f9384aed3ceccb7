//! Reads and writes the frames of a unary call of gRPC.
//!
//! In: the body of a call. Out: the message in it, and the frame of an answer. A frame has a byte
//! (whether the message is compressed), the length in four bytes, and the message:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. Bound: the caller's limit.

use crate::answer;
use crate::coding::{self, CodingError};
use crate::request::Encoding;
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use std::time::Duration;

/// The path of the call that exports spans.
pub const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Largest message of a call, in bytes: the usual limit of gRPC's servers.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Status codes of gRPC, <https://grpc.io/docs/guides/status-codes/>.
pub mod code {
    /// The call succeeded.
    pub const OK: i32 = 0;
    /// The request cannot be read.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// The request took too long.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// There is no such thing.
    pub const NOT_FOUND: i32 = 5;
    /// The caller may not do this.
    pub const PERMISSION_DENIED: i32 = 7;
    /// The request is too large, or there are too many.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// The server does not have this call.
    pub const UNIMPLEMENTED: i32 = 12;
    /// The server failed.
    pub const INTERNAL: i32 = 13;
    /// The server cannot take the request now. The client tries again.
    pub const UNAVAILABLE: i32 = 14;
}

/// Length of a frame's head: the flag and the length.
pub const FRAME_HEAD_BYTES: usize = 5;

/// The answer to a call that failed: a code of [`code`] and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status code of gRPC.
    pub code: i32,
    /// The reason, for a person.
    pub message: String,
    /// The time after which the client may try again. Only with it does RESOURCE_EXHAUSTED mean
    /// that the client may try again at all, <https://opentelemetry.io/docs/specs/otlp/#failures>.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Returns a refusal.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// Returns the refusal with a time after which the client may try again.
    #[must_use]
    pub fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// Returns the value of the header `grpc-status-details-bin`: the status with its details, in
    /// base64. `None` if there are no details.
    pub fn details(&self) -> Option<String> {
        self.retry_after?;
        let status = answer::refused(Encoding::Protobuf, self);
        Some(BASE64_STANDARD_NO_PAD.encode(status))
    }

    /// Returns the message as the header `grpc-message` writes it: bytes other than printable ASCII
    /// as `%` and two hexadecimal digits.
    pub fn percent_encoded(&self) -> String {
        let mut encoded = String::new();
        for byte in self.message.bytes() {
            match byte {
                b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        encoded
    }
}

/// Returns the only message of a body. `encoding` is the header `grpc-encoding`. A compressed
/// message is inflated into `buffer`.
///
/// # Errors
///
/// Returns a refusal if the body is not exactly one frame, or the message has more than
/// `limit_bytes` or cannot be decompressed.
pub fn message<'a>(
    body: &'a [u8],
    encoding: Option<&[u8]>,
    limit_bytes: usize,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], Refusal> {
    let broken = || Refusal::new(code::INVALID_ARGUMENT, "the body is not one frame of gRPC");
    let (head, message) = body.split_at_checked(FRAME_HEAD_BYTES).ok_or_else(broken)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if usize::try_from(length) != Ok(message.len()) {
        return Err(broken());
    }
    let encoding = match head[0] {
        0 => None,
        1 => encoding,
        _ => return Err(broken()),
    };
    coding::decode(encoding, message, limit_bytes, buffer).map_err(|error| {
        let code = match error {
            CodingError::Unknown => code::UNIMPLEMENTED,
            CodingError::Broken(_) => code::INVALID_ARGUMENT,
            CodingError::TooLarge(_) => code::RESOURCE_EXHAUSTED,
        };
        Refusal::new(code, error.to_string())
    })
}

/// Returns the frame of a message that is not compressed.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("an answer is short"));
    frame.put_slice(message);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_contains_its_message() {
        assert_eq!(frame(b"ab"), Bytes::from_static(b"\0\0\0\0\x02ab"));
        let buffer = &mut Vec::new();
        assert_eq!(message(&frame(b"ab"), None, 2, buffer).unwrap(), b"ab");
        assert_eq!(message(&frame(b""), Some(b"gzip"), 2, buffer).unwrap(), b"");
        let refused = message(&frame(b"abc"), None, 2, buffer).unwrap_err();
        assert_eq!(refused.code, code::RESOURCE_EXHAUSTED);
    }

    #[test]
    fn what_is_not_exactly_one_frame_is_refused() {
        for body in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x02\0\0\0\x01a",
            b"\0\xff\xff\xff\xffa",
            b"\x01\0\0\0\x01a",
        ] {
            let refused = message(body, Some(b"gzip"), 100, &mut Vec::new()).unwrap_err();
            assert_eq!(refused.code, code::INVALID_ARGUMENT, "{body:?}");
        }
        let zstd = b"\x01\0\0\0\x01a";
        let refused = message(zstd, Some(b"zstd"), 100, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.code, code::UNIMPLEMENTED);
    }

    #[test]
    fn a_refusal_with_a_time_has_it_in_the_details() {
        let refusal = Refusal::new(code::RESOURCE_EXHAUSTED, "full");
        assert_eq!(refusal.details(), None);
        let details = refusal.retry_after(Duration::from_secs(2)).details().unwrap();
        // The bytes that the protobuf library of Google writes. gRPC wants no padding.
        let expected =
            "CAgSBGZ1bGwaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg";
        assert_eq!(details, expected);
    }

    #[test]
    fn a_message_in_a_header_is_percent_encoded() {
        let refusal = Refusal::new(code::INTERNAL, "100 % ü\n");
        assert_eq!(refusal.percent_encoded(), "100 %25 %C3%BC%0A");
    }
}
