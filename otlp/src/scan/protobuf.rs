//! Walks a request in protobuf.
//!
//! The request has `ResourceSpans` in field 1; these have `ScopeSpans` in field 2; these have spans
//! in field 2. All other fields, also those that are not known here, stay as they are. If a span is
//! taken out, the lengths of its two parents are written again.

use super::{FoundSpan, SpanTimes};
use crate::protobuf::{Field, Fields, Value};
use crate::request::DecodeError;
use prost::encoding::{encode_varint, encoded_len_varint};

/// The level of a message, from the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Request,
    ResourceSpans,
    ScopeSpans,
}

impl Level {
    /// Returns the number of the field that has the messages of the next level, or the spans.
    fn child_number(self) -> u32 {
        match self {
            Self::Request => 1,
            Self::ResourceSpans | Self::ScopeSpans => 2,
        }
    }

    /// Returns the level of these messages. `None` for spans.
    fn below(self) -> Option<Self> {
        match self {
            Self::Request => Some(Self::ResourceSpans),
            Self::ResourceSpans => Some(Self::ScopeSpans),
            Self::ScopeSpans => None,
        }
    }
}

/// Returns the message of the next level in a field, or the span.
fn child<'a>(level: Level, field: &Field<'a>) -> Option<&'a [u8]> {
    match field.value {
        Value::Bytes(value) if field.number == level.child_number() => Some(value),
        _ => None,
    }
}

fn found(index: usize, span: &[u8]) -> FoundSpan {
    FoundSpan { index, size_bytes: span.len(), times: times(span).ok() }
}

/// Reads the fields 7 and 8 of a span. Of a repeated field the last one counts.
fn times(span: &[u8]) -> Result<SpanTimes, DecodeError> {
    let (mut times, mut fields) = (SpanTimes::default(), Fields(span));
    while let Some(field) = fields.next()? {
        match (field.number, field.value) {
            (7, Value::Fixed64(start_ns)) => times.start_ns = start_ns,
            (8, Value::Fixed64(end_ns)) => times.end_ns = end_ns,
            _ => {}
        }
    }
    Ok(times)
}

pub fn scan(body: &[u8], look: &mut dyn FnMut(&FoundSpan)) -> Result<(), DecodeError> {
    walk(Level::Request, body, &mut 0, look)
}

fn walk(
    level: Level,
    message: &[u8],
    index: &mut usize,
    look: &mut dyn FnMut(&FoundSpan),
) -> Result<(), DecodeError> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        let Some(child) = child(level, &field) else { continue };
        match level.below() {
            Some(below) => walk(below, child, index, look)?,
            None => {
                look(&found(*index, child));
                *index += 1;
            }
        }
    }
    Ok(())
}

type Keeps<'a> = &'a dyn Fn(&FoundSpan) -> bool;

pub fn cut(body: &[u8], keeps: Keeps<'_>, put: &mut dyn FnMut(&[u8])) -> Result<(), DecodeError> {
    write(Level::Request, body, &mut 0, keeps, put)
}

/// The size of a message after the cut.
#[derive(Debug, Default)]
struct Measure {
    /// Length without the spans that are taken out, in bytes.
    length_bytes: usize,
    kept_count: usize,
    taken_out_count: usize,
}

fn measure(
    level: Level,
    message: &[u8],
    index: &mut usize,
    keeps: Keeps<'_>,
) -> Result<Measure, DecodeError> {
    let (mut sum, mut fields) = (Measure::default(), Fields(message));
    while let Some(field) = fields.next()? {
        let Some(child) = child(level, &field) else {
            sum.length_bytes += field.bytes.len();
            continue;
        };
        let part = match level.below() {
            Some(below) => measure(below, child, index, keeps)?,
            None => {
                let is_kept = keeps(&found(*index, child));
                *index += 1;
                let (kept_count, taken_out_count) = (usize::from(is_kept), usize::from(!is_kept));
                Measure { length_bytes: child.len(), kept_count, taken_out_count }
            }
        };
        sum.kept_count += part.kept_count;
        sum.taken_out_count += part.taken_out_count;
        sum.length_bytes += match (part.kept_count, part.taken_out_count) {
            (0, _) => 0,
            (_, 0) => field.bytes.len(),
            _ => head(&field, child, part.length_bytes).1 + part.length_bytes,
        };
    }
    Ok(sum)
}

/// Returns the key of a field with a length, and the length of the key with the new length of the
/// value.
fn head<'a>(field: &Field<'a>, value: &[u8], length_bytes: usize) -> (&'a [u8], usize) {
    let head = &field.bytes[..field.bytes.len() - value.len()];
    // Only the last byte of a varint has no highest bit.
    let key_bytes = head.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    (&head[..key_bytes], key_bytes + encoded_len_varint(length_bytes as u64))
}

fn write(
    level: Level,
    message: &[u8],
    index: &mut usize,
    keeps: Keeps<'_>,
    put: &mut dyn FnMut(&[u8]),
) -> Result<(), DecodeError> {
    let mut fields = Fields(message);
    while let Some(field) = fields.next()? {
        let Some(child) = child(level, &field) else {
            put(field.bytes);
            continue;
        };
        let Some(below) = level.below() else {
            if keeps(&found(*index, child)) {
                put(field.bytes);
            }
            *index += 1;
            continue;
        };
        let mut after = *index;
        let part = measure(below, child, &mut after, keeps)?;
        match (part.kept_count, part.taken_out_count) {
            (0, _) => {}
            (_, 0) => put(field.bytes),
            _ => {
                put(head(&field, child, part.length_bytes).0);
                let mut length = Vec::with_capacity(10);
                encode_varint(part.length_bytes as u64, &mut length);
                put(&length);
                write(below, child, &mut index.clone(), keeps, put)?;
            }
        }
        *index = after;
    }
    Ok(())
}
