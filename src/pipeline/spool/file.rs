//! A data file that is not appended to any longer, and how far reading has come in it.
//!
//! In: the file, from its front to its end. Out: [`Part`]s of its records, one by one. Bound: 80
//! bytes of memory for each part that is taken, put back or set aside, and 8 bytes for each record
//! of the file being read that an earlier run has settled. Thread: the spool's.
//!
//! The cursor passes each record once. Parts that were put back are found again before the record
//! at the cursor. The file is open while some of its bytes are not synced and while it is being
//! read. If another program has removed the file, it stays open until it is read to its end. A file
//! that cannot be read is skipped until [`DataFile::try_again`]. Missing bytes are lost.

use super::age::Dates;
use super::disk::DiskFile;
use super::error::{Damage, DamageCause};
use super::folder::Folder;
use super::names::Kind;
use super::parts::{Count, Part, Parts, Place, Waiting};
use super::progress::Progress;
use super::record::{FILE_HEADER_BYTES, HEADER_BYTES, Header, Slot, look, verify_payload};
use std::io;

/// The result of a search for the next part of a record in a file.
#[derive(Debug)]
pub enum Step {
    /// A part of a record, and its place in the file.
    Part(Place, Part),
    /// Bytes that are not a record, or a file that cannot be read.
    Fault(Fault),
    /// The end of the file: no part is left.
    End,
}

/// Why a record could not be read.
#[derive(Debug)]
pub enum Fault {
    /// Some bytes are damaged or missing. Reading goes on behind them.
    Damage(Damage),
    /// Nothing is lost. The file is not read again until [`DataFile::try_again`].
    Unreadable(io::Error),
}

/// A data file that is only read.
#[derive(Debug)]
pub struct DataFile {
    sequence: u64,
    length_bytes: u64,
    pub(super) handle: Option<Box<dyn DiskFile>>,
    /// The offset of the first record that reading has not come to.
    cursor: u64,
    /// The number of records and segments behind the cursor; `None` for files of earlier runs.
    unread: Option<Count>,
    /// The parts before the cursor that are not settled.
    pub(super) parts: Parts,
    pub(super) progress: Progress,
    /// A cursor, and the date of the first unsettled record behind it. If `cursor` has moved on
    /// since, the date is not valid any longer.
    first_unread: Option<(u64, u64)>,
    dates: Dates,
    /// The offset of the first byte that is not on stable storage; `None` if all bytes are.
    unsynced_from: Option<u64>,
    /// Whether an fsync has failed: the bytes behind `unsynced_from` may never get to stable
    /// storage.
    is_suspect: bool,
    is_unreadable: bool,
}

impl DataFile {
    /// A file that an earlier run has left. `uptime_seconds` is when this run found it, in seconds
    /// since boot.
    pub fn found(
        sequence: u64,
        length_bytes: u64,
        progress_bytes: u64,
        uptime_seconds: i64,
    ) -> Self {
        Self {
            sequence,
            length_bytes,
            handle: None,
            cursor: 0,
            unread: None,
            parts: Parts::default(),
            progress: Progress::unread(progress_bytes),
            first_unread: None,
            dates: Dates::Found { uptime_seconds },
            unsynced_from: None,
            is_suspect: false,
            is_unreadable: false,
        }
    }

    /// A file that this run has written. Its first `synced_bytes` are on stable storage.
    pub fn sealed(
        sequence: u64,
        (length_bytes, synced_bytes): (u64, u64),
        handle: Box<dyn DiskFile>,
        count: Count,
        dates: Dates,
    ) -> Self {
        Self {
            handle: Some(handle),
            unread: Some(count),
            unsynced_from: (synced_bytes < length_bytes).then_some(synced_bytes),
            dates,
            ..Self::found(sequence, length_bytes, 0, 0)
        }
    }

    /// Returns the clock that the dates of the records in the file come from.
    pub fn dates(&self) -> Dates {
        self.dates
    }

