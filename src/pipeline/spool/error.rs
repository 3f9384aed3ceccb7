//! What can go wrong with a spool, and what the operator can do about it.

use super::Evicted;
use super::folder::{Kind, name};
use std::io;
use std::path::PathBuf;

/// Why a spool could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Only the last folder of the path is ever made.
    #[error("{path}: the folder above it is not there; create it first")]
    ParentMissing {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// Something else has the name, and a link could lead anywhere.
    #[error("{path} is a symbolic link or no folder; name the folder itself")]
    NotAFolder {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// Who owns a folder can read and change all that is in it.
    #[error("{path} belongs to user {uid}, not to user {own_uid}; chown it or choose another")]
    ForeignFolder {
        /// The folder that was asked for.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// The user that the daemon runs as.
        own_uid: u32,
    },
    /// Nothing can be written there.
    #[error("{path} is on a file system mounted read-only; remount it or choose another folder")]
    ReadOnly {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// Another daemon has the folder.
    #[error("{path} is in use by another daemon; give each daemon a folder of its own")]
    Locked {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// The folder cannot be used for another reason.
    #[error("cannot use the folder {path}: {source}")]
    Folder {
        /// The folder that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record that no room can be made for.
    #[error("a record of {record_bytes} bytes is larger than the {record_bytes_max} allowed")]
    TooLarge {
        /// Its size.
        record_bytes: u64,
        /// The largest that fits.
        record_bytes_max: u64,
    },
    /// A record could not be written, and nothing of it is kept.
    #[error("cannot write to the spool: {0}; check the room and the state of its disk")]
    Write(#[source] io::Error),
    /// What was delivered could not be noted: after a restart it will be sent again.
    #[error("cannot note progress in the spool: {0}; check the room and the state of its disk")]
    Progress(#[source] io::Error),
    /// A file could not be read; it is left alone until
    /// [`Spool::try_unreadable`](super::Spool::try_unreadable).
    #[error("cannot read its file {name}: {source}; check the state of its disk")]
    Read {
        /// In the folder of the spool.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is not needed any longer could not be removed.
    #[error("cannot remove a file of the spool: {0}; check the permissions of its folder")]
    Remove(#[source] io::Error),
    /// What was written may not be on the disk. It is written again until it is.
    #[error("cannot bring the spool to disk: {0}; check the state of its disk")]
    Sync(#[source] io::Error),
    /// A job of its thread has panicked.
    #[error("its thread met {0}")]
    Panic(String),
}

/// Why a record was not appended, and what had given way for it nevertheless.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct AppendError {
    /// What is gone, for the caller to count.
    pub evicted: Evicted,
    /// What went wrong.
    pub cause: SpoolError,
}

/// Bytes that gave no record. Each is reported once in a run.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}; {bytes} bytes skipped", name(*sequence, Kind::Data))]
pub struct Damage {
    /// The number in the name of the file.
    pub sequence: u64,
    /// How many bytes were skipped.
    pub bytes: u64,
    /// Segments known to be lost with them. For a file of this run that is all there were, though
    /// some may be reported only at its end, with no bytes.
    pub segment_count: u64,
    /// What was wrong.
    pub cause: DamageCause,
}

/// Why some bytes of the spool gave no record.
#[derive(Debug, thiserror::Error)]
pub enum DamageCause {
    /// The file does not begin as it should; its records are read all the same.
    #[error("the header of the file is damaged")]
    FileHeader,
    /// The header of a record is damaged; reading goes on at the next one that is right.
    #[error("the header of a record is damaged")]
    RecordHeader,
    /// The payload of a record does not match its checksum; the record is left out.
    #[error("the payload of a record is damaged")]
    Payload,
    /// The file ends within a record, as it does when the machine stops while one is written.
    #[error("the file ends within a record")]
    Torn,
    /// Somebody has removed the file, or cut it short.
    #[error("the file, or a part of it, is gone")]
    Gone,
}
