//! The format of the spool's files, written a second time from its description in
//! `src/pipeline/spool/record.rs`.
//!
//! In: the files of a disk; documents of an earlier run. Out: the documents in the files; files as
//! an earlier version of xrayd has left them. The simulation does not ask the spool what is in the
//! spool. Bound: the files.

use super::{documents, spans};
use std::collections::BTreeMap;
use xrayd::base::account::Signal;

const FILE_MAGIC: &[u8] = b"xrayspl1";
const RECORD_MAGIC: &[u8] = b"\xFFxr1";
const HEADER_BYTES: usize = 28;
/// The size of an entry of the table: offset, length, id with its length, trace id with its length.
const TABLE_ENTRY_BYTES: usize = 4 + 4 + 17 + 36;
/// The size of an entry of the table of spans: offset, length, number of spans.
const SPAN_ENTRY_BYTES: usize = 4 + 4 + 4;
const PROGRESS_ENTRY_BYTES: usize = 12;

/// The files of a disk: the name, the bytes, and the offset and time of each write.
pub type Files = Vec<(String, Vec<u8>, Vec<(u64, u64)>)>;

/// The content of a spool.
#[derive(Debug, Default)]
pub struct Found {
    /// How often each document is in a record that is not settled, and the time in milliseconds at
    /// which its record was last written.
    pub documents: BTreeMap<u32, (usize, u64)>,
    /// How many places of the files are not a record.
    pub damaged_count: usize,
}

