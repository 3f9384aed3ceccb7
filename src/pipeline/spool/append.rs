//! The side of the spool that records are appended to, and what gives way for them.
//!
//! In: a record in pieces. Out: its bytes at the end of the active file, which is sealed when it
//! has grown to its bound, or when the date has been set. Where the spool is full the oldest file
//! is evicted as a whole.

use super::active::ActiveFile;
use super::age::Dates;
use super::record::{FILE_HEADER_BYTES, HEADER_BYTES, Header, RECORD_BYTES_MAX};
use super::{AppendError, Evicted, Removal, Spool, SpoolError};
use crate::base::clock::Moment;
use std::io;

/// What every record takes beside its payload, and a file of its own where it comes to that.
pub(super) const OVERHEAD_BYTES: u64 = FILE_HEADER_BYTES + HEADER_BYTES as u64;

impl Spool {
    /// Appends a record that was made at some moment, whose payload is the `payload` pieces one
    /// after the other.
    ///
    /// Where it does not fit, the oldest files are evicted first.
    ///
    /// # Errors
    ///
    /// When the record is larger than [`RECORD_BYTES_MAX`] or than the whole bound, no room could
    /// be made, or it could not be written. Nothing of it is kept then, and the next one may fare
    /// better. The error has what was evicted in vain.
    pub fn append(
        &mut self,
        payload: &[&[u8]],
        segment_count: u32,
        made: Moment,
    ) -> Result<Evicted, AppendError> {
        let dates = Dates::Own { offset_seconds: made.offset_seconds };
        if self.active.as_ref().is_some_and(|active| active.dates() != dates) {
            self.seal_active();
        }
        self.dates = dates;
        self.append_bytes = OVERHEAD_BYTES + payload.iter().map(|it| it.len() as u64).sum::<u64>();
        let created_at = made.unix_seconds();
        let appended = self.header(payload, segment_count, created_at).and_then(|header| {
            self.make_room(&header).map_err(SpoolError::Remove)?;
            self.write(&header, payload)
        });
        let evicted = self.evicted();
        match appended {
            Ok(()) => Ok(evicted),
            Err(cause) => Err(AppendError { evicted, cause }),
        }
    }

    /// What was evicted and not told of: where a call did not come to its end.
    pub fn evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    /// Tries whether the record that could not be appended last would find room now, as far as the
    /// bound lets it. Nothing of it is kept, and nothing is evicted for it.
    ///
    /// # Errors
    ///
    /// When nothing, or not so much, can be written.
    pub fn probe(&mut self) -> Result<(), SpoolError> {
        let room_bytes = self.size_bytes_max.saturating_sub(self.size_bytes());
        let probe_bytes = self.append_bytes.min(room_bytes).min(RECORD_BYTES_MAX.into());
        let probed = self.writable()?.probe(usize::try_from(probe_bytes).unwrap_or_default());
        self.cut_back();
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

    /// Evicts the oldest files until a record fits, in a file of its own if need be.
    fn make_room(&mut self, header: &Header) -> io::Result<()> {
        let needed_bytes = FILE_HEADER_BYTES + header.record_bytes();
        let active_bytes = self.active.as_ref().map_or(0, ActiveFile::length_bytes);
        if active_bytes + header.record_bytes() > self.file_bytes_max {
            self.seal_active();
        }
        while self.size_bytes().saturating_add(needed_bytes) > self.size_bytes_max {
            if self.sealed.is_empty() {
                self.seal_active();
            }
            let Some(mut oldest) = self.sealed.first_entry() else { break };
            let sequence = *oldest.key();
            let bytes = oldest.get().size_bytes();
            let waiting = oldest.get_mut().waiting(&self.folder);
            self.remove(sequence)?;
            let evicted = &mut self.evicted;
            evicted.file_count += 1;
            evicted.bytes = evicted.bytes.saturating_add(bytes);
            evicted.record_count += waiting.count.record_count;
            evicted.segment_count += waiting.count.segment_count;
            evicted.unknown_bytes = evicted.unknown_bytes.saturating_add(waiting.unknown_bytes);
        }
        Ok(())
    }

    fn write(&mut self, header: &Header, payload: &[&[u8]]) -> Result<(), SpoolError> {
        let written = self.writable()?.append(header, payload);
        if written.is_err() {
            self.cut_back();
        }
        written.map_err(SpoolError::Write)
    }

    /// The active file, a new one if need be.
    fn writable(&mut self) -> Result<&mut ActiveFile, SpoolError> {
        if self.active.as_ref().is_some_and(ActiveFile::is_removed) {
            self.removal.get_or_insert(Removal::File);
            self.seal_active();
        }
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin_file(self.dates)?,
        };
        Ok(self.active.insert(active))
    }

    /// Cuts off what is no whole record. What cannot be cut off is left behind in a file that
    /// nothing is appended to.
    fn cut_back(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.cut_back().is_err()) {
            self.seal_active();
        }
    }

    /// Makes a file for records with such dates.
    pub(super) fn begin_file(&mut self, dates: Dates) -> Result<ActiveFile, SpoolError> {
        if self.folder.make_again()? {
            self.removal = Some(Removal::Folder);
        }
        while self.refused.contains(&self.next_sequence) {
            self.next_sequence += 1;
        }
        // A number is used up even if this fails: the file may be there all the same.
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        ActiveFile::begin(&mut self.folder, sequence, dates).map_err(SpoolError::Write)
    }

    /// Has the active file take no more records; they can be read from then on.
    pub(super) fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        let sequence = active.sequence();
        match active.seal() {
            Some(file) => _ = self.sealed.insert(sequence, file),
            // A file without a record stays behind where this fails, and is found empty later.
            None => _ = self.folder.remove(sequence),
        }
    }
}
