//! A data file that is not appended to any longer, and how far it has been read.
//!
//! Reading goes from the front: the cursor passes each record once. A record that was taken is
//! known by its place until it is settled or put back; those that were put back come before the
//! cursor. Bound: 60 bytes of memory for each record that is taken or put back, 40 for each that an
//! earlier run settled in the file being read.
//!
//! The file is open while something in it is not synced and while it is being read; one that
//! somebody removed meanwhile stays open to its end. One that cannot be read is passed over until
//! [`DataFile::try_again`]; what of it is gone is given up.

use super::folder::{Folder, Kind, is_removed};
use super::progress::Progress;
use super::record::{FILE_HEADER_BYTES, Header, Slot, look, read_payload};
use super::{Damage, DamageCause};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

/// Records, and the segments in them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub record_count: u64,
    pub segment_count: u64,
}

impl Count {
    pub fn add(&mut self, header: &Header) {
        self.record_count += 1;
        self.segment_count += u64::from(header.segment_count);
    }

    fn remove(&mut self, segment_count: u32) {
        self.record_count = self.record_count.saturating_sub(1);
        self.segment_count = self.segment_count.saturating_sub(segment_count.into());
    }
}

/// What reading came upon.
#[derive(Debug)]
pub enum Step {
    /// The header of a record, and where it is.
    Record(u64, Header),
    Fault(Fault),
    End,
}

/// Why there is no record.
#[derive(Debug)]
pub enum Fault {
    /// What is lost; reading goes on behind it.
    Damage(Damage),
    /// Nothing is lost, and the file is left alone until [`DataFile::try_again`].
    Unreadable(io::Error),
}

/// A sealed file.
#[derive(Debug)]
pub struct DataFile {
    sequence: u64,
    length_bytes: u64,
    pub(super) handle: Option<File>,
    /// Where the first record begins that was not looked at.
    cursor: u64,
    /// What lies behind the cursor; not known for files of earlier runs.
    unread: Option<Count>,
    taken: BTreeMap<u64, Header>,
    released: BTreeMap<u64, Header>,
    progress: Progress,
    /// When the first record behind the cursor was made, with the cursor of that look.
    first_unread: Option<(u64, u64)>,
    is_unsynced: bool,
    is_unreadable: bool,
}

impl DataFile {
    /// A file that an earlier run left.
    pub fn found(sequence: u64, length_bytes: u64, progress_bytes: u64) -> Self {
        Self {
            sequence,
            length_bytes,
            handle: None,
            cursor: 0,
            unread: None,
            taken: BTreeMap::new(),
            released: BTreeMap::new(),
            progress: Progress::unread(progress_bytes),
            first_unread: None,
            is_unsynced: false,
            is_unreadable: false,
        }
    }

    /// A file that this run has written.
    pub fn sealed(sequence: u64, length_bytes: u64, handle: File, count: Count) -> Self {
        Self {
            handle: Some(handle),
            unread: Some(count),
            is_unsynced: true,
            ..Self::found(sequence, length_bytes, 0)
        }
    }

    /// Whether [`find`](Self::find) may come upon something, and is worth a try.
    pub fn is_readable(&self) -> bool {
        self.is_unread() && !self.is_unreadable
    }

    /// Has it read again, whatever has come of it before.
    pub fn try_again(&mut self) {
        self.is_unreadable = false;
    }

    fn is_unread(&self) -> bool {
        let is_short = self.unread.is_some_and(|count| count.segment_count > 0);
        self.cursor < self.length_bytes || is_short || !self.released.is_empty()
    }

    /// Whether nothing in it waits to be settled, so that it can go.
    pub fn is_finished(&self) -> bool {
        !self.is_unread() && self.taken.is_empty()
    }

    /// Bytes on disk, with the progress beside it.
    pub fn size_bytes(&self) -> u64 {
        self.length_bytes + self.progress.length_bytes()
    }

