//! The folder of a spool: ours alone, and held open.
//!
//! The path is followed once, and again where the folder itself was removed. From then on
//! everything is reached from the folder's descriptor, and never through a symbolic link, so that a
//! user who can write further up in the path cannot have us write or delete elsewhere. While a
//! daemon has the folder it holds a lock on the file `lock` in it; the kernel lets go of it when
//! the daemon ends, however that happens.
//!
//! ```text
//!  lock
//!  0000000007.spool   records
//!  0000000007.done    which of them are settled; missing while none is
//!  0000000008.spool
//! ```
//!
//! Numbers only grow within a run, and no file is appended to after a restart. Other names are left
//! alone. Where a file is found whose number is so large that numbers could be used up, all are
//! numbered again from the first one on, in the same order.

use super::SpoolError;
use super::disk::sync_folder;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::fs::{fchmod, flock, fstat, fsync, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The largest number that has ten digits. At a file a second it takes three hundred years.
const SEQUENCE_MAX: u64 = 9_999_999_999;
const SEQUENCE_DIGIT_COUNT: usize = 10;

/// Where a file has a larger number, all are numbered again: no run comes to the end of the others.
const SEQUENCE_FOUND_MAX: u64 = SEQUENCE_MAX / 2;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What other users may do with a file.
const OTHERS_MODE: u32 = 0o077;

/// The two files of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Progress,
}

/// What a look into the folder gave.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sizes in bytes of the data files, by number.
    pub data: BTreeMap<u64, u64>,
    /// Sizes in bytes of the progress files, by number.
    pub progress: BTreeMap<u64, u64>,
    /// Names of ours that are no regular files.
    pub refused_count: u64,
    /// Their numbers.
    pub refused: BTreeSet<u64>,
    /// The largest number of a file. Those that are removed at the start are among them: what comes
    /// back of one after a crash of the machine must not pass for a part of a new one.
    pub sequence_max: u64,
}

/// The lock on the folder.
#[derive(Debug)]
struct Lock(OwnedFd);

impl Drop for Lock {
    /// Lets go at once. A child process shares the lock from its fork to its exec, and closing
    /// our side of it would leave it locked for that long.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The folder, open and locked.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    descriptor: OwnedFd,
    _lock: Lock,
    /// Whether names came or went since the last [`sync`](Self::sync).
    is_unsynced: bool,
}

impl Folder {
    /// Makes the folder where it is missing, opens and locks it. Also returns its permissions
    /// where they had to be tightened.
    pub fn open(path: &Path) -> Result<(Self, Option<u32>), SpoolError> {
        // Without a slash at the end, which would have a link followed.
        let path = path.components().as_path();
        make(path)?;
        let descriptor = open_folder(path)?;
        let tightened_from = secure(&descriptor, path)?;
        let lock = lock(&descriptor, path)?;
        let path = path.to_owned();
        Ok((Self { path, descriptor, _lock: lock, is_unsynced: true }, tightened_from))
    }

    /// Makes and locks the folder anew if somebody has removed it; says whether it was.
    pub fn make_again(&mut self) -> Result<bool, SpoolError> {
        let is_removed = is_removed(&self.descriptor);
        if is_removed {
            (*self, _) = Self::open(&self.path)?;
        }
        Ok(is_removed)
    }

    /// Looks for files of ours. Reads names and sizes alone.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in Dir::read_from(&self.descriptor)? {
            let entry = entry?;
            let Some((sequence, kind)) = entry.file_name().to_str().ok().and_then(parse) else {
                continue;
            };
            let stat = statat(&self.descriptor, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                listing.refused_count += 1;
                listing.refused.insert(sequence);
                continue;
            }
            listing.sequence_max = listing.sequence_max.max(sequence);
            let sizes = match kind {
                Kind::Data => &mut listing.data,
                Kind::Progress => &mut listing.progress,
            };
            sizes.insert(sequence, u64::try_from(stat.st_size).unwrap_or_default());
        }
        Ok(listing)
    }

    /// Numbers all files again if the numbers could be used up. In the order of their numbers, so
    /// that no new name is one that another file has still. Where this ends half-way progress may
    /// be apart from its records, which are then sent again.
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
        // A name that came back after a crash must not pass for a new one.
        self.is_unsynced = true;
        self.sync()
    }

    fn rename(&mut self, from: u64, to: u64, kind: Kind) -> io::Result<()> {
        if from != to {
            renameat(&self.descriptor, name(from, kind), &self.descriptor, name(to, kind))?;
            self.is_unsynced = true;
        }
        Ok(())
    }

    /// Cuts a file to so many bytes.
    pub fn cut(&self, sequence: u64, kind: Kind, length_bytes: u64) -> io::Result<()> {
        self.open_file(sequence, kind, OFlags::WRONLY)?.set_len(length_bytes)
    }

    /// Makes a new file, to be written and read.
    pub fn create(&mut self, sequence: u64, kind: Kind) -> io::Result<File> {
        if sequence > SEQUENCE_MAX {
            return Err(io::Error::other("its file numbers are used up; empty the folder"));
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(sequence, kind, flags)?;
        self.is_unsynced = true;
        fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        Ok(file)
    }

    /// Opens a file to read it.
    pub fn open_to_read(&self, sequence: u64, kind: Kind) -> io::Result<File> {
        self.open_file(sequence, kind, OFlags::RDONLY)
    }

    /// Opens a file to write to it; makes it where it is missing.
    pub fn open_to_write(&mut self, sequence: u64, kind: Kind) -> io::Result<File> {
        match self.open_file(sequence, kind, OFlags::WRONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(sequence, kind),
            opened => opened,
        }
    }

    fn open_file(&self, sequence: u64, kind: Kind, flags: OFlags) -> io::Result<File> {
        Ok(open_at(&self.descriptor, &name(sequence, kind), flags)?.into())
    }

    /// Removes both files of a number. The records go first: progress without records is nothing,
    /// while records without progress would be sent again.
    pub fn remove(&mut self, sequence: u64) -> io::Result<()> {
        self.remove_one(sequence, Kind::Data)?;
        self.remove_one(sequence, Kind::Progress)
    }

    /// Removes one file of a number; it may be gone already.
    pub fn remove_one(&mut self, sequence: u64, kind: Kind) -> io::Result<()> {
        match unlinkat(&self.descriptor, name(sequence, kind), AtFlags::empty()) {
            Ok(()) => self.is_unsynced = true,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Brings names to disk, where any changed.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_unsynced {
            sync_folder(&self.descriptor)?;
        }
        self.is_unsynced = false;
        Ok(())
    }
}

/// Whether an open file or folder has no name any more.
pub fn is_removed(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|stat| stat.st_nlink == 0)
}

