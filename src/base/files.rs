//! Reads small files, and tells whether a file has changed.
//!
//! In: a path. Out: the contents, or a [`Stamp`]. Bound: [`FILE_BYTES_MAX`] for each file. Thread:
//! any; reading files blocks.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Size of the largest file that [`read_text`] and [`read_bytes`] read, in bytes: 1 MiB.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The state of a file. Two different stamps of a path mean that the file has been written,
/// replaced, created or removed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<[i128; 4]>);

impl Stamp {
    /// Returns the present state of the file at `path`. A file that does not exist or cannot be
    /// looked at has a state too.
    pub fn of(path: &Path) -> Self {
        Self(path.metadata().ok().map(|file| {
            let modified = i128::from(file.mtime()) << 32 | i128::from(file.mtime_nsec());
            [modified, file.len().into(), file.ino().into(), file.dev().into()]
        }))
    }
}

/// Returns the number of an open file or socket (`st_ino`, `inode` in `/proc/net/udp`).
///
/// # Errors
///
/// Returns the kernel's error.
pub fn number_of(descriptor: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(descriptor)?.st_ino)
}

/// Reads a small text file, for example a file of `/proc`.
///
/// # Errors
///
/// Returns an error if the file does not exist, cannot be read, is not UTF-8, or has more than
/// [`FILE_BYTES_MAX`] bytes.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Reads a small file. Does not wait for the writer of a FIFO: a FIFO without one is empty.
///
/// # Errors
///
/// Returns an error if the file does not exist, cannot be read, or has more than
/// [`FILE_BYTES_MAX`] bytes.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // This flag changes nothing for a regular file (open(2)).
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_changes_or_is_replaced_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut stamps = vec![Stamp::of(&path)];
        let mut look = || stamps.push(Stamp::of(&path));
        std::fs::write(&path, "one").unwrap();
        look();
        std::fs::write(&path, "longer").unwrap();
        look();
        let other = folder.path().join("other");
        std::fs::write(&other, "longer").unwrap();
        std::fs::rename(&other, &path).unwrap();
        look();
        assert!(stamps.windows(2).all(|pair| pair[0] != pair[1]), "{stamps:?}");
        assert_eq!(Stamp::of(&path), Stamp::of(&path));
    }

    #[test]
    fn a_fifo_without_a_writer_and_the_null_device_are_empty_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert!(read_bytes(&path).unwrap().is_empty());
        assert!(read_bytes(Path::new("/dev/null")).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_too_large_or_not_text_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_bytes(&path).unwrap(), [0xff]);
        let large = vec![b'x'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
        std::fs::write(&path, large).unwrap();
        assert_eq!(read_bytes(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
