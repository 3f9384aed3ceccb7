//! The list of the settled records of a data file.
//!
//! In: offsets of records that are settled. Out: the parts of a record that are not settled. Bound:
//! 8 bytes of memory for each entry of the file that is being read, and for each entry that could
//! not be written. Thread: the spool's, which may wait for the disk.
//!
//! The list is a file beside the data file and is only ever appended to. For each settled record
//! the list has an entry: the offset of the record and the checksum of this number. If only some
//! segments of a record are settled, the list has the [mark](Header::mark) of each of these
//! segments; a version of xrayd that does not know marks ignores them. A torn or damaged entry is
//! ignored, and its record is sent again. A torn entry at the end is overwritten, so that every
//! entry begins at a multiple of its size.
//!
//! An entry survives the end of the daemon as soon as it is written. It survives a crash of the
//! machine only after [`Progress::sync`].

use super::disk::DiskFile;
use super::folder::Folder;
use super::names::Kind;
use super::parts::Part;
use super::record::{HEADER_BYTES, Header};
use std::io::{self, IoSlice};

const OFFSET_BYTES: usize = 8;
const ENTRY_BYTES: usize = OFFSET_BYTES + 4;

/// How many entries of the progress file are read at a time.
const WINDOW_ENTRY_COUNT: usize = 256;

/// The settled records of one data file.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries of records that earlier runs have settled, or that were copied to another file:
    /// offsets and marks in ascending order, without duplicates.
    settled: Vec<u64>,
    length_bytes: u64,
    /// Entries that could not be written. The next [`note`](Self::note) writes them.
    unwritten: Vec<u64>,
    /// The progress file, which is open while some of its entries are not synced.
    file: Option<Box<dyn DiskFile>>,
}

impl Progress {
    /// The progress of a data file that was not read yet. The progress file has `length_bytes`.
    pub fn unread(length_bytes: u64) -> Self {
        Self { length_bytes, ..Self::default() }
    }

    /// Reads which records of a data file earlier runs have settled. The data file has
    /// `data_bytes`. If an entry is damaged, its record is sent again.
    ///
    /// A record has one entry, or a mark for each of its segments and then its own entry. This is
    /// never more than one entry for each [`HEADER_BYTES`] of the record. A progress file with more
    /// entries is damaged, and is cut to the largest possible length.
    ///
    /// # Errors
    ///
    /// Fails if the progress file is there and cannot be read. The data file must not be read
    /// then: records that are settled, or that were copied to another file, would come again.
    pub fn load(&mut self, folder: &Folder, sequence: u64, data_bytes: u64) -> io::Result<()> {
        let (mut settled, mut read_bytes) = (Vec::new(), 0);
        let length_bytes_max = data_bytes / HEADER_BYTES as u64 * ENTRY_BYTES as u64;
        if self.length_bytes > length_bytes_max {
            // An error is ignored: no more than `length_bytes_max` is read in any case.
            let _ = folder.cut(sequence, Kind::Progress, length_bytes_max);
        }
        // Reads no more than the size that the progress file had at the start of this run.
        let found_bytes = self.length_bytes.min(length_bytes_max);
        let file = match folder.open_to_read(sequence, Kind::Progress) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A link is not followed, and this daemon makes none: it holds no progress.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => None,
            Err(error) => return Err(error),
        };
        let now_bytes = file.as_ref().map_or(Ok(0), |file| file.length_bytes())?;
        let found_bytes = found_bytes.min(now_bytes);
        let mut window = [0; ENTRY_BYTES * WINDOW_ENTRY_COUNT];
        loop {
            let rest_bytes = usize::try_from(found_bytes - read_bytes).unwrap_or(usize::MAX);
            let length_bytes = rest_bytes.min(window.len());
            let entries = &mut window[..length_bytes - length_bytes % ENTRY_BYTES];
            let Some(file) = file.as_ref().filter(|_| !entries.is_empty()) else { break };
            file.read_at(entries, read_bytes)?;
            let offsets = entries.chunks_exact(ENTRY_BYTES).filter_map(decode);
            settled.extend(offsets.filter(|&offset| offset < data_bytes));
            read_bytes += entries.len() as u64;
        }
        settled.sort_unstable();
        settled.dedup();
        (self.settled, self.length_bytes) = (settled, read_bytes);
        Ok(())
    }

    /// Counts the records at these offsets as settled in this run, without writing entries.
    pub fn pass_over(&mut self, offsets: &[u64]) {
        self.settled.extend(offsets);
        self.settled.sort_unstable();
        self.settled.dedup();
    }

    /// Returns the parts of the record at `offset` that no earlier run has settled.
    pub fn unsettled(&self, offset: u64, header: &Header) -> Vec<Part> {
        let whole = Part { header: *header, first: 0, segment_count: header.segment_count };
        let is_settled = |entry: u64| self.settled.binary_search(&entry).is_ok();
        if is_settled(offset) {
            return Vec::new();
        }
        let from = self.settled.partition_point(|&entry| entry <= offset);
        let end = offset.saturating_add(header.record_bytes());
        let has_marks = self.settled.get(from).is_some_and(|&entry| entry < end);
        if !has_marks || !header.is_divisible() {
            return vec![whole];
        }
        let mut parts: Vec<Part> = Vec::new();
        for index in 0..header.segment_count {
            if is_settled(Header::mark(offset, index)) {
                continue;
            }
            match parts.last_mut().filter(|part| part.first + part.segment_count == index) {
                Some(part) => part.segment_count += 1,
                None => parts.push(Part { first: index, segment_count: 1, ..whole }),
            }
        }
        parts
    }

    /// Appends entries: the offset of a record, or marks of its segments. Appends the entries
    /// before them too that could not be written.
    pub fn note(&mut self, folder: &mut Folder, sequence: u64, entries: &[u64]) -> io::Result<()> {
        self.unwritten.extend(entries);
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => folder.open_to_write(sequence, Kind::Progress)?,
        };
        let bytes: Vec<u8> = self.unwritten.iter().flat_map(|&entry| encode(entry)).collect();
        let file = self.file.insert(file);
        file.write_at(&mut [IoSlice::new(&bytes)], self.length_bytes)?;
        self.length_bytes += bytes.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Returns whether some entries could not be written.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes the entries to stable storage, and closes the file.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync())
    }

    /// The size of the file in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }
}