fn make(path: &Path) -> Result<(), SpoolError> {
    match mkdirat(CWD, path, Mode::from_raw_mode(FOLDER_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::NOENT) => return Err(SpoolError::ParentMissing { path: path.to_owned() }),
        Err(error) => return Err(folder_error(path, error)),
    }
    // Also where it was there: the run that has made it may have ended before this.
    match sync_parent(path) {
        // Some file systems cannot do this, and some folders cannot be read by us.
        Ok(()) | Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(error) => Err(folder_error(path, error)),
    }
}

/// Brings the name of the folder to disk, which is in the folder above it.
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
        // open(2): with O_DIRECTORY a link is ENOTDIR rather than ELOOP.
        Errno::NOTDIR | Errno::LOOP => SpoolError::NotAFolder { path: path.to_owned() },
        error => folder_error(path, error),
    })
}

/// Makes sure that the folder is ours alone.
fn secure(descriptor: &OwnedFd, path: &Path) -> Result<Option<u32>, SpoolError> {
    let stat = fstat(descriptor).map_err(|error| folder_error(path, error))?;
    let own_uid = geteuid().as_raw();
    if stat.st_uid != own_uid {
        let path = path.to_owned();
        return Err(SpoolError::ForeignFolder { path, uid: stat.st_uid, own_uid });
    }
    let mode = stat.st_mode & 0o777;
    if mode & OTHERS_MODE == 0 {
        return Ok(None);
    }
    fchmod(descriptor, Mode::from_raw_mode(FOLDER_MODE))
        .map_err(|error| folder_error(path, error))?;
    Ok(Some(mode))
}

