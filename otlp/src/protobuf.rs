//! Finds the parts of a protobuf message without decoding them.
//!
//! In: the bytes of a message. Out: the bytes of its fields, which are not copied. Bound: none is
//! needed, because nothing is allocated. The lengths and keys of the wire format are read with
//! prost, <https://protobuf.dev/programming-guides/encoding/>.

use crate::request::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Passes the number and the bytes of each field that has a length (messages, texts, bytes) to
/// `take`. Other fields are skipped.
pub fn fields<'a>(
    mut rest: &'a [u8],
    mut take: impl FnMut(u32, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length_bytes = decode_varint(&mut rest)?;
        let split = usize::try_from(length_bytes).ok().and_then(|at| rest.split_at_checked(at));
        let left_bytes = rest.len();
        let (field, after) = split.ok_or(DecodeError::Truncated { length_bytes, left_bytes })?;
        rest = after;
        take(number, field)?;
    }
    Ok(())
}
