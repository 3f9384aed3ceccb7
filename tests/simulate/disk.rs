//! A disk in memory: it fills, fails, lies about fsync and loses power.
//!
//! In: the calls of the spool. Out: their results. The disk keeps what is in the system's cache
//! apart from what is on stable storage. [`MemoryDisk::lose_power`] keeps what was synced, and of
//! the rest any legal part (the model of ALICE, OSDI 2014): each write may be there, be missing, or
//! be torn at the border of a block; a name may have any of the states that it had since the folder
//! was last synced. Bound: the memory of the machine.

use super::format::Files;
use super::history::History;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use xrayd::pipeline::spool::{Access, Disk, DiskFile, DiskFolder, SpoolError, Stat};

/// The error EIO of Linux.
const EIO: i32 = 5;

/// How the disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Every call succeeds.
    Works,
    /// The files may have this many bytes together.
    Full { capacity_bytes: u64 },
    /// This percentage of the calls of each kind fails with EIO.
    Fails { read: u8, write: u8, sync: u8 },
    /// An fsync returns a success and does nothing.
    Lies,
    /// Each job waits for this time.
    Slow { pause_ms: u64 },
}

impl Mood {
    /// Returns the name of the mood in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Works => "the disk works",
            Self::Full { .. } => "the disk is full",
            Self::Fails { .. } => "the disk fails",
            Self::Lies => "the disk lies",
            Self::Slow { .. } => "the disk is slow",
        }
    }
}

/// A change of a file that is not on stable storage.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLength(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// The content in the system's cache.
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last fsync. Those before `lost_count` were there at an fsync that failed:
    /// the system has marked them as clean, so no later fsync writes them.
    changes: Vec<Change>,
    lost_count: usize,
    /// The offset of each write and its time in milliseconds.
    written_at: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// The states of each changed name since the folder was last synced, the first of them on
    /// stable storage.
    name_states: BTreeMap<String, Vec<Option<usize>>>,
    is_locked: bool,
    block_bytes: usize,
    mood: Mood,
    random: fastrand::Rng,
    call_count: u64,
    /// The disk stops before this call. From then on, every call fails and changes nothing.
    cut_at: Option<u64>,
    is_cut: bool,
    has_failed: bool,
    failed_at_ms: Option<u64>,
    has_lied: bool,
    /// The largest sum of the sizes of all files just before a data file was removed.
    full_bytes: u64,
    /// The size of the largest write in bytes.
    write_bytes: u64,
    history: Option<History>,
}

/// The disk. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    cut: Arc<Notify>,
}

impl MemoryDisk {
    /// An empty disk with blocks of this size, which draws from `random`.
    pub fn new(block_bytes: usize, random: fastrand::Rng, history: Option<History>) -> Self {
        let state = State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            name_states: BTreeMap::new(),
            is_locked: false,
            block_bytes,
            mood: Mood::Works,
            random,
            call_count: 0,
            cut_at: None,
            is_cut: false,
            has_failed: false,
            failed_at_ms: None,
            has_lied: false,
            full_bytes: 0,
            write_bytes: 0,
            history,
        };
        Self { state: Arc::new(Mutex::new(state)), cut: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the disk behave like this from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Returns how long a job waits before it begins, in milliseconds.
    pub fn pause_ms(&self) -> u64 {
        let mut state = self.lock();
        match state.mood {
            Mood::Slow { pause_ms } => pause_ms,
            _ => state.random.u64(0..15),
        }
    }

    /// Returns whether jobs wait.
    pub fn is_slow(&self) -> bool {
        matches!(self.lock().mood, Mood::Slow { .. })
    }

    /// Stops the disk before the call after the next `count` calls.
    pub fn cut_after(&self, count: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.call_count + count);
    }

    /// Waits until the disk has stopped.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Lets the disk work again after it has stopped, and forgets its faults.
    pub fn restart(&self) {
        let mut state = self.lock();
        (state.cut_at, state.is_cut, state.is_locked) = (None, false, false);
        (state.has_failed, state.has_lied, state.failed_at_ms) = (false, false, None);
    }

    /// Returns whether a call has failed since the last [`restart`](Self::restart).
    pub fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    /// Returns the time of the last call that failed since the last [`restart`](Self::restart), in
    /// milliseconds.
    pub fn failed_at_ms(&self) -> Option<u64> {
        self.lock().failed_at_ms
    }

    /// Returns whether an fsync has lied since the last [`restart`](Self::restart).
    pub fn has_lied(&self) -> bool {
        self.lock().has_lied
    }

    /// Returns how many calls were made.
    pub fn call_count(&self) -> u64 {
        self.lock().call_count
    }

