//! The side of the spool that records are taken from, read and settled.
//!
//! In: the oldest file that is not read to its end. Out: its records one by one, in parts where the
//! caller has no room for more, and on disk what is settled of them.

use super::file::{DataFile, Fault, Step};
use super::folder::{self, Kind};
use super::{Next, Record, RecordId, Spool, SpoolError};
use crate::base::clock::Moment;
use std::collections::BTreeMap;
use std::io;

impl Spool {
    /// Takes the oldest record that is neither settled nor taken, or what is left of it. Its
    /// payload has been held against its checksum.
    ///
    /// Every call comes closer to [`Next::Empty`], whatever is in the files.
    pub fn next(&mut self, now: Moment) -> Next {
        // The file that was read last is closed if nothing of it is read any more.
        let last = self.read_sequence.take().and_then(|sequence| self.sealed.get_mut(&sequence));
        if let Some(file) = last {
            file.close_if_idle();
        }
        while let Some(sequence) = self.oldest_unread() {
            let Some(file) = self.sealed.get_mut(&sequence) else { break };
            let (place, part) = match file.find(&self.folder) {
                Step::Part(place, part) => (place, part),
                Step::Fault(fault) => return self.fault(sequence, fault),
                Step::End => {
                    self.finish_quietly(sequence);
                    continue;
                }
            };
            let created_at = part.header.created_at;
            let dates = file.dates();
            if dates.has_expired(created_at, now, self.age_max) {
                self.finish_quietly(sequence);
                if let Some(file) = self.sealed.get_mut(&sequence) {
                    // Where this fails it expires once more after a restart.
                    let _ = file.note(&mut self.folder, place, &part);
                }
                return Next::Expired { segment_count: part.segment_count };
            }
            if let Err(fault) = file.take(&self.folder, place, part, &mut self.window) {
                return self.fault(sequence, fault);
            }
            self.read_sequence = Some(sequence);
            return Next::Record(Record {
                id: RecordId { opening: self.opening, sequence, place },
                payload_bytes: part.header.payload_length,
                segment_count: part.header.segment_count,
                taken: part.first..part.first.saturating_add(part.segment_count),
                age: dates.age(created_at, now),
            });
        }
        Next::Empty
    }

    /// Reads what fills `buffer` of the payload of a record that was taken, from the place `at` on.
    ///
    /// # Errors
    ///
    /// When it cannot be read. The record is not taken any longer then, and the error says what
    /// became of it: it comes again, or it is lost.
    pub fn read(&mut self, id: RecordId, at: u64, buffer: &mut [u8]) -> Result<(), Next> {
        let Some(file) = self.sealed.get_mut(&id.sequence) else {
            let gone = Fault::Unreadable(io::ErrorKind::NotFound.into());
            return Err(self.fault(id.sequence, gone));
        };
        let read = file.read(&self.folder, id.place, at, buffer);
        read.map_err(|fault| self.fault(id.sequence, fault))
    }

    /// Keeps the first `segment_count` segments of a record that was taken, and puts the others
    /// back: they are what comes next. `false` when the record cannot be divided so.
    #[must_use = "a record that is not divided is still taken as a whole"]
    pub fn split(&mut self, id: RecordId, segment_count: u32) -> bool {
        let file = self.sealed.get_mut(&id.sequence);
        file.is_some_and(|file| file.split(id.place, segment_count))
    }

    /// Has a record that was taken wait for another run. It is not settled, and stays counted.
    pub fn set_aside(&mut self, id: RecordId) {
        if let Some(file) = self.sealed.get_mut(&id.sequence) {
            file.set_aside(id.place);
        }
    }

    /// Has the files read again that could not be read. To be called after a pause.
    pub fn try_unreadable(&mut self) {
        self.sealed.values_mut().for_each(DataFile::try_again);
    }

    /// Forgets a record that was taken: it was delivered, or given up.
    ///
    /// It does not come again after a crash of the daemon. One that is not taken, because its file
    /// was evicted, is settled already. One that a spool opened before this one has given comes
    /// again.
    ///
    /// # Errors
    ///
    /// When that could not be noted on disk, or a file that is done with not be removed. The
    /// record does not come again in this run, but it may after a restart.
    pub fn settle(&mut self, id: RecordId) -> Result<(), SpoolError> {
        if id.opening != self.opening {
            return Ok(());
        }
        let Some(file) = self.sealed.get_mut(&id.sequence) else { return Ok(()) };
        let Some(part) = file.settle(id.place) else { return Ok(()) };
        if file.is_finished() {
            return self.remove(id.sequence).map_err(SpoolError::Remove);
        }
        file.note(&mut self.folder, id.place, &part).map_err(SpoolError::Progress)
    }

    /// Puts a record back that was taken; it comes again, before those after it.
    ///
    /// Returns `false` when its file was evicted meanwhile: then the record is lost, and was not
    /// counted as evicted. One that a spool opened before this one has given is there untaken.
    #[must_use = "a record that could not be put back is lost and has to be counted"]
    pub fn release(&mut self, id: RecordId) -> bool {
        if id.opening != self.opening {
            return true;
        }
        self.sealed.get_mut(&id.sequence).is_some_and(|file| file.release(id.place))
    }

    /// The oldest sealed file that may have a record; seals the active one if there is no other.
    fn oldest_unread(&mut self) -> Option<u64> {
        let find = |sealed: &BTreeMap<u64, DataFile>| {
            sealed.iter().find(|(_, file)| file.is_readable()).map(|(&sequence, _)| sequence)
        };
        find(&self.sealed).or_else(|| {
            self.seal_active();
            find(&self.sealed)
        })
    }

    fn fault(&mut self, sequence: u64, fault: Fault) -> Next {
        match fault {
            Fault::Damage(damage) => {
                self.finish_quietly(sequence);
                Next::Damaged(damage)
            }
            Fault::Unreadable(source) => {
                let name = folder::name(sequence, Kind::Data);
                Next::Unreadable(SpoolError::Read { name, source })
            }
        }
    }

    /// Removes a file if all of it is settled. Where that fails it stays, is not read again, and
    /// is the first to be evicted.
    pub(super) fn finish_quietly(&mut self, sequence: u64) {
        if self.sealed.get(&sequence).is_some_and(DataFile::is_finished) {
            let _ = self.remove(sequence);
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> io::Result<()> {
        self.folder.remove(sequence)?;
        self.sealed.remove(&sequence);
        Ok(())
    }
}
