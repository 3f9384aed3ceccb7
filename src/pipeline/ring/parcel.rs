//! Segments packed into chunks, each behind a small header, and read out of them again.

use crate::base::memory::{CHUNK_BYTES, Chunk};
use crate::pipeline::segment::{Fields, Form, Segment, Span};
use std::time::Instant;

/// Bytes in front of each document in a chunk: its length and its fields.
const RECORD_HEADER_BYTES: usize = 12;

/// Chunks that the largest datagram (65,507 bytes) can take up.
const CHUNKS_PER_PARCEL: usize = (65_535 + RECORD_HEADER_BYTES).div_ceil(CHUNK_BYTES);

/// Segments packed together: many small ones in one chunk, or a large one over several.
#[derive(Debug)]
pub struct Parcel {
    chunks: [Option<Chunk>; CHUNKS_PER_PARCEL],
    segment_count: usize,
    opened_at: Instant,
}

/// A segment in a parcel. Its document comes in pieces when it spans chunks; a piece never ends
/// within a UTF-8 character.
#[derive(Debug, Clone, Copy)]
pub struct PackedSegment<'a> {
    /// Where the document's fields are.
    pub fields: Fields,
    length: usize,
    pieces: Pieces<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Pieces<'a> {
    One(&'a [u8]),
    Many(&'a Parcel),
}

impl<'a> PackedSegment<'a> {
    /// The pieces of the document, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, many) = match self.pieces {
            Pieces::One(document) => (Some(document), None),
            Pieces::Many(parcel) => (None, Some(parcel)),
        };
        let many = many.into_iter().flat_map(|parcel| parcel.chunks.iter().flatten());
        let many = many.enumerate().map(|(index, chunk)| {
            &chunk.filled()[if index == 0 { RECORD_HEADER_BYTES } else { 0 }..]
        });
        one.into_iter().chain(many)
    }

    /// Length of the document in bytes.
    pub fn document_length_bytes(&self) -> usize {
        self.length
    }

    /// A field of the document; `None` where it is absent or lies across two pieces.
    pub fn field(&self, span: Span) -> Option<&'a [u8]> {
        let mut offset = usize::from(span.offset);
        let length = usize::from(span.length);
        if let Pieces::One(document) = self.pieces {
            return document.get(offset..offset + length).filter(|field| !field.is_empty());
        }
        for piece in self.pieces() {
            if offset < piece.len() {
                return piece.get(offset..offset + length).filter(|field| !field.is_empty());
            }
            offset -= piece.len();
        }
        None
    }
}

impl Parcel {
    pub(super) fn new(opened_at: Instant) -> Self {
        Self { chunks: [const { None }; CHUNKS_PER_PARCEL], segment_count: 0, opened_at }
    }

    /// The places of the chunks that a document of this length takes.
    pub(super) fn places(&mut self, document_bytes: usize) -> &mut [Option<Chunk>] {
        // A cut between characters may leave up to three bytes of a chunk unused.
        let per_chunk = CHUNK_BYTES - 3;
        let chunk_count = if RECORD_HEADER_BYTES + document_bytes <= CHUNK_BYTES {
            1
        } else {
            (RECORD_HEADER_BYTES + document_bytes).div_ceil(per_chunk)
        };
        &mut self.chunks[..chunk_count]
    }

    /// Number of segments packed.
    pub fn segment_count(&self) -> usize {
        self.segment_count
    }

    /// Memory that it takes up.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.iter().flatten().count() * CHUNK_BYTES
    }

    /// When its first segment came.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// The segments, in the order they came.
    pub fn segments(&self) -> impl Iterator<Item = PackedSegment<'_>> {
        let spans_chunks = self.chunks[1].is_some();
        let mut rest = self.chunks[0].as_ref().map_or(&[][..], Chunk::filled);
        std::iter::from_fn(move || {
            let (header, after) = rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
            let (length, fields) = decode_header(header);
            if spans_chunks {
                rest = &[];
                return Some(PackedSegment { fields, length, pieces: Pieces::Many(self) });
            }
            let (document, next) = after.split_at_checked(length)?;
            rest = next;
            Some(PackedSegment { fields, length, pieces: Pieces::One(document) })
        })
    }

    pub(super) fn has_room(&mut self, document: &[u8]) -> bool {
        let room = self.chunks[0].as_mut().map_or(0, |chunk| chunk.spare().len());
        self.chunks[1].is_none() && RECORD_HEADER_BYTES + document.len() <= room
    }

    /// Packs a segment into the chunks taken, `chunks[0]` having room for the header at least.
    pub(super) fn pack(&mut self, segment: &Segment<'_>) {
        let mut rest = segment.document;
        for (index, chunk) in self.chunks.iter_mut().flatten().enumerate() {
            if index == 0 {
                chunk.fill(&encode_header(segment));
            }
            let (piece, next) = cut(rest, chunk.spare().len());
            chunk.fill(piece);
            rest = next;
        }
        debug_assert!(rest.is_empty(), "the parcel has chunks for the whole document");
        self.segment_count += 1;
    }
}

/// Cuts off at most `room` bytes, between two characters if the text is UTF-8.
///
/// A byte that is no continuation byte starts a character, so to cut before one is always right;
/// behind three continuation bytes no character goes on.
fn cut(text: &[u8], room: usize) -> (&[u8], &[u8]) {
    if text.len() <= room {
        return (text, &[]);
    }
    let starts_character = |&at: &usize| text[at] & 0xc0 != 0x80;
    let at = (room.saturating_sub(3)..=room).rev().find(starts_character).unwrap_or(room);
    text.split_at(at)
}

fn encode_header(segment: &Segment<'_>) -> [u8; RECORD_HEADER_BYTES] {
    let Fields { trace_id, id, form } = segment.fields;
    let length = u16::try_from(segment.document.len()).expect("a datagram is below 64 KiB");
    let mut header = [0; RECORD_HEADER_BYTES];
    let numbers = [length, form as u16, trace_id.offset, trace_id.length, id.offset, id.length];
    for (place, number) in header.chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    header
}

fn decode_header(header: &[u8; RECORD_HEADER_BYTES]) -> (usize, Fields) {
    let number = |index: usize| u16::from_le_bytes([header[2 * index], header[2 * index + 1]]);
    let span = |index| Span { offset: number(index), length: number(index + 1) };
    let form = match number(1) {
        0 => Form::Json,
        1 => Form::Text,
        _ => Form::Bytes,
    };
    (usize::from(number(0)), Fields { trace_id: span(2), id: span(4), form })
}
