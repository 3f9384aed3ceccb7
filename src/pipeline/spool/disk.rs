//! The calls of the file system that the spool uses.
//!
//! In: names, bytes and offsets. Out: the results of the calls. [`Disk`], [`DiskFolder`] and
//! [`DiskFile`] are traits, so that a test can use a disk that fails instead of [`SystemDisk`].
//! Bound: one descriptor for each open file, and two for the folder. Thread: the caller's, which
//! may wait for the disk.
//!
//! [`SystemDisk`] follows the path of the folder once, when the folder is opened. After that it
//! reaches every file from the descriptor of the folder, and never through a symbolic link. A user
//! who can write further up in the path can therefore not make the daemon write or delete files
//! elsewhere. While a daemon has the folder open, the daemon holds a lock on the file `lock` in the
//! folder. The kernel releases the lock when the daemon ends, even if the daemon is killed.

use super::error::SpoolError;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{fchmod, flock, fstat, fsync, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::{Errno, pwritev, retry_on_intr};
use rustix::process::geteuid;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The permission bits of all users but the owner.
const OTHERS_MODE: u32 = 0o077;

/// The file in the folder that a daemon locks.
const LOCK_NAME: &str = "lock";

/// A file system that can hold the folder of a spool.
pub trait Disk: Debug + Send + Sync {
    /// Creates the folder if it is missing.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be created, belongs to another user, or is a symbolic link.
    fn create_folder(&self, path: &Path) -> Result<(), SpoolError>;

    /// Creates the folder if it is missing, opens the folder and locks it. If other users have
    /// permissions for the folder, takes these away and returns the earlier permissions of the
    /// folder.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be created, opened or locked, belongs to another user, is a
    /// symbolic link, or is locked by another daemon.
    fn open_folder(&self, path: &Path) -> Result<(Box<dyn DiskFolder>, Option<u32>), SpoolError>;
}

/// The way in which [`DiskFolder::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Opens a file that exists, to read it.
    Read,
    /// Opens a file that exists, to write to it.
    Write,
    /// Creates a file, to write to it and read it. The call fails if the name exists.
    Create,
}

/// The type and the size of a file in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether the file is a regular file, and not a link, a folder or a device.
    pub is_file: bool,
    /// The size of the file in bytes.
    pub length_bytes: u64,
}

/// A folder that is open and locked. Dropping it releases the lock.
pub trait DiskFolder: Debug + Send {
    /// Returns whether the folder was removed: it has no name any more.
    fn is_removed(&self) -> bool;

