//! A disk for tests: the machine's file system, where a test can make calls of fsync and removals
//! fail.

use super::super::disk::{Access, Disk, DiskFile, DiskFolder, Stat, SystemDisk};
use super::super::error::SpoolError;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How many of the next calls of fsync succeed, and how many calls after them fail.
type Faults = Arc<Mutex<(u32, u32)>>;

/// A disk whose calls of fsync and removals can fail.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Faults, Arc<AtomicBool>);

impl FaultyDisk {
    /// Lets the next `pass_count` calls of fsync succeed and the `fail_count` calls after them
    /// fail.
    pub fn fail_syncs(&self, pass_count: u32, fail_count: u32) {
        *self.0.lock().unwrap() = (pass_count, fail_count);
    }

    /// Makes removals of files fail from now on, or succeed.
    pub fn fail_removals(&self, fail: bool) {
        self.1.store(fail, Ordering::Relaxed);
    }
}

/// Counts a call of fsync. Returns an error if this call has to fail.
fn count(faults: &Faults) -> io::Result<()> {
    let mut counts = faults.lock().unwrap();
    match *counts {
        (0, 0) => Ok(()),
        (0, fail_count) => {
            *counts = (0, fail_count - 1);
            Err(Errno::IO.into())
        }
        (pass_count, fail_count) => {
            *counts = (pass_count - 1, fail_count);
            Ok(())
        }
    }
}

impl Disk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> Result<(), SpoolError> {
        SystemDisk.create_folder(path)
    }

    fn open_folder(&self, path: &Path) -> Result<(Box<dyn DiskFolder>, Option<u32>), SpoolError> {
        let (folder, tightened_from) = SystemDisk.open_folder(path)?;
        Ok((Box::new(FaultyFolder(folder, self.clone())), tightened_from))
    }
}

#[derive(Debug)]
struct FaultyFolder(Box<dyn DiskFolder>, FaultyDisk);

impl DiskFolder for FaultyFolder {
    fn is_removed(&self) -> bool {
        self.0.is_removed()
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        self.0.names(each)
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        self.0.stat(name)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(self.0.open(name, access)?, Arc::clone(&self.1.0))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.1.1.load(Ordering::Relaxed) {
            return Err(Errno::IO.into());
        }
        self.0.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        count(&self.1.0)?;
        self.0.sync()
    }
}

#[derive(Debug)]
struct FaultyFile(Box<dyn DiskFile>, Faults);

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, pieces: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(pieces, offset)
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_length(length_bytes)
    }

    fn length_bytes(&self) -> io::Result<u64> {
        self.0.length_bytes()
    }

    fn sync(&self) -> io::Result<()> {
        count(&self.1)?;
        self.0.sync()
    }

    fn is_removed(&self) -> bool {
        self.0.is_removed()
    }
}
