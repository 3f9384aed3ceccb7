//! A data file that is not appended to any longer, and how far it has been read.
//!
//! Reading goes from the front: the cursor passes each record once. A record is taken as a whole or
//! in *parts*, which are some of its segments, one after the other: memory may not have room for
//! all of them at once. A part that was taken is known by its place until it is settled, put back
//! or set aside; those that were put back come before the cursor. Bound: 80 bytes of memory for
//! each part that is taken, put back or set aside, 8 for each record that an earlier run settled in
//! the file being read.
//!
//! The file is open while something in it is not synced and while it is being read; one that
//! was removed meanwhile stays open to its end. One that cannot be read is passed over until
//! [`DataFile::try_again`]; what of it is gone is given up.

use super::age::Dates;
use super::folder::{Folder, Kind, is_removed};
use super::progress::Progress;
use super::record::{FILE_HEADER_BYTES, HEADER_BYTES, Header, Slot, look, verify_payload};
use super::{Damage, DamageCause};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Records, and the segments in them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub record_count: u64,
    pub segment_count: u64,
}

impl Count {
    pub fn add(&mut self, segment_count: u32) {
        self.record_count += 1;
        self.segment_count += u64::from(segment_count);
    }

    pub(super) fn remove(&mut self, segment_count: u32) {
        self.record_count = self.record_count.saturating_sub(1);
        self.segment_count = self.segment_count.saturating_sub(segment_count.into());
    }
}

/// Where a part is: the offset of its record, and the index of its first segment.
pub type Place = (u64, u32);

/// Some segments of a record, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub header: Header,
    /// The index of the first one.
    pub first: u32,
    pub segment_count: u32,
}

/// What reading came upon.
#[derive(Debug)]
pub enum Step {
    /// Where a part is, and what it is.
    Part(Place, Part),
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

/// What is neither settled nor taken in a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// What is known of it.
    pub count: Count,
    /// Bytes that are damaged or cannot be read: the segments in them are not known.
    pub unknown_bytes: u64,
}

/// A sealed file.
#[derive(Debug)]
pub struct DataFile {
    pub(super) sequence: u64,
    pub(super) length_bytes: u64,
    pub(super) handle: Option<File>,
    /// Where the first record begins that was not looked at.
    pub(super) cursor: u64,
    /// What lies behind the cursor; not known for files of earlier runs.
    pub(super) unread: Option<Count>,
    pub(super) taken: BTreeMap<Place, Part>,
    pub(super) released: BTreeMap<Place, Part>,
    /// Not to be read in this run, and not settled either.
    pub(super) set_aside: BTreeMap<Place, Part>,
    pub(super) progress: Progress,
    /// When the first record behind the cursor was made, with the cursor of that look.
    first_unread: Option<(u64, u64)>,
    dates: Dates,
    /// Where what was not brought to disk begins, if there is any.
    pub(super) unsynced_from: Option<u64>,
    /// Whether bringing it to disk has failed: what is behind `unsynced_from` may not be there.
    pub(super) is_suspect: bool,
    is_unreadable: bool,
}