struct Header {
    payload_bytes: usize,
    segment_count: usize,
    payload_crc32: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn header_at(bytes: &[u8], at: usize) -> Option<Header> {
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let is_right = header.starts_with(RECORD_MAGIC)
        && u32_at(header, 24) == Some(crc32fast::hash(&header[..24]));
    let number = |place| u32_at(header, place).map(|number| number as usize);
    is_right.then_some(())?;
    Some(Header {
        payload_bytes: number(4)?,
        segment_count: number(8)?,
        payload_crc32: u32_at(header, 20)?,
    })
}

/// Returns the offsets in a progress file whose entries are intact.
fn settled(progress: &[u8]) -> Vec<u64> {
    let entry = |bytes: &[u8]| {
        let offset = u64::from_le_bytes(bytes[..8].try_into().ok()?);
        (u32_at(bytes, 8)? == crc32fast::hash(&bytes[..8])).then_some(offset)
    };
    progress.chunks_exact(PROGRESS_ENTRY_BYTES).filter_map(entry).collect()
}

/// Returns the documents of the records that are not settled.
///
/// # Errors
///
/// Returns a text if an intact record has anything but documents that were received.
pub fn scan(files: &Files, size_of: impl Fn(u32) -> Option<usize>) -> Result<Found, String> {
    let mut found = Found::default();
    for (name, bytes, written_at) in files {
        let segments = name.strip_suffix(".spool").map(|number| (number, Signal::Segments));
        let spans = name.strip_suffix(".spans").map(|number| (number, Signal::Spans));
        let Some((number, signal)) = segments.or(spans) else { continue };
        let progress = format!("{number}.done");
        let progress = files.iter().find(|(name, ..)| *name == progress);
        let settled = progress.map_or_else(Vec::new, |(_, bytes, _)| settled(bytes));
        // A file that a cut has left empty has no record, and the spool removes it.
        if !bytes.is_empty() && !bytes.starts_with(FILE_MAGIC) {
            found.damaged_count += 1;
        }
        let mut at = FILE_MAGIC.len();
        while at < bytes.len() {
            let Some(header) = header_at(bytes, at) else {
                found.damaged_count += 1;
                let next = (at + 1..bytes.len()).find(|&at| header_at(bytes, at).is_some());
                at = next.unwrap_or(bytes.len());
                continue;
            };
            let end = at + HEADER_BYTES + header.payload_bytes;
            let payload = bytes.get(at + HEADER_BYTES..end);
            match payload.filter(|it| crc32fast::hash(it) == header.payload_crc32) {
                None => found.damaged_count += 1,
                Some(payload) => {
                    let numbers = match signal {
                        Signal::Segments => record(payload, &header, &size_of)?,
                        Signal::Spans => span_record(payload, &header, &size_of)?,
                    };
                    let marks = |index: usize| (at + (index + 1) * HEADER_BYTES) as u64;
                    let wrote = |it: &&(u64, u64)| it.0 <= at as u64;
                    let at_ms = written_at.iter().filter(wrote).map(|it| it.1).max();
                    for (index, number) in numbers.into_iter().enumerate() {
                        if !settled.contains(&(at as u64)) && !settled.contains(&marks(index)) {
                            let entry = found.documents.entry(number).or_default();
                            *entry = (entry.0 + 1, entry.1.max(at_ms.unwrap_or_default()));
                        }
                    }
                }
            }
            at = end.min(bytes.len());
        }
    }
    Ok(found)
}

/// Returns the numbers of the documents of a record.
fn record(
    payload: &[u8],
    header: &Header,
    size_of: &impl Fn(u32) -> Option<usize>,
) -> Result<Vec<u32>, String> {
    let count = payload.first_chunk().map_or(0, |count| usize::from(u16::from_le_bytes(*count)));
    let body = payload.get(2 + count * TABLE_ENTRY_BYTES..).ok_or("a record has no table")?;
    if count != header.segment_count {
        return Err(format!(
            "a record has {} segments and {count} documents",
            header.segment_count
        ));
    }
    documents::numbers(body, size_of)
}

/// Returns the numbers of the spans of a record.
fn span_record(
    payload: &[u8],
    header: &Header,
    size_of: &impl Fn(u32) -> Option<usize>,
) -> Result<Vec<u32>, String> {
    let no_table = || "a record of spans has no table".to_owned();
    let count = payload.get(1..).and_then(|rest| rest.first_chunk()).ok_or_else(no_table)?;
    let count = usize::from(u16::from_le_bytes(*count));
    let table = payload.get(3..3 + count * SPAN_ENTRY_BYTES).ok_or_else(no_table)?;
    let body = &payload[3 + count * SPAN_ENTRY_BYTES..];
    let mut numbers = Vec::new();
    for entry in table.chunks_exact(SPAN_ENTRY_BYTES) {
        let number = |place| u32_at(entry, place).unwrap_or_default() as usize;
        let request = body.get(number(0)..number(0) + number(4)).ok_or_else(no_table)?;
        let found = spans::numbers(request, size_of)?;
        if found.len() != number(8) {
            return Err(format!("a request has {} spans, not {}", found.len(), number(8)));
        }
        numbers.extend(found);
    }
    if numbers.len() != header.segment_count {
        let count = header.segment_count;
        return Err(format!("a record has {count} segments and {} spans", numbers.len()));
    }
    Ok(numbers)
}

/// Returns a data file with one record for each batch, made at `created_at` in seconds since 1970.
/// Returns a progress file beside it that settles the first `settled_count` records as a whole, as
/// versions without marks do.
pub fn older_files(
    batches: &[Vec<(u32, usize)>],
    created_at: u64,
    settled_count: usize,
) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut progress) = (FILE_MAGIC.to_vec(), Vec::new());
    for (index, batch) in batches.iter().enumerate() {
        if index < settled_count {
            let offset = (data.len() as u64).to_le_bytes();
            progress.extend_from_slice(&offset);
            progress.extend_from_slice(&crc32fast::hash(&offset).to_le_bytes());
        }
        let documents: Vec<_> =
            batch.iter().map(|&(number, size)| documents::escaped(number, size)).collect();
        let (body, places) = documents::body(&documents);
        let short = |number: usize| u16::try_from(number).unwrap().to_le_bytes();
        let long = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        let mut payload = short(batch.len()).to_vec();
        for (place, (number, _)) in places.iter().zip(batch) {
            payload.extend_from_slice(&long(place.start));
            payload.extend_from_slice(&long(place.len()));
            payload.push(16);
            payload.extend_from_slice(format!("{number:016x}").as_bytes());
            payload.push(35);
            payload.extend_from_slice(format!("1-5759e988-{:024x}", number / 5).as_bytes());
        }
        payload.extend_from_slice(&body);
        let mut header = RECORD_MAGIC.to_vec();
        header.extend_from_slice(&long(payload.len()));
        header.extend_from_slice(&long(batch.len()));
        header.extend_from_slice(&created_at.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        data.extend_from_slice(&header);
        data.extend_from_slice(&payload);
    }
    (data, progress)
}
