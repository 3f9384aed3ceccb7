//! Reads a configuration file in the working directory, unless another user may have written it.
//!
//! In: the path of a file that no flag names. Out: its text, or a warning that says why the file is
//! not read. Bound: that of [`file::read_from`]. The daemon may be started in a folder like `/tmp`.
//! A file that another user has put there could send all segments to another place.

use super::{ConfigError, file};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The permissions of the group and of others to write.
const OTHERS_WRITE: u32 = 0o022;

/// The owner of a file or a folder, and whether others may write it.
#[derive(Debug, Clone, Copy)]
struct Ownership {
    uid: u32,
    others_may_write: bool,
}

impl Ownership {
    fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), others_may_write: metadata.mode() & OTHERS_WRITE != 0 }
    }
}

/// Reads the file `path`. Returns `None` if it does not exist, or if it is not trusted: then
/// `warnings` gets the reason.
///
/// # Errors
///
/// Fails if the file is trusted and cannot be read.
pub(super) fn read_if_trusted(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    // The path without links: a link is as good as the file that it could be replaced with.
    let entry = match path.symlink_metadata() {
        Ok(entry) => entry,
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(failure) => return Err(error(failure)),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).metadata().map_err(error)?;
    let folder = Ownership::of(&folder);
    let own_uid = rustix::process::geteuid().as_raw();
    let mut refuse = |uid| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        warnings.push(format!(
            "the configuration file {} is not read: user {uid} owns it, and others may write the \
             file or its folder. Name it with -c, or let root or the daemon's user own it",
            path.display()
        ));
        Ok(None)
    };
    // Every link has all permissions. Only the folder protects it.
    let link = Ownership { others_may_write: false, ..Ownership::of(&entry) };
    let entry = if entry.is_symlink() { link } else { Ownership::of(&entry) };
    if !is_trusted(entry, folder, own_uid) {
        return refuse(entry.uid);
    }
    // The check below uses the open file. So the file cannot be replaced between check and reading.
    let opened = match File::open(path) {
        Ok(opened) => opened,
        // A link to a file that does not exist.
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(failure) => return Err(error(failure)),
    };
    let target = Ownership::of(&opened.metadata().map_err(error)?);
    if !is_trusted(target, folder, own_uid) {
        return refuse(target.uid);
    }
    file::read_from(path, opened).map(Some)
}

/// Returns whether the file may be read: root or the daemon's user owns it, or only its owner may
/// write to the file and to its folder.
fn is_trusted(file: Ownership, folder: Ownership, own_uid: u32) -> bool {
    let is_own = file.uid == 0 || file.uid == own_uid;
    is_own || !(file.others_may_write || folder.others_may_write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_of_another_user_is_trusted_if_nobody_else_may_write_it_or_its_folder() {
        let with = |uid, others_may_write| Ownership { uid, others_may_write };
        for (file, folder, expected) in [
            (with(0, true), with(7, true), true),
            (with(5, true), with(7, true), true),
            (with(7, false), with(7, false), true),
            (with(7, false), with(0, false), true),
            (with(7, true), with(7, false), false),
            (with(7, false), with(7, true), false),
            (with(7, false), with(0, true), false),
        ] {
            assert_eq!(is_trusted(file, folder, 5), expected, "{file:?} in {folder:?}");
        }
    }

    #[test]
    fn an_own_file_is_read_through_a_link_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cfg.yaml");
        let mut warnings = Vec::new();
        assert!(read_if_trusted(&path, &mut warnings).unwrap().is_none());
        symlink("target.yaml", &path).unwrap();
        assert!(read_if_trusted(&path, &mut warnings).unwrap().is_none());
        std::fs::write(folder.path().join("target.yaml"), "Region: r\n").unwrap();
        let text = read_if_trusted(&path, &mut warnings).unwrap();
        assert_eq!(text.as_deref(), Some("Region: r\n"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read_if_trusted(&path, &mut warnings).is_err());
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
