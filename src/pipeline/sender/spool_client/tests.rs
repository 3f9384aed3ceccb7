//! Tests of spool jobs that hang, panic or fail.

use super::super::spool_job::Hook;
use super::*;
use crate::base::account::DropReason;
use crate::base::conditions::Condition;
use crate::base::memory::ChunkPool;
use crate::pipeline::batch::test_batch;
use crate::pipeline::call_limit::CallLimit;
use crate::pipeline::spool::{FaultyDisk, Options};
use crate::pipeline::upload::Uploader;
use std::sync::mpsc;
use tokio::sync::oneshot;

fn options(folder: &tempfile::TempDir) -> Options {
    let (path, age_max) = (folder.path().to_owned(), Duration::from_secs(60));
    Options { path, size_bytes_max: 16 << 20, age_max }
}

/// Returns a spool client with an open spool.
async fn open(folder: &tempfile::TempDir) -> (SpoolClient, Arc<Account>) {
    open_on(FaultyDisk::default(), folder).await
}

async fn open_on(disk: FaultyDisk, folder: &tempfile::TempDir) -> (SpoolClient, Arc<Account>) {
    let disk = Arc::new(disk);
    let account = Arc::new(Account::new(1));
    let pool = ChunkPool::new(100, 8);
    let thread = SpoolThread::start_on(disk, options(folder), pool, Arc::clone(&account)).unwrap();
    let mut spool_client = SpoolClient::new(thread, Arc::clone(&account));
    spool_client.start_due(Instant::now());
    spool_client.event().await;
    (spool_client, account)
}

fn pending(ids: &[&str]) -> PendingBatch {
    let mut uploader = Uploader::new(oneshot::channel().1, CallLimit::Fixed(8), Arc::default());
    uploader.push(test_batch(ids.iter().map(|id| (*id).to_owned())));
    uploader.evict_oldest().unwrap()
}

#[tokio::test]
async fn a_job_that_hangs_keeps_what_it_has_written_and_begins_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    for ids in [&["a", "b", "c"][..], &["d", "e"], &["f"]] {
        spool_client.write(pending(ids));
    }
    let (go_on, waits) = mpsc::channel();
    let (reached, is_reached) = oneshot::channel();
    let mut reached = Some(reached);
    spool_client.work.before_write = Hook(Some(Box::new(move |index| {
        if index == 1 {
            reached.take().unwrap().send(()).unwrap();
            waits.recv().unwrap();
        }
    })));
    spool_client.start_due(Instant::now());
    is_reached.await.unwrap();
    let State::Open { job: Some(writes), .. } = &spool_client.state else { panic!("no job runs") };
    let writes = Arc::clone(writes);
    assert_eq!((spool_client.segment_count(), writes.written_count()), (6, 1));
    assert_eq!((spool_client.drop_all(), account.spooled.get()), (3, 3));
    assert_eq!(spool_client.segment_count(), 0);
    go_on.send(()).unwrap();
    let _ = spool_client.thread.result().await;
    assert_eq!(writes.written_count(), 2, "it ends with the one that it was writing");
}

#[tokio::test]
async fn a_job_that_panics_gives_back_what_it_has_not_written_and_the_spool_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    for ids in [&["a", "b", "c"][..], &["d", "e"], &["f"]] {
        spool_client.write(pending(ids));
    }
    spool_client.work.before_write = Hook(Some(Box::new(|index| {
        assert!(index != 1, "injected");
    })));
    let now = Instant::now();
    spool_client.start_due(now);
    spool_client.event().await;
    let unwritten: Vec<usize> =
        spool_client.unwritten().iter().map(|pending| pending.batch.documents.len()).collect();
    assert_eq!((unwritten, account.spooled.get()), (vec![2, 1], 3));
    assert_eq!(account.spool.errors.get(), 1);
    assert!(account.conditions.has(Condition::SpoolFailing) && !spool_client.is_working());
    let [condition] = &account.conditions.active()[..] else { panic!("one") };
    assert!(condition.reason.contains("a fault in the program"), "{}", condition.reason);
    // The spool works again after the pause, and has the record that was written before.
    let due = spool_client.next_due().unwrap();
    assert!(due > now);
    spool_client.start_due(due);
    spool_client.event().await;
    assert!(spool_client.is_working() && spool_client.may_have_more());
    assert!(!account.conditions.has(Condition::SpoolFailing));
    spool_client.ask(8);
    spool_client.start_due(due);
    spool_client.event().await;
    let read = spool_client.read(due);
    assert_eq!((read.len(), read[0].0.documents.len(), account.replayed.get()), (1, 3, 3));
    assert_eq!(account.dropped_total(), 0);
}

