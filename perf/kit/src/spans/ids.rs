//! The ids of the kit's spans, which contain the number of a span and the time of sending.
//!
//! The ids look random, as those of real spans, so that they do not compress: each part goes
//! through a function that mixes its bits and that can be inverted. A trace id is the time of
//! sending with the number of the trace in its batch, and a check. A span id is the number of the
//! span.

use crate::document::Mark;
use bytes::Bytes;
use libdeflater::Decompressor;
use prost::Message;

/// Number of bits of a trace id that are the number of the trace in its batch.
const TRACE_BITS: u32 = 8;
/// Tells the kit's trace ids from others.
const CHECK: u64 = 0x7872_6179_642d_7066;

const FACTORS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
const SHIFTS: [u32; 3] = [30, 27, 31];

/// Mixes the bits of a number (the end of `SplitMix64`). Only 0 stays 0.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> SHIFTS[0])).wrapping_mul(FACTORS[0]);
    let number = (number ^ (number >> SHIFTS[1])).wrapping_mul(FACTORS[1]);
    number ^ (number >> SHIFTS[2])
}

/// Inverts [`mix`].
fn unmix(number: u64) -> u64 {
    let number = unshift(number, SHIFTS[2]).wrapping_mul(inverse(FACTORS[1]));
    let number = unshift(number, SHIFTS[1]).wrapping_mul(inverse(FACTORS[0]));
    unshift(number, SHIFTS[0])
}

/// Inverts `number ^ (number >> shift)`, for a shift of more than 21 bits.
fn unshift(number: u64, shift: u32) -> u64 {
    number ^ (number >> shift) ^ (number >> (2 * shift))
}

/// Returns the inverse of an odd number modulo 2^64. Each step doubles the number of right bits.
const fn inverse(number: u64) -> u64 {
    let mut inverse = number;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(number.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
}

/// Returns the trace id of a trace in a batch. `trace` is below 256.
pub fn trace_id(time_ns: u64, trace: usize) -> [u8; 16] {
    let high = mix((time_ns << TRACE_BITS) | trace as u64);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&mix(high ^ CHECK).to_be_bytes());
    id
}

/// Returns the id of a span. It is not 0.
pub fn span_id(sequence: u64) -> [u8; 8] {
    mix(sequence + 1).to_be_bytes()
}

/// Returns the number of a span and the time of sending, or `None` for ids of other senders.
fn mark(trace_id: &[u8], span_id: &[u8]) -> Option<Mark> {
    let (high, low) = trace_id.split_first_chunk()?;
    let high = u64::from_be_bytes(*high);
    if mix(high ^ CHECK).to_be_bytes() != *low {
        return None;
    }
    let sequence = unmix(u64::from_be_bytes(span_id.try_into().ok()?)).checked_sub(1)?;
    Some(Mark { sequence, time_ns: unmix(high) >> TRACE_BITS })
}

/// An `ExportTraceServiceRequest` of which only the ids of spans are read.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "bytes", tag = "1")]
    trace_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    span_id: Bytes,
}

/// Why the body of a request cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// It is not gzip, or larger than the service accepts.
    Gzip,
    /// It is not the protobuf of a request.
    Protobuf(prost::DecodeError),
}

/// Returns the marks of all spans in the body of a request, and the number of spans of other
/// senders.
///
/// # Errors
///
/// Fails if the body cannot be read.
pub fn marks(body: &Bytes, is_gzip: bool) -> Result<(Vec<Mark>, u64), Unreadable> {
    let inflated = if is_gzip { Some(inflate(body)?) } else { None };
    let body = inflated.as_ref().unwrap_or(body);
    let request = Request::decode(body.clone()).map_err(Unreadable::Protobuf)?;
    let scopes = request.resources.iter().flat_map(|resource| &resource.scopes);
    let (mut marks, mut foreign_count) = (Vec::new(), 0);
    for span in scopes.flat_map(|scope| &scope.spans) {
        match mark(&span.trace_id, &span.span_id) {
            Some(mark) => marks.push(mark),
            None => foreign_count += 1,
        }
    }
    Ok((marks, foreign_count))
}

/// Inflates a body of one member, whose last four bytes are the length.
fn inflate(body: &[u8]) -> Result<Bytes, Unreadable> {
    let length = body.last_chunk().map(|length| u32::from_le_bytes(*length));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= xrayd_otlp::BODY_BYTES_MAX);
    let mut inflated = vec![0; length.ok_or(Unreadable::Gzip)?];
    let written = Decompressor::new().gzip_decompress(body, &mut inflated);
    match written {
        Ok(written) if written == inflated.len() => Ok(inflated.into()),
        _ => Err(Unreadable::Gzip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_time_are_read_from_the_ids_again() {
        for sequence in [0, 1, 511, 512, 1 << 31, u64::MAX - 2] {
            for time_ns in [0, 1, 90_000_000_000_000] {
                for trace in [0, 63, 255] {
                    let mark = mark(&trace_id(time_ns, trace), &span_id(sequence)).unwrap();
                    assert_eq!(mark, Mark { sequence, time_ns });
                }
            }
        }
    }

    #[test]
    fn ids_of_other_senders_are_not_those_of_the_kit() {
        let id = trace_id(7, 7);
        assert_eq!(mark(&[7; 16], &span_id(7)), None);
        assert_eq!(mark(&id[..15], &span_id(7)), None);
        assert_eq!(mark(&id, &[0; 8]), None);
        assert_eq!(mark(&id, b"short"), None);
    }

    #[test]
    fn what_is_no_request_is_an_error_and_takes_no_memory() {
        let damaged = |body: &'static [u8], is_gzip| marks(&Bytes::from_static(body), is_gzip);
        assert!(matches!(damaged(b"\x0a\x05", false), Err(Unreadable::Protobuf(_))));
        assert!(matches!(damaged(b"", true), Err(Unreadable::Gzip)));
        assert!(matches!(damaged(b"no gzip\xff\xff\xff\xff", true), Err(Unreadable::Gzip)));
        assert!(matches!(damaged(b"no gzip\x01\0\0\0", true), Err(Unreadable::Gzip)));
        assert!(damaged(b"", false).unwrap().0.is_empty());
    }
}
