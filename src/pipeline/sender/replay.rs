//! Reads records of the spool back into batches.
//!
//! In: how many batches to read. Out: the batches. Their records count as taken. Losses and errors
//! are in [`Done`]. If memory has no room for a whole record, the record is read as several
//! batches: each has as many documents as fit into a quarter of the unreserved memory. Bound: the
//! pool's memory, and [`SKIPPED_COUNT_MAX`] records in a job. Thread: the spool's.

use super::spool_job::Done;
use crate::base::account::{PerSignal, Signal};
use crate::base::clock::{Clock, Moment};
use crate::base::log::LogLimit;
use crate::base::memory::ChunkPool;
use crate::pipeline::batch::{Batch, RecordError, RecordTable, TABLE_BYTES_MAX};
use crate::pipeline::spool::{Next, Record, Spool, SpoolError};
use std::ops::Range;
use std::sync::Arc;
use tracing::error;

/// The largest number of records that one job tries to read, so that a damaged spool does not delay
/// writes.
const SKIPPED_COUNT_MAX: usize = 1000;

/// One batch gets one part in four of the unreserved memory. Reading begins while less than half of
/// the memory is used, so a quarter stays free, and no batch has to be evicted for the new one.
const MEMORY_SHARE: usize = 4;

static TOO_LARGE: PerSignal<LogLimit> =
    PerSignal::new(LogLimit::once_a_minute(), LogLimit::once_a_minute());

/// Why a record was not read.
enum Missed {
    /// The record could not be read and is not taken any longer. [`Next`] has the reason.
    Gone(Next),
    /// Memory has no room for the record now.
    MemoryShort,
    /// A document of the record is larger than memory, or the record has to be divided but cannot
    /// be.
    TooLarge,
    /// The record is intact, but is not a batch that this version of xrayd can read.
    NoBatch,
}

/// Reads up to `count` batches.
///
/// # Errors
///
/// Fails if a file cannot be read or a record cannot be settled. Batches read before the failure
/// are in `done`.
pub fn replay(
    spool: &mut Spool,
    count: usize,
    pool: &Arc<ChunkPool>,
    now: Moment,
    done: &mut Done,
) -> Result<(), SpoolError> {
    let mut skipped_count = 0;
    let mut result = Ok(());
    while done.read.len() < count && skipped_count < SKIPPED_COUNT_MAX && !pool.is_half_used() {
        skipped_count += 1;
        let record = match spool.next(now) {
            Next::Empty => {
                done.is_read_out = true;
                break;
            }
            Next::Record(record) => record,
            other => {
                note(other, done, &mut result);
                continue;
            }
        };
        match read(spool, &record, pool) {
            Ok(batch) => done.read.push((batch, record.id)),
            Err(Missed::Gone(next)) => note(next, done, &mut result),
            Err(Missed::MemoryShort) => {
                done.is_memory_short = true;
                let is_back = spool.release(record.id);
                debug_assert!(is_back, "no file was evicted since the record was taken");
                break;
            }
            Err(Missed::TooLarge) => {
                spool.set_aside(record.id);
                let signal = spool.signal();
                let item = match signal {
                    Signal::Segments => "a document",
                    Signal::Spans => "a request",
                };
                TOO_LARGE.of(signal).log(|more| {
                    error!(
                        "A batch of {} bytes in the spool of {signal} has {item} that is larger than \
                         memory (-m). The batch stays in the spool for a run with more memory{more}",
                        record.payload_bytes
                    );
                });
            }
            Err(Missed::NoBatch) => {
                done.damaged_record_count += 1;
                done.damaged_bytes += u64::from(record.payload_bytes);
                done.damaged_segment_count += record.taken.len() as u64;
                let what = "a record of the spool is no batch of this version of xrayd";
                done.damage = Some(what.to_owned());
                spool.settle(record.id)?;
            }
        }
    }
    result
}