impl DataFile {
    /// A file that an earlier run left, found so many seconds after boot.
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
            taken: BTreeMap::new(),
            released: BTreeMap::new(),
            set_aside: BTreeMap::new(),
            progress: Progress::unread(progress_bytes),
            first_unread: None,
            dates: Dates::Found { uptime_seconds },
            unsynced_from: None,
            is_suspect: false,
            is_unreadable: false,
        }
    }

    /// A file that this run has written, synced up to `synced_bytes`.
    pub fn sealed(
        sequence: u64,
        (length_bytes, synced_bytes): (u64, u64),
        handle: File,
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

    /// By what clock the dates in it were written.
    pub fn dates(&self) -> Dates {
        self.dates
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
        !self.is_unread() && self.taken.is_empty() && self.set_aside.is_empty()
    }

    /// Bytes on disk, with the progress beside it.
    pub fn size_bytes(&self) -> u64 {
        self.length_bytes.saturating_add(self.progress.length_bytes())
    }

    /// The parts that were read and are not settled.
    fn held(&self) -> impl Iterator<Item = (&Place, &Part)> {
        self.taken.iter().chain(&self.released).chain(&self.set_aside)
    }

    /// Segments that are not settled, as far as they are known.
    pub fn segment_count(&self) -> u64 {
        let held: u64 = self.held().map(|(_, part)| u64::from(part.segment_count)).sum();
        held + self.unread.map_or(0, |count| count.segment_count)
    }

    /// Finds the next part that is neither settled nor taken.
    pub fn find(&mut self, folder: &Folder) -> Step {
        self.try_find(folder).unwrap_or_else(|error| Step::Fault(self.fault(error)))
    }

    fn try_find(&mut self, folder: &Folder) -> io::Result<Step> {
        self.open(folder)?;
        loop {
            if let Some((place, part)) = self.released.pop_first() {
                return Ok(Step::Part(place, part));
            }
            let Some(file) = self.handle.as_ref().filter(|_| self.cursor < self.length_bytes)
            else {
                break;
            };
            let offset = self.cursor;
            match look(file, offset, self.length_bytes)? {
                Slot::FileHeader => self.cursor = FILE_HEADER_BYTES,
                Slot::Record(header) => {
                    let parts = self.progress.unsettled(offset, &header);
                    // One that was moved is not counted any longer.
                    let segment_count = if parts.is_empty() { None } else { Some(&header) };
                    let segment_count = segment_count.map(|header| header.segment_count);
                    self.pass(offset + header.record_bytes(), segment_count);
                    let places = parts.into_iter().map(|part| ((offset, part.first), part));
                    self.released.extend(places);
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
            // All was read and less came than was written: an earlier header was damaged.
            let damage = self.damage(0, 0, DamageCause::RecordHeader);
            return Ok(Step::Fault(Fault::Damage(damage)));
        }
        Ok(Step::End)
    }

    /// Takes the part that [`find`](Self::find) has found, if its record is what was written. The
    /// file stays open, to be read.
    pub fn take(
        &mut self,
        folder: &Folder,
        place: Place,
        part: Part,
        window: &mut [u8],
    ) -> Result<(), Fault> {
        let verified =
            self.open(folder).and_then(|file| verify_payload(file, place.0, &part.header, window));
        match verified {
            Ok(true) => {
                self.taken.insert(place, part);
                Ok(())
            }
            Ok(false) => Err(Fault::Damage(self.damage_of(place, part))),
            Err(error) => {
                self.released.insert(place, part);
                Err(self.fault(error))
            }
        }
    }

    /// Reads from the place `at` of the payload of a part's record. Where that fails the part is
    /// not taken any longer.
    pub fn read(
        &mut self,
        folder: &Folder,
        place: Place,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<(), Fault> {
        let offset = place.0.saturating_add(HEADER_BYTES as u64).saturating_add(at);
        let read = self.open(folder).and_then(|file| file.read_exact_at(buffer, offset));
        read.map_err(|error| {
            self.release(place);
            self.fault(error)
        })
    }

    /// Puts all but the first `segment_count` segments of a part that was taken back; `false` if
    /// that cannot be done.
    pub fn split(&mut self, place: Place, segment_count: u32) -> bool {
        let Some(part) = self.taken.get_mut(&place) else { return false };
        let rest_count = part.segment_count.saturating_sub(segment_count);
        if rest_count == 0 || segment_count == 0 || !part.header.is_divisible() {
            return false;
        }
        part.segment_count = segment_count;
        let first = part.first + segment_count;
        let rest = Part { first, segment_count: rest_count, ..*part };
        self.released.insert((place.0, first), rest);
        true
    }

    /// Has a part that was taken not come again in this run.
    pub fn set_aside(&mut self, place: Place) {
        let part = self.taken.remove(&place);
        self.set_aside.extend(part.map(|part| (place, part)));
    }

    /// Settles a part that was taken, or one that was found; `None` if there is none.
    pub fn settle(&mut self, place: Place) -> Option<Part> {
        self.taken.remove(&place)
    }

    /// Puts a part back that was taken; `false` if it was not.
    pub fn release(&mut self, place: Place) -> bool {
        let part = self.taken.remove(&place);
        self.released.extend(part.map(|part| (place, part)));
        part.is_some()
    }

    /// Notes on disk that a part is settled: its record, if nothing else of that waits.
    pub fn note(&mut self, folder: &mut Folder, place: Place, part: &Part) -> io::Result<()> {
        let (offset, first) = place;
        if !self.held().any(|(other, _)| other.0 == offset) {
            return self.progress.note(folder, self.sequence, &[offset]);
        }
        let segments = first..first.saturating_add(part.segment_count);
        let marks: Vec<u64> = segments.map(|index| Header::mark(offset, index)).collect();
        self.progress.note(folder, self.sequence, &marks)
    }

    /// Counts what is neither settled nor taken.
    pub fn waiting(&mut self, folder: &Folder) -> Waiting {
        let mut waiting = match self.unread {
            Some(count) => Waiting { count, unknown_bytes: 0 },
            None => self.count_unread(folder),
        };
        let held = self.released.values().chain(self.set_aside.values());
        held.for_each(|part| waiting.count.add(part.segment_count));
        waiting
    }

    /// Goes from header to header of what is behind the cursor, without a look at payloads.
    fn count_unread(&mut self, folder: &Folder) -> Waiting {
        let mut waiting = Waiting::default();
        let (mut offset, length_bytes) = (self.cursor, self.length_bytes);
        while offset < length_bytes {
            let slot = self.open(folder).and_then(|file| look(file, offset, length_bytes));
            match slot {
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
                    waiting.unknown_bytes += length_bytes - offset;
                    break;
                }
            }
        }
        waiting
    }

    /// When the first record was made that is not settled, as far as it can be read.
    pub fn oldest_created_at(&mut self, folder: &Folder) -> Option<u64> {
        // What was taken or put back lies before the cursor.
        let held = self.held().map(|(_, part)| part.header.created_at).min();
        held.or_else(|| self.unread_created_at(folder).ok().flatten())
    }

    fn unread_created_at(&mut self, folder: &Folder) -> io::Result<Option<u64>> {
        if let Some((cursor, created_at)) = self.first_unread
            && cursor == self.cursor
        {
            return Ok(Some(created_at));
        }
        let mut first = None;
        let (mut offset, length_bytes) = (self.cursor, self.length_bytes);
        while offset < length_bytes && first.is_none() {
            match look(self.open(folder)?, offset, length_bytes)? {
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

    pub(super) fn open(&mut self, folder: &Folder) -> io::Result<&File> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => {
                let handle = folder.open_to_read(self.sequence, Kind::Data)?;
                if self.cursor == 0 && self.unread.is_none() {
                    self.progress.load(folder, self.sequence, self.length_bytes);
                }
                handle
            }
        };
        Ok(self.handle.insert(handle))
    }

    /// Closes the file before it is read and after, so that many files do not need many
    /// descriptors.
    pub fn close_if_idle(&mut self) {
        let is_being_read = self.cursor > 0 && self.cursor < self.length_bytes;
        let is_idle = !is_being_read && self.unsynced_from.is_none();
        if is_idle && !(self.is_unread() && self.handle.as_ref().is_some_and(is_removed)) {
            self.handle = None;
        }
    }

    /// Reading has come to `end`, past a record of so many segments if it was one.
    fn pass(&mut self, end: u64, segment_count: Option<u32>) {
        self.cursor = end;
        if let Some((unread, segment_count)) = self.unread.as_mut().zip(segment_count) {
            unread.remove(segment_count);
        }
    }

    /// Describes damage. At the end of the file all that was written and not found is part of it.
    fn damage(&mut self, bytes: u64, segment_count: u64, cause: DamageCause) -> Damage {
        let is_at_end = self.cursor == self.length_bytes;
        let missing = self.unread.as_mut().filter(|_| is_at_end).map(std::mem::take);
        let segment_count = segment_count + missing.map_or(0, |count| count.segment_count);
        Damage { sequence: self.sequence, bytes, segment_count, cause }
    }

    /// The payload of a part's record is damaged: what waits of that record is lost with it.
    fn damage_of(&mut self, (offset, _): Place, part: Part) -> Damage {
        let mut segment_count = u64::from(part.segment_count);
        self.released.retain(|place, other| {
            let is_other_record = place.0 != offset;
            segment_count += if is_other_record { 0 } else { u64::from(other.segment_count) };
            is_other_record
        });
        self.damage(part.header.record_bytes(), segment_count, DamageCause::Payload)
    }

    /// What an error means. A disk that fails, or a system without descriptors, may do better
    /// later.
    fn fault(&mut self, error: io::Error) -> Fault {
        if [io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof].contains(&error.kind()) {
            return Fault::Damage(self.give_up());
        }
        self.is_unreadable = true;
        Fault::Unreadable(error)
    }

    /// Counts as lost what was not read.
    fn give_up(&mut self) -> Damage {
        let mut lost = std::mem::take(&mut self.released);
        lost.append(&mut self.set_aside);
        let segment_count: u64 = lost.values().map(|part| u64::from(part.segment_count)).sum();
        let bytes: u64 = lost.values().map(|part| part.header.record_bytes()).sum();
        let bytes = bytes + self.length_bytes - self.cursor;
        self.cursor = self.length_bytes;
        self.damage(bytes, segment_count, DamageCause::Gone)
    }
}
