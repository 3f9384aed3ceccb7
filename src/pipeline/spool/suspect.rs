//! Copies records to another file after a failed fsync: they may never get to stable storage.
//!
//! In: a file after a failed fsync. Out: copies of its records in another file, or the same bytes
//! written again in the file itself. `sync.rs` gives the reason. Bound: a buffer of 64 KiB. Thread:
//! the spool's, which may wait for the disk.

use super::active::ActiveFile;
use super::file::DataFile;
use super::folder::Folder;
use super::record::{FILE_HEADER_BYTES, Header, Slot, verify_payload};
use std::io::{self, IoSlice};

/// Copies the suspect records of `file` to `copy`. Returns the offsets and headers of these
/// records. Leaves out damaged records, which reading reports later. Also leaves out a record if
/// some of its segments are taken, settled or set aside.
///
/// # Errors
///
/// Fails if `copy` cannot be written.
pub fn copy_suspect(
    file: &mut DataFile,
    folder: &Folder,
    copy: &mut ActiveFile,
    window: &mut [u8],
) -> io::Result<Vec<(u64, Header)>> {
    let Some(mut offset) = file.suspect_from() else { return Ok(Vec::new()) };
    let mut copied = Vec::new();
    while offset < file.length_bytes() {
        let header = match file.slot(folder, offset) {
            Ok(Slot::Record(header)) => header,
            Ok(Slot::FileHeader) => {
                offset = FILE_HEADER_BYTES;
                continue;
            }
            Ok(Slot::Damaged { end, .. }) => {
                offset = end;
                continue;
            }
            // Bytes that cannot be read cannot be copied. Reading reports them later.
            Err(_) => break,
        };
        if file.waits_whole(offset, &header)
            && let Ok(source) = file.open(folder)
            && verify_payload(source, offset, &header, window).is_ok_and(|is_intact| is_intact)
        {
            copy.append_from(source, offset, &header, window)?;
            copied.push((offset, header));
        }
        offset += header.record_bytes();
    }
    Ok(copied)
}

/// Writes the suspect bytes of `file` to their own place once more, and to stable storage.
///
/// A record that is taken or settled in part is not copied, because it would come twice. But it may
/// be put back, and until then a loss of power must not take it away. To write a page makes it
/// dirty again, so an fsync after it proves that these bytes are on stable storage. If the cache
/// has lost them, the same bytes as on the disk are written, and reading finds the damage.
///
/// # Errors
///
/// Fails if the bytes cannot be read, written or synced. They stay suspect then.
pub fn write_again(file: &mut DataFile, folder: &Folder, window: &mut [u8]) -> io::Result<()> {
    let Some(mut offset) = file.suspect_from() else { return Ok(()) };
    let end = file.length_bytes();
    let handle = file.open(folder)?;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let count = left.min(window.len());
        let piece = &mut window[..count];
        handle.read_at(piece, offset)?;
        handle.write_at(&mut [IoSlice::new(piece)], offset)?;
        offset += count as u64;
    }
    handle.sync()?;
    file.trust();
    Ok(())
}
