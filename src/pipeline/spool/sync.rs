//! Writes a spool to stable storage, and copies records after a failed fsync.
//!
//! In: files with bytes that are not synced. Out: the same records on stable storage. Bound: the
//! bytes that are written between two calls. After a failed fsync they are copied: the spool may
//! then exceed its largest size by the number of these bytes. Thread: the spool's, which may wait
//! for the disk.
//!
//! The kernel reports a failed write-back once, marks the pages as clean and may drop them. A
//! second fsync that succeeds therefore proves nothing about these pages; see fsync(2). After the
//! first failed fsync, all bytes that were written since the last successful one are suspect. The
//! spool reads the suspect records back, compares them with their checksums and writes them to a
//! new file, until an fsync of the new file succeeds. Then the records are removed from the old
//! file. A record that is taken or settled in part cannot be copied. If there is one, the suspect
//! bytes are written again in their own place ([`write_again`]). The pages are still in the cache
//! of the system at that time: ext4 and XFS drop them only when memory is short, Btrfs drops them
//! at once. Records that cannot be read back are counted as damaged when reading comes to them.
//!
//! The alternative is to keep records in memory until they are synced. But the spool exists to free
//! memory, and each batch that memory has no room for would have to wait for an fsync.

use super::active::ActiveFile;
use super::error::SpoolError;
use super::file::DataFile;
use super::files::Files;
use super::suspect::{copy_suspect, write_again};
use std::io;

/// Implements [`Spool::sync`](super::Spool::sync). `window` is a buffer for reading records.
pub fn sync(files: &mut Files, window: &mut [u8]) -> Result<(), SpoolError> {
    let synced = sync_data(files).map_err(SpoolError::Sync);
    let rescued = rescue(files, window);
    let mut noted = Ok(());
    for file in files.sealed.values_mut() {
        noted = noted.and(file.sync_progress(&mut files.folder));
    }
    // The rescue may have created a progress file, or removed a file. Without this, a record could
    // come twice after a crash of the machine: from the old file and from the copy.
    let noted = noted.and(files.folder.sync());
    synced.and(rescued).and(noted.map_err(SpoolError::Sync))
}

/// Syncs the data files and the folder. If one of these fsyncs fails, all unsynced bytes become
/// suspect.
fn sync_data(files: &mut Files) -> io::Result<()> {
    let mut synced = files.active.as_ref().map_or(Ok(()), ActiveFile::sync);
    for file in files.sealed.values() {
        synced = synced.and(file.sync());
    }
    let synced = synced.and(files.folder.sync());
    if synced.is_ok() {
        files.active.iter_mut().for_each(ActiveFile::confirm);
        files.sealed.values_mut().for_each(DataFile::confirm);
    } else {
        if files.active.as_ref().is_some_and(ActiveFile::is_unsynced) {
            files.seal_active();
        }
        files.sealed.values_mut().for_each(DataFile::suspect);
    }
    synced
}

/// Writes all suspect records to new files.
fn rescue(files: &mut Files, window: &mut [u8]) -> Result<(), SpoolError> {
    let suspect = files.sealed.iter().filter(|(_, file)| file.suspect_from().is_some());
    let suspect: Vec<u64> = suspect.map(|(&sequence, _)| sequence).collect();
    suspect.into_iter().try_for_each(|sequence| rescue_file(files, sequence, window))
}

fn rescue_file(files: &mut Files, sequence: u64, window: &mut [u8]) -> Result<(), SpoolError> {
    let Some(file) = files.sealed.get(&sequence) else { return Ok(()) };
    let mut copy = files.begin(file.dates())?;
    let copy_sequence = copy.sequence();
    let rescued = copy_and_sync(files, sequence, &mut copy, window);
    let copy = if rescued.is_ok() { copy.seal() } else { None };
    match copy {
        Some(copy) => _ = files.sealed.insert(copy_sequence, copy),
        None => files.remove_unneeded(copy_sequence),
    }
    // Bytes that are still suspect have records that were not copied. If this fails, the copy
    // stays: the old file has forgotten the copied records.
    let is_copied = rescued.is_ok();
    let written = match files.sealed.get_mut(&sequence).filter(|_| is_copied) {
        Some(file) => write_again(file, &files.folder, window).map_err(SpoolError::Sync),
        None => Ok(()),
    };
    files.remove_if_finished(sequence);
    rescued.and(written)
}

fn copy_and_sync(
    files: &mut Files,
    sequence: u64,
    copy: &mut ActiveFile,
    window: &mut [u8],
) -> Result<(), SpoolError> {
    let Some(file) = files.sealed.get_mut(&sequence) else { return Ok(()) };
    let copied = copy_suspect(file, &files.folder, copy, window).map_err(SpoolError::Write)?;
    copy.sync().and_then(|()| files.folder.sync()).map_err(SpoolError::Sync)?;
    copy.confirm();
    file.forget(&mut files.folder, &copied);
    Ok(())
}
