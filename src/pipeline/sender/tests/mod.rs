//! Tests of the sender: the account compared with the segments that the sender holds, eviction, and
//! the end of the sender.

mod spans;

use super::*;
use crate::aws::Service;
use crate::base::clock::Moment;
use crate::base::conditions::Condition;
use crate::base::host::{Host, QueueGrant};
use crate::pipeline::batch::test_batch;
use crate::pipeline::call_limit::CallLimit;
use crate::pipeline::limits::Wanted;
use crate::pipeline::ring::Producer;
use crate::pipeline::segment::Parser;
use crate::pipeline::spool;
use std::task::{Context, Waker};
use tokio::sync::oneshot;

/// A sender without a route, which holds all segments that it gets.
fn sender() -> (Sender, Producer, Arc<Account>) {
    sender_with(oneshot::channel().1)
}

fn sender_with(arrival: oneshot::Receiver<Box<dyn Service>>) -> (Sender, Producer, Arc<Account>) {
    sender_with_spool(arrival, None)
}

fn sender_with_spool(
    arrival: oneshot::Receiver<Box<dyn Service>>,
    spool: Option<spool::Options>,
) -> (Sender, Producer, Arc<Account>) {
    let host = Host {
        memory_bytes: 1 << 30,
        cgroup_limit_bytes: None,
        descriptor_count_max: 1024,
        processor_count: 1,
        queues: QueueGrant::ANY,
    };
    let wanted = Wanted { buffer_size_mb: 8, receiver_count: 1, ..Wanted::default() };
    let limits = Limits::derive(wanted, host);
    let pool = ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count);
    let account = Arc::new(Account::new(1));
    let mut rings = Rings::new(Arc::clone(&pool), limits.ring_entry_count_max);
    let producer = rings.add();
    let uploader = Uploader::new(arrival, CallLimit::Fixed(8), Arc::clone(&account));
    let start = |options| SpoolThread::start(options, Arc::clone(&pool), Arc::clone(&account));
    let spool = spool.map(start).transpose().unwrap();
    let sender = Sender::new(&limits, rings, uploader, spool, pool, Arc::clone(&account));
    (sender, producer, account)
}

