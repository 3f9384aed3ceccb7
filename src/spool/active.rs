//! The data file that records are appended to.
//!
//! A record is written in one call, with the pieces of its payload where they lie. When that
//! fails the file is cut back to its last whole record. Bound: the caller seals the file when it
//! has grown to its bound.

use super::file::{Count, DataFile};
use super::folder::{Folder, Kind, is_removed};
use super::record::{FILE_MAGIC, Header};
use rustix::io::{pwritev, retry_on_intr};
use std::fs::File;
use std::io::{self, IoSlice};

/// A file that grows.
#[derive(Debug)]
pub struct ActiveFile {
    sequence: u64,
    pub(super) handle: File,
    /// Up to the end of the last whole record; nothing while there is none.
    length_bytes: u64,
    count: Count,
    /// When its first record was made.
    oldest_created_at: Option<u64>,
    is_unsynced: bool,
}

impl ActiveFile {
    /// Makes a new file.
    pub fn begin(folder: &mut Folder, sequence: u64) -> io::Result<Self> {
        let handle = folder.create(sequence, Kind::Data)?;
        let count = Count::default();
        let oldest_created_at = None;
        let is_unsynced = false;
        Ok(Self { sequence, handle, length_bytes: 0, count, oldest_created_at, is_unsynced })
    }

    /// Writes a record at the end. After an error [`cut_back`](Self::cut_back) has to follow.
    pub fn append(&mut self, header: &Header, payload: &[&[u8]]) -> io::Result<()> {
        let file_magic: &[u8] = if self.length_bytes == 0 { &FILE_MAGIC } else { &[] };
        let header_bytes = header.encode();
        let mut pieces = vec![IoSlice::new(file_magic), IoSlice::new(&header_bytes)];
        pieces.extend(payload.iter().map(|piece| IoSlice::new(piece)));
        self.is_unsynced = true;
        write_all(&self.handle, &mut pieces, self.length_bytes)?;
        self.length_bytes += file_magic.len() as u64 + header.record_bytes();
        self.count.add(header.segment_count);
        self.oldest_created_at.get_or_insert(header.created_at);
        Ok(())
    }

    /// Tries whether so many bytes would find room after what is there; [`cut_back`](Self::cut_back)
    /// has to follow.
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
        let sealed = || DataFile::sealed(self.sequence, self.length_bytes, self.handle, self.count);
        (!is_empty).then(sealed)
    }

    /// Brings what was appended to disk.
    pub fn sync(&mut self) -> io::Result<()> {
        let is_unsynced = std::mem::take(&mut self.is_unsynced);
        if is_unsynced { self.handle.sync_data() } else { Ok(()) }
    }

    /// Whether somebody has removed it: then what is in it does not outlive the daemon.
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

    /// When its first record was made, in seconds since 1970.
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
