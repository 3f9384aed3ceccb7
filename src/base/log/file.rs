//! The log file, with rotation by size.
//!
//! In: lines. Out: the log file, and one older log file in the same folder. If the file cannot be
//! opened, standard error gets the lines until a request to open it again succeeds. Bound: if
//! rotation is on, [`LOG_FILE_BYTES_MAX`] for each of the two files. Thread: the thread `log`
//! writes; any thread may call [`reopen`].
//!
//! No crate is used for rotation: `file-rotate` panics if it cannot create a folder, `rolling-file`
//! has had no release for years, and neither of them can reopen its file on request.

use super::LogLevel;
use super::losses::count_file_failure;
use rustix::fs::{Access, access};
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The size, in bytes, at which the log file is rotated: 50 MiB.
pub const LOG_FILE_BYTES_MAX: u64 = 50 * 1024 * 1024;

/// The permissions of a log file at debug level and below: others than the group may not read it,
/// because it has parts of documents.
const PRIVATE_MODE: u32 = 0o640;

/// The permissions of a log file at other levels, before the umask takes some of them away. These
/// are the permissions of the original daemon's log file.
const USUAL_MODE: u32 = 0o666;

/// Whether the daemon must open the log file again before it writes the next line.
static REOPEN: AtomicBool = AtomicBool::new(false);

/// Makes the daemon open the log file again before it writes the next line. Operators need this
/// when they rename the file for rotation.
pub fn reopen() {
    REOPEN.store(true, Ordering::Relaxed);
}

/// The log file. Rotation appends `.1` to its name; an older file with this name is replaced.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// `None` if the file could not be opened. Standard error gets the lines then.
    file: Option<File>,
    length_bytes: u64,
    length_bytes_max: u64,
    mode: u32,
    /// Number of lines that could not be written since the last successful write.
    lost_count: u64,
}

impl LogFile {
    /// Opens the log file `path` for appending, and creates its folder if it is missing, as the
    /// original daemon does. If `rotate` is true, the file is rotated when it reaches
    /// [`LOG_FILE_BYTES_MAX`]. At the levels `debug` and `dev` of `level`, the permissions of
    /// others than the group are taken away.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened.
    pub fn open(path: &Path, rotate: bool, level: LogLevel) -> io::Result<Self> {
        let mut log = Self::new(path, rotate, level);
        log.open_again()?;
        Ok(log)
    }

    /// Does the same as [`open`](Self::open). If the file cannot be opened, also returns the error,
    /// and the lines go to standard error until the file can be opened after a [`reopen`].
    pub fn open_or_stderr(path: &Path, rotate: bool, level: LogLevel) -> (Self, Option<io::Error>) {
        let mut log = Self::new(path, rotate, level);
        let error = log.open_again().inspect_err(|_| count_file_failure()).err();
        (log, error)
    }

    /// Returns a log file that is not open yet.
    fn new(path: &Path, rotate: bool, level: LogLevel) -> Self {
        let mode = match level {
            LogLevel::Dev | LogLevel::Debug => PRIVATE_MODE,
            LogLevel::Info | LogLevel::Warn | LogLevel::Error | LogLevel::Prod => USUAL_MODE,
        };
        let length_bytes_max = if rotate { LOG_FILE_BYTES_MAX } else { u64::MAX };
        let path = path.to_owned();
        Self { path, file: None, length_bytes: 0, length_bytes_max, mode, lost_count: 0 }
    }

    /// Checks whether the log file `path` can be written, without opening or creating it.
    ///
    /// # Errors
    ///
    /// Returns the reason if it cannot be written.
    pub fn check(path: &Path) -> io::Result<()> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Ok(access(path, Access::WRITE_OK)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The daemon makes the missing folders.
                let mut folders =
                    path.ancestors().skip(1).map(|it| match it.as_os_str().is_empty() {
                        true => Path::new("."),
                        false => it,
                    });
                let folder = folders.find(|folder| folder.exists()).unwrap_or(Path::new("/"));
                match folder.is_dir() {
                    true => Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?),
                    false => Err(io::ErrorKind::NotADirectory.into()),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn open_again(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            // If this fails, opening the file fails, too, and its error says more.
            let _ = std::fs::create_dir_all(folder);
        }
        let file = append(&self.path, self.mode)?;
        self.length_bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return io::stderr().write_all(line) };
        if self.lost_count > 0 {
            // A failed write may have left a part of a line at the end of the file. The next line
            // must not be appended to it.
            file.write_all(b"\n")?;
        }
        file.write_all(line)?;
        if self.lost_count > 0 {
            let path = self.path.display();
            say(format_args!("{} lines are missing in the log file {path}", self.lost_count));
            self.lost_count = 0;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.open_again()
    }
}

