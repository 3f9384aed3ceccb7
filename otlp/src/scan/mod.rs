//! Looks at the spans of a request without decoding them, and takes some of them out.
//!
//! In: the uncompressed body of an `ExportTraceServiceRequest`, as protobuf or JSON. Out: of each
//! span its size, its start and its end ([`scan`]); or a request with only some of the spans
//! ([`cut`]), for example to refuse spans or to split a request. The bytes of a span, of its
//! resource and of its scope are never changed. Two requests in protobuf, one behind the other, are
//! one request with the spans of both, because repeated fields concatenate. So nothing here merges.
//! Bound: none is needed, because nothing is allocated. No I/O, no clock.
//!
//! The two forms of a body are walked in the same way, so that both functions and both forms agree
//! about the number of a span.

mod json;
mod protobuf;

use crate::request::{DecodeError, Encoding};

/// A span of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSpan {
    /// The number of spans before it in the request.
    pub index: usize,
    /// Length of the span in the request, in bytes.
    pub size_bytes: usize,
    /// Start and end; `None` if the span cannot be read.
    pub times: Option<SpanTimes>,
}

/// When a span started and ended, in nanoseconds since 1970. 0 stands for a missing time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanTimes {
    /// The start.
    pub start_ns: u64,
    /// The end.
    pub end_ns: u64,
}

/// Passes each span of a request to `look`, in the order of the request.
///
/// # Errors
///
/// Returns an error if the body is cut off or is not what `encoding` says. `look` may have been
/// called before.
pub fn scan(
    encoding: Encoding,
    body: &[u8],
    mut look: impl FnMut(&FoundSpan),
) -> Result<(), DecodeError> {
    match encoding {
        Encoding::Protobuf => protobuf::scan(body, &mut look),
        Encoding::Json => json::scan(body, &mut look),
    }
}

/// Passes a request with only the spans for which `keeps` returns true to `put`, piece by piece.
/// `keeps` may be asked several times about one span and must give the same answer.
///
/// In protobuf, resources and scopes without such spans are left out; in JSON they stay, with an
/// empty list. Call it with a `put` that adds the lengths of the pieces to know the length of the
/// new request before.
///
/// # Errors
///
/// Returns an error if the body is cut off or is not what `encoding` says. `put` may have been
/// called before.
pub fn cut(
    encoding: Encoding,
    body: &[u8],
    keeps: impl Fn(&FoundSpan) -> bool,
    mut put: impl FnMut(&[u8]),
) -> Result<(), DecodeError> {
    match encoding {
        Encoding::Protobuf => protobuf::cut(body, &keeps, &mut put),
        Encoding::Json => json::cut(body, &keeps, &mut put),
    }
}

#[cfg(test)]
mod tests;
