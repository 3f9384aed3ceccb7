//! The spans of a simulation: each has its number in it, and can be checked byte for byte.
//!
//! In: the numbers and the sizes of spans. Out: the request of a client that carries them; or, from
//! the body of a request to the service, the numbers of its spans. A body with any other byte in a
//! span is an error, and so is a merge that X-Ray would refuse.

use std::collections::BTreeSet;

/// The limits of X-Ray's endpoint for one request, with half of the time between two spans.
const SPAN_COUNT_MAX: usize = 10_000;
const MERGED_BYTES_MAX: usize = 1024 * 1024;
const GAP_HOURS_MAX: u64 = 12;

/// Some requests have spans of another half of the day, and are not merged with others.
const OTHER_HALF_EVERY: u32 = 40;
const OTHER_HALF_HOURS: u64 = 13;

/// The hour of the usual spans, since 1970.
const HOUR: u64 = 500_000;

/// Returns the hour of a span, since 1970. A single request may have spans of both halves.
pub fn hour(number: u32) -> u64 {
    let is_other = (number / 10).is_multiple_of(OTHER_HALF_EVERY);
    HOUR + if is_other { OTHER_HALF_HOURS } else { 0 }
}

/// Returns the nanoseconds since 1970 of an hour.
pub fn nanoseconds(hour: u64) -> u64 {
    hour * 3_600 * 1_000_000_000
}

fn varint(mut number: usize, to: &mut Vec<u8>) {
    while number >= 128 {
        to.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    to.push(u8::try_from(number).unwrap());
}

/// Returns a field of protobuf with these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(bytes.len(), &mut field);
    field.extend_from_slice(bytes);
    field
}

/// Returns a span: ids with its number, its times, and a name that fills it up to about
/// `size_bytes`.
pub fn span(number: u32, size_bytes: usize) -> Vec<u8> {
    let time = nanoseconds(hour(number)).to_le_bytes();
    let id = (u64::from(number) + 1).to_be_bytes();
    let mut span = field(1, &[id, id].concat());
    span.extend(field(2, &id));
    span.extend(field(5, &vec![b'x'; size_bytes.saturating_sub(60)]));
    for number in [7, 8] {
        span.push(number << 3 | 1);
        span.extend(time);
    }
    span
}

/// Returns the request of a client with these spans of one size.
pub fn request(numbers: &[u32], size_bytes: usize) -> Vec<u8> {
    let spans: Vec<u8> =
        numbers.iter().flat_map(|&number| field(2, &span(number, size_bytes))).collect();
    field(1, &[field(1, b"\x10\x01"), field(2, &spans)].concat())
}

/// Returns the number and the bytes of the first field, and the rest.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (key, mut rest) = bytes.split_first()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            break;
        }
    }
    let (field, rest) = (*key & 7 == 2).then(|| rest.split_at_checked(length))??;
    Some((key >> 3, field, rest))
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, field, rest) = first(bytes)?;
        fields.push((number, field));
        bytes = rest;
    }
    Some(fields)
}

/// Returns the numbers of the spans in a body. `size_of` returns the size of a span.
///
/// # Errors
///
/// Returns a text if the body is not made of spans of the simulation, byte for byte, or if requests
/// are merged in it that X-Ray would not take together.
pub fn numbers(body: &[u8], size_of: impl Fn(u32) -> Option<usize>) -> Result<Vec<u32>, String> {
    let broken = || "the body is no request".to_owned();
    let (mut numbers, mut hours) = (Vec::new(), BTreeSet::new());
    let resources = fields(body).ok_or_else(broken)?;
    for (_, resource) in resources.iter().filter(|it| it.0 == 1) {
        for (_, scope) in fields(resource).ok_or_else(broken)?.iter().filter(|it| it.0 == 2) {
            for (_, found) in fields(scope).ok_or_else(broken)?.iter().filter(|it| it.0 == 2) {
                let number = number_of(found).ok_or("a span has no number")?;
                let size_bytes =
                    size_of(number).ok_or_else(|| format!("{number} was never received"))?;
                if *found != span(number, size_bytes) {
                    return Err(format!("span {number} is not the one that was received"));
                }
                numbers.push(number);
                hours.insert(hour(number));
            }
        }
    }
    let gap = hours.last().unwrap_or(&0) - hours.first().unwrap_or(&0);
    let is_merged = resources.len() > 1;
    if numbers.len() > SPAN_COUNT_MAX || (is_merged && gap > GAP_HOURS_MAX) {
        return Err(format!("a request has {} spans of {gap} hours", numbers.len()));
    }
    if is_merged && body.len() > MERGED_BYTES_MAX {
        return Err(format!("a merged request has {} bytes", body.len()));
    }
    Ok(numbers)
}

/// Returns the number in the ids of a span.
fn number_of(span: &[u8]) -> Option<u32> {
    let id: &[u8; 8] = span.get(2..)?.first_chunk()?;
    u32::try_from(u64::from_be_bytes(*id).checked_sub(1)?).ok()
}

#[test]
fn the_numbers_of_a_body_are_those_of_its_spans_and_a_changed_byte_is_noticed() {
    let size_of = |number: u32| (number < 500).then_some(200);
    let mut body = [request(&[411, 412], 200), request(&[420], 200)].concat();
    assert_eq!(numbers(&body, size_of), Ok(vec![411, 412, 420]));
    let end = body.len() - 30;
    body[end] ^= 1;
    assert!(numbers(&body, size_of).is_err());
    let other_half = [request(&[1], 200), request(&[411], 200)].concat();
    assert!(numbers(&other_half, size_of).unwrap_err().contains("13 hours"));
}