/// Counts an expired, damaged or unreadable record.
fn note(next: Next, done: &mut Done, result: &mut Result<(), SpoolError>) {
    match next {
        Next::Empty | Next::Record(_) => {}
        Next::Expired { segment_count } => done.expired_count += u64::from(segment_count),
        Next::Damaged(name, damage) => {
            done.damaged_record_count += 1;
            done.damaged_bytes += damage.bytes;
            done.damaged_segment_count += damage.segment_count;
            done.damage = Some(format!("{name}: {damage}"));
        }
        Next::Unreadable(error) => {
            done.is_unreadable = true;
            *result = Err(error);
        }
    }
}

/// Reads a record, or as many of its documents as memory has room for. Puts the rest back.
fn read(spool: &mut Spool, record: &Record, pool: &Arc<ChunkPool>) -> Result<Batch, Missed> {
    let id = record.id;
    let mut start = [0; TABLE_BYTES_MAX];
    let start_bytes = TABLE_BYTES_MAX.min(record.payload_bytes as usize);
    spool.read(id, 0, &mut start[..start_bytes]).map_err(Missed::Gone)?;
    let payload_bytes = record.payload_bytes as usize;
    let table = RecordTable::decode(spool.signal(), &start[..start_bytes], payload_bytes)
        .filter(|table| table.items() == record.segment_count as usize)
        .ok_or(Missed::NoBatch)?;
    let Range { start: first, end } = record.taken;
    let documents = table.documents_with(first as usize..end as usize).ok_or(Missed::NoBatch)?;
    if table.chunk_count_most(documents.clone()) > pool.unreserved_count() {
        return Err(Missed::TooLarge);
    }
    let count = table.fitting_count(documents.clone(), pool.unreserved_count() / MEMORY_SHARE);
    if count < documents.len() {
        let item_count = table.item_count(documents.start..documents.start + count);
        if !spool.split(id, u32::try_from(item_count).unwrap_or(u32::MAX)) {
            return Err(Missed::TooLarge);
        }
    }
    let part = documents.start..documents.start + count;
    let oldest_at = Clock::instant().checked_sub(record.age).unwrap_or_else(Clock::instant);
    let read = table.read(part, oldest_at, pool, |at, bytes| spool.read(id, at as u64, bytes));
    read.map_err(|error| match error {
        RecordError::Memory(_) => Missed::MemoryShort,
        RecordError::Read(next) => Missed::Gone(next),
    })
}

#[cfg(test)]
mod tests {
    use super::super::spool_job::{Work, Writes};
    use super::super::spool_work::work;
    use super::*;
    use crate::base::memory::CHUNK_BYTES;
    use crate::pipeline::batch::test_batch;
    use crate::pipeline::call_limit::CallLimit;
    use crate::pipeline::spool::Options;
    use crate::pipeline::upload::{PendingBatch, Uploader};
    use std::time::Duration;
    use tokio::sync::oneshot;

    /// A document that takes `chunk_count` chunks.
    fn document(index: usize, chunk_count: usize) -> String {
        format!("{index:016}{}", "x".repeat(chunk_count * CHUNK_BYTES - 100))
    }

    fn pending(documents: impl IntoIterator<Item = String>) -> PendingBatch {
        let mut uploader = Uploader::new(oneshot::channel().1, CallLimit::Fixed(8), Arc::default());
        uploader.push(test_batch(documents));
        uploader.evict_oldest().unwrap()
    }

    /// Returns a spool with one record for each batch in `batches`.
    fn spool(folder: &tempfile::TempDir, batches: Vec<Vec<String>>) -> Spool {
        let (path, age_max) = (folder.path().to_owned(), Duration::from_secs(60));
        let (clock, options) =
            (Clock::default(), Options { path, size_bytes_max: 16 << 20, age_max });
        let mut spool = Spool::open(options, clock.now()).unwrap().0;
        let writes = Writes::new(batches.into_iter().map(pending).collect());
        let (pool, mut done) = (ChunkPool::new(10, 1), Done::default());
        work(&mut spool, &writes, Work::default(), &pool, &clock, &mut done);
        assert!(done.failure.is_none());
        spool
    }