fn lock(descriptor: &OwnedFd, path: &Path) -> Result<Lock, SpoolError> {
    let file = open_at(descriptor, "lock", OFlags::RDWR | OFlags::CREATE)
        .map_err(|error| folder_error(path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => Err(SpoolError::Locked { path: path.to_owned() }),
        Err(error) => Err(folder_error(path, error)),
    }
}

fn open_at(folder: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    // NONBLOCK is for a FIFO under one of our names: nobody may ever open its other end.
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

/// The name of a file.
pub fn name(sequence: u64, kind: Kind) -> String {
    let suffix = match kind {
        Kind::Data => "spool",
        Kind::Progress => "done",
    };
    format!("{sequence:010}.{suffix}")
}

fn parse(name: &str) -> Option<(u64, Kind)> {
    let (digits, suffix) = name.split_once('.')?;
    let kind = match suffix {
        "spool" => Kind::Data,
        "done" => Kind::Progress,
        _ => return None,
    };
    let is_number =
        digits.len() == SEQUENCE_DIGIT_COUNT && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(|sequence| (sequence, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::{Need, skip};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn error(path: &Path) -> SpoolError {
        Folder::open(path).unwrap_err()
    }

    #[test]
    fn a_name_is_read_as_it_was_written_and_others_are_not_ours() {
        for kind in [Kind::Data, Kind::Progress] {
            for sequence in [0, 1, SEQUENCE_MAX] {
                assert_eq!(parse(&name(sequence, kind)), Some((sequence, kind)));
            }
        }
        let foreign =
            ["lock", "1.spool", "00000000001.spool", "+000000001.spool", "0000000001.spool.x"];
        assert!(foreign.iter().all(|name| parse(name).is_none()));
    }

    #[test]
    fn a_missing_folder_is_made_for_us_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("spool/");
        assert_eq!(Folder::open(&path).unwrap().1, None);
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_missing_parent_is_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let error = error(&parent.path().join("missing/spool"));
        assert!(matches!(error, SpoolError::ParentMissing { .. }), "{error}");
        assert!(!parent.path().join("missing").exists());
    }

    #[test]
    fn a_link_or_a_file_in_place_of_the_folder_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir(parent.path().join("real")).unwrap();
        symlink("real", parent.path().join("link")).unwrap();
        std::fs::write(parent.path().join("file"), "").unwrap();
        for name in ["link", "link/", "link/.", "file"] {
            let error = error(&PathBuf::from(format!("{}/{name}", parent.path().display())));
            assert!(matches!(error, SpoolError::NotAFolder { .. }), "{name}: {error}");
        }
        assert_eq!(std::fs::read_dir(parent.path().join("real")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_others_may_use_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), permissions).unwrap();
        assert_eq!(Folder::open(folder.path()).unwrap().1, Some(0o755));
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(Folder::open(folder.path()).unwrap().1, None);
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        if chown(folder.path(), Some(12_345), None).is_err() {
            return skip(Need::Root, "only root can give a folder away");
        }
        let error = error(folder.path());
        assert!(matches!(error, SpoolError::ForeignFolder { uid: 12_345, .. }), "{error}");
    }

    #[test]
    fn a_second_daemon_finds_the_folder_locked_until_the_first_one_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();
        let error = error(folder.path());
        assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
        drop(first);
        assert!(Folder::open(folder.path()).is_ok());
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        symlink("elsewhere", folder.path().join("lock")).unwrap();
        assert!(matches!(error(folder.path()), SpoolError::Folder { .. }));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn files_are_ours_alone_whatever_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        // The umask is the process's: nothing here depends on it but what this test looks at.
        let umask = rustix::process::umask(Mode::empty());
        let (mut opened, _) = Folder::open(&folder.path().join("spool")).unwrap();
        opened.create(1, Kind::Data).unwrap();
        opened.open_to_write(1, Kind::Progress).unwrap();
        rustix::process::umask(umask);
        assert_eq!(mode(&folder.path().join("spool")), 0o700);
        for name in ["lock", "0000000001.spool", "0000000001.done"] {
            assert_eq!(mode(&folder.path().join("spool").join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_other_names_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, _) = Folder::open(folder.path()).unwrap();
        opened.create(3, Kind::Data).unwrap();
        symlink("0000000003.spool", folder.path().join("0000000004.spool")).unwrap();
        std::fs::create_dir(folder.path().join("0000000009.done")).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let listing = opened.list().unwrap();
        assert_eq!(listing.data, BTreeMap::from([(3, 0)]));
        assert!(listing.progress.is_empty());
        assert_eq!((listing.refused_count, listing.sequence_max), (2, 3));
        assert_eq!(listing.refused, BTreeSet::from([4, 9]));
        assert!(opened.open_to_read(4, Kind::Data).is_err());
    }

    #[test]
    fn a_fifo_under_one_of_our_names_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let (opened, _) = Folder::open(folder.path()).unwrap();
        let mode = Mode::from_raw_mode(FILE_MODE);
        let name = name(1, Kind::Data);
        rustix::fs::mknodat(&opened.descriptor, name, FileType::Fifo, mode, 0).unwrap();
        assert_eq!(opened.list().unwrap().refused_count, 1);
        assert!(opened.open_to_read(1, Kind::Data).is_ok(), "this would wait for a writer");
    }

    #[test]
    fn files_are_numbered_again_where_a_number_is_too_large_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, _) = Folder::open(folder.path()).unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        ["0000000002.spool", "0000000005.spool", "0000000005.done"].iter().for_each(|it| write(it));
        symlink("elsewhere", folder.path().join("0000000003.spool")).unwrap();
        let mut listing = opened.list().unwrap();
        opened.renumber_if_used_up(&mut listing).unwrap();
        assert_eq!(listing.data.keys().copied().collect::<Vec<_>>(), [2, 5]);
        ["9999999999.spool", "9999999999.done"].iter().for_each(|it| write(it));
        let mut listing = opened.list().unwrap();
        opened.renumber_if_used_up(&mut listing).unwrap();
        let again = opened.list().unwrap();
        assert_eq!((&again.data, &again.progress), (&listing.data, &listing.progress));
        assert_eq!(again.sequence_max, 4);
        for (new, old) in [
            ("0000000001.spool", "0000000002.spool"),
            ("0000000002.spool", "0000000005.spool"),
            ("0000000002.done", "0000000005.done"),
            ("0000000004.spool", "9999999999.spool"),
            ("0000000004.done", "9999999999.done"),
        ] {
            assert_eq!(std::fs::read_to_string(folder.path().join(new)).unwrap(), old);
        }
        assert!(folder.path().join("0000000003.spool").is_symlink());
    }

    #[test]
    fn numbers_that_are_used_up_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, _) = Folder::open(folder.path()).unwrap();
        assert!(opened.create(SEQUENCE_MAX, Kind::Data).is_ok());
        assert!(opened.create(SEQUENCE_MAX + 1, Kind::Data).is_err());
    }
}
