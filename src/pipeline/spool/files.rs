//! The files of a spool, in the order of their numbers: the sealed files, then the active file.
//!
//! In: the files in the folder at the start, and files that are created, sealed and removed later.
//! Out: the oldest file that can be read, the file to append to, sizes and counts. Bound: about 300
//! bytes of memory for each file. Thread: the spool's, which may wait for the disk.

use super::active::ActiveFile;
use super::age::Dates;
use super::disk::Disk;
use super::error::SpoolError;
use super::file::DataFile;
use super::folder::{Folder, Listing};
use super::names::Kind;
use super::types::{Evicted, Found, Removal};
use crate::base::clock::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// All files of a spool.
#[derive(Debug)]
pub struct Files {
    pub folder: Folder,
    /// The sealed files by their number, the oldest first.
    pub sealed: BTreeMap<u64, DataFile>,
    /// The file that records are appended to; `None` if there is none.
    pub active: Option<ActiveFile>,
    /// The number for the next new file, above that of every file so far.
    pub next_sequence: u64,
    /// Numbers that new files must not get: a link, folder or device has a name with this number.
    refused: BTreeSet<u64>,
    /// Numbers of copies that are not needed, but could not be removed. Their records are in
    /// another file too.
    unneeded: BTreeSet<u64>,
    /// The last removal of a file or of the folder by another program, until
    /// [`removal`](Self::removal) is called.
    removal: Option<Removal>,
}