/// Writes a line about a problem of the log file to standard error. If the write fails, the line is
/// dropped.
fn say(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Opens a file for appending. A new file gets the permissions `mode` as far as the umask allows.
/// If `mode` is [`PRIVATE_MODE`], an existing file loses the permissions that are not part of it.
fn append(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(mode).open(path)?;
    let metadata = file.metadata()?;
    let held = metadata.permissions().mode() & 0o7777;
    // The path may be a terminal or a pipe, which others use too.
    if mode == PRIVATE_MODE && metadata.is_file() && held & !mode != 0 {
        let changed = file.set_permissions(Permissions::from_mode(held & mode));
        if let Err(error) = changed {
            let path = path.display();
            say(format_args!("the log file {path} stays readable for other users: {error}"));
        }
    }
    Ok(file)
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if REOPEN.swap(false, Ordering::Relaxed) {
            // If this fails, the daemon continues to write to the file that is open.
            if let Err(error) = self.open_again() {
                count_file_failure();
                let path = self.path.display();
                let instead = match self.file {
                    Some(_) => "the old one stays",
                    None => "the log stays on standard error",
                };
                say(format_args!("the log file {path} cannot be opened again: {error}; {instead}"));
            }
        }
        let is_full = self.length_bytes + line.len() as u64 > self.length_bytes_max;
        if is_full && self.length_bytes > 0 && self.file.is_some() {
            // If the rotation fails, the daemon continues to write to the file that is open. It
            // tries again after another 50 MiB. So there are few failed attempts in a folder
            // without write permission.
            if self.rotate().is_err() {
                count_file_failure();
            }
            self.length_bytes = 0;
        }
        self.write_line(line).inspect_err(|error| {
            count_file_failure();
            if self.lost_count == 0 {
                say(format_args!(
                    "the log file {} cannot be written: {error}",
                    self.path.display()
                ));
            }
            self.lost_count += 1;
        })?;
        self.length_bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_with(path: &Path, length_bytes_max: u64, mode: u32) -> LogFile {
        let mut log =
            LogFile { length_bytes_max, mode, ..LogFile::new(path, true, LogLevel::Info) };
        log.open_again().unwrap();
        log
    }

    #[test]
    fn a_file_that_has_reached_its_size_is_rotated_and_one_old_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut log = open_with(&path, 20, USUAL_MODE);
        for line in ["second\n", "third, which does not fit\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fourth\n");
        let old = std::fs::read_to_string(folder.path().join("x.log.1")).unwrap();
        assert_eq!(old, "third, which does not fit\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_owner_and_group_may_read_a_log_with_parts_of_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/folder/x.log");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        LogFile::open(&path, true, LogLevel::Debug).unwrap();
        assert_eq!(mode() & !0o640, 0);
        std::fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        LogFile::open(&path, true, LogLevel::Info).unwrap();
        assert_eq!(mode(), 0o664);
        let mut log = LogFile::open(&path, true, LogLevel::Dev).unwrap();
        assert_eq!(mode(), 0o640);
        std::fs::remove_file(&path).unwrap();
        log.open_again().unwrap();
        assert_eq!(mode() & !0o640, 0);
    }

    #[test]
    fn the_first_line_after_a_full_disk_begins_on_a_new_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = open_with(&path, u64::MAX, USUAL_MODE);
        assert!(log.write_all(b"lost\n").is_err() && log.write_all(b"lost\n").is_err());
        assert_eq!(log.lost_count, 2);
        std::fs::remove_file(&path).unwrap();
        log.open_again().unwrap();
        log.write_all(b"there\n").unwrap();
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap().as_str(), log.lost_count),
            ("\nthere\n", 0)
        );
    }

    #[test]
    fn a_rename_that_fails_does_not_end_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::create_dir_all(folder.path().join("x.log.1/taken")).unwrap();
        let mut log = open_with(&path, 10, USUAL_MODE);
        log.write_all(b"0123456789").unwrap();
        log.write_all(b"more").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0123456789more");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_opened_on_request_and_can_be_checked_before() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("taken"), "").unwrap();
        let path = folder.path().join("taken").join("x.log");
        assert!(LogFile::check(&path).is_err() && LogFile::check(folder.path()).is_err());
        let (mut log, error) = LogFile::open_or_stderr(&path, true, LogLevel::Info);
        assert!(error.is_some() && log.file.is_none());
        log.write_all(b"to standard error\n").unwrap();
        assert!(log.open_again().is_err());
        std::fs::remove_file(folder.path().join("taken")).unwrap();
        LogFile::check(&path).unwrap();
        log.open_again().unwrap();
        log.write_all(b"there\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "there\n");
        LogFile::check(&path).unwrap();
    }
}