    /// Segments that are not settled, as far as they are known.
    pub fn segment_count(&self) -> u64 {
        let held = self.taken.values().chain(self.released.values());
        let held: u64 = held.map(|header| u64::from(header.segment_count)).sum();
        held + self.unread.map_or(0, |count| count.segment_count)
    }

    /// Finds the next record that is neither settled nor taken.
    pub fn find(&mut self, folder: &Folder) -> Step {
        self.try_find(folder).unwrap_or_else(|error| Step::Fault(self.fault(error)))
    }

    fn try_find(&mut self, folder: &Folder) -> io::Result<Step> {
        self.open(folder)?;
        if let Some((offset, header)) = self.released.pop_first() {
            return Ok(Step::Record(offset, header));
        }
        while let Some(file) = self.handle.as_ref().filter(|_| self.cursor < self.length_bytes) {
            let offset = self.cursor;
            match look(file, offset, self.length_bytes)? {
                Slot::FileHeader => self.cursor = FILE_HEADER_BYTES,
                Slot::Record(header) => {
                    self.pass(offset + header.record_bytes(), header.segment_count);
                    if !self.progress.pass(offset) {
                        return Ok(Step::Record(offset, header));
                    }
                }
                Slot::Damaged { end, segment_count, cause } => {
                    self.pass(end, segment_count);
                    let damage = self.damage(end - offset, segment_count, cause);
                    return Ok(Step::Fault(Fault::Damage(damage)));
                }
            }
        }
        self.close_if_idle();
        if self.is_unread() {
            // All was read and less came than was written: an earlier header was damaged.
            let damage = self.damage(0, 0, DamageCause::RecordHeader);
            return Ok(Step::Fault(Fault::Damage(damage)));
        }
        Ok(Step::End)
    }

    /// Reads the record that [`find`](Self::find) has found into `payload`, and takes it.
    pub fn take(
        &mut self,
        folder: &Folder,
        offset: u64,
        header: Header,
        payload: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match self.try_read(folder, offset, &header, payload) {
            Ok(true) => {
                self.taken.insert(offset, header);
                self.close_if_idle();
                Ok(())
            }
            Ok(false) => {
                let bytes = header.record_bytes();
                let damage = self.damage(bytes, header.segment_count, DamageCause::Payload);
                Err(Fault::Damage(damage))
            }
            Err(error) => {
                self.released.insert(offset, header);
                Err(self.fault(error))
            }
        }
    }

    fn try_read(
        &mut self,
        folder: &Folder,
        offset: u64,
        header: &Header,
        payload: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let file = self.open(folder)?;
        read_payload(file, offset, header, payload)
    }

    /// Settles a record that was taken; `false` if it was not.
    pub fn settle(&mut self, offset: u64) -> bool {
        self.taken.remove(&offset).is_some()
    }

    /// Puts a record back that was taken; `false` if it was not.
    pub fn release(&mut self, offset: u64) -> bool {
        let header = self.taken.remove(&offset);
        self.released.extend(header.map(|header| (offset, header)));
        header.is_some()
    }

    /// Notes on disk that a record is settled.
    pub fn note(&mut self, folder: &mut Folder, offset: u64) -> io::Result<()> {
        self.progress.note(folder, self.sequence, offset)
    }

    /// Counts what is neither settled nor taken. What cannot be read counts as nothing.
    pub fn waiting(&mut self, folder: &Folder) -> Count {
        let unread = self.unread.or_else(|| self.count_unread(folder).ok());
        let mut count = unread.unwrap_or_default();
        self.released.values().for_each(|header| count.add(header));
        count
    }