    /// The size of the data file alone, in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The size of the data file and its progress file, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.length_bytes.saturating_add(self.progress.length_bytes())
    }

    /// Returns whether [`find`](Self::find) may find a part or damage.
    pub fn is_readable(&self) -> bool {
        self.is_unread() && !self.is_unreadable
    }

    /// Lets the file be read again after a failure.
    pub fn try_again(&mut self) {
        self.is_unreadable = false;
    }

    fn is_unread(&self) -> bool {
        let is_short = self.unread.is_some_and(|count| count.segment_count > 0);
        self.cursor < self.length_bytes || is_short || self.parts.has_waiting()
    }

    /// Returns whether all records are settled, so that the file can be removed.
    pub fn is_finished(&self) -> bool {
        !self.is_unread() && self.parts.is_unused()
    }

    /// Returns how many segments are not settled, without unread segments of earlier runs.
    pub fn segment_count(&self) -> u64 {
        self.parts.segment_count() + self.unread.map_or(0, |count| count.segment_count)
    }

    /// Finds the next part that is neither settled nor taken.
    pub fn find(&mut self, folder: &Folder) -> Step {
        self.try_find(folder).unwrap_or_else(|error| Step::Fault(self.fault(error)))
    }

    fn try_find(&mut self, folder: &Folder) -> io::Result<Step> {
        self.open(folder)?;
        loop {
            if let Some((place, part)) = self.parts.pop() {
                return Ok(Step::Part(place, part));
            }
            let offset = self.cursor;
            if offset >= self.length_bytes {
                break;
            }
            match self.slot(folder, offset)? {
                Slot::FileHeader => self.cursor = FILE_HEADER_BYTES,
                Slot::Record(header) => {
                    let parts = self.progress.unsettled(offset, &header);
                    // A record that was copied after a failed fsync counts in another file.
                    let is_counted = !parts.is_empty();
                    let end = offset + header.record_bytes();
                    self.pass(end, is_counted.then_some(header.segment_count));
                    parts.into_iter().for_each(|part| self.parts.add((offset, part.first), part));
                }
                Slot::Damaged { end, segment_count, cause } => {
                    self.pass(end, Some(segment_count));
                    let damage = self.damage(end - offset, segment_count.into(), cause);
                    return Ok(Step::Fault(Fault::Damage(damage)));
                }
            }
        }
        self.close_if_idle();
        if self.is_unread() {
            // Fewer segments were found than were written: an earlier record header was damaged.
            let damage = self.damage(0, 0, DamageCause::RecordHeader);
            return Ok(Step::Fault(Fault::Damage(damage)));
        }
        Ok(Step::End)
    }

    /// Takes the part that [`find`](Self::find) has found if the payload of its record is intact.
    /// The file stays open, to be read.
    pub fn take(
        &mut self,
        folder: &Folder,
        place: Place,
        part: Part,
        window: &mut [u8],
    ) -> Result<(), Fault> {
        let is_intact =
            self.open(folder).and_then(|file| verify_payload(file, place.0, &part.header, window));
        match is_intact {
            Ok(true) => {
                self.parts.add_taken(place, part);
                Ok(())
            }
            Ok(false) => {
                // The waiting parts of the same record are lost too.
                let segment_count = u64::from(part.segment_count) + self.parts.drop_record(place.0);
                let bytes = part.header.record_bytes();
                Err(Fault::Damage(self.damage(bytes, segment_count, DamageCause::Payload)))
            }
            Err(error) => {
                self.parts.add(place, part);
                Err(self.fault(error))
            }
        }
    }

    /// Reads the payload of a taken part's record, from the offset `at` within this payload. If
    /// this fails, the part is not taken any longer.
    pub fn read(
        &mut self,
        folder: &Folder,
        place: Place,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<(), Fault> {
        let offset = place.0.saturating_add(HEADER_BYTES as u64).saturating_add(at);
        let read = self.open(folder).and_then(|file| file.read_at(buffer, offset));
        read.map_err(|error| {
            self.parts.release(place);
            self.fault(error)
        })
    }

    /// Notes on disk that a part is settled. Notes the whole record if no other part of it is left.
    pub fn note(&mut self, folder: &mut Folder, place: Place, part: &Part) -> io::Result<()> {
        let (offset, first) = place;
        if !self.parts.all().any(|(other, _)| other.0 == offset) {
            return self.progress.note(folder, self.sequence, &[offset]);
        }
        let segments = first..first.saturating_add(part.segment_count);
        let marks: Vec<u64> = segments.map(|index| Header::mark(offset, index)).collect();
        self.progress.note(folder, self.sequence, &marks)
    }

    /// Counts the segments and records that are neither settled nor taken.
    pub fn waiting(&mut self, folder: &Folder) -> Waiting {
        let mut waiting = match self.unread {
            Some(count) => Waiting { count, unknown_bytes: 0 },
            None => self.count_unread(folder),
        };
        self.parts.untaken().for_each(|part| waiting.count.add(part.segment_count));
        waiting
    }

    /// Counts the records behind the cursor by their headers.
    fn count_unread(&mut self, folder: &Folder) -> Waiting {
        let mut waiting = Waiting::default();
        let mut offset = self.cursor;
        while offset < self.length_bytes {
            match self.slot(folder, offset) {
                Ok(Slot::FileHeader) => offset = FILE_HEADER_BYTES,
                Ok(Slot::Record(header)) => {
                    let parts = self.progress.unsettled(offset, &header);
                    parts.iter().for_each(|part| waiting.count.add(part.segment_count));
                    offset += header.record_bytes();
                }
                Ok(Slot::Damaged { end, segment_count, .. }) => {
                    waiting.count.segment_count += u64::from(segment_count);
                    waiting.unknown_bytes += end - offset;
                    offset = end;
                }
                Err(_) => {
                    waiting.unknown_bytes += self.length_bytes - offset;
                    break;
                }
            }
        }
        waiting
    }

    /// Returns the date of the first record that is not settled, in seconds since 1970; `None` if
    /// there is none or it cannot be read.
    pub fn oldest_created_at(&mut self, folder: &Folder) -> Option<u64> {
        // Parts that were read lie before the cursor, so they are older than unread records.
        let read = self.parts.all().map(|(_, part)| part.header.created_at).min();
        read.or_else(|| self.unread_created_at(folder).ok().flatten())
    }

    fn unread_created_at(&mut self, folder: &Folder) -> io::Result<Option<u64>> {
        if let Some((cursor, created_at)) = self.first_unread
            && cursor == self.cursor
        {
            return Ok(Some(created_at));
        }
        let mut first = None;
        let mut offset = self.cursor;
        while offset < self.length_bytes && first.is_none() {
            match self.slot(folder, offset)? {
                Slot::FileHeader => offset = FILE_HEADER_BYTES,
                Slot::Record(header) => {
                    let is_settled = self.progress.unsettled(offset, &header).is_empty();
                    first = (!is_settled).then_some(header.created_at);
                    offset += header.record_bytes();
                }
                Slot::Damaged { end, .. } => offset = end,
            }
        }
        self.close_if_idle();
        self.first_unread = first.map(|created_at| (self.cursor, created_at));
        Ok(first)
    }

    /// Returns the file, and opens it first if it is closed.
    pub fn open(&mut self, folder: &Folder) -> io::Result<&dyn DiskFile> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => {
                let handle = folder.open_to_read(self.sequence, Kind::Data)?;
                if self.cursor == 0 && self.unread.is_none() {
                    self.progress.load(folder, self.sequence, self.length_bytes)?;
                }
                handle
            }
        };
        Ok(&**self.handle.insert(handle))
    }

    /// Reads the file header or the record header at `offset`.
    pub fn slot(&mut self, folder: &Folder, offset: u64) -> io::Result<Slot> {
        let length_bytes = self.length_bytes;
        look(self.open(folder)?, offset, length_bytes)
    }

    /// Closes the file unless it is being read or is not synced, to save descriptors.
    pub fn close_if_idle(&mut self) {
        let is_being_read = self.cursor > 0 && self.cursor < self.length_bytes;
        let is_idle = !is_being_read && self.unsynced_from.is_none();
        // A removed file cannot be opened again.
        let is_removed = || self.handle.as_ref().is_some_and(|file| file.is_removed());
        if is_idle && !(self.is_unread() && is_removed()) {
            self.handle = None;
        }
    }

    /// Moves the cursor to `end`. Takes a record of `segment_count` segments out of `unread`.
    fn pass(&mut self, end: u64, segment_count: Option<u32>) {
        self.cursor = end;
        if let Some((unread, segment_count)) = self.unread.as_mut().zip(segment_count) {
            unread.remove(segment_count);
        }
    }

    /// Describes damage. At the end of the file, adds all segments that were written but not found.
    fn damage(&mut self, bytes: u64, segment_count: u64, cause: DamageCause) -> Damage {
        let is_at_end = self.cursor == self.length_bytes;
        let missing = self.unread.as_mut().filter(|_| is_at_end).map(std::mem::take);
        let segment_count = segment_count + missing.map_or(0, |count| count.segment_count);
        Damage { bytes, segment_count, cause }
    }

    /// Turns an error into a fault. If the file is missing or too short, its bytes are lost. After
    /// any other error a later attempt may succeed, so nothing is lost.
    fn fault(&mut self, error: io::Error) -> Fault {
        if [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind()) {
            return Fault::Damage(self.drop_unread());
        }
        self.is_unreadable = true;
        Fault::Unreadable(error)
    }

    /// Counts all segments that are not taken as lost.
    fn drop_unread(&mut self) -> Damage {
        let (segment_count, bytes) = self.parts.drop_untaken();
        let bytes = bytes + self.length_bytes - self.cursor;
        self.cursor = self.length_bytes;
        self.damage(bytes, segment_count, DamageCause::Gone)
    }

    /// Writes the file to stable storage, unless an earlier fsync has failed: then a later one
    /// proves nothing. Then call [`confirm`](Self::confirm) or [`suspect`](Self::suspect).
    pub fn sync(&self) -> io::Result<()> {
        match &self.handle {
            Some(file) if self.unsynced_from.is_some() && !self.is_suspect => file.sync(),
            _ => Ok(()),
        }
    }

    /// Notes that the file and its name are on stable storage.
    pub fn confirm(&mut self) {
        if !self.is_suspect {
            self.trust();
        }
    }

    /// Does the same for a file whose suspect bytes were written again, or have no use any more.
    pub fn trust(&mut self) {
        (self.unsynced_from, self.is_suspect) = (None, false);
        self.close_if_idle();
    }

    /// Notes that an fsync has failed: the bytes that were not synced before it may be lost.
    pub fn suspect(&mut self) {
        self.is_suspect = self.unsynced_from.is_some();
    }

    /// The offset of the first byte that may never get to stable storage; `None` if there is none.
    pub fn suspect_from(&self) -> Option<u64> {
        self.unsynced_from.filter(|_| self.is_suspect)
    }

    /// Writes the progress to stable storage. If this fails, settled records may be sent again.
    pub fn sync_progress(&mut self, folder: &mut Folder) -> io::Result<()> {
        self.progress.note(folder, self.sequence, &[]).and_then(|()| self.progress.sync())
    }

    /// Returns whether no segment of the record at `offset` is settled or taken.
    pub fn waits_whole(&self, offset: u64, header: &Header) -> bool {
        match offset < self.cursor {
            true => self.parts.waits_whole(offset, header),
            false => !self.progress.unsettled(offset, header).is_empty(),
        }
    }

    /// Counts records of this file as settled that were copied to another file.
    pub fn forget(&mut self, folder: &mut Folder, moved: &[(u64, Header)]) {
        for (offset, header) in moved {
            if !self.parts.remove_waiting(*offset)
                && let Some(unread) = &mut self.unread
            {
                unread.remove(header.segment_count);
            }
        }
        let offsets: Vec<u64> = moved.iter().map(|(offset, _)| *offset).collect();
        self.progress.pass_over(&offsets);
        if !self.parts.has_any_from(self.unsynced_from.unwrap_or(self.length_bytes)) {
            self.trust();
        }
        let is_read_out = self.unread.is_some_and(|count| count == Count::default());
        if is_read_out && !self.parts.has_waiting() {
            self.cursor = self.length_bytes;
        }
        if !self.is_finished() {
            // If this fails and the daemon is killed now, these records are sent twice.
            let _ = self.progress.note(folder, self.sequence, &offsets);
        }
        self.close_if_idle();
    }
}