/// Returns the entry for an offset.
fn encode(offset: u64) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..OFFSET_BYTES].copy_from_slice(&offset.to_le_bytes());
    let crc32 = crc32fast::hash(&entry[..OFFSET_BYTES]);
    entry[OFFSET_BYTES..].copy_from_slice(&crc32.to_le_bytes());
    entry
}

/// Returns the offset in an entry; `None` if the checksum is wrong.
fn decode(entry: &[u8]) -> Option<u64> {
    let offset = u64::from_le_bytes(*entry.first_chunk()?);
    (entry == encode(offset)).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::super::disk::SystemDisk;
    use super::*;
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    fn open(path: &Path) -> Folder {
        Folder::open(Arc::new(SystemDisk), path, Kind::Data).unwrap().0
    }

    fn load(path: &Path) -> Progress {
        load_of(path, 1 << 30)
    }

    fn load_of(path: &Path, data_bytes: u64) -> Progress {
        let folder = open(path);
        let length_bytes = folder.list().unwrap().progress.get(&1).copied().unwrap_or_default();
        let mut progress = Progress::unread(length_bytes);
        progress.load(&folder, 1, data_bytes).unwrap();
        progress
    }

    fn note(path: &Path, offsets: &[u64]) {
        let mut progress = load(path);
        let mut folder = open(path);
        for &offset in offsets {
            progress.note(&mut folder, 1, &[offset]).unwrap();
        }
        progress.sync().unwrap();
    }

    fn settled(path: &Path) -> Vec<u64> {
        load(path).settled
    }

    #[test]
    fn what_was_noted_is_known_to_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        assert!(settled(folder.path()).is_empty());
        note(folder.path(), &[8, 1 << 29]);
        note(folder.path(), &[0]);
        assert_eq!(settled(folder.path()), [0, 8, 1 << 29]);
        // More entries than are read at a time.
        let many: Vec<u64> = (1..2_000).collect();
        note(folder.path(), &many);
        assert_eq!(settled(folder.path()).len(), 2_001);
    }

    #[test]
    fn a_file_that_is_longer_than_its_data_allows_is_cut_and_what_is_read_of_it_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), &[8, 5_000, u64::MAX]);
        let path = folder.path().join("0000000001.done");
        // The file is sparse: it takes no room on disk, but reading all of it would fill memory.
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let progress = load_of(folder.path(), 100 * HEADER_BYTES as u64 + 27);
        let expected = 100 * ENTRY_BYTES as u64;
        assert_eq!((progress.settled, progress.length_bytes), (vec![8], expected));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_a_missing_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut progress = Progress::unread(100);
        progress.load(&open(folder.path()), 1, 1 << 30).unwrap();
        assert_eq!((&*progress.settled, progress.length_bytes), (&[][..], 0));
        // A folder has no bytes to read.
        std::fs::create_dir(folder.path().join("0000000001.done")).unwrap();
        let mut progress = Progress::unread(100);
        assert!(progress.load(&open(folder.path()), 1, 1 << 30).is_err());
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
    fn a_record_with_marks_is_left_with_the_segments_that_have_none() {
        let header =
            Header { payload_length: 5 * 28, segment_count: 5, created_at: 0, payload_crc32: 0 };
        let unsettled = |entries: &[u64], header: Header| -> Vec<(u32, u32)> {
            let folder = tempfile::tempdir().unwrap();
            note(folder.path(), entries);
            let parts = load(folder.path()).unsettled(1_000, &header);
            parts.iter().map(|part| (part.first, part.segment_count)).collect()
        };
        let mark = |index| Header::mark(1_000, index);
        assert_eq!(unsettled(&[8, 2_000], header), [(0, 5)]);
        assert_eq!(unsettled(&[mark(2)], header), [(0, 2), (3, 2)]);
        assert_eq!(unsettled(&[mark(4), mark(0), mark(1)], header), [(2, 2)]);
        assert_eq!(unsettled(&[mark(1), 1_000], header), []);
        assert_eq!(unsettled(&[0, 1, 2, 3, 4].map(mark), header), []);
        // A record that is too short for marks has none.
        let short = Header { payload_length: 5 * 28 - 1, ..header };
        assert_eq!(unsettled(&[mark(2)], short), [(0, 5)]);
    }

    #[test]
    fn zeros_are_no_entries() {
        assert_eq!(decode(&[0; ENTRY_BYTES]), None);
    }
}