    /// Returns the largest sum of the sizes of all files just before a data file was removed, since
    /// the last call. Returns the size of the largest write too.
    pub fn take_full_bytes(&self) -> (u64, u64) {
        let mut state = self.lock();
        (std::mem::take(&mut state.full_bytes), state.write_bytes)
    }

    /// Returns the names, the bytes and the times of the writes of all files.
    pub fn files(&self) -> Files {
        let state = self.lock();
        let file = |(name, &inode): (&String, &usize)| {
            let inode = &state.inodes[inode];
            (name.clone(), inode.bytes.clone(), inode.written_at.clone())
        };
        state.names.iter().map(file).collect()
    }

    /// Puts a file onto stable storage, as an earlier run has left it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        let (durable, written_at) = (bytes.clone(), vec![(0, 0)]);
        state.inodes.push(Inode { bytes, durable, written_at, ..Inode::default() });
        state.names.insert(name.to_owned(), inode);
    }

    /// Returns a disk with the same content and the same open changes.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let copy = State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            name_states: state.name_states.clone(),
            random: state.random.clone(),
            history: None,
            is_locked: false,
            ..*state
        };
        Self { state: Arc::new(Mutex::new(copy)), cut: Arc::default() }
    }

    /// Loses power: stable storage is all that is left. `pick` chooses among the legal states: it
    /// gets the number of states and returns the number of one.
    pub fn lose_power(&self, pick: &mut dyn FnMut(usize) -> usize) {
        self.lock().lose_power(pick);
    }

    /// Loses power with a random legal state.
    pub fn lose_power_at_random(&self) {
        let mut random = self.lock().random.fork();
        self.lose_power(&mut |count| random.usize(..count));
    }
}

impl State {
    /// Begins a call of the kind `name`. `percent` is how often such a call fails.
    fn begin(&mut self, name: &'static str, inode: u64, cut: &Notify) -> io::Result<()> {
        if self.is_cut || self.cut_at == Some(self.call_count) {
            self.is_cut = true;
            cut.notify_one();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.call_count += 1;
        if let Some(history) = &self.history {
            history.note(name, inode, 0);
        }
        let percent = match self.mood {
            Mood::Fails { read, write, sync } => match name {
                "disk read" | "disk open" => read,
                "disk write" | "disk name" => write,
                _ => sync,
            },
            _ => 0,
        };
        if percent > 0 && self.random.u8(..100) < percent {
            self.fail();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.failed_at_ms = self.history.as_ref().map(History::now_ms);
    }

    fn total_bytes(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].bytes.len() as u64).sum()
    }

    /// Gives a name another state, and remembers the state before.
    fn set_name(&mut self, name: &str, inode: Option<usize>) {
        let before = match inode {
            Some(inode) => self.names.insert(name.to_owned(), inode),
            None => self.names.remove(name),
        };
        self.name_states.entry(name.to_owned()).or_insert_with(|| vec![before]).push(inode);
    }

