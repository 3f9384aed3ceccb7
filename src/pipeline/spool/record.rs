//! The format of a data file, and how to find records in a damaged one.
//!
//! In: a file and an offset. Out: the record at this offset, or the damage and its end. Bound:
//! [`WINDOW_BYTES`] of memory while a damaged file is searched. Thread: the spool's, which may wait
//! for the disk.
//!
//! ```text
//!  "xrayspl1"   once, at the start of the file
//!  ┌───────┬────────────────┬───────────────┬────────────┬───────────────┬──────────────┐
//!  │ magic │ payload length │ segment count │ created at │ payload crc32 │ header crc32 │ payload
//!  │  4    │  4             │  4            │  8         │  4            │  4           │
//!  └───────┴────────────────┴───────────────┴────────────┴───────────────┴──────────────┘
//! ```
//!
//! All numbers are little endian. Header and payload have a checksum each, so that a flipped byte
//! in a payload costs only that record: the header still says where the next record begins. If a
//! header is damaged, the function `search` looks for the next valid header. It only reads
//! forwards.
//!
//! A version of xrayd that changes this format must use another suffix for its files. Each version
//! ignores files with the other suffix, so neither version can damage the files of the other. The
//! spool of spans has a suffix of its own too, because the payloads of its records have another
//! form. It lies in a folder inside that of the segments, which a version that knows no spans
//! ignores.

use super::disk::DiskFile;
use super::error::DamageCause;
use std::io;

/// The largest payload of a record, in bytes. The body of a batch of segments has 1 MiB at most,
/// and that of a batch of spans 5 MiB.
pub const RECORD_BYTES_MAX: u32 = 6 * 1024 * 1024;

/// The first bytes of a data file.
pub const FILE_MAGIC: [u8; 8] = *b"xrayspl1";
pub const FILE_HEADER_BYTES: u64 = FILE_MAGIC.len() as u64;

/// The first bytes of a record. The byte 0xFF never occurs in UTF-8 text, so a document is never
/// taken for a record.
const RECORD_MAGIC: [u8; 4] = *b"\xFFxr1";
pub const HEADER_BYTES: usize = 28;

/// The bytes of the header that its checksum covers.
const HEADER_BYTES_CHECKED: usize = HEADER_BYTES - 4;

/// The size of the buffer for reading a data file, in bytes.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub payload_length: u32,
    pub segment_count: u32,
    pub created_at: u64,
    pub payload_crc32: u32,
}

impl Header {
    /// Returns the bytes of the header as they are written to disk.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.segment_count.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.created_at.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc32.to_le_bytes());
        let crc32 = crc32fast::hash(&bytes[..HEADER_BYTES_CHECKED]);
        bytes[HEADER_BYTES_CHECKED..].copy_from_slice(&crc32.to_le_bytes());
        bytes
    }

    /// Returns the header at the start of `bytes`; `None` if there is no valid one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        if !bytes.starts_with(&RECORD_MAGIC) {
            return None;
        }
        let header = Self {
            payload_length: u32::from_le_bytes(part(bytes, 4)),
            segment_count: u32::from_le_bytes(part(bytes, 8)),
            created_at: u64::from_le_bytes(part(bytes, 12)),
            payload_crc32: u32::from_le_bytes(part(bytes, 20)),
        };
        let crc32 = u32::from_le_bytes(part(bytes, HEADER_BYTES_CHECKED));
        let is_right = crc32 == crc32fast::hash(&bytes[..HEADER_BYTES_CHECKED]);
        (is_right && header.payload_length <= RECORD_BYTES_MAX).then_some(header)
    }

    /// The size of header and payload together, in bytes.
    pub fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_length)
    }

    /// Returns whether the segments of the record can be settled one by one. The record must be so
    /// long that the [`mark`](Self::mark) of each segment lies within the record.
    pub fn is_divisible(&self) -> bool {
        u64::from(self.segment_count) * HEADER_BYTES as u64 <= u64::from(self.payload_length)
    }

    /// Returns the mark of the segment `index` of the record at `offset`. A mark in the progress
    /// file says that this one segment of the record is settled. The mark is an offset within the
    /// record, where no other record can begin.
    pub fn mark(offset: u64, index: u32) -> u64 {
        offset.saturating_add((u64::from(index) + 1) * HEADER_BYTES as u64)
    }
}

fn part<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// The content of a data file at an offset.
#[derive(Debug)]
pub enum Slot {
    /// The header of the data file, which is intact.
    FileHeader,
    /// A record that is complete. Its payload has not been checked.
    Record(Header),
    /// Bytes up to `end` that are not a record.
    Damaged { end: u64, segment_count: u32, cause: DamageCause },
}

