//! The data file that records are appended to.
//!
//! A record is written in one call, with the pieces of its payload where they lie. When that fails
//! the file is cut back to its last whole record. All dates in it are by the same clock. Bound: the
//! caller seals the file when it has grown to its bound.

use super::age::Dates;
use super::disk::sync_file;
use super::file::{Count, DataFile};
use super::folder::{Folder, Kind, is_removed};
use super::record::{FILE_MAGIC, HEADER_BYTES, Header};
use rustix::io::{pwritev, retry_on_intr};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

/// A file that grows.
#[derive(Debug)]
pub struct ActiveFile {
    sequence: u64,
    pub(super) handle: File,
    /// Up to the end of the last whole record; nothing while there is none.
    length_bytes: u64,
    count: Count,
    /// The earliest date of a record.
    oldest_created_at: Option<u64>,
    dates: Dates,
    synced_bytes: u64,
}

impl ActiveFile {
    /// Makes a new file for records with dates by this clock.
    pub fn begin(folder: &mut Folder, sequence: u64, dates: Dates) -> io::Result<Self> {
        let handle = folder.create(sequence, Kind::Data)?;
        let (length_bytes, synced_bytes) = (0, 0);
        let (count, oldest_created_at) = (Count::default(), None);
        Ok(Self { sequence, handle, length_bytes, count, oldest_created_at, dates, synced_bytes })
    }

    /// Writes a record at the end. After an error [`cut_back`](Self::cut_back) has to follow.
    pub fn append(&mut self, header: &Header, payload: &[&[u8]]) -> io::Result<()> {
        let file_magic: &[u8] = if self.length_bytes == 0 { &FILE_MAGIC } else { &[] };
        let header_bytes = header.encode();
        let mut pieces = vec![IoSlice::new(file_magic), IoSlice::new(&header_bytes)];
        pieces.extend(payload.iter().map(|piece| IoSlice::new(piece)));
        write_all(&self.handle, &mut pieces, self.length_bytes)?;
        self.appended(header, file_magic.len());
        Ok(())
    }

    /// Writes the record at `offset` of another file at the end, piece by piece. After an error the
    /// file has to go.
    pub fn append_from(
        &mut self,
        file: &File,
        offset: u64,
        header: &Header,
        window: &mut [u8],
    ) -> io::Result<()> {
        let file_magic: &[u8] = if self.length_bytes == 0 { &FILE_MAGIC } else { &[] };
        let header_bytes = header.encode();
        let mut front = [IoSlice::new(file_magic), IoSlice::new(&header_bytes)];
        // An empty piece in front is none.
        let front = if file_magic.is_empty() { &mut front[1..] } else { &mut front[..] };
        write_all(&self.handle, front, self.length_bytes)?;
        let mut from = offset + HEADER_BYTES as u64;
        let mut to = self.length_bytes + (file_magic.len() + HEADER_BYTES) as u64;
        let mut rest_bytes = header.payload_length as usize;
        while rest_bytes > 0 {
            let length_bytes = rest_bytes.min(window.len());
            let piece = &mut window[..length_bytes];
            file.read_exact_at(piece, from)?;
            write_all(&self.handle, &mut [IoSlice::new(piece)], to)?;
            (from, to) = (from + length_bytes as u64, to + length_bytes as u64);
            rest_bytes -= length_bytes;
        }
        self.appended(header, file_magic.len());
        Ok(())
    }

    fn appended(&mut self, header: &Header, file_magic_bytes: usize) {
        self.length_bytes += file_magic_bytes as u64 + header.record_bytes();
        self.count.add(header.segment_count);
        let oldest = self.oldest_created_at.get_or_insert(header.created_at);
        *oldest = header.created_at.min(*oldest);
    }

    /// Tries whether so many bytes would find room after what is there;
    /// [`cut_back`](Self::cut_back) has to follow.
    pub fn probe(&self, length_bytes: usize) -> io::Result<()> {
        write_all(&self.handle, &mut [IoSlice::new(&vec![0; length_bytes])], self.length_bytes)
    }

    /// Cuts off what a failed write, or a probe, has left.
    pub fn cut_back(&self) -> io::Result<()> {
        self.handle.set_len(self.length_bytes)
    }

    /// Ends the growth of the file; `None` if there is no record in it.
    pub fn seal(self) -> Option<DataFile> {
        let is_empty = self.length_bytes == 0;
        let bytes = (self.length_bytes, self.synced_bytes);
        let sealed = || DataFile::sealed(self.sequence, bytes, self.handle, self.count, self.dates);
        (!is_empty).then(sealed)
    }

    /// Whether something in it was not brought to disk.
    pub fn is_unsynced(&self) -> bool {
        self.synced_bytes < self.length_bytes
    }

    /// Brings what was appended to disk. [`confirm`](Self::confirm) has to follow, or the file is
    /// sealed.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_unsynced() { sync_file(&self.handle) } else { Ok(()) }
    }

    /// All of it is on the disk, and its name.
    pub fn confirm(&mut self) {
        self.synced_bytes = self.length_bytes;
    }

    /// By what clock the dates in it are.
    pub fn dates(&self) -> Dates {
        self.dates
    }

    /// Whether it was removed by another program: then what is in it does not outlive the daemon.
    pub fn is_removed(&self) -> bool {
        is_removed(&self.handle)
    }

    /// The number in its name.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes on disk.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Segments in it.
    pub fn segment_count(&self) -> u64 {
        self.count.segment_count
    }

    /// The earliest date of a record, in seconds since 1970.
    pub fn oldest_created_at(&self) -> Option<u64> {
        self.oldest_created_at
    }
}

/// Writes all of `pieces`, which do not begin with two empty ones.
fn write_all(file: &File, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !pieces.is_empty() {
        // Of more pieces than one call may take, rustix passes on as many as it may.
        let count = retry_on_intr(|| pwritev(file, pieces, offset))?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut pieces, count);
        offset += count as u64;
    }
    Ok(())
}
