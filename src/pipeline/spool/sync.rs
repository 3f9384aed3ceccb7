//! What the spool does for its records to outlive the machine, and when the disk does not take
//! them.
//!
//! The kernel tells of a failed write-back once, marks the pages as clean and may drop them: a
//! second fsync that succeeds proves nothing of them; fsync(2). So what was written to a file since
//! the last fsync that succeeded is in doubt from the first one that fails. It is read back, held
//! against its checksums, and written to a new file, until an fsync of that one succeeds; then the
//! first copy is settled. The pages are in the system's cache at that time: the kernel drops them
//! only when memory is short (ext4, XFS) or at once (Btrfs). What cannot be read back any more is
//! no record when reading comes upon it, and is counted as damaged.
//!
//! The other way, to keep in memory what was written until it is synced, would hold memory where
//! the spool is there to free it, and make each batch that memory has no room for wait for an
//! fsync.
//!
//! Bound: what is written between two calls of [`Spool::sync`]. While it is written again the spool
//! may be larger than its bound by as much.

use super::active::ActiveFile;
use super::file::DataFile;
use super::{Spool, SpoolError};
use std::io;

impl Spool {
    /// Brings to disk what was appended and settled since the last time, so that it outlives the
    /// machine. To be called within the delay that the operator was promised, and again after an
    /// error until it succeeds.
    ///
    /// # Errors
    ///
    /// When some of it may not be on the disk. It is in the spool all the same, and was written to
    /// another file already if the disk has taken that.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        let synced = self.sync_data().map_err(SpoolError::Sync);
        let rescued = self.rescue();
        let mut noted = Ok(());
        for file in self.sealed.values_mut() {
            noted = noted.and(file.sync_progress());
        }
        synced.and(rescued).and(noted.map_err(SpoolError::Sync))
    }

    /// Brings records and names to disk. Where that fails all that was to get there is in doubt.
    fn sync_data(&mut self) -> io::Result<()> {
        let mut synced = self.active.as_ref().map_or(Ok(()), ActiveFile::sync);
        for file in self.sealed.values() {
            synced = synced.and(file.sync());
        }
        let synced = synced.and(self.folder.sync());
        if synced.is_ok() {
            self.active.iter_mut().for_each(ActiveFile::confirm);
            self.sealed.values_mut().for_each(DataFile::confirm);
        } else {
            if self.active.as_ref().is_some_and(ActiveFile::is_unsynced) {
                self.seal_active();
            }
            self.sealed.values_mut().for_each(DataFile::suspect);
        }
        synced
    }

    /// Writes to new files what is in doubt.
    fn rescue(&mut self) -> Result<(), SpoolError> {
        let doubtful = self.sealed.iter().filter(|(_, file)| file.is_suspect());
        let doubtful: Vec<u64> = doubtful.map(|(&sequence, _)| sequence).collect();
        doubtful.into_iter().try_for_each(|sequence| self.rescue_file(sequence))
    }

    fn rescue_file(&mut self, sequence: u64) -> Result<(), SpoolError> {
        let Some(file) = self.sealed.get(&sequence) else { return Ok(()) };
        let mut copy = self.begin_file(file.dates())?;
        let copy_sequence = copy.sequence();
        let rescued = self.copy_suspect(sequence, &mut copy);
        let copy = if rescued.is_ok() { copy.seal() } else { None };
        match copy {
            Some(copy) => _ = self.sealed.insert(copy_sequence, copy),
            None => _ = self.folder.remove(copy_sequence),
        }
        self.finish_quietly(sequence);
        rescued
    }

    fn copy_suspect(&mut self, sequence: u64, copy: &mut ActiveFile) -> Result<(), SpoolError> {
        let Some(file) = self.sealed.get_mut(&sequence) else { return Ok(()) };
        let copied =
            file.copy_suspect(&self.folder, copy, &mut self.window).map_err(SpoolError::Write)?;
        copy.sync().and_then(|()| self.folder.sync()).map_err(SpoolError::Sync)?;
        copy.confirm();
        file.forget(&mut self.folder, &copied);
        Ok(())
    }
}
