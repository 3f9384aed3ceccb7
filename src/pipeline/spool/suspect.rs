//! What of a sealed file is on the disk itself, and what may never get there.
//!
//! In: whether an fsync has succeeded. Out: the records that are in doubt, copied to another file,
//! and forgotten here when that one is on the disk. `sync.rs` says why.

use super::active::ActiveFile;
use super::disk::sync_file;
use super::file::{Count, DataFile, Part, Place};
use super::folder::Folder;
use super::record::{FILE_HEADER_BYTES, Header, Slot, look, verify_payload};
use std::collections::BTreeMap;
use std::io;

impl DataFile {
    /// Brings what was written to it to disk, unless that has failed before: then no call that
    /// succeeds proves anything. [`confirm`](Self::confirm) or [`suspect`](Self::suspect) has to
    /// follow.
    pub fn sync(&self) -> io::Result<()> {
        match &self.handle {
            Some(file) if self.unsynced_from.is_some() && !self.is_suspect => sync_file(file),
            _ => Ok(()),
        }
    }

    /// All of it is on the disk, and its name.
    pub fn confirm(&mut self) {
        if !self.is_suspect {
            self.unsynced_from = None;
            self.close_if_idle();
        }
    }

    /// What was not synced before may never get to the disk.
    pub fn suspect(&mut self) {
        self.is_suspect = self.unsynced_from.is_some();
    }

    /// Whether some of it may never get to the disk.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// Brings its progress to disk. Where that fails records may come again, and none is lost.
    pub fn sync_progress(&mut self) -> io::Result<()> {
        self.progress.sync()
    }

    /// Copies the records to `copy` that may never get to the disk. Not those that are damaged,
    /// which reading will come upon, nor those of which something is taken: that is in memory.
    /// Returns their places.
    pub fn copy_suspect(
        &mut self,
        folder: &Folder,
        copy: &mut ActiveFile,
        window: &mut [u8],
    ) -> io::Result<Vec<(u64, Header)>> {
        let Some(mut offset) = self.unsynced_from else { return Ok(Vec::new()) };
        let (length_bytes, mut copied) = (self.length_bytes, Vec::new());
        while offset < length_bytes {
            // What cannot be read cannot be copied; reading will come upon it.
            let slot = self.open(folder).and_then(|file| look(file, offset, length_bytes));
            let header = match slot {
                Ok(Slot::Record(header)) => header,
                Ok(Slot::FileHeader) => {
                    offset = FILE_HEADER_BYTES;
                    continue;
                }
                Ok(Slot::Damaged { end, .. }) => {
                    offset = end;
                    continue;
                }
                Err(_) => break,
            };
            if self.waits_whole(offset, &header)
                && let Ok(file) = self.open(folder)
                && verify_payload(file, offset, &header, window).is_ok_and(|is_right| is_right)
            {
                copy.append_from(file, offset, &header, window)?;
                copied.push((offset, header));
            }
            offset += header.record_bytes();
        }
        Ok(copied)
    }

    /// Whether nothing of the record at `offset` is settled or taken.
    fn waits_whole(&self, offset: u64, header: &Header) -> bool {
        if offset >= self.cursor {
            return !self.progress.unsettled(offset, header).is_empty();
        }
        let part = self.released.get(&(offset, 0));
        part.is_some_and(|part| part.segment_count == header.segment_count)
    }

    /// Forgets records that are in another file now.
    pub fn forget(&mut self, folder: &mut Folder, moved: &[(u64, Header)]) {
        for (offset, header) in moved {
            if self.released.remove(&(*offset, 0)).is_none()
                && let Some(unread) = &mut self.unread
            {
                unread.remove(header.segment_count);
            }
        }
        let offsets: Vec<u64> = moved.iter().map(|(offset, _)| *offset).collect();
        self.progress.pass_over(&offsets);
        let end = self.unsynced_from.unwrap_or(self.length_bytes);
        let holds = |parts: &BTreeMap<Place, Part>| parts.keys().any(|(offset, _)| *offset >= end);
        // What is taken of it is copied by a later sync, if it is put back.
        if !holds(&self.taken) && !holds(&self.released) && !holds(&self.set_aside) {
            self.unsynced_from = None;
            self.is_suspect = false;
        }
        let is_read_out = self.unread.is_some_and(|count| count == Count::default());
        if is_read_out && self.released.is_empty() {
            self.cursor = self.length_bytes;
        }
        if !self.is_finished() {
            // Where this fails they are sent twice if the daemon is killed before the file goes.
            let _ = self.progress.note(folder, self.sequence, &offsets);
        }
        self.close_if_idle();
    }
}
