//! The folder of a spool: lists, creates, renames and removes its numbered files.
//!
//! In: the number and the kind of a file. Out: open files, and the [`Listing`] of the folder.
//! Bound: a [`Listing`] takes about 100 bytes of memory for each file of the spool. Thread: the
//! spool's, which may wait for the disk.
//!
//! ```text
//!  lock
//!  0000000007.spool   records
//!  0000000007.done    which of these records are settled; missing while none is
//!  0000000008.spool
//! ```
//!
//! Files of spans have the suffix `.spans` instead of `.spool`, in a folder of their own.
//!
//! Numbers only grow within a run, and no file is appended to after a restart. The spool does not
//! touch files with other names. If a run finds a file with a number above [`SEQUENCE_FOUND_MAX`],
//! the run numbers all files again from 1 on, in the same order.

use super::disk::{Access, Disk, DiskFile, DiskFolder};
use super::error::SpoolError;
use super::names::{Kind, SEQUENCE_MAX, name, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// If a file has a larger number than this at the start, all files are numbered again. The numbers
/// above are enough for any run: at one file a second for more than 150 years.
const SEQUENCE_FOUND_MAX: u64 = SEQUENCE_MAX / 2;

/// The files of the spool that are in the folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sizes of the data files in bytes, by number.
    pub data: BTreeMap<u64, u64>,
    /// Sizes of the progress files in bytes, by number.
    pub progress: BTreeMap<u64, u64>,
    /// How many links, folders or devices have the name of a spool file.
    pub refused_count: u64,
    /// Numbers that new files must not get: a link, folder or device has a name with this number.
    pub refused: BTreeSet<u64>,
    /// The largest number of a file, including the files that are removed at the start. A removed
    /// file may come back after a crash of the machine, so no new file may get its number.
    pub sequence_max: u64,
}

fn open(
    disk: &dyn Disk,
    path: &Path,
    data_kind: Kind,
) -> Result<(Box<dyn DiskFolder>, Option<u32>), SpoolError> {
    if let (Kind::Spans, Some(parent)) = (data_kind, path.parent()) {
        disk.create_folder(parent)?;
    }
    disk.open_folder(path)
}

/// The folder of a spool, open and locked.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    folder: Box<dyn DiskFolder>,
    /// The kind of the data files: [`Kind::Data`] or [`Kind::Spans`].
    data_kind: Kind,
    /// Whether a file may have been created, renamed or removed since the last
    /// [`sync`](Self::sync).
    is_unsynced: bool,
}

