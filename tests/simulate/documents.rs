//! The documents of a simulation: each has its number in it, and can be checked byte for byte.
//!
//! In: the number and the size of a document. Out: the datagram that carries it; or, from the body
//! of a request, the numbers of its documents. A body with any other byte is an error.

use std::ops::Range;

/// The first line of every datagram.
const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

/// The smallest size of a document in bytes.
pub const SIZE_MIN: usize = 100;

/// The largest size of a document in bytes.
pub const SIZE_MAX: usize = 64_000;

static PADDING: [u8; SIZE_MAX] = [b'x'; SIZE_MAX];

const BODY_START: &[u8] = b"{\"TraceSegmentDocuments\":[";
const BODY_END: &[u8] = b"]}";

/// Returns the text of a document before its padding. `quote` is `"`, or `\"` for a document in a
/// body.
fn front(number: u32, quote: &str) -> String {
    let trace = number / 5;
    format!(
        "{{{quote}trace_id{quote}:{quote}1-5759e988-{trace:024x}{quote},\
         {quote}id{quote}:{quote}{number:016x}{quote},{quote}name{quote}:{quote}"
    )
}

/// The place of the 16 digits of the number in a document that stands in a body.
const NUMBER_PLACE: Range<usize> = {
    let start = "{\\\"trace_id\\\":\\\"1-5759e988-".len() + 24 + "\\\",\\\"id\\\":\\\"".len();
    start..start + 16
};

/// Appends the bytes of the datagram with document `number`, which has `size_bytes`.
pub fn datagram(number: u32, size_bytes: usize) -> Vec<u8> {
    let front = front(number, "\"");
    let padding = size_bytes.saturating_sub(front.len() + 2);
    let mut bytes = Vec::with_capacity(HEADER.len() + size_bytes);
    bytes.extend_from_slice(HEADER);
    bytes.extend_from_slice(front.as_bytes());
    bytes.extend_from_slice(&PADDING[..padding]);
    bytes.extend_from_slice(b"\"}");
    bytes
}

/// Returns the JSON string of document `number` as it stands in a body, with its quotes.
pub fn escaped(number: u32, size_bytes: usize) -> Vec<u8> {
    let padding = size_bytes.saturating_sub(front(number, "\"").len() + 2);
    let mut bytes = vec![b'"'];
    bytes.extend_from_slice(front(number, "\\\"").as_bytes());
    bytes.extend_from_slice(&PADDING[..padding]);
    bytes.extend_from_slice(b"\\\"}\"");
    bytes
}

/// Returns the body of a request with these escaped documents, and the place of each.
pub fn body(documents: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut body, mut places) = (BODY_START.to_vec(), Vec::new());
    for document in documents {
        if !places.is_empty() {
            body.push(b',');
        }
        places.push(body.len()..body.len() + document.len());
        body.extend_from_slice(document);
    }
    body.extend_from_slice(BODY_END);
    (body, places)
}

/// Returns the numbers of the documents in a body. `size_of` returns the size of a document.
///
/// # Errors
///
/// Returns a text if the body is not made of documents of the simulation, byte for byte.
pub fn numbers(body: &[u8], size_of: impl Fn(u32) -> Option<usize>) -> Result<Vec<u32>, String> {
    let mut rest = body.strip_prefix(BODY_START).ok_or("the body does not begin as it should")?;
    let mut numbers = Vec::new();
    loop {
        let number = rest.get(1..).and_then(number_of).ok_or("a document has no number")?;
        let size_bytes = size_of(number).ok_or_else(|| format!("{number} was never received"))?;
        let expected = escaped(number, size_bytes);
        rest = rest
            .strip_prefix(&expected[..])
            .ok_or_else(|| format!("document {number} is not the one that was received"))?;
        numbers.push(number);
        match rest.strip_prefix(b",") {
            Some(next) => rest = next,
            None if rest == BODY_END => return Ok(numbers),
            None => return Err(format!("document {number} is not followed by the end")),
        }
    }
}

/// Returns the number of the document that starts `bytes`, without its opening quote.
fn number_of(bytes: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(bytes.get(NUMBER_PLACE)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[test]
fn the_numbers_of_a_body_are_those_of_its_documents_and_a_changed_byte_is_noticed() {
    let documents: Vec<_> = [(7, SIZE_MIN), (300, 5_000)].map(|(n, size)| escaped(n, size)).into();
    let (mut body, places) = body(&documents);
    let size_of =
        |number| [(7, SIZE_MIN), (300, 5_000)].iter().find(|it| it.0 == number).map(|it| it.1);
    assert_eq!(numbers(&body, size_of), Ok(vec![7, 300]));
    let text: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let first = text["TraceSegmentDocuments"][0].as_str().unwrap();
    assert_eq!(datagram(7, SIZE_MIN).strip_prefix(HEADER), Some(first.as_bytes()));
    body[places[1].end - 9] = b'y';
    assert!(numbers(&body, size_of).is_err());
}
