//! The data file that records are appended to.
//!
//! In: records, with their payload in pieces. Out: their bytes at the end of the file. Bound: the
//! caller seals the file when it has reached its largest size. Thread: the spool's, which may wait
//! for the disk.
//!
//! A record is written in one call, without copying its payload. If that fails, the file is cut
//! back to the end of its last whole record. All dates in the file come from the same clock.

use super::age::Dates;
use super::disk::DiskFile;
use super::file::DataFile;
use super::folder::Folder;
use super::names::Kind;
use super::parts::Count;
use super::record::{FILE_MAGIC, HEADER_BYTES, Header};
use std::io::{self, IoSlice};

/// The data file that records are appended to.
#[derive(Debug)]
pub struct ActiveFile {
    sequence: u64,
    pub(super) handle: Box<dyn DiskFile>,
    /// The offset of the end of the last whole record; 0 while the file has no record.
    length_bytes: u64,
    count: Count,
    /// The earliest date of a record in the file, in seconds since 1970.
    oldest_created_at: Option<u64>,
    dates: Dates,
    /// The bytes from the start of the file that are on stable storage.
    synced_bytes: u64,
}

impl ActiveFile {
    /// Creates a file for records with dates of the clock `dates`.
    pub fn begin(folder: &mut Folder, sequence: u64, dates: Dates) -> io::Result<Self> {
        let handle = folder.create(sequence, Kind::Data)?;
        let (length_bytes, synced_bytes) = (0, 0);
        let (count, oldest_created_at) = (Count::default(), None);
        Ok(Self { sequence, handle, length_bytes, count, oldest_created_at, dates, synced_bytes })
    }

    /// Appends a record. After an error the caller calls [`cut_back`](Self::cut_back).
    pub fn append(&mut self, header: &Header, payload: &[&[u8]]) -> io::Result<()> {
        let file_magic: &[u8] = if self.length_bytes == 0 { &FILE_MAGIC } else { &[] };
        let header_bytes = header.encode();
        let mut pieces = vec![IoSlice::new(file_magic), IoSlice::new(&header_bytes)];
        pieces.extend(payload.iter().map(|piece| IoSlice::new(piece)));
        self.handle.write_at(&mut pieces, self.length_bytes)?;
        self.appended(header, file_magic.len());
        Ok(())
    }

    /// Appends the record at `offset` of another file, piece by piece. After an error the caller
    /// removes this file.
    pub fn append_from(
        &mut self,
        file: &dyn DiskFile,
        offset: u64,
        header: &Header,
        window: &mut [u8],
    ) -> io::Result<()> {
        let file_magic: &[u8] = if self.length_bytes == 0 { &FILE_MAGIC } else { &[] };
        let header_bytes = header.encode();
        let mut front = [IoSlice::new(file_magic), IoSlice::new(&header_bytes)];
        self.handle.write_at(&mut front, self.length_bytes)?;
        let mut from = offset + HEADER_BYTES as u64;
        let mut to = self.length_bytes + (file_magic.len() + HEADER_BYTES) as u64;
        let mut rest_bytes = header.payload_length as usize;
        while rest_bytes > 0 {
            let length_bytes = rest_bytes.min(window.len());
            let piece = &mut window[..length_bytes];
            file.read_at(piece, from)?;
            self.handle.write_at(&mut [IoSlice::new(piece)], to)?;
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

    /// Tries to write `length_bytes` of zeros at the end. The caller then calls
    /// [`cut_back`](Self::cut_back).
    pub fn probe(&self, length_bytes: usize) -> io::Result<()> {
        self.handle.write_at(&mut [IoSlice::new(&vec![0; length_bytes])], self.length_bytes)
    }

    /// Cuts off the bytes behind the last whole record, which a failed write or a probe has left.
    pub fn cut_back(&self) -> io::Result<()> {
        self.handle.set_length(self.length_bytes)
    }

    /// Turns the file into a file that is only read; `None` if the file has no record.
    pub fn seal(self) -> Option<DataFile> {
        let is_empty = self.length_bytes == 0;
        let bytes = (self.length_bytes, self.synced_bytes);
        let sealed = || DataFile::sealed(self.sequence, bytes, self.handle, self.count, self.dates);
        (!is_empty).then(sealed)
    }

    /// Returns whether some bytes are not on stable storage.
    pub fn is_unsynced(&self) -> bool {
        self.synced_bytes < self.length_bytes
    }

    /// Writes the file to stable storage. After a success the caller calls
    /// [`confirm`](Self::confirm), after a failure it seals the file.
    pub fn sync(&self) -> io::Result<()> {
        if self.is_unsynced() { self.handle.sync() } else { Ok(()) }
    }

    /// Notes that the file and its name are on stable storage.
    pub fn confirm(&mut self) {
        self.synced_bytes = self.length_bytes;
    }

    /// Returns the clock that the dates of the records in the file come from.
    pub fn dates(&self) -> Dates {
        self.dates
    }

    /// Returns whether another program has removed the file. Its records are then lost when the
    /// daemon ends.
    pub fn is_removed(&self) -> bool {
        self.handle.is_removed()
    }

    /// Returns the number in the name of the file.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the size of the file in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Returns how many segments are in the file.
    pub fn segment_count(&self) -> u64 {
        self.count.segment_count
    }

    /// Returns the earliest date of a record in the file, in seconds since 1970.
    pub fn oldest_created_at(&self) -> Option<u64> {
        self.oldest_created_at
    }
}
