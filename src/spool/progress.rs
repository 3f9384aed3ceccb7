//! Which records of a data file are settled.
//!
//! A file beside the data file, only ever appended to: for each settled record its offset and the
//! checksum of that. An entry that is torn or damaged is ignored, and its record is sent again. A
//! torn one at the end is written over, so that entries stay where they are looked for.
//!
//! An entry outlives the process as soon as it is written, and the machine after
//! [`Progress::sync`].

use super::folder::{Folder, Kind};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

const OFFSET_BYTES: usize = 8;
const ENTRY_BYTES: usize = OFFSET_BYTES + 4;

/// What is settled of one data file.
#[derive(Debug, Default)]
pub struct Progress {
    /// Settled in earlier runs, and not come across yet in this one.
    settled: BTreeSet<u64>,
    length_bytes: u64,
    /// Open while something in it is not synced.
    file: Option<File>,
}

impl Progress {
    /// The progress of a file that has not been read yet.
    pub fn unread(length_bytes: u64) -> Self {
        Self { length_bytes, ..Self::default() }
    }

    /// Reads what earlier runs have settled. What cannot be read is sent again.
    pub fn load(&mut self, folder: &Folder, sequence: u64) {
        let mut bytes = Vec::new();
        // As much as was found at the start: what this run added since need not be known.
        if let Ok(file) = folder.open_to_read(sequence, Kind::Progress) {
            let _ = file.take(self.length_bytes).read_to_end(&mut bytes);
        }
        self.settled = bytes.chunks_exact(ENTRY_BYTES).filter_map(decode).collect();
        self.length_bytes = (bytes.len() - bytes.len() % ENTRY_BYTES) as u64;
    }

    /// Whether the record at `offset` was settled in an earlier run.
    pub fn is_settled(&self, offset: u64) -> bool {
        self.settled.contains(&offset)
    }

    /// The same, when reading passes that record and nobody will ask again.
    pub fn pass(&mut self, offset: u64) -> bool {
        self.settled.remove(&offset)
    }

    /// Notes that the record at `offset` is settled.
    pub fn note(&mut self, folder: &mut Folder, sequence: u64, offset: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => folder.open_to_write(sequence, Kind::Progress)?,
        };
        self.file.insert(file).write_all_at(&encode(offset), self.length_bytes)?;
        self.length_bytes += ENTRY_BYTES as u64;
        Ok(())
    }

    /// Brings what was noted to disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_data())
    }

    /// Bytes on disk.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }
}

fn encode(offset: u64) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..OFFSET_BYTES].copy_from_slice(&offset.to_le_bytes());
    let crc32 = crc32fast::hash(&entry[..OFFSET_BYTES]);
    entry[OFFSET_BYTES..].copy_from_slice(&crc32.to_le_bytes());
    entry
}

fn decode(entry: &[u8]) -> Option<u64> {
    let offset = u64::from_le_bytes(*entry.first_chunk()?);
    (entry == encode(offset)).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn load(path: &Path) -> Progress {
        let (folder, _) = Folder::open(path).unwrap();
        let length_bytes = folder.list().unwrap().progress.get(&1).copied().unwrap_or_default();
        let mut progress = Progress::unread(length_bytes);
        progress.load(&folder, 1);
        progress
    }

    fn note(path: &Path, offsets: &[u64]) {
        let mut progress = load(path);
        let (mut folder, _) = Folder::open(path).unwrap();
        for &offset in offsets {
            progress.note(&mut folder, 1, offset).unwrap();
        }
        progress.sync().unwrap();
    }

    fn settled(path: &Path) -> Vec<u64> {
        load(path).settled.into_iter().collect()
    }

    #[test]
    fn what_was_noted_is_known_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        assert!(settled(folder.path()).is_empty());
        note(folder.path(), &[8, u64::MAX]);
        note(folder.path(), &[0]);
        assert_eq!(settled(folder.path()), [0, 8, u64::MAX]);
    }

    #[test]
    fn a_torn_entry_is_ignored_and_written_over() {
        for kept in 0..ENTRY_BYTES as u64 {
            let folder = tempfile::tempdir().unwrap();
            note(folder.path(), &[8, 50]);
            let path = folder.path().join("0000000001.done");
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(ENTRY_BYTES as u64 + kept).unwrap();
            assert_eq!(settled(folder.path()), [8]);
            note(folder.path(), &[70]);
            assert_eq!(settled(folder.path()), [8, 70]);
        }
    }

    #[test]
    fn a_damaged_entry_is_ignored_and_the_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), &[8, 50, 90]);
        let path = folder.path().join("0000000001.done");
        let whole = std::fs::read(&path).unwrap();
        for byte in ENTRY_BYTES..2 * ENTRY_BYTES {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(settled(folder.path()), [8, 90]);
        }
    }

    #[test]
    fn zeros_are_no_entries() {
        assert_eq!(decode(&[0; ENTRY_BYTES]), None);
    }
}
