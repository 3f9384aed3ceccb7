//! Appends records to a spool, and evicts the oldest files if there is no room.
//!
//! In: a record, with its payload in pieces. Out: the bytes of the record at the end of the active
//! file. The file is sealed when it has reached its largest size, or when the date of the host was
//! set. Bound: the largest size of the spool. When full: the oldest file is evicted as a whole, or
//! the record is refused if the spool evicts nothing. Thread: the spool's, which may wait for the
//! disk.

use super::active::ActiveFile;
use super::age::Dates;
use super::error::SpoolError;
use super::files::Files;
use super::record::{FILE_HEADER_BYTES, HEADER_BYTES, Header, RECORD_BYTES_MAX};
use super::types::{AppendError, Evicted};
use crate::base::clock::Moment;

/// One file may have one part in 16 of the spool's largest size. A whole file is evicted at once.
const FILE_SHARE: u64 = 16;

/// The bounds of the size at which a file is sealed, in bytes: 1 MiB and 64 MiB.
const FILE_BYTES_MIN: u64 = 1024 * 1024;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The bytes that a record needs beside its payload if it is the first record of a file.
pub const OVERHEAD_BYTES: u64 = FILE_HEADER_BYTES + HEADER_BYTES as u64;

/// The part of a spool that appends records and evicts files.
#[derive(Debug)]
pub struct Appender {
    pub(super) size_bytes_max: u64,
    pub(super) file_bytes_max: u64,
    /// Whether the oldest file may be evicted for a new record.
    may_evict: bool,
    /// The clock that the dates of new records come from.
    dates: Dates,
    /// The segments that were evicted and are not reported yet.
    evicted: Evicted,
    /// The size in bytes of the last record that was to be appended. [`probe`](Self::probe) tries
    /// to write as many bytes.
    append_bytes: u64,
}

impl Appender {
    /// An appender for a spool that has at most `size_bytes_max`, and that evicts its oldest file
    /// for a new record if `may_evict`.
    pub fn new(size_bytes_max: u64, may_evict: bool, now: Moment) -> Self {
        Self {
            size_bytes_max,
            file_bytes_max: (size_bytes_max / FILE_SHARE).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX),
            may_evict,
            dates: Dates::Own { offset_seconds: now.offset_seconds },
            evicted: Evicted::default(),
            append_bytes: 0,
        }
    }

    /// Implements [`Spool::append`](super::Spool::append).
    pub fn append(
        &mut self,
        files: &mut Files,
        payload: &[&[u8]],
        segment_count: u32,
        made: Moment,
    ) -> Result<Evicted, AppendError> {
        let dates = Dates::Own { offset_seconds: made.offset_seconds };
        if files.active.as_ref().is_some_and(|active| active.dates() != dates) {
            files.seal_active();
        }
        self.dates = dates;
        self.append_bytes = OVERHEAD_BYTES + payload.iter().map(|it| it.len() as u64).sum::<u64>();
        let created_at = made.unix_seconds();
        let appended = self.header(payload, segment_count, created_at).and_then(|header| {
            self.make_room(files, &header)?;
            self.write(files, &header, payload)
        });
        let evicted = self.evicted();
        match appended {
            Ok(()) => Ok(evicted),
            Err(cause) => Err(AppendError { evicted, cause }),
        }
    }

    /// Implements [`Spool::evicted`](super::Spool::evicted).
    pub fn evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    /// Implements [`Spool::probe`](super::Spool::probe).
    pub fn probe(&mut self, files: &mut Files) -> Result<(), SpoolError> {
        let room_bytes = self.size_bytes_max.saturating_sub(files.size_bytes());
        let probe_bytes = self.append_bytes.min(room_bytes).min(RECORD_BYTES_MAX.into());
        let probe_bytes = usize::try_from(probe_bytes).unwrap_or_default();
        let probed = files.writable(self.dates)?.probe(probe_bytes);
        files.cut_back();
        probed.map_err(SpoolError::Write)
    }

    fn header(
        &self,
        payload: &[&[u8]],
        segment_count: u32,
        created_at: u64,
    ) -> Result<Header, SpoolError> {
        let payload_bytes: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
        let room_bytes = self.size_bytes_max.saturating_sub(OVERHEAD_BYTES);
        let record_bytes_max = room_bytes.min(RECORD_BYTES_MAX.into());
        let payload_length = u32::try_from(payload_bytes)
            .ok()
            .filter(|_| payload_bytes <= record_bytes_max)
            .ok_or(SpoolError::TooLarge { record_bytes: payload_bytes, record_bytes_max })?;
        let mut crc32 = crc32fast::Hasher::new();
        payload.iter().for_each(|piece| crc32.update(piece));
        Ok(Header { payload_length, segment_count, created_at, payload_crc32: crc32.finalize() })
    }

    /// Evicts the oldest files until the record fits, even if it needs a new file. Fails if it does
    /// not fit and nothing may be evicted.
    fn make_room(&mut self, files: &mut Files, header: &Header) -> Result<(), SpoolError> {
        let needed_bytes = FILE_HEADER_BYTES + header.record_bytes();
        let active_bytes = files.active.as_ref().map_or(0, ActiveFile::length_bytes);
        if active_bytes + header.record_bytes() > self.file_bytes_max {
            files.seal_active();
        }
        while files.size_bytes().saturating_add(needed_bytes) > self.size_bytes_max {
            if !self.may_evict {
                return Err(SpoolError::Full { size_bytes_max: self.size_bytes_max });
            }
            let evicted = files.evict_oldest().map_err(SpoolError::Remove)?;
            let Some(evicted) = evicted else { break };
            self.evicted.add(evicted);
        }
        Ok(())
    }

    fn write(
        &self,
        files: &mut Files,
        header: &Header,
        payload: &[&[u8]],
    ) -> Result<(), SpoolError> {
        let written = files.writable(self.dates)?.append(header, payload);
        if written.is_err() {
            files.cut_back();
        }
        written.map_err(SpoolError::Write)
    }
}
