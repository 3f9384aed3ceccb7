//! The table of a batch of spans: the form, and the number of spans of each request of
//! a client.
//!
//! In: a batch of spans, or a record of the spool. Out: the table of the record; the halves of a
//! single request of a client. Bound: [`REQUEST_COUNT_MAX`] requests of clients. Thread: the
//! caller's. No I/O, no clock.
//!
//! The table of a record:
//!
//! ```text
//! form u8 │ request_count u16 │ request_count × (offset u32, length u32, span_count u32) │ body
//! ```

use super::{Document, Label};
use crate::aws::Media;
use xrayd_otlp::{Encoding, FoundSpan, cut, datagram, scan};

/// The largest number of requests of clients in a batch of spans. The table of its record is then
/// no longer than that of 50 segments.
pub const REQUEST_COUNT_MAX: usize = 250;

const HEAD_BYTES: usize = 1 + 2;
const ENTRY_BYTES: usize = 4 + 4 + 4;

/// The largest size of a table, in bytes.
pub(super) const SPAN_TABLE_BYTES_MAX: usize = HEAD_BYTES + REQUEST_COUNT_MAX * ENTRY_BYTES;

/// The form of the body of a batch of spans, and the spans of its requests of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTable {
    /// The form of the body.
    pub media: Media,
    /// The number of spans of each request of a client, in the order of the documents. None is 0.
    pub counts: Vec<u32>,
}

impl SpanTable {
    /// Returns the number of all spans.
    pub fn span_count(&self) -> usize {
        self.counts.iter().map(|count| *count as usize).sum()
    }

    /// Returns the table of a record of a batch with these documents.
    pub(super) fn encode(&self, documents: &[Document]) -> Vec<u8> {
        let mut table = Vec::with_capacity(HEAD_BYTES + documents.len() * ENTRY_BYTES);
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        table.push(match self.media {
            Media::SpansProtobuf => 1,
            Media::SpansJson => 2,
            Media::Json => 3,
        });
        table.extend(short(documents.len()));
        for (document, count) in documents.iter().zip(&self.counts) {
            table.extend(long(document.offset));
            table.extend(long(document.length));
            table.extend(count.to_le_bytes());
        }
        table
    }