impl Folder {
    /// Creates the folder if it is missing, opens the folder and locks it. If other users have
    /// permissions for the folder, takes these away and returns the earlier permissions of the
    /// folder. Its data files are of the kind `data_kind`. A folder of spans lies in the folder of
    /// segments, which is created too: the thread of that spool may not have done it yet.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        data_kind: Kind,
    ) -> Result<(Self, Option<u32>), SpoolError> {
        let (folder, tightened_from) = open(&*disk, path, data_kind)?;
        let path = path.to_owned();
        Ok((Self { path, disk, folder, data_kind, is_unsynced: true }, tightened_from))
    }

    /// Returns the name of the data file with this number.
    pub fn data_name(&self, sequence: u64) -> String {
        self.name(sequence, Kind::Data)
    }

    /// Returns the name of a file of this folder.
    fn name(&self, sequence: u64, kind: Kind) -> String {
        name(sequence, if kind == Kind::Data { self.data_kind } else { kind })
    }

    /// Creates and locks the folder again if another program has removed the folder. Returns
    /// whether it was removed.
    pub fn make_again(&mut self) -> Result<bool, SpoolError> {
        let is_removed = self.folder.is_removed();
        if is_removed {
            (self.folder, _) = open(&*self.disk, &self.path, self.data_kind)?;
            self.is_unsynced = true;
        }
        Ok(is_removed)
    }

    /// Lists the files of the spool. Reads their names and sizes only.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        self.folder.names(&mut |name| {
            let ours = |kind: &(u64, Kind)| kind.1 == self.data_kind || kind.1 == Kind::Progress;
            let Some((sequence, kind)) = parse(name).filter(ours) else { return Ok(()) };
            let stat = self.folder.stat(name)?;
            if !stat.is_file {
                listing.refused_count += 1;
                listing.refused.insert(sequence);
                return Ok(());
            }
            listing.sequence_max = listing.sequence_max.max(sequence);
            let sizes = match kind {
                Kind::Data | Kind::Spans => &mut listing.data,
                Kind::Progress => &mut listing.progress,
            };
            sizes.insert(sequence, stat.length_bytes);
            Ok(())
        })?;
        Ok(listing)
    }

    /// Numbers all files again if a number is above [`SEQUENCE_FOUND_MAX`]. Begins with the
    /// smallest number, so that no other file still has the new name. If the daemon ends half-way,
    /// a progress file may have another number than its data file; the records of this data file
    /// are then sent again.
    pub fn renumber_if_used_up(&mut self, listing: &mut Listing) -> io::Result<()> {
        if listing.sequence_max <= SEQUENCE_FOUND_MAX {
            return Ok(());
        }
        listing.sequence_max = 0;
        let found = std::mem::take(&mut listing.data);
        let mut progress = std::mem::take(&mut listing.progress);
        let mut next = u64::from(!found.contains_key(&0));
        for (sequence, bytes) in found {
            while listing.refused.contains(&next) {
                next += 1;
            }
            self.rename(sequence, next, Kind::Data)?;
            listing.data.insert(next, bytes);
            if let Some(bytes) = progress.remove(&sequence) {
                self.rename(sequence, next, Kind::Progress)?;
                listing.progress.insert(next, bytes);
            }
            listing.sequence_max = next;
            next += 1;
        }
        // Without a sync, an old name could come back after a crash of the machine and be taken for
        // the name of a new file.
        self.is_unsynced = true;
        self.sync()
    }

    fn rename(&mut self, from: u64, to: u64, kind: Kind) -> io::Result<()> {
        if from != to {
            self.folder.rename(&self.name(from, kind), &self.name(to, kind))?;
            self.is_unsynced = true;
        }
        Ok(())
    }

    /// Cuts a file to `length_bytes`.
    pub fn cut(&self, sequence: u64, kind: Kind, length_bytes: u64) -> io::Result<()> {
        self.folder.open(&self.name(sequence, kind), Access::Write)?.set_length(length_bytes)
    }

    /// Creates a new file, to be written and read.
    pub fn create(&mut self, sequence: u64, kind: Kind) -> io::Result<Box<dyn DiskFile>> {
        if sequence > SEQUENCE_MAX {
            return Err(io::Error::other("its file numbers are used up; empty the folder"));
        }
        // Set before the call: a call that fails may have created the name.
        self.is_unsynced = true;
        self.folder.open(&self.name(sequence, kind), Access::Create)
    }

    /// Opens a file to read it.
    pub fn open_to_read(&self, sequence: u64, kind: Kind) -> io::Result<Box<dyn DiskFile>> {
        self.folder.open(&self.name(sequence, kind), Access::Read)
    }

    /// Opens a file to write to it. Creates the file if it is missing.
    pub fn open_to_write(&mut self, sequence: u64, kind: Kind) -> io::Result<Box<dyn DiskFile>> {
        match self.folder.open(&self.name(sequence, kind), Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(sequence, kind),
            opened => opened,
        }
    }

    /// Removes the data file and the progress file with this number. The data file goes first: a
    /// progress file alone does no harm, but the records of a data file alone would be sent again.
    pub fn remove(&mut self, sequence: u64) -> io::Result<()> {
        self.remove_one(sequence, Kind::Data)?;
        self.remove_one(sequence, Kind::Progress)
    }

    /// Removes the file with this number and kind. A file that does not exist is not an error.
    pub fn remove_one(&mut self, sequence: u64, kind: Kind) -> io::Result<()> {
        match self.folder.remove(&self.name(sequence, kind)) {
            Ok(()) => self.is_unsynced = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes the names of the files to stable storage if a name has changed.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_unsynced {
            self.folder.sync()?;
        }
        self.is_unsynced = false;
        Ok(())
    }
}