/// Opens the spool of a sender that was dropped. First waits until the spool's thread of that
/// sender has ended.
async fn reopened(options: &spool::Options, now: Moment) -> (spool::Spool, spool::Found) {
    loop {
        match spool::Spool::open(options.clone(), now) {
            Err(spool::SpoolError::Locked { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

fn receive(producer: &mut Producer, account: &Account, count: usize) {
    let mut parser = Parser::default();
    let mut drain = producer.begin(Instant::now());
    for _ in 0..count {
        let datagram = b"{\"format\":\"json\",\"version\":1}\n{\"id\":\"x\"}";
        let segment = parser.parse(datagram).unwrap();
        assert_eq!(drain.push(&segment).dropped_count, 0);
        account.received.add(1);
    }
    drain.commit();
}

/// Counts `count` segments as received and adds a batch of them to the uploader.
fn receive_into_uploader(sender: &mut Sender, account: &Account, count: usize) {
    account.received.add(count as u64);
    sender.uploader.push(test_batch((0..count).map(|number| format!("fresh {number}"))));
}

/// Returns whether a receiver has woken the sender since the last call.
fn is_woken(sender: &mut Sender) -> bool {
    let woken = std::pin::pin!(sender.filler.rings.woken(sender.filler.linger.wake_count()));
    woken.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test]
async fn all_held_segments_are_counted() {
    let (mut sender, mut producer, account) = sender();
    for round in 0..4 {
        receive(&mut producer, &account, 130);
        assert_eq!(account.imbalance(sender.held().segment_count), 0, "in the ring, {round}");
        let now = Instant::now();
        assert_eq!(sender.take(now), Progress::Idle);
        receive(&mut producer, &account, 7);
        assert_eq!(account.imbalance(sender.held().segment_count), 0, "everywhere, {round}");
    }
    assert_eq!(sender.held().segment_count, 4 * 137);
}

#[tokio::test]
async fn a_chunk_that_vanishes_is_noticed() {
    let (mut sender, mut producer, account) = sender();
    receive(&mut producer, &account, 60);
    drop(sender.filler.rings.pop());
    assert_eq!(account.imbalance(sender.held().segment_count), 60);
    receive(&mut producer, &account, 120);
    assert_eq!(sender.take(Instant::now()), Progress::Idle);
    drop(sender.uploader.evict_oldest());
    assert_eq!(account.imbalance(sender.held().segment_count), 60 + 50);
}

#[tokio::test]
async fn nothing_is_evicted_if_memory_is_low_again_soon_after_shedding() {
    for (has_shed, dropped_count) in [(true, 0), (false, 150)] {
        let (mut sender, _producer, account) = sender();
        for _ in 0..3 {
            receive_into_uploader(&mut sender, &account, 50);
        }
        let after = |ms| Duration::from_millis(ms);
        let now = Instant::now();
        if has_shed {
            let (may_shed, is_draining, is_searching) = (true, false, false);
            for (is_low, ms) in [(true, 0), (true, 60), (false, 70)] {
                let is_half_used = is_low;
                let facts = Facts { is_low, is_half_used, may_shed, is_draining, is_searching };
                sender.shed.look(facts, now + after(ms));
            }
        }
        let mut taken = Vec::new();
        while !sender.pool.is_low() {
            taken.extend(sender.pool.take_for_receive());
        }
        assert!(!sender.shed.is_on());
        sender.has_room(now + after(80));
        assert_eq!(sender.shed.is_on(), has_shed);
        assert_eq!(account.dropped(DropReason::Memory).get(), dropped_count);
    }
}

#[tokio::test]
async fn waiting_batches_that_hold_all_memory_are_evicted_though_the_rings_are_empty() {
    let (mut sender, mut producer, account) = sender();
    // Fills memory until receivers get no more of it. No batch is in a call.
    let document = vec![b'"'; 60_000];
    let datagram = [b"{\"format\":\"json\",\"version\":1}\n".as_slice(), &document].concat();
    let mut parser = Parser::default();
    let mut receive_one = |producer: &mut Producer| {
        let segment = parser.parse(&datagram).unwrap();
        let mut drain = producer.begin(Instant::now());
        let dropped_count = drain.push(&segment).dropped_count;
        account.received.add(1);
        account.dropped(DropReason::Memory).add(dropped_count);
        drain.commit();
        dropped_count
    };
    while receive_one(&mut producer) == 0 {
        while sender.filler.has_room() {
            let Some(entry) = sender.filler.rings.pop() else { break };
            sender.filler.pack(&entry, Instant::now());
            drop(entry);
            sender.filler.batcher.finish_all(Instant::now());
            sender.pass_on();
        }
    }
    while let Some(entry) = sender.filler.rings.pop() {
        account.dropped(DropReason::Memory).add(entry.segment_count() as u64);
    }
    while let Some(chunk) = sender.pool.take_for_receive() {
        std::mem::forget(chunk);
    }
    while is_woken(&mut sender) {}
    assert_eq!(receive_one(&mut producer), 1, "nothing to push into");
    assert!(is_woken(&mut sender));
    assert!(evict::is_room_short(None, &sender.pool));
    sender.make_room(None, Instant::now());
    assert_eq!(receive_one(&mut producer), 0);
    assert_eq!(account.imbalance(sender.held().segment_count), 0);
}

#[tokio::test]
async fn the_condition_memory_full_lasts_until_half_of_the_memory_is_free() {
    let (mut sender, mut producer, account) = sender();
    let document = vec![b'x'; 10_000];
    let datagram = [b"{\"format\":\"json\",\"version\":1}\n".as_slice(), &document].concat();
    let mut parser = Parser::default();
    let mut drain = producer.begin(Instant::now());
    let is_noted = || account.conditions.has(Condition::MemoryFull);
    while account.dropped(DropReason::Memory).get() == 0 {
        sender.losses.look(&account, &sender.pool, false);
        assert!(!is_noted());
        let segment = parser.parse(&datagram).unwrap();
        account.dropped(DropReason::Memory).add(drain.push(&segment).dropped_count);
    }
    drain.commit();
    sender.losses.look(&account, &sender.pool, false);
    assert!(is_noted());
    while sender.pool.is_half_used() {
        sender.losses.look(&account, &sender.pool, false);
        assert!(is_noted());
        sender.filler.rings.pop();
    }
    sender.losses.look(&account, &sender.pool, false);
    assert!(!is_noted());
    // Datagrams that receivers leave to the kernel are lost because memory is full, too.
    sender.losses.look(&account, &sender.pool, true);
    assert!(is_noted());
    sender.losses.look(&account, &sender.pool, false);
    assert!(!is_noted());
}

#[tokio::test]
async fn at_the_deadline_all_that_is_left_is_counted_and_nothing_is_held() {
    let (mut sender, mut producer, account) = sender();
    receive(&mut producer, &account, 1_000);
    assert_eq!(sender.take(Instant::now()), Progress::Idle);
    receive(&mut producer, &account, 10);
    drop(producer);
    let (_sender, mut deadline) = watch::channel(Some(Deadline::at_once(Instant::now())));
    let held_count = sender.run(&mut deadline).await.unwrap();
    assert_eq!((held_count, account.dropped(DropReason::Shutdown).get()), (0, 1_010));
    assert_eq!(account.imbalance(held_count), 0);
}

#[tokio::test]
async fn at_the_deadline_what_is_left_goes_to_the_spool_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let options = || spool::Options {
        path: folder.path().to_owned(),
        size_bytes_max: 16 << 20,
        age_max: Duration::from_secs(60),
    };
    let (_route, arrival) = oneshot::channel();
    let (mut sender, mut producer, account) = sender_with_spool(arrival, Some(options()));
    receive(&mut producer, &account, 1_000);
    assert_eq!(sender.take(Instant::now()), Progress::Idle);
    receive(&mut producer, &account, 10);
    drop(producer);
    let deadline = Deadline::within(Duration::from_secs(60), true, Instant::now());
    sender.end(&mut watch::channel(Some(deadline)).1).await.unwrap();
    let held_count = sender.held().segment_count;
    assert_eq!((held_count, account.spooled.get(), account.imbalance(0)), (0, 1_010, 0));
    drop(sender);
    let now = account.clock.now();
    let (mut spool, found) = reopened(&options(), now).await;
    assert_eq!(found.file_count, 1);
    let mut segment_count = 0;
    while let spool::Next::Record(record) = spool.next(now) {
        segment_count += record.taken.len();
    }
    assert_eq!(segment_count, 1_010);
}

#[tokio::test]
async fn a_spool_that_has_failed_is_tried_until_it_works_though_nothing_is_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let options = spool::Options {
        path: path.clone(),
        size_bytes_max: 16 << 20,
        age_max: Duration::from_secs(60),
    };
    let (_route, arrival) = oneshot::channel();
    let (mut sender, mut producer, account) = sender_with_spool(arrival, Some(options));
    receive(&mut producer, &account, 100);
    assert_eq!(sender.take(Instant::now()), Progress::Idle);
    let pending = sender.uploader.evict_oldest().unwrap();
    let spool_client = sender.spool_client.as_mut().unwrap();
    let mut now = Instant::now();
    spool_client.start_due(now);
    spool_client.event().await;
    // Puts a file in the place of the folder.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    spool_client.write(pending);
    spool_client.start_due(now);
    spool_client.event().await;
    assert_eq!(spool_client.unwritten().len(), 1);
    for (errors_count, is_failing) in [(2, true), (3, true), (3, false)] {
        if !is_failing {
            std::fs::remove_file(&path).unwrap();
        }
        now += Duration::from_secs(60);
        spool_client.start_due(now);
        assert!(!spool_client.is_idle(), "it is tried");
        spool_client.event().await;
        assert_eq!(account.conditions.has(Condition::SpoolFailing), is_failing);
        assert_eq!(account.spool.errors.get(), errors_count);
    }
    now += Duration::from_secs(60);
    spool_client.start_due(now);
    assert!(spool_client.is_idle(), "it works, and is left alone");
}

/// Receives three segments, and holds them as the two parts of a batch from the spool that the
/// service has refused. A folder has the name of the spool's next file, so the spool cannot write.
async fn receive_parts_of_a_spooled_batch(
    sender: &mut Sender,
    mut producer: Producer,
    options: &spool::Options,
) {
    let account = Arc::clone(&sender.account);
    let ids = ["a", "b", "c"].map(str::to_owned);
    receive(&mut producer, &account, ids.len());
    drop((sender.filler.rings.pop(), producer));
    sender.uploader.push(test_batch(ids));
    let pending = sender.uploader.evict_oldest().unwrap();
    let now = Instant::now();
    let spool_client = sender.spool_client.as_mut().unwrap();
    spool_client.write(pending);
    spool_client.finish().await;
    spool_client.ask(8);
    spool_client.start_due(now);
    spool_client.event().await;
    let (batch, record) = spool_client.read(now).pop().unwrap();
    sender.uploader.push_spooled(batch, record);
    let whole = sender.uploader.evict_oldest().unwrap();
    sender.uploader.put_back(whole.part(test_batch(["a".to_owned()]), 0));
    sender.uploader.put_back(whole.part(test_batch(["b", "c"].map(str::to_owned)), 1));
    std::fs::create_dir(options.path.join("0000000002.spool")).unwrap();
}

#[tokio::test]
async fn at_the_deadline_parts_of_a_batch_that_stays_in_the_spool_are_not_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let options = spool::Options {
        path: folder.path().to_owned(),
        size_bytes_max: 16 << 20,
        age_max: Duration::from_secs(60),
    };
    let (_route, arrival) = oneshot::channel();
    let (mut sender, producer, account) = sender_with_spool(arrival, Some(options.clone()));
    receive_parts_of_a_spooled_batch(&mut sender, producer, &options).await;
    let deadline = Deadline::within(Duration::from_secs(60), true, Instant::now());
    sender.end(&mut watch::channel(Some(deadline)).1).await.unwrap();
    assert_eq!((account.dropped_total(), account.spooled.get(), account.imbalance(0)), (0, 6, 0));
    drop(sender);
    let now = account.clock.now();
    let (mut spool, _) = reopened(&options, now).await;
    let spool::Next::Record(record) = spool.next(now) else { panic!("the batch is not there") };
    assert_eq!(record.taken.len(), 3);
}

/// A part that is dropped alone would be counted as lost, and come again with the whole batch.
#[tokio::test]
async fn a_part_of_a_batch_from_the_spool_is_not_dropped_for_memory() {
    let folder = tempfile::tempdir().unwrap();
    let options = spool::Options {
        path: folder.path().to_owned(),
        size_bytes_max: 16 << 20,
        age_max: Duration::from_secs(60),
    };
    let (_route, arrival) = oneshot::channel();
    let (mut sender, producer, account) = sender_with_spool(arrival, Some(options.clone()));
    receive_parts_of_a_spooled_batch(&mut sender, producer, &options).await;
    // The spool fails when it is to write a fresh batch.
    let now = Instant::now();
    receive_into_uploader(&mut sender, &account, 4);
    let spool_client = sender.spool_client.as_mut().unwrap();
    spool_client.write(sender.uploader.evict_oldest_unspooled().unwrap());
    spool_client.start_due(now);
    spool_client.event().await;
    for pending in spool_client.unwritten() {
        sender.uploader.put_back(pending);
    }
    assert!(!spool_client.is_working());
    while let Some(chunk) = sender.pool.take_for_receive() {
        std::mem::forget(chunk);
    }
    sender.make_room(None, now);
    assert_eq!(account.dropped(DropReason::Memory).get(), 4, "only the fresh batch is dropped");
    assert_eq!(sender.held().segment_count, 3);
    assert_eq!(account.imbalance(3), 0);
}

#[tokio::test]
async fn the_sender_ends_at_once_if_no_route_can_ever_come() {
    let (route, arrival) = oneshot::channel();
    let (mut sender, mut producer, account) = sender_with(arrival);
    receive(&mut producer, &account, 10);
    drop((producer, route));
    let deadline = Deadline::within(Duration::from_secs(600), false, Instant::now());
    let (_sender, mut deadline) = watch::channel(Some(deadline));
    let run = sender.run(&mut deadline);
    let held_count = tokio::time::timeout(Duration::from_secs(60), run).await;
    assert_eq!((held_count.unwrap(), account.dropped(DropReason::Shutdown).get()), (Ok(0), 10));
}

#[tokio::test]
async fn a_file_of_the_spool_that_cannot_be_read_is_tried_again_and_nothing_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let options = spool::Options {
        path: folder.path().to_owned(),
        size_bytes_max: 16 << 20,
        age_max: Duration::from_secs(60),
    };
    let (_route, arrival) = oneshot::channel();
    let (mut sender, mut producer, _) = sender_with_spool(arrival, Some(options.clone()));
    receive(&mut producer, &sender.account, 10);
    drop(producer);
    sender.end(&mut watch::channel(None).1).await.unwrap();
    drop(sender);
    let account = Arc::new(Account::new(1));
    drop(reopened(&options, account.clock.now()).await);
    let thread = SpoolThread::start(options, ChunkPool::new(100, 8), Arc::clone(&account)).unwrap();
    let mut spool_client = SpoolClient::new(thread, Arc::clone(&account));
    let now = Instant::now();
    spool_client.start_due(now);
    spool_client.event().await;
    let (file, aside) = (folder.path().join("0000000001.spool"), folder.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    // Even root cannot read the file now: the spool never follows a link.
    std::os::unix::fs::symlink("aside", &file).unwrap();
    spool_client.ask(1);
    spool_client.start_due(now);
    spool_client.event().await;
    assert!(spool_client.read(now).is_empty() && !spool_client.may_have_more());
    assert_eq!((account.spool.errors.get(), account.dropped_total()), (1, 0));
    std::fs::rename(&aside, &file).unwrap();
    let due = spool_client.next_due().expect("it is tried again");
    spool_client.start_due(due);
    spool_client.event().await;
    spool_client.ask(1);
    spool_client.start_due(due);
    spool_client.event().await;
    let read = spool_client.read(due);
    assert_eq!((read.len(), read[0].0.documents.len()), (1, 10));
}