    fn lose_power(&mut self, pick: &mut dyn FnMut(usize) -> usize) {
        for (name, states) in std::mem::take(&mut self.name_states) {
            match states[pick(states.len())] {
                Some(inode) => _ = self.names.insert(name, inode),
                None => _ = self.names.remove(&name),
            }
        }
        let linked: Vec<usize> = self.names.values().copied().collect();
        for inode in linked {
            let Inode { durable, changes, .. } = &mut self.inodes[inode];
            let mut left = std::mem::take(durable);
            for change in std::mem::take(changes) {
                change.apply_part(&mut left, self.block_bytes, pick);
            }
            let (bytes, written_at) = (left.clone(), Vec::new());
            self.inodes[inode] = Inode { bytes, durable: left, written_at, ..Inode::default() };
        }
        (self.is_cut, self.cut_at, self.is_locked) = (false, None, false);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(to, *offset, bytes),
            Self::SetLength(length) => to.resize(*length, 0),
        }
    }

    /// Applies what is left of the change after a loss of power.
    fn apply_part(
        &self,
        to: &mut Vec<u8>,
        block_bytes: usize,
        pick: &mut dyn FnMut(usize) -> usize,
    ) {
        let Self::Write { offset, bytes } = self else {
            if pick(2) == 0 {
                self.apply(to);
            }
            return;
        };
        let end = offset + bytes.len();
        // The border of a block near the middle of the write.
        let border = (offset + bytes.len() / 2).next_multiple_of(block_bytes);
        let is_torn = *offset < border && border < end;
        match pick(if is_torn { 5 } else { 3 }) {
            0 => self.apply(to),
            1 => {}
            // The size has changed, but the bytes were not written.
            2 => to.resize(to.len().max(end), 0),
            3 => write(to, *offset, &bytes[..border - offset]),
            _ => write(to, border, &bytes[border - offset..]),
        }
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

#[derive(Debug)]
struct Folder(MemoryDisk);

#[derive(Debug)]
struct OpenFile {
    disk: MemoryDisk,
    inode: usize,
}

impl Disk for MemoryDisk {
    fn create_folder(&self, _: &Path) -> Result<(), SpoolError> {
        Ok(())
    }

    fn open_folder(&self, path: &Path) -> Result<(Box<dyn DiskFolder>, Option<u32>), SpoolError> {
        let mut state = self.lock();
        if state.is_locked {
            return Err(SpoolError::Locked { path: path.to_owned() });
        }
        state
            .begin("disk open", 0, &self.cut)
            .map_err(|source| SpoolError::Folder { path: path.to_owned(), source })?;
        state.is_locked = true;
        Ok((Box::new(Folder(self.clone())), None))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.0.lock().is_locked = false;
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl DiskFolder for Folder {
    fn is_removed(&self) -> bool {
        false
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        let names: Vec<String> = self.0.lock().names.keys().cloned().collect();
        names.iter().try_for_each(|name| each(name))
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        let state = self.0.lock();
        let inode = *state.names.get(name).ok_or_else(missing)?;
        Ok(Stat { is_file: true, length_bytes: state.inodes[inode].bytes.len() as u64 })
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        let found = state.names.get(name).copied();
        let number = found.unwrap_or(state.inodes.len());
        let kind = if access == Access::Read { "disk open" } else { "disk name" };
        state.begin(kind, number as u64, &self.0.cut)?;
        let inode = match (access, found) {
            (Access::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::Create, None) => {
                state.inodes.push(Inode::default());
                state.set_name(name, Some(number));
                number
            }
            (_, found) => found.ok_or_else(missing)?,
        };
        Ok(Box::new(OpenFile { disk: self.0.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = *state.names.get(from).ok_or_else(missing)?;
        state.begin("disk name", inode as u64, &self.0.cut)?;
        state.set_name(to, Some(inode));
        state.set_name(from, None);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = *state.names.get(name).ok_or_else(missing)?;
        state.begin("disk name", inode as u64, &self.0.cut)?;
        if name.ends_with(".spool") || name.ends_with(".spans") {
            state.full_bytes = state.full_bytes.max(state.total_bytes());
        }
        state.set_name(name, None);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin("disk sync", 0, &self.0.cut)?;
        if state.mood == Mood::Lies {
            state.has_lied = true;
            return Ok(());
        }
        state.name_states.clear();
        Ok(())
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.begin("disk read", self.inode as u64, &self.disk.cut)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.inodes[self.inode].bytes.get(start..start.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, pieces: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let now_ms = state.history.as_ref().map_or(0, History::now_ms);
        let mut bytes: Vec<u8> = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        let was_cut = state.is_cut;
        let mut result = state.begin("disk write", self.inode as u64, &self.disk.cut);
        if was_cut {
            return result;
        }
        state.write_bytes = state.write_bytes.max(bytes.len() as u64);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if result.is_err() {
            // A part of the bytes was written before the error.
            let length = bytes.len();
            bytes.truncate(state.random.usize(..=length));
        } else if let Mood::Full { capacity_bytes } = state.mood {
            let file_bytes = state.inodes[self.inode].bytes.len() as u64;
            let grown_bytes = (offset + bytes.len() as u64).saturating_sub(file_bytes);
            let free_bytes = capacity_bytes.saturating_sub(state.total_bytes());
            if grown_bytes > free_bytes {
                state.fail();
                let length = file_bytes.saturating_add(free_bytes).saturating_sub(offset);
                bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
                result = Err(io::ErrorKind::StorageFull.into());
            }
        }
        let inode = &mut state.inodes[self.inode];
        write(&mut inode.bytes, start, &bytes);
        inode.written_at.push((offset, now_ms));
        inode.changes.push(Change::Write { offset: start, bytes });
        result
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.begin("disk write", self.inode as u64, &self.disk.cut)?;
        let length = usize::try_from(length_bytes).unwrap_or(usize::MAX);
        let inode = &mut state.inodes[self.inode];
        inode.bytes.resize(length, 0);
        inode.changes.push(Change::SetLength(length));
        Ok(())
    }

    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let synced = state.begin("disk sync", self.inode as u64, &self.disk.cut);
        if state.is_cut {
            return synced;
        }
        if synced.is_ok() && state.mood == Mood::Lies {
            state.has_lied = true;
            return synced;
        }
        let inode = &mut state.inodes[self.inode];
        if synced.is_err() {
            inode.lost_count = inode.changes.len();
            return synced;
        }
        for change in inode.changes.drain(inode.lost_count..) {
            change.apply(&mut inode.durable);
        }
        synced
    }

    fn is_removed(&self) -> bool {
        !self.disk.lock().names.values().any(|&inode| inode == self.inode)
    }
}
