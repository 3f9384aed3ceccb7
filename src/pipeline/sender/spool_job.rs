//! A turn of the spool: all that has come together since the last one, on the spool's thread.
//!
//! In: attempts to write, and [`Work`]. Out: [`Done`], for the
//! [`Spooler`](super::spooler::Spooler) to count and to say. Bound: what the spooler asks for. May
//! wait for the disk.

use super::replay::replay;
use super::spool_thread::Sizes;
use crate::base::clock::Clock;
use crate::base::memory::Pool;
use crate::pipeline::batch::Batch;
use crate::pipeline::spool::{Evicted, RecordId, Removal, Spool, SpoolError};
use crate::pipeline::upload::Attempt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Attempts on their way to the disk, shared by the turn that writes them and the thread that
/// counts them.
#[derive(Debug, Default)]
pub struct Writes {
    /// In the order in which they are written.
    pub attempts: Vec<Attempt>,
    written_count: AtomicUsize,
    is_given_up: AtomicBool,
}

impl Writes {
    /// None of them is written yet.
    pub fn new(attempts: Vec<Attempt>) -> Self {
        Self { attempts, ..Self::default() }
    }

    /// How many of them, from the first on, are in the spool.
    pub fn written_count(&self) -> usize {
        self.written_count.load(Ordering::Acquire)
    }

    /// Has the turn begin no more of them; the one that it is writing may still get there.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

/// What the next turn is to do beside writing.
#[derive(Debug, Default)]
pub struct Work {
    pub settled: Vec<RecordId>,
    /// With the number of segments in each.
    pub released: Vec<(RecordId, u64)>,
    pub read_count: usize,
    pub is_sync_due: bool,
    /// Whether files that could not be read are tried again.
    pub is_retry_due: bool,
    /// To find out whether it can be written to, if nothing else does.
    pub is_probe_due: bool,
    #[cfg(test)]
    pub before_write: Hook,
}

/// What a test has done before an attempt is written, whose index it gets: a panic, or a wait.
#[cfg(test)]
#[derive(Default)]
pub struct Hook(pub Option<Box<dyn FnMut(usize) + Send>>);

#[cfg(test)]
impl std::fmt::Debug for Hook {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.0.is_some())
    }
}

/// What a turn has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Whether it was found out that it can be written to, or cannot.
    pub has_probed: bool,
    pub read: Vec<(Batch, RecordId)>,
    /// Whether nothing was left to be read.
    pub is_read_out: bool,
    pub displaced_count: u64,
    pub expired_count: u64,
    pub damaged_record_count: u64,
    pub damaged_bytes: u64,
    /// Segments that are known to be lost with those.
    pub damaged_segment_count: u64,
    /// What the last of them was.
    pub damage: Option<String>,
    /// Whether a file could not be read, which is `condition` too.
    pub is_unreadable: bool,
    /// Whether memory had no room for the next record.
    pub is_memory_short: bool,
    /// How large the spool is now.
    pub sizes: Sizes,
    /// Whether it was tried to bring what was written to the disk.
    pub has_tried_to_sync: bool,
    /// Whether that has failed.
    pub is_unsynced: bool,
    /// What another program has removed.
    pub removal: Option<Removal>,
    /// Why something could not be written, or brought to disk.
    pub failure: Option<SpoolError>,
    /// Why something else could not be done.
    pub condition: Option<SpoolError>,
}

impl Done {
    /// Counts what was evicted.
    pub fn note_evicted(&mut self, evicted: Evicted) {
        self.displaced_count += evicted.segment_count;
        if evicted.unknown_bytes > 0 {
            self.damaged_record_count += 1;
            self.damaged_bytes += evicted.unknown_bytes;
            let what = "a file was evicted of which a part could not be read";
            self.damage = Some(what.to_owned());
        }
    }
}

/// Does all the work of a turn: first what makes segments safer, then what frees the disk.
///
/// A failure ends the writing, and whatever else there is to do is done all the same.
pub fn turn(
    spool: &mut Spool,
    writes: &Writes,
    mut work: Work,
    pool: &Arc<Pool>,
    clock: &Clock,
    done: &mut Done,
) {
    done.failure = write(spool, writes, &mut work, clock, done).err();
    if work.is_probe_due && writes.attempts.is_empty() {
        done.failure = spool.probe().err();
        done.has_probed = true;
    }
    done.removal = spool.removal();
    let mut rest = Ok(());
    for record in work.settled {
        rest = rest.and(spool.settle(record));
    }
    for (record, segment_count) in work.released {
        if !spool.release(record) {
            done.displaced_count += segment_count;
        }
    }
    if work.is_sync_due {
        let synced = spool.sync();
        (done.has_tried_to_sync, done.is_unsynced) = (true, synced.is_err());
        done.failure = done.failure.take().or(synced.err());
    }
    if work.is_retry_due {
        spool.try_unreadable();
    }
    rest = rest.and(replay(spool, work.read_count, pool, clock.now(), done));
    done.condition = rest.err();
}

fn write(
    spool: &mut Spool,
    writes: &Writes,
    _work: &mut Work,
    clock: &Clock,
    done: &mut Done,
) -> Result<(), SpoolError> {
    for (index, Attempt { batch, .. }) in writes.attempts.iter().enumerate() {
        if writes.is_given_up.load(Ordering::Relaxed) {
            break;
        }
        #[cfg(test)]
        if let Some(hook) = &mut _work.before_write.0 {
            hook(index);
        }
        let made = clock.now().before(batch.oldest_at.elapsed());
        let table = batch.record_table();
        let pieces: Vec<&[u8]> =
            std::iter::once(&table[..]).chain(batch.body.iter().map(|piece| &piece[..])).collect();
        let segment_count = u32::try_from(batch.documents.len()).unwrap_or(u32::MAX);
        match spool.append(&pieces, segment_count, made) {
            Ok(evicted) => done.note_evicted(evicted),
            Err(error) => {
                done.note_evicted(error.evicted);
                return Err(error.cause);
            }
        }
        writes.written_count.store(index + 1, Ordering::Release);
    }
    Ok(())
}