    /// Decodes the table at the start of a record. Also returns the documents and the length of the
    /// table. Returns `None` if it is none.
    pub(super) fn decode(start: &[u8]) -> Option<(Self, Vec<Document>, usize)> {
        let (form, rest) = start.split_first()?;
        let media = match form {
            1 => Media::SpansProtobuf,
            2 => Media::SpansJson,
            3 => Media::Json,
            _ => return None,
        };
        let (count, rest) = rest.split_first_chunk()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if !(1..=REQUEST_COUNT_MAX).contains(&count) {
            return None;
        }
        let (mut documents, mut counts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for entry in rest.get(..count * ENTRY_BYTES)?.chunks_exact(ENTRY_BYTES) {
            let (numbers, _) = entry.as_chunks::<4>();
            let [offset, length, span_count] = numbers else { return None };
            let number = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
            documents.push(document(number(offset)?, number(length)?));
            counts.push(u32::from_le_bytes(*span_count));
        }
        let is_right = counts.iter().all(|count| *count > 0);
        is_right.then_some((Self { media, counts }, documents, HEAD_BYTES + count * ENTRY_BYTES))
    }
}

/// Returns the place of a request of a client in a body.
pub(super) fn document(offset: usize, length: usize) -> Document {
    Document { offset, length, id: Label::new(None), trace_id: Label::new(None) }
}

/// Divides a request, or a document with its quotes, after its first `first_count` spans. Resources
/// and scopes with spans in both halves are in both. Returns `None` if `body` is neither.
pub(super) fn split(media: Media, body: &[u8], first_count: usize) -> Option<[Vec<u8>; 2]> {
    let encoding = match media {
        Media::SpansProtobuf => Encoding::Protobuf,
        Media::SpansJson => Encoding::Json,
        Media::Json => {
            let text = std::str::from_utf8(body).ok()?.strip_prefix('"')?.strip_suffix('"')?;
            let body = datagram::decode(text.strip_prefix(datagram::PREFIX)?)?;
            let halves = split(Media::SpansProtobuf, &body, first_count)?;
            return Some(halves.map(|half| format!("\"{}\"", datagram::encode(&half)).into()));
        }
    };
    let half = |is_first: bool| {
        let (mut half, mut keeps_some) = (Vec::with_capacity(body.len() / 2), false);
        let keeps = |span: &FoundSpan| (span.index < first_count) == is_first;
        scan(encoding, body, |span| keeps_some |= keeps(span)).ok()?;
        cut(encoding, body, keeps, |piece| half.extend_from_slice(piece)).ok()?;
        keeps_some.then_some(half)
    };
    Some([half(true)?, half(false)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Returns a protobuf field with these bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        assert!(length < 128, "one byte has the length");
        [&[number << 3 | 2, length], bytes].concat()
    }

    /// Returns the sizes of the spans of a request.
    fn sizes(body: &[u8]) -> Vec<usize> {
        let mut sizes = Vec::new();
        scan(Encoding::Protobuf, body, |span| sizes.push(span.size_bytes)).unwrap();
        sizes
    }

    #[test]
    fn a_single_request_is_halved_by_its_spans() {
        // A span with an attribute of its own length.
        let span = |index: u8| field(2, &field(9, &vec![0x0a; 2 * usize::from(index)]));
        let scope =
            |range: std::ops::Range<u8>| field(2, &range.flat_map(span).collect::<Vec<_>>());
        let body =
            [field(1, &[scope(0..3), scope(3..4)].concat()), field(1, &scope(4..7))].concat();
        let all = sizes(&body);
        assert_eq!(all, (0..7).map(|index| 2 + 2 * index).collect::<Vec<_>>());
        for first_count in 1..7 {
            let [first, second] = split(Media::SpansProtobuf, &body, first_count).unwrap();
            assert_eq!(sizes(&first), all[..first_count]);
            assert_eq!(sizes(&second), all[first_count..]);
        }
        for first_count in [0, 7] {
            assert_eq!(split(Media::SpansProtobuf, &body, first_count), None);
        }
        assert_eq!(split(Media::SpansProtobuf, b"<html>", 1), None);
        let document = format!("\"{}\"", datagram::encode(&body));
        let halves = split(Media::Json, document.as_bytes(), 3).unwrap();
        let decoded = halves.map(|half| {
            let text = String::from_utf8(half).unwrap();
            datagram::decode(text.trim_matches('"').strip_prefix("T1S").unwrap()).unwrap()
        });
        assert_eq!([sizes(&decoded[0]), sizes(&decoded[1])].concat(), all);
        assert_eq!(split(Media::Json, b"\"{}\"", 1), None);
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_others_are_none() {
        let documents = [document(0, 7), document(7, 100)];
        for media in [Media::SpansProtobuf, Media::SpansJson, Media::Json] {
            let table = SpanTable { media, counts: vec![3, 10_000] };
            let bytes = table.encode(&documents);
            let (read, places, length) = SpanTable::decode(&bytes).unwrap();
            assert_eq!((&read, &places[..], length), (&table, &documents[..], bytes.len()));
            assert_eq!(read.span_count(), 10_003);
            for cut in 0..bytes.len() {
                assert!(SpanTable::decode(&bytes[..cut]).is_none(), "{cut}");
            }
        }
        let no_spans = SpanTable { media: Media::SpansJson, counts: vec![0] };
        for bytes in [&[9, 1, 0, 0, 0][..], &[1, 0, 0], &no_spans.encode(&documents[..1])] {
            assert!(SpanTable::decode(bytes).is_none(), "{bytes:?}");
        }
    }
}
