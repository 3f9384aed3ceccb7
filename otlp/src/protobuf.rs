//! Finds the parts of a protobuf message without decoding them.
//!
//! In: the bytes of a message. Out: the bytes of its fields, which are not copied. Bound: none is
//! needed, because nothing is allocated. The lengths and keys of the wire format are read with
//! prost, <https://protobuf.dev/programming-guides/encoding/>.

use crate::request::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Number of the field.
    pub number: u32,
    /// The whole field, with its key and its length.
    pub bytes: &'a [u8],
    pub value: Value<'a>,
}

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A message, a text or bytes.
    Bytes(&'a [u8]),
    /// A number of 8 bytes.
    Fixed64(u64),
    /// A value of another form. It is skipped.
    Other,
}

/// Reads the fields of a message one by one.
#[derive(Debug, Clone)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Reads the next field. Returns `None` at the end of the message.
    ///
    /// # Errors
    ///
    /// Returns an error if the message is cut off or broken.
    pub fn next(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut rest = self.0;
        let (number, wire_type) = decode_key(&mut rest)?;
        let value = match wire_type {
            WireType::LengthDelimited => {
                let length_bytes = decode_varint(&mut rest)?;
                let split =
                    usize::try_from(length_bytes).ok().and_then(|at| rest.split_at_checked(at));
                let left_bytes = rest.len();
                let (value, after) =
                    split.ok_or(DecodeError::Truncated { length_bytes, left_bytes })?;
                rest = after;
                Value::Bytes(value)
            }
            WireType::SixtyFourBit => {
                let truncated = DecodeError::Truncated { length_bytes: 8, left_bytes: rest.len() };
                let (value, after) = rest.split_first_chunk().ok_or(truncated)?;
                rest = after;
                Value::Fixed64(u64::from_le_bytes(*value))
            }
            _ => {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                Value::Other
            }
        };
        let bytes = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Ok(Some(Field { number, bytes, value }))
    }
}

/// Passes the number and the bytes of each field that has a length (messages, texts, bytes) to
/// `take`. Other fields are skipped.
pub fn fields<'a>(
    message: &'a [u8],
    mut take: impl FnMut(u32, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        if let Value::Bytes(value) = field.value {
            take(field.number, value)?;
        }
    }
    Ok(())
}
