//! The log file: appended to, and set aside when it has grown to its bound.
//!
//! Our own forty lines, because none of the crates for it is both maintained and able to go on
//! after a failed rename: `file-rotate` panics where it cannot make a folder, `rolling-file` has
//! had no release for years, and neither can be told to reopen its file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The size at which a log file is set aside.
pub const LOG_FILE_BYTES_MAX: u64 = 50 * 1024 * 1024;

/// Whether log files should be opened again at their next line.
static REOPEN: AtomicBool = AtomicBool::new(false);

/// Has the log file opened again at its next line, for those who set it aside themselves.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
}

/// A log file that keeps one old file beside it (`x.log.1`).
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    length_bytes: u64,
    length_bytes_max: u64,
}

impl LogFile {
    /// Opens `path` for appending. With `rotate` it is set aside when it has grown to 50 MB.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(path: &Path, rotate: bool) -> io::Result<Self> {
        Self::open_with(path, if rotate { LOG_FILE_BYTES_MAX } else { u64::MAX })
    }

    fn open_with(path: &Path, length_bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let length_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length_bytes, length_bytes_max })
    }

    fn open_again(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.length_bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.open_again()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if REOPEN.swap(false, Ordering::Relaxed) {
            // Where that fails the log goes on in the old file.
            self.open_again().unwrap_or_default();
        }
        if self.length_bytes + line.len() as u64 > self.length_bytes_max && self.length_bytes > 0 {
            // Where that fails the log goes on in the old file; the next try is a file's length
            // away, so a folder without write permission costs one failed rename each 50 MB.
            let _ = self.rotate();
            self.length_bytes = 0;
        }
        self.file.write_all(line)?;
        self.length_bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_grown_is_set_aside_and_one_old_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut log = LogFile::open_with(&path, 20).unwrap();
        for line in ["second\n", "third, which does not fit\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fourth\n");
        let old = std::fs::read_to_string(folder.path().join("x.log.1")).unwrap();
        assert_eq!(old, "third, which does not fit\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_rename_that_fails_does_not_end_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::create_dir_all(folder.path().join("x.log.1/taken")).unwrap();
        let mut log = LogFile::open_with(&path, 10).unwrap();
        log.write_all(b"0123456789").unwrap();
        log.write_all(b"more").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789more");
    }
}