impl Files {
    /// Opens and locks the folder, and lists the files of earlier runs.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be opened, locked, read or written to.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        data_kind: Kind,
        now: Moment,
    ) -> Result<(Self, Found), SpoolError> {
        let (mut folder, tightened_from) = Folder::open(disk, path, data_kind)?;
        let error = |source| SpoolError::Folder { path: path.to_owned(), source };
        let mut listing = folder.list().map_err(error)?;
        let orphan_count = remove_orphans(&mut folder, &mut listing);
        folder.renumber_if_used_up(&mut listing).map_err(error)?;
        let found = Found {
            file_count: listing.data.len() as u64,
            bytes: listing.data.values().fold(0, |sum, &bytes| sum.saturating_add(bytes)),
            refused_count: listing.refused_count,
            orphan_count,
            tightened_from,
            oldest_age: None,
        };
        let files = Self {
            folder,
            sealed: found_files(&listing, now),
            active: None,
            next_sequence: listing.sequence_max + 1,
            refused: listing.refused,
            unneeded: BTreeSet::new(),
            removal: None,
        };
        Ok((files, found))
    }

    /// Returns which file or folder another program has removed since the last call; `None` if
    /// nothing was removed.
    pub fn removal(&mut self) -> Option<Removal> {
        self.removal.take()
    }

    /// Returns the size of all files in bytes.
    pub fn size_bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, ActiveFile::length_bytes);
        let sealed = self.sealed.values().map(DataFile::size_bytes);
        sealed.fold(active, u64::saturating_add)
    }

    /// Returns how many segments are not settled. Leaves out segments of earlier runs that were not
    /// read yet.
    pub fn segment_count(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, ActiveFile::segment_count);
        active + self.sealed.values().map(DataFile::segment_count).sum::<u64>()
    }

    /// Returns the age of the first record that is not settled; `None` if there is none or it
    /// cannot be read.
    pub fn oldest_age(&mut self, now: Moment) -> Option<Duration> {
        let sealed = self.sealed.values_mut().find_map(|file| {
            let created_at = file.oldest_created_at(&self.folder)?;
            Some(file.dates().age(created_at, now))
        });
        sealed.or_else(|| {
            let active = self.active.as_ref()?;
            Some(active.dates().age(active.oldest_created_at()?, now))
        })
    }

    /// Returns the number of the oldest sealed file that may have a record. Seals the active file
    /// if no sealed file has a record.
    pub fn oldest_unread(&mut self) -> Option<u64> {
        let find = |sealed: &BTreeMap<u64, DataFile>| {
            sealed.iter().find(|(_, file)| file.is_readable()).map(|(&sequence, _)| sequence)
        };
        find(&self.sealed).or_else(|| {
            self.seal_active();
            find(&self.sealed)
        })
    }

    /// Returns the active file. If there is none, creates one for records with dates of the clock
    /// `dates`.
    ///
    /// # Errors
    ///
    /// Fails if the file or its folder cannot be created.
    pub fn writable(&mut self, dates: Dates) -> Result<&mut ActiveFile, SpoolError> {
        if self.active.as_ref().is_some_and(ActiveFile::is_removed) {
            self.removal.get_or_insert(Removal::File);
            self.seal_active();
        }
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin(dates)?,
        };
        Ok(self.active.insert(active))
    }

    /// Creates a file for records with dates of the clock `dates`.
    ///
    /// # Errors
    ///
    /// Fails if the file or its folder cannot be created.
    pub fn begin(&mut self, dates: Dates) -> Result<ActiveFile, SpoolError> {
        if self.folder.make_again()? {
            self.removal = Some(Removal::Folder);
        }
        while self.refused.contains(&self.next_sequence) {
            self.next_sequence += 1;
        }
        // The number is not used again even if the call below fails: the call may have created the
        // name.
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        ActiveFile::begin(&mut self.folder, sequence, dates).map_err(SpoolError::Write)
    }

    /// Cuts off the bytes behind the last whole record of the active file. If this fails, the file
    /// is sealed, so that nothing is appended behind an incomplete record.
    pub fn cut_back(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.cut_back().is_err()) {
            self.seal_active();
        }
    }

    /// Seals the active file: it takes no more records, and its records can be read.
    pub fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        let sequence = active.sequence();
        match active.seal() {
            Some(file) => _ = self.sealed.insert(sequence, file),
            // If this fails, an empty file stays in the folder. The next run removes it.
            None => _ = self.folder.remove(sequence),
        }
    }

    /// Evicts the oldest file, which may be the active one; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn evict_oldest(&mut self) -> io::Result<Option<Evicted>> {
        if self.sealed.is_empty() {
            self.seal_active();
        }
        let Some(mut oldest) = self.sealed.first_entry() else { return Ok(None) };
        let sequence = *oldest.key();
        let bytes = oldest.get().size_bytes();
        let waiting = oldest.get_mut().waiting(&self.folder);
        self.remove(sequence)?;
        Ok(Some(Evicted {
            file_count: 1,
            bytes,
            record_count: waiting.count.record_count,
            segment_count: waiting.count.segment_count,
            unknown_bytes: waiting.unknown_bytes,
            newest_sequence: Some(sequence),
        }))
    }

    /// Removes a sealed file.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call.
    pub fn remove(&mut self, sequence: u64) -> io::Result<()> {
        self.folder.remove(sequence)?;
        self.sealed.remove(&sequence);
        Ok(())
    }

    /// Returns whether some of the files could not be settled on disk.
    pub fn is_behind(&self) -> bool {
        !self.unneeded.is_empty() || self.sealed.values().any(is_behind)
    }

    /// Implements [`Spool::settle_again`](super::Spool::settle_again).
    pub fn settle_again(&mut self) -> Result<(), SpoolError> {
        let behind = self.sealed.iter().filter(|(_, file)| is_behind(file));
        let behind: Vec<u64> = behind.map(|(&sequence, _)| sequence).collect();
        let mut result = Ok(());
        for sequence in behind {
            let settled = match self.sealed.get_mut(&sequence) {
                Some(file) if !file.is_finished() => {
                    file.sync_progress(&mut self.folder).map_err(SpoolError::Progress)
                }
                _ => self.remove(sequence).map_err(SpoolError::Remove),
            };
            result = result.and(settled);
        }
        for sequence in mem::take(&mut self.unneeded) {
            let removed = self.folder.remove(sequence);
            if removed.is_err() {
                self.unneeded.insert(sequence);
            }
            result = result.and(removed.map_err(SpoolError::Remove));
        }
        result
    }

    /// Removes a copy that is not needed. If this fails, [`settle_again`](Self::settle_again)
    /// removes it: otherwise the next run would send its records again.
    pub fn remove_unneeded(&mut self, sequence: u64) {
        if self.folder.remove(sequence).is_err() {
            self.unneeded.insert(sequence);
        }
    }

    /// Removes a sealed file if all of its records are settled. If this fails, the file is not read
    /// again, and stays until [`settle_again`](Self::settle_again) removes it or it is evicted.
    pub fn remove_if_finished(&mut self, sequence: u64) {
        if self.sealed.get(&sequence).is_some_and(DataFile::is_finished) {
            let _ = self.remove(sequence);
        }
    }
}

/// Returns whether a file is finished and still there, or an entry of its progress could not be
/// written.
fn is_behind(file: &DataFile) -> bool {
    file.is_finished() || file.progress.has_unwritten()
}

fn found_files(listing: &Listing, now: Moment) -> BTreeMap<u64, DataFile> {
    let file = |(&sequence, &length_bytes)| {
        let progress_bytes = listing.progress.get(&sequence).copied().unwrap_or_default();
        let uptime_seconds = now.uptime_seconds;
        (sequence, DataFile::found(sequence, length_bytes, progress_bytes, uptime_seconds))
    };
    listing.data.iter().map(file).collect()
}

/// Removes files without records: empty data files, and progress files without a data file. Returns
/// how many were removed.
fn remove_orphans(folder: &mut Folder, listing: &mut Listing) -> u64 {
    let Listing { data, progress, .. } = listing;
    let mut removed_count = 0;
    let mut keep = |sequence, kind| {
        let is_kept = folder.remove_one(sequence, kind).is_err();
        removed_count += u64::from(!is_kept);
        is_kept
    };
    data.retain(|&sequence, &mut bytes| bytes > 0 || keep(sequence, Kind::Data));
    progress.retain(|&sequence, _| data.contains_key(&sequence) || keep(sequence, Kind::Progress));
    removed_count
}
