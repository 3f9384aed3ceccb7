//! The errors of a spool. Each text says what the operator can do.
//!
//! In: errors of the file system, and bytes that are not records. Out: [`SpoolError`] and
//! [`Damage`]. Thread: any.

use std::io;
use std::path::PathBuf;

/// The reason why a spool could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The parent of the folder does not exist. Only the last folder of the path is ever created.
    #[error("{path}: the folder above it is not there; create it first")]
    ParentMissing {
        /// The folder of the spool.
        path: PathBuf,
    },
    /// The path is a file or a symbolic link. A link is refused because it could lead anywhere.
    #[error("{path} is a symbolic link or no folder; name the folder itself")]
    NotAFolder {
        /// The folder of the spool.
        path: PathBuf,
    },
    /// The folder belongs to another user, who could read and change all files in it.
    #[error("{path} belongs to user {uid}, not to user {own_uid}; chown it or choose another")]
    ForeignFolder {
        /// The folder of the spool.
        path: PathBuf,
        /// The owner of the folder.
        uid: u32,
        /// The user that the daemon runs as.
        own_uid: u32,
    },
    /// The file system is mounted read-only.
    #[error("{path} is on a file system mounted read-only; remount it or choose another folder")]
    ReadOnly {
        /// The folder of the spool.
        path: PathBuf,
    },
    /// Another daemon has locked the folder.
    #[error("{path} is in use by another daemon; give each daemon a folder of its own")]
    Locked {
        /// The folder of the spool.
        path: PathBuf,
    },
    /// The system refused a call on the folder for a reason that no other variant names.
    #[error("cannot use the folder {path}: {source}")]
    Folder {
        /// The folder of the spool.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A record is too large for the spool.
    #[error("a record of {record_bytes} bytes is larger than the {record_bytes_max} allowed")]
    TooLarge {
        /// The size of the record in bytes.
        record_bytes: u64,
        /// The largest size of a record that fits into the spool, in bytes.
        record_bytes_max: u64,
    },
    /// The spool is full, and evicts nothing for a new record.
    #[error("it is full ({size_bytes_max} bytes of Spool.MaxSizeMB are for it)")]
    Full {
        /// The largest size of the spool, in bytes.
        size_bytes_max: u64,
    },
    /// A record could not be written. Nothing of the record is kept.
    #[error("cannot write to the spool: {0}; check the room and the state of its disk")]
    Write(#[source] io::Error),
    /// The spool could not note on disk that a record is settled. After a restart this record is
    /// sent again.
    #[error("cannot note progress in the spool: {0}; check the room and the state of its disk")]
    Progress(#[source] io::Error),
    /// A file could not be read. The spool does not read the file again until
    /// [`Spool::try_unreadable`](super::Spool::try_unreadable) is called.
    #[error("cannot read its file {name}: {source}; check the state of its disk")]
    Read {
        /// The name of the file in the folder of the spool.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A file that is not needed any longer could not be removed.
    #[error("cannot remove a file of the spool: {0}; check the permissions of its folder")]
    Remove(#[source] io::Error),
    /// An fsync failed, so records may not be on stable storage. The spool writes these records
    /// again until an fsync succeeds.
    #[error("cannot sync the spool to its disk: {0}; check the state of its disk")]
    Sync(#[source] io::Error),
    /// A job of the spool's thread has panicked.
    #[error("its thread met {0}")]
    Panic(String),
}

/// Bytes of a data file that are not a record. Each damage is reported once in a run.
#[derive(Debug, thiserror::Error)]
#[error("{cause}; {bytes} bytes skipped")]
pub struct Damage {
    /// How many bytes were skipped.
    pub bytes: u64,
    /// How many segments are known to be lost with the damaged bytes. For a file of this run the
    /// number is exact, but the loss of some segments may be reported only at the end of the file,
    /// with 0 bytes.
    pub segment_count: u64,
    /// The cause of the damage.
    pub cause: DamageCause,
}

/// The reason why some bytes of the spool are not a record.
#[derive(Debug, thiserror::Error)]
pub enum DamageCause {
    /// The file does not begin with the right bytes. Its records are read nevertheless.
    #[error("the header of the file is damaged")]
    FileHeader,
    /// The header of a record is damaged. Reading goes on at the next valid header.
    #[error("the header of a record is damaged")]
    RecordHeader,
    /// The payload of a record does not match its checksum. The record is skipped.
    #[error("the payload of a record is damaged")]
    Payload,
    /// The file ends within a record. This happens if the machine stops during a write.
    #[error("the file ends within a record")]
    Torn,
    /// Another program has removed the file or cut it short.
    #[error("the file, or a part of it, is gone")]
    Gone,
}
