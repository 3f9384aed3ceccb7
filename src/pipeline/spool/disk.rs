//! The calls that bring a spool to the disk itself, in one place so that a test can have them fail.

use rustix::fs::fsync;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Brings what was written to a file to disk.
pub fn sync_file(file: &File) -> io::Result<()> {
    #[cfg(test)]
    faults::take()?;
    file.sync_data()
}

/// Brings the names in a folder to disk.
pub fn sync_folder(folder: impl AsFd) -> io::Result<()> {
    #[cfg(test)]
    faults::take()?;
    Ok(fsync(folder)?)
}

/// Calls that fail, by thread.
#[cfg(test)]
pub mod faults {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static COUNTS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    }

    /// Has `fail_count` calls of this thread fail after `pass_count` that do not.
    pub fn set(pass_count: u32, fail_count: u32) {
        COUNTS.set((pass_count, fail_count));
    }

    pub(super) fn take() -> io::Result<()> {
        match COUNTS.get() {
            (0, 0) => Ok(()),
            (0, fail_count) => {
                COUNTS.set((0, fail_count - 1));
                Err(rustix::io::Errno::IO.into())
            }
            (pass_count, fail_count) => {
                COUNTS.set((pass_count - 1, fail_count));
                Ok(())
            }
        }
    }
}
