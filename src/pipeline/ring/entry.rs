//! Packs segments into chunks, each after a small header, and reads them again.
//!
//! In: segments; chunks of the pool. Out: a [`RingEntry`], whose segments can be read. Bound: the
//! five chunks that the largest datagram can need. When full: [`RingEntry::has_room`] returns
//! false. Thread: the one that owns the ring entry.
//!
//! ```text
//!  many small segments in one chunk    header document header document ... free
//!  one large segment in many chunks    header document, document, ...
//! ```

use crate::base::memory::{CHUNK_BYTES, Chunk};
use crate::pipeline::segment::{Fields, Form, Segment, Span};
use std::time::Instant;

/// Bytes before each document in a chunk: its length, its form and the places of its fields.
const RECORD_HEADER_BYTES: usize = 12;

/// Chunks that the document of the largest datagram (65,507 bytes) can need.
const CHUNKS_PER_ENTRY: usize = (65_535 + RECORD_HEADER_BYTES).div_ceil(CHUNK_BYTES);

/// A container of packed segments: many small ones in one chunk, or a large one in several chunks.
#[derive(Debug)]
pub struct RingEntry {
    chunks: [Option<Chunk>; CHUNKS_PER_ENTRY],
    segment_count: usize,
    opened_at: Instant,
}

/// A segment in a ring entry. Its document has several pieces if it spans chunks. A piece never
/// ends within a UTF-8 character.
#[derive(Debug, Clone, Copy)]
pub struct PackedSegment<'a> {
    /// The places of the document's fields.
    pub fields: Fields,
    length: usize,
    pieces: Pieces<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Pieces<'a> {
    One(&'a [u8]),
    Many(&'a RingEntry),
}

impl<'a> PackedSegment<'a> {
    /// Returns the pieces of the document, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, many) = match self.pieces {
            Pieces::One(document) => (Some(document), None),
            Pieces::Many(entry) => (None, Some(entry)),
        };
        let many = many.into_iter().flat_map(|entry| entry.chunks.iter().flatten());
        let many = many.enumerate().map(|(index, chunk)| {
            &chunk.filled()[if index == 0 { RECORD_HEADER_BYTES } else { 0 }..]
        });
        one.into_iter().chain(many)
    }

    /// Returns the length of the document in bytes.
    pub fn document_length_bytes(&self) -> usize {
        self.length
    }

    /// Returns a field of the document, or `None` if it is absent or spans two pieces.
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

impl RingEntry {
    /// Creates a ring entry without chunks.
    pub(super) fn new(opened_at: Instant) -> Self {
        Self { chunks: [const { None }; CHUNKS_PER_ENTRY], segment_count: 0, opened_at }
    }

    /// Returns the slots for the chunks that a document of this length needs.
    pub(super) fn places(&mut self, document_bytes: usize) -> &mut [Option<Chunk>] {
        // A cut between two characters can leave up to three bytes of a chunk unused.
        let per_chunk = CHUNK_BYTES - 3;
        let chunk_count = if RECORD_HEADER_BYTES + document_bytes <= CHUNK_BYTES {
            1
        } else {
            (RECORD_HEADER_BYTES + document_bytes).div_ceil(per_chunk)
        };
        &mut self.chunks[..chunk_count]
    }

    /// Returns the number of segments in the ring entry.
    pub fn segment_count(&self) -> usize {
        self.segment_count
    }

    /// Returns the memory of the ring entry's chunks in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.iter().flatten().count() * CHUNK_BYTES
    }

    /// Returns the time of the drain that opened the ring entry.
    pub fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Returns the segments, in the order of their arrival.
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

    /// Whether the first chunk has room for the document and its header. A ring entry with several
    /// chunks has no room.
    pub(super) fn has_room(&mut self, document: &[u8]) -> bool {
        let room = self.chunks[0].as_mut().map_or(0, |chunk| chunk.spare().len());
        self.chunks[1].is_none() && RECORD_HEADER_BYTES + document.len() <= room
    }

    /// Packs a segment into the chunks. The caller has made sure that they have room for it.
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
        debug_assert!(rest.is_empty(), "the entry has chunks for the whole document");
        self.segment_count += 1;
    }
}

/// Splits `text` after at most `room` bytes, between two characters if it is UTF-8.
///
/// In UTF-8 a byte that is not a continuation byte starts a character, so the text can be split
/// before it. A character has at most three continuation bytes, so that it is enough to look at
/// four bytes.
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
    let form = Form::ALL.get(usize::from(number(1))).copied().unwrap_or(Form::Bytes);
    (usize::from(number(0)), Fields { trace_id: span(2), id: span(4), form })
}