#[tokio::test]
async fn what_was_taken_before_a_panic_is_neither_lost_nor_counted_as_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    let now = Instant::now();
    spool_client.write(pending(&["a", "b", "c"]));
    spool_client.start_due(now);
    spool_client.event().await;
    spool_client.ask(8);
    spool_client.start_due(now);
    spool_client.event().await;
    let mut uploader =
        Uploader::new(oneshot::channel().1, CallLimit::Fixed(8), Arc::clone(&account));
    for (batch, record) in spool_client.read(now) {
        uploader.push_spooled(batch, record);
    }
    spool_client.write(pending(&["d"]));
    spool_client.work.before_write = Hook(Some(Box::new(|_| panic!("injected"))));
    spool_client.start_due(now);
    spool_client.event().await;
    let due = spool_client.next_due().unwrap();
    spool_client.start_due(due);
    spool_client.event().await;
    // The record is still in the spool. It was taken before the panic, so the spool that is open
    // now does not count it as taken.
    spool_client.write(uploader.evict_oldest().unwrap());
    spool_client.ask(8);
    spool_client.start_due(due);
    spool_client.event().await;
    assert_eq!(account.dropped(DropReason::SpoolFull).get(), 0);
    assert_eq!((spool_client.read(due).len(), account.replayed.get()), (1, 6));
}

#[tokio::test]
async fn after_a_failed_write_what_was_written_before_is_synced_within_the_promised_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    let mut now = Instant::now();
    spool_client.write(pending(&["a"]));
    spool_client.start_due(now);
    spool_client.event().await;
    // The next write needs a new file because the clock was set. This fails: a folder has the name
    // of that file.
    let year = Duration::from_secs(365 * 24 * 3600);
    account.clock.confirm_date(std::time::SystemTime::now() + year);
    std::fs::create_dir(folder.path().join("0000000002.spool")).unwrap();
    spool_client.write(pending(&["b"]));
    spool_client.start_due(now);
    spool_client.event().await;
    assert_eq!((spool_client.unwritten().len(), spool_client.is_working()), (1, false));
    now = spool_client.next_due().unwrap();
    assert!(now <= Instant::now() + SYNC_DELAY);
    spool_client.start_due(now);
    let is_busy = matches!(spool_client.state, State::Open { job: Some(_), .. });
    assert!(is_busy, "it is synced while it rests");
    spool_client.event().await;
    assert!(!spool_client.timers.is_set(Timer::Sync));
    assert!(account.conditions.has(Condition::SpoolFailing) && !spool_client.is_working());
}

#[tokio::test]
async fn a_sync_that_fails_is_a_condition_until_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (mut spool_client, account) = open_on(disk.clone(), &folder).await;
    spool_client.write(pending(&["a"]));
    spool_client.start_due(Instant::now());
    spool_client.event().await;
    // The fsyncs of the data file, of the folder and of the copy fail.
    disk.fail_syncs(0, 3);
    spool_client.write(pending(&["b", "c"]));
    spool_client.work.is_sync_due = true;
    spool_client.start_due(Instant::now());
    spool_client.event().await;
    assert_eq!(account.spooled.get(), 3);
    assert!(account.conditions.has(Condition::SpoolFailing) && !spool_client.is_working());
    assert_eq!(account.spool.errors.get(), 1);
    let due = Instant::now() + RETRY_PAUSE;
    spool_client.start_due(due);
    spool_client.event().await;
    assert!(!account.conditions.has(Condition::SpoolFailing) && spool_client.is_working());
    assert_eq!((spool_client.timers.is_set(Timer::Sync), account.dropped_total()), (false, 0));
    spool_client.ask(8);
    spool_client.start_due(due);
    spool_client.event().await;
    assert_eq!(spool_client.read(due).len(), 2);
}

#[tokio::test]
async fn what_was_read_and_not_taken_from_here_is_left_in_the_spool_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    spool_client.write(pending(&["a", "b", "c"]));
    spool_client.finish().await;
    spool_client.ask(8);
    spool_client.start_due(Instant::now());
    spool_client.event().await;
    assert_eq!((account.spooled.get(), account.replayed.get()), (3, 3));
    assert_eq!((spool_client.drop_all(), account.spooled.get()), (0, 6));
}

#[tokio::test]
async fn parts_of_a_batch_whose_file_was_evicted_are_lost_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool_client, account) = open(&folder).await;
    let now = Instant::now();
    spool_client.write(pending(&["a", "b", "c"]));
    spool_client.finish().await;
    spool_client.ask(8);
    spool_client.start_due(now);
    spool_client.event().await;
    let (batch, record) = spool_client.read(now).pop().unwrap();
    let mut uploader = Uploader::new(oneshot::channel().1, CallLimit::Fixed(8), Arc::default());
    uploader.push_spooled(batch, record);
    let whole = uploader.evict_oldest().unwrap();
    let part =
        |ids: &[&str], first| whole.part(test_batch(ids.iter().map(|id| (*id).to_owned())), first);
    let parts = [part(&["a"], 0), part(&["b", "c"], 1)];
    assert_eq!((spool_client.leave(&parts), account.spooled.get()), (0, 6));
    // Batches of 2.5 MB each, in a spool of 16 MiB.
    let large = "x".repeat(2_500_000);
    for _ in 0..8 {
        spool_client.write(pending(&[&large]));
        spool_client.finish().await;
    }
    assert!(account.dropped(DropReason::SpoolFull).get() > 0, "files were evicted");
    let spooled_count = account.spooled.get();
    assert_eq!((spool_client.leave(&parts), account.spooled.get()), (3, spooled_count));
}
