//! Does the work of a spool job, on the spool's thread.
//!
//! In: pending batches to write, and [`Work`]. Out: [`Done`]. Bound: the size of the job. Thread:
//! the spool's, which may wait for the disk.

use super::replay::replay;
use super::spool_job::{Done, Work, Writes};
use crate::base::clock::Clock;
use crate::base::memory::ChunkPool;
use crate::pipeline::spool::{Spool, SpoolError};
use crate::pipeline::upload::PendingBatch;
use std::sync::Arc;

/// Does all the work of a job. Writes pending batches first. Then settles records, which frees room
/// on the disk, syncs, and reads.
///
/// If a write fails, the job writes no more pending batches, but it does the rest of its work.
pub fn work(
    spool: &mut Spool,
    writes: &Writes,
    mut work: Work,
    pool: &Arc<ChunkPool>,
    clock: &Clock,
    done: &mut Done,
) {
    done.failure = write(spool, writes, &mut work, clock, done).err();
    if work.is_probe_due && writes.pending_batches.is_empty() {
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
            done.evicted_count += segment_count;
        }
    }
    if work.is_sync_due {
        let synced = spool.sync();
        (done.has_tried_to_sync, done.is_unsynced) = (true, synced.is_err());
        done.failure = done.failure.take().or(synced.err());
    }
    if work.is_retry_due {
        spool.try_unreadable();
        rest = rest.and(spool.settle_again());
    }
    rest = rest.and(replay(spool, work.read_count, pool, clock.now(), done));
    done.condition = rest.err();
    done.is_behind = spool.is_behind();
}

/// Writes the pending batches one by one. `_work` has the hook of a test.
fn write(
    spool: &mut Spool,
    writes: &Writes,
    _work: &mut Work,
    clock: &Clock,
    done: &mut Done,
) -> Result<(), SpoolError> {
    for (index, PendingBatch { batch, .. }) in writes.pending_batches.iter().enumerate() {
        if writes.is_cancelled() {
            break;
        }
        #[cfg(test)]
        if let Some(hook) = &mut _work.before_write.0 {
            hook(index);
        }
        let age = Clock::instant().saturating_duration_since(batch.oldest_at);
        let made = clock.now().before(age);
        let table = batch.record_table();
        let pieces: Vec<&[u8]> =
            std::iter::once(&table[..]).chain(batch.body.iter().map(|piece| &piece[..])).collect();
        let segment_count = u32::try_from(batch.item_count()).unwrap_or(u32::MAX);
        match spool.append(&pieces, segment_count, made) {
            Ok(evicted) => done.note_evicted(evicted),
            Err(error) => {
                done.note_evicted(error.evicted);
                return Err(error.cause);
            }
        }
        writes.set_written_count(index + 1);
    }
    Ok(())
}
