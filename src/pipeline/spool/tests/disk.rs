//! Tests of the folder of a spool on the machine's own file system: links, locks, permissions,
//! numbers.

use super::super::disk::SystemDisk;
use super::super::error::SpoolError;
use super::super::folder::Folder;
use super::super::names::{Kind, SEQUENCE_MAX};
use crate::skip::{Need, skip};
use rustix::fs::{CWD, FileType, Mode};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(path: &Path) -> Result<(Folder, Option<u32>), SpoolError> {
    Folder::open(Arc::new(SystemDisk), path, Kind::Data)
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn error(path: &Path) -> SpoolError {
    open(path).unwrap_err()
}

#[test]
fn a_missing_folder_is_made_for_us_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("spool/");
    assert_eq!(open(&path).unwrap().1, None);
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
fn a_folder_of_spans_does_not_wait_for_the_folder_of_segments_that_it_lies_in() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("spool");
    let open_spans =
        |path: &Path| Folder::open(Arc::new(SystemDisk), &path.join("otlp"), Kind::Spans);
    let (mut spans, _) = open_spans(&path).unwrap();
    assert_eq!((mode(&path), mode(&path.join("otlp"))), (0o700, 0o700));
    let (mut segments, tightened_from) = open(&path).unwrap();
    assert_eq!(tightened_from, None);
    assert_eq!(spans.data_name(1), "0000000001.spans");
    spans.create(1, Kind::Data).unwrap();
    segments.create(1, Kind::Data).unwrap();
    assert!(path.join("otlp/0000000001.spans").exists() && path.join("0000000001.spool").exists());
    // The folder above must be there, as for segments, and must be no link.
    let error = open_spans(&parent.path().join("missing/spool")).unwrap_err();
    assert!(error.to_string().contains("missing/spool: the folder above it"), "{error}");
    symlink("spool", parent.path().join("link")).unwrap();
    let error = open_spans(&parent.path().join("link")).unwrap_err();
    assert!(matches!(error, SpoolError::NotAFolder { .. }), "{error}");
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
    assert_eq!(open(folder.path()).unwrap().1, Some(0o755));
    assert_eq!(mode(folder.path()), 0o700);
    assert_eq!(open(folder.path()).unwrap().1, None);
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
    let first = open(folder.path()).unwrap();
    let error = error(folder.path());
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    drop(first);
    assert!(open(folder.path()).is_ok());
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
    // The umask is shared by all tests of this process, but no other test depends on it.
    let umask = rustix::process::umask(Mode::empty());
    let (mut opened, _) = open(&folder.path().join("spool")).unwrap();
    opened.create(1, Kind::Data).unwrap();
    opened.open_to_write(1, Kind::Progress).unwrap();
    rustix::process::umask(umask);
    assert_eq!(mode(&folder.path().join("spool")), 0o700);
    for name in ["lock", "0000000001.spool", "0000000001.done"] {
        assert_eq!(mode(&folder.path().join("spool").join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_link_or_folder_is_refused_and_other_names_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, _) = open(folder.path()).unwrap();
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
fn opening_a_fifo_does_not_wait_for_its_other_end() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = open(folder.path()).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    let path = folder.path().join("0000000001.spool");
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
    assert_eq!(opened.list().unwrap().refused_count, 1);
    assert!(opened.open_to_read(1, Kind::Data).is_ok(), "this would wait for a writer");
}

#[test]
fn files_are_numbered_again_where_a_number_is_too_large_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, _) = open(folder.path()).unwrap();
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
    let (mut opened, _) = open(folder.path()).unwrap();
    assert!(opened.create(SEQUENCE_MAX, Kind::Data).is_ok());
    assert!(opened.create(SEQUENCE_MAX + 1, Kind::Data).is_err());
}
