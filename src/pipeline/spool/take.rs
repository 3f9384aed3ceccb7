//! Takes records from a spool, reads them and settles them.
//!
//! In: the oldest file that is not read to its end. Out: its records one by one, or parts of a
//! record if memory has no room for the whole record. The progress file notes which records are
//! settled. Bound: [`BUFFER_BYTES`] of memory. Thread: the spool's, which may wait for the disk.

use super::error::SpoolError;
use super::file::{Fault, Step};
use super::files::Files;
use super::record::WINDOW_BYTES;
use super::types::{Next, Record, RecordId};
use crate::base::clock::Moment;
use std::io;
use std::time::Duration;

/// The size of the buffer that a spool uses to read records, in bytes.
pub const BUFFER_BYTES: usize = WINDOW_BYTES;

/// The part of a spool that takes, reads and settles records.
#[derive(Debug)]
pub struct Taker {
    /// The number of this spool. A process numbers its spools from 0 on.
    opening: u64,
    age_max: Duration,
    window: Vec<u8>,
    /// The number of the file that was read last, which may still be open.
    read_sequence: Option<u64>,
}

impl Taker {
    /// A taker for the spool with the number `opening`. Records expire after `age_max`.
    pub fn new(opening: u64, age_max: Duration) -> Self {
        Self { opening, age_max, window: vec![0; WINDOW_BYTES], read_sequence: None }
    }

    /// Returns the buffer for reading records.
    pub fn window(&mut self) -> &mut [u8] {
        &mut self.window
    }

    /// Implements [`Spool::next`](super::Spool::next).
    pub fn next(&mut self, files: &mut Files, now: Moment) -> Next {
        // Closes the file that was read last, unless it is still being read or is not synced.
        let last = self.read_sequence.take().and_then(|sequence| files.sealed.get_mut(&sequence));
        if let Some(file) = last {
            file.close_if_idle();
        }
        while let Some(sequence) = files.oldest_unread() {
            let Some(file) = files.sealed.get_mut(&sequence) else { break };
            let (place, part) = match file.find(&files.folder) {
                Step::Part(place, part) => (place, part),
                Step::Fault(fault) => return next_of(files, sequence, fault),
                Step::End => {
                    files.remove_if_finished(sequence);
                    continue;
                }
            };
            let created_at = part.header.created_at;
            let dates = file.dates();
            if dates.has_expired(created_at, now, self.age_max) {
                files.remove_if_finished(sequence);
                if let Some(file) = files.sealed.get_mut(&sequence) {
                    // If this fails, the record expires once more after a restart.
                    let _ = file.note(&mut files.folder, place, &part);
                }
                return Next::Expired { segment_count: part.segment_count };
            }
            if let Err(fault) = file.take(&files.folder, place, part, &mut self.window) {
                return next_of(files, sequence, fault);
            }
            self.read_sequence = Some(sequence);
            return Next::Record(Record {
                id: RecordId { opening: self.opening, sequence, place },
                payload_bytes: part.header.payload_length,
                segment_count: part.header.segment_count,
                taken: part.first..part.first.saturating_add(part.segment_count),
                age: dates.certain_age(created_at, now),
            });
        }
        Next::Empty
    }

    /// Implements [`Spool::settle`](super::Spool::settle).
    pub fn settle(&self, files: &mut Files, id: RecordId) -> Result<(), SpoolError> {
        if id.opening != self.opening {
            return Ok(());
        }
        let Some(file) = files.sealed.get_mut(&id.sequence) else { return Ok(()) };
        let Some(part) = file.parts.settle(id.place) else { return Ok(()) };
        if file.is_finished() {
            return files.remove(id.sequence).map_err(SpoolError::Remove);
        }
        file.note(&mut files.folder, id.place, &part).map_err(SpoolError::Progress)
    }

    /// Implements [`Spool::release`](super::Spool::release).
    pub fn release(&self, files: &mut Files, id: RecordId) -> bool {
        if id.opening != self.opening {
            return true;
        }
        files.sealed.get_mut(&id.sequence).is_some_and(|file| file.parts.release(id.place))
    }
}

/// Implements [`Spool::read`](super::Spool::read).
pub fn read(files: &mut Files, id: RecordId, at: u64, buffer: &mut [u8]) -> Result<(), Next> {
    let Some(file) = files.sealed.get_mut(&id.sequence) else {
        let gone = Fault::Unreadable(io::ErrorKind::NotFound.into());
        return Err(next_of(files, id.sequence, gone));
    };
    let read = file.read(&files.folder, id.place, at, buffer);
    read.map_err(|fault| next_of(files, id.sequence, fault))
}

/// Returns the result of [`Taker::next`] for a fault. Removes the file if all of its records are
/// settled or lost.
fn next_of(files: &mut Files, sequence: u64, fault: Fault) -> Next {
    let name = files.folder.data_name(sequence);
    match fault {
        Fault::Damage(damage) => {
            files.remove_if_finished(sequence);
            Next::Damaged(name, damage)
        }
        Fault::Unreadable(source) => Next::Unreadable(SpoolError::Read { name, source }),
    }
}