    fn count_unread(&mut self, folder: &Folder) -> io::Result<Count> {
        let mut count = Count::default();
        self.visit_unread(folder, |header| {
            count.add(header);
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// When the first record was made that is not settled, as far as it can be read.
    pub fn oldest_created_at(&mut self, folder: &Folder) -> Option<u64> {
        // What was taken or put back lies before the cursor.
        let held = self.taken.values().chain(self.released.values());
        let held = held.map(|header| header.created_at).min();
        held.or_else(|| self.unread_created_at(folder).ok().flatten())
    }

    fn unread_created_at(&mut self, folder: &Folder) -> io::Result<Option<u64>> {
        if let Some((cursor, created_at)) = self.first_unread
            && cursor == self.cursor
        {
            return Ok(Some(created_at));
        }
        let mut first = None;
        self.visit_unread(folder, |header| {
            first = Some(header.created_at);
            ControlFlow::Break(())
        })?;
        self.close_if_idle();
        self.first_unread = first.map(|created_at| (self.cursor, created_at));
        Ok(first)
    }

    /// Goes from header to header of what is behind the cursor and not settled, without a look at
    /// payloads.
    fn visit_unread(
        &mut self,
        folder: &Folder,
        mut visit: impl FnMut(&Header) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut offset = self.cursor;
        let length_bytes = self.length_bytes;
        while offset < length_bytes {
            match look(self.open(folder)?, offset, length_bytes)? {
                Slot::FileHeader => offset = FILE_HEADER_BYTES,
                Slot::Record(header) => {
                    if !self.progress.is_settled(offset) && visit(&header).is_break() {
                        break;
                    }
                    offset += header.record_bytes();
                }
                Slot::Damaged { end, .. } => offset = end,
            }
        }
        Ok(())
    }

    /// Brings the file and its progress to disk.
    pub fn sync(&mut self) -> io::Result<()> {
        let is_unsynced = std::mem::take(&mut self.is_unsynced);
        let data = match &self.handle {
            Some(file) if is_unsynced => file.sync_data(),
            _ => Ok(()),
        };
        self.close_if_idle();
        data.and(self.progress.sync())
    }

    fn open(&mut self, folder: &Folder) -> io::Result<&File> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => {
                let handle = folder.open_to_read(self.sequence, Kind::Data)?;
                if self.cursor == 0 {
                    self.progress.load(folder, self.sequence);
                }
                handle
            }
        };
        Ok(self.handle.insert(handle))
    }

    /// Closes the file before it is read and after, so that many files do not need many
    /// descriptors.
    fn close_if_idle(&mut self) {
        let is_being_read = self.cursor > 0 && self.cursor < self.length_bytes;
        let is_idle = !is_being_read && !self.is_unsynced;
        if is_idle && !(self.is_unread() && self.handle.as_ref().is_some_and(is_removed)) {
            self.handle = None;
        }
    }

    fn pass(&mut self, end: u64, segment_count: u32) {
        self.cursor = end;
        if let Some(unread) = &mut self.unread {
            unread.remove(segment_count);
        }
    }

    /// Describes damage. At the end of the file all that was written and not found is part of it.
    fn damage(&mut self, bytes: u64, segment_count: u32, cause: DamageCause) -> Damage {
        let is_at_end = self.cursor == self.length_bytes;
        let missing = self.unread.as_mut().filter(|_| is_at_end).map(std::mem::take);
        let segment_count =
            u64::from(segment_count) + missing.map_or(0, |count| count.segment_count);
        Damage { sequence: self.sequence, bytes, segment_count, cause }
    }

    /// What an error means. A disk that fails, or a system without descriptors, may do better later.
    fn fault(&mut self, error: io::Error) -> Fault {
        if [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind()) {
            return Fault::Damage(self.give_up());
        }
        self.is_unreadable = true;
        Fault::Unreadable(error)
    }

    /// Counts as lost what was not read.
    fn give_up(&mut self) -> Damage {
        let released = std::mem::take(&mut self.released);
        let bytes: u64 = released.values().map(Header::record_bytes).sum();
        let segment_count: u64 =
            released.values().map(|header| u64::from(header.segment_count)).sum();
        let bytes = bytes + self.length_bytes - self.cursor;
        self.cursor = self.length_bytes;
        let mut damage = self.damage(bytes, 0, DamageCause::Gone);
        damage.segment_count += segment_count;
        damage
    }
}