    fn ids(batch: &Batch) -> Vec<usize> {
        batch.documents.iter().map(|document| document.id.as_str().parse().unwrap()).collect()
    }

    #[test]
    fn a_record_that_memory_has_no_room_for_comes_in_parts_as_room_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let large = (0..10).map(|index| document(index, 3)).collect();
        let mut spool = spool(&folder, vec![large, vec![document(10, 1)]]);
        // A quarter of the unreserved memory is eight chunks.
        let pool = ChunkPool::new(36, 4);
        let mut all = Vec::new();
        while all.len() < 11 {
            let mut done = Done::default();
            replay(&mut spool, 100, &pool, Clock::default().now(), &mut done).unwrap();
            assert!(!done.read.is_empty(), "{all:?}");
            assert!(pool.used() <= 24);
            for (batch, id) in done.read {
                assert!(batch.documents.len() <= 2);
                all.extend(ids(&batch));
                spool.settle(id).unwrap();
            }
            assert_eq!((pool.used(), spool.segment_count()), (0, 11 - all.len() as u64));
        }
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert_eq!(spool.size_bytes(), 0);
    }

    #[test]
    fn a_document_that_no_memory_is_enough_for_stays_with_its_record_and_others_come() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![document(0, 1), document(1, 7)];
        let mut spool = spool(&folder, vec![large, vec![document(2, 1)]]);
        let (pool, mut done) = (ChunkPool::new(10, 4), Done::default());
        replay(&mut spool, 100, &pool, Clock::default().now(), &mut done).unwrap();
        let [(batch, id)] = &done.read[..] else { panic!("{done:?}") };
        assert_eq!((ids(batch), done.is_read_out, done.is_memory_short), (vec![2], true, false));
        spool.settle(*id).unwrap();
        assert_eq!(spool.segment_count(), 2);
    }

    #[test]
    fn a_record_that_is_no_batch_is_counted_as_damaged_once_and_others_come() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder, vec![vec![document(0, 1)]]);
        let now = Clock::default().now();
        // As a version of xrayd with another format of records would leave it.
        let _ = spool.append(&[&[0xff; 100]], 7, now).unwrap();
        let (pool, mut done) = (ChunkPool::new(100, 4), Done::default());
        replay(&mut spool, 100, &pool, now, &mut done).unwrap();
        let [(batch, id)] = &done.read[..] else { panic!("{done:?}") };
        assert_eq!(ids(batch), [0]);
        spool.settle(*id).unwrap();
        assert_eq!((done.damaged_record_count, done.damaged_bytes), (1, 100));
        assert_eq!(done.damaged_segment_count, 7);
        assert!(done.damage.is_some_and(|what| what.contains("no batch")));
        assert_eq!((spool.segment_count(), spool.size_bytes()), (0, 0));
    }

    #[test]
    fn a_record_that_finds_no_memory_while_it_is_read_is_put_back_and_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = spool(&folder, vec![vec![document(0, 3), document(1, 3)]]);
        // Less than half of the memory is in use, but less than a batch needs is left.
        let pool = ChunkPool::new(24, 20);
        let held = [(); 2].map(|()| pool.take_for_batch());
        let (now, mut done) = (Clock::default().now(), Done::default());
        replay(&mut spool, 100, &pool, now, &mut done).unwrap();
        assert!(done.read.is_empty() && done.is_memory_short && !done.is_read_out, "{done:?}");
        assert_eq!(spool.segment_count(), 2);
        drop(held);
        let mut all = Vec::new();
        while all.len() < 2 {
            let mut done = Done::default();
            replay(&mut spool, 100, &pool, now, &mut done).unwrap();
            assert!(!done.read.is_empty(), "{all:?}");
            for (batch, id) in done.read {
                all.extend(ids(&batch));
                spool.settle(id).unwrap();
            }
        }
        assert_eq!((all, spool.segment_count()), (vec![0, 1], 0));
    }
}