/// Reads the file header or the record header at `offset` of a file that is `length_bytes` long.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn look(file: &dyn DiskFile, offset: u64, length_bytes: u64) -> io::Result<Slot> {
    let rest_bytes = length_bytes - offset;
    let torn = |segment_count| {
        Ok(Slot::Damaged { end: length_bytes, segment_count, cause: DamageCause::Torn })
    };
    if offset == 0 {
        return if rest_bytes < FILE_HEADER_BYTES { torn(0) } else { look_at_file_header(file) };
    }
    if rest_bytes < HEADER_BYTES as u64 {
        return torn(0);
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(&mut bytes, offset)?;
    match Header::decode(&bytes) {
        Some(header) if header.record_bytes() > rest_bytes => torn(header.segment_count),
        Some(header) => Ok(Slot::Record(header)),
        None => {
            let end = search(file, offset + 1, length_bytes)?;
            Ok(Slot::Damaged { end, segment_count: 0, cause: DamageCause::RecordHeader })
        }
    }
}

fn look_at_file_header(file: &dyn DiskFile) -> io::Result<Slot> {
    let mut bytes = [0; FILE_MAGIC.len()];
    file.read_at(&mut bytes, 0)?;
    if bytes == FILE_MAGIC {
        return Ok(Slot::FileHeader);
    }
    // Each record has its own checksums, so reading goes on behind the damaged bytes.
    let cause = DamageCause::FileHeader;
    Ok(Slot::Damaged { end: FILE_HEADER_BYTES, segment_count: 0, cause })
}

/// Returns the offset of the first valid record header at or behind `offset`; the end of the file
/// if there is none.
fn search(file: &dyn DiskFile, mut offset: u64, length_bytes: u64) -> io::Result<u64> {
    let mut window = vec![0; WINDOW_BYTES];
    while offset + HEADER_BYTES as u64 <= length_bytes {
        let rest_bytes = usize::try_from(length_bytes - offset).unwrap_or(usize::MAX);
        let window = &mut window[..rest_bytes.min(WINDOW_BYTES)];
        file.read_at(window, offset)?;
        let mut places = window.windows(HEADER_BYTES);
        if let Some(place) = places.position(|bytes| Header::decode(bytes).is_some()) {
            return Ok(offset + place as u64);
        }
        offset += (window.len() - HEADER_BYTES + 1) as u64;
    }
    Ok(length_bytes)
}

/// Returns whether the payload of the record at `offset` matches its checksum. Reads the payload
/// piece by piece into `window`, which must not be empty.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn verify_payload(
    file: &dyn DiskFile,
    offset: u64,
    header: &Header,
    window: &mut [u8],
) -> io::Result<bool> {
    let mut crc32 = crc32fast::Hasher::new();
    let mut offset = offset + HEADER_BYTES as u64;
    let mut rest_bytes = header.payload_length as usize;
    while rest_bytes > 0 {
        let length_bytes = rest_bytes.min(window.len());
        let piece = &mut window[..length_bytes];
        file.read_at(piece, offset)?;
        crc32.update(piece);
        offset += length_bytes as u64;
        rest_bytes -= length_bytes;
    }
    Ok(crc32.finalize() == header.payload_crc32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    const HEADER: Header =
        Header { payload_length: 7, segment_count: 3, created_at: 1 << 40, payload_crc32: 9 };

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Header::decode(&HEADER.encode()), Some(HEADER));
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_promises_too_much_is_none() {
        let header = Header { payload_length: RECORD_BYTES_MAX + 1, ..HEADER };
        assert_eq!(Header::decode(&header.encode()), None);
    }

    #[test]
    fn a_search_finds_a_header_wherever_it_lies_between_two_windows() {
        for place in WINDOW_BYTES - HEADER_BYTES - 1..WINDOW_BYTES + 2 {
            let mut bytes = vec![0xFF; place];
            bytes.extend(HEADER.encode());
            let length_bytes = bytes.len() as u64;
            let found = search(&file(&bytes), 0, length_bytes).unwrap();
            assert_eq!(found, place as u64);
        }
    }

    #[test]
    fn a_search_without_a_find_ends_at_the_end() {
        for length_bytes in [0, 1, HEADER_BYTES, WINDOW_BYTES, WINDOW_BYTES + 1, 3 * WINDOW_BYTES] {
            let bytes = vec![0xFF; length_bytes];
            let found = search(&file(&bytes), 0, length_bytes as u64).unwrap();
            assert_eq!(found, length_bytes as u64);
        }
    }
}