    /// Calls `each` with every name in the folder, in any order.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read, or with the error of `each`.
    fn names(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()>;

    /// Returns the type and the size of the file `name`. If the file is a link, the link is not
    /// followed.
    ///
    /// # Errors
    ///
    /// Fails if the name does not exist or the system refuses the call.
    fn stat(&self, name: &str) -> io::Result<Stat>;

    /// Opens a file of the folder. Never follows a link and never waits for a FIFO.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name of a file.
    ///
    /// # Errors
    ///
    /// Fails with [`io::ErrorKind::NotFound`] if the name does not exist, or if the system refuses
    /// the call.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Writes the names in the folder to stable storage (fsync).
    ///
    /// # Errors
    ///
    /// Fails if the names may not be on stable storage.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is open.
pub trait DiskFile: Debug + Send {
    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// Fails with [`io::ErrorKind::UnexpectedEof`] if the file ends before `buffer` is full, or if
    /// the system refuses the call.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `pieces`, one after the other, at `offset`.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call. Some of the bytes may have been written.
    fn write_at(&self, pieces: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Cuts the file to `length_bytes`, or extends the file with zeros.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call.
    fn set_length(&self, length_bytes: u64) -> io::Result<()>;

    /// Returns the size of the file in bytes.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses the call.
    fn length_bytes(&self) -> io::Result<u64>;

    /// Writes the bytes of the file to stable storage (fdatasync).
    ///
    /// # Errors
    ///
    /// Fails if the bytes may not be on stable storage.
    fn sync(&self) -> io::Result<()>;

    /// Returns whether the file was removed: it has no name any more.
    fn is_removed(&self) -> bool;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> Result<(), SpoolError> {
        let path = path.components().as_path();
        create_folder(path)?;
        mode_if_own(&open_folder(path)?, path).map(|_| ())
    }

    fn open_folder(&self, path: &Path) -> Result<(Box<dyn DiskFolder>, Option<u32>), SpoolError> {
        // A slash at the end of the path would make the kernel follow a link.
        let path = path.components().as_path();
        create_folder(path)?;
        let descriptor = open_folder(path)?;
        let tightened_from = tighten(&descriptor, path)?;
        let lock = lock(&descriptor, path)?;
        Ok((Box::new(SystemFolder { descriptor, lock }), tightened_from))
    }
}

/// A folder of the machine's file system.
#[derive(Debug)]
struct SystemFolder {
    descriptor: OwnedFd,
    lock: OwnedFd,
}

impl Drop for SystemFolder {
    /// Unlocks explicitly. A child process shares the lock between its fork and its exec: if the
    /// daemon only closed the descriptor, the folder would stay locked for that time.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl DiskFolder for SystemFolder {
    fn is_removed(&self) -> bool {
        is_removed(&self.descriptor)
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for entry in Dir::read_from(&self.descriptor)? {
            // All names of the spool are ASCII. A name that is not UTF-8 is not a name of the
            // spool.
            if let Ok(name) = entry?.file_name().to_str() {
                each(name)?;
            }
        }
        Ok(())
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        let stat = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(Stat { is_file, length_bytes: u64::try_from(stat.st_size).unwrap_or_default() })
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        let file = open_at(&self.descriptor, name, flags)?;
        if access == Access::Create {
            // The umask of the process may have taken permissions away.
            fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        }
        Ok(Box::new(File::from(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.descriptor)?)
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // Removes empty pieces in front: `pwritev` returns 0 for empty pieces, which is an error
        // below.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            // rustix passes at most the first 1024 pieces (IOV_MAX) to the kernel.
            let count = retry_on_intr(|| pwritev(self, pieces, offset))?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut pieces, count);
            offset += count as u64;
        }
        Ok(())
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.set_len(length_bytes)
    }

    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn is_removed(&self) -> bool {
        is_removed(self)
    }
}

fn is_removed(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|stat| stat.st_nlink == 0)
}

fn create_folder(path: &Path) -> Result<(), SpoolError> {
    match mkdirat(CWD, path, Mode::from_raw_mode(FOLDER_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::NOENT) => return Err(SpoolError::ParentMissing { path: path.to_owned() }),
        Err(error) => return Err(folder_error(path, error)),
    }
    // Syncs the parent even if the folder existed before: the run that created the folder may have
    // ended before its fsync.
    match sync_parent(path) {
        // Some file systems refuse an fsync of a folder, and the daemon may not be allowed to read
        // the parent.
        Ok(()) | Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(error) => Err(folder_error(path, error)),
    }
}

/// Writes the name of the folder to stable storage: calls fsync on the parent folder.
fn sync_parent(path: &Path) -> rustix::io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fsync(openat(CWD, parent, flags, Mode::empty())?)
}

fn open_folder(path: &Path) -> Result<OwnedFd, SpoolError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        // open(2): for a link, O_DIRECTORY makes the error ENOTDIR instead of ELOOP.
        Errno::NOTDIR | Errno::LOOP => SpoolError::NotAFolder { path: path.to_owned() },
        error => folder_error(path, error),
    })
}

/// Returns the permissions of a folder that belongs to the user of the daemon.
fn mode_if_own(descriptor: &OwnedFd, path: &Path) -> Result<u32, SpoolError> {
    let stat = fstat(descriptor).map_err(|error| folder_error(path, error))?;
    let own_uid = geteuid().as_raw();
    if stat.st_uid != own_uid {
        let path = path.to_owned();
        return Err(SpoolError::ForeignFolder { path, uid: stat.st_uid, own_uid });
    }
    Ok(stat.st_mode & 0o777)
}

/// Takes the permissions of other users away. Returns the earlier permissions; `None` if other
/// users had none.
fn tighten(descriptor: &OwnedFd, path: &Path) -> Result<Option<u32>, SpoolError> {
    let mode = mode_if_own(descriptor, path)?;
    if mode & OTHERS_MODE == 0 {
        return Ok(None);
    }
    fchmod(descriptor, Mode::from_raw_mode(FOLDER_MODE))
        .map_err(|error| folder_error(path, error))?;
    Ok(Some(mode))
}

fn lock(descriptor: &OwnedFd, path: &Path) -> Result<OwnedFd, SpoolError> {
    let file = open_at(descriptor, LOCK_NAME, OFlags::RDWR | OFlags::CREATE)
        .map_err(|error| folder_error(path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(SpoolError::Locked { path: path.to_owned() }),
        Err(error) => Err(folder_error(path, error)),
    }
}

fn open_at(folder: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // Without NONBLOCK, opening a FIFO would wait until another process opens its other end.
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(folder, name, flags, Mode::from_raw_mode(FILE_MODE))
}

fn folder_error(path: &Path, error: Errno) -> SpoolError {
    let path = path.to_owned();
    match error {
        Errno::ROFS => SpoolError::ReadOnly { path },
        error => SpoolError::Folder { path, source: error.into() },
    }
}
