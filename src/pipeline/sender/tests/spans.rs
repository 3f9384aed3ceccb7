//! Tests of the sender of spans: nothing that was accepted is dropped for memory, and every span is
//! counted in one place.

use super::*;
use crate::aws::{CallFuture, Outcome, RequestBody, StartError};
use crate::base::account::RejectReason;
use crate::base::memory::CHUNK_BYTES;
use crate::pipeline::spans::{NoRoom, SpanWriter, Times};
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::SystemTime;
use xrayd_otlp::Encoding;

const TIMES: Times = Times { earliest_ns: 1, latest_ns: 2 };

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// A service that accepts each call and keeps its body.
#[derive(Debug, Default)]
struct Accepting(Bodies);

impl Service for Accepting {
    fn is_ready(&self) -> bool {
        true
    }

    fn address(&self) -> String {
        String::new()
    }

    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn call(&self, body: RequestBody, _: &[u8; 32]) -> Result<CallFuture, StartError> {
        self.0.lock().unwrap().push(body.pieces().concat());
        Ok(Box::pin(async { (Outcome::Accepted { unprocessed: vec![] }.into(), None) }))
    }

    fn renew_credentials(&self) {}

    fn set_time(&self, _: SystemTime) {}

    fn forget_connections(&mut self) {}
}

struct Trial {
    sender: Sender<SpanFiller>,
    writer: SpanWriter,
    account: Arc<Account>,
    pool: Arc<ChunkPool>,
    route: Option<oneshot::Sender<Box<dyn Service>>>,
}

impl Trial {
    /// A sender of spans without a route yet, with a spool in `folder` if there is one.
    fn new(folder: Option<&Path>) -> Self {
        Self::sending_to(SpansTo::Endpoint, folder)
    }

    fn sending_to(to: SpansTo, folder: Option<&Path>) -> Self {
        let host = Host {
            memory_bytes: 1 << 30,
            cgroup_limit_bytes: None,
            descriptor_count_max: 1024,
            processor_count: 1,
            queues: QueueGrant::ANY,
        };
        let wanted = Wanted { buffer_size_mb: 16, receiver_count: 1, ..Wanted::default() };
        let limits = Limits::derive(Wanted { takes_spans: true, ..wanted }, host).spans.unwrap();
        let pool = ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count);
        let account = Arc::new(Account::for_spans());
        let (writer, queue) = SpanQueue::new(Arc::clone(&pool), Arc::clone(&account));
        let (route, arrival) = oneshot::channel();
        let uploader = Uploader::new(arrival, CallLimit::Fixed(8), Arc::clone(&account));
        let start = |path| {
            let (pool, account) = (Arc::clone(&pool), Arc::clone(&account));
            SpoolThread::start(options(path, 16 << 20), pool, account).unwrap()
        };
        let spool = folder.map(start);
        let accounts = Arc::clone(&account);
        let pools = Arc::clone(&pool);
        let sender = Sender::for_spans((&limits, to), queue, uploader, spool, pools, accounts);
        Self { sender, writer, account, pool, route: Some(route) }
    }

    fn send(&self, body: &[u8], span_count: u32) -> Result<(), NoRoom> {
        let mut reservation = self.writer.reserve(body.len())?;
        reservation.write(body);
        let request = reservation.into_request(Encoding::Protobuf, span_count, TIMES);
        self.writer.push(vec![request]).unwrap();
        Ok(())
    }

    /// Sends requests of two chunks until the door has no room. Returns how many were taken.
    fn fill(&mut self) -> u32 {
        let mut count = 0;
        while self.send(&[7; 2 * CHUNK_BYTES], 3).is_ok() {
            count += 1;
            let now = Instant::now();
            assert_ne!(self.sender.take(now), Progress::Closed);
            self.sender.make_room(None, Instant::now());
        }
        count
    }

    /// Runs the sender until all is settled, with `time` for the shutdown.
    async fn finish(&mut self, has_spool: bool, time: Duration) {
        self.writer.close();
        let deadline = Deadline::within(time, has_spool, Instant::now());
        let (_sender, mut deadline) = watch::channel(Some(deadline));
        let held_count = self.sender.run(&mut deadline).await.unwrap();
        assert_eq!((held_count, self.account.imbalance(held_count)), (0, 0));
    }
}

fn options(path: &Path, size_bytes_max: u64) -> spool::Options {
    let age_max = Duration::from_secs(60);
    spool::Options { path: path.to_owned(), size_bytes_max, age_max }
}

#[tokio::test]
async fn requests_are_merged_and_every_byte_of_them_arrives_once() {
    let mut trial = Trial::new(None);
    let bodies: Vec<Vec<u8>> = (0..100).map(|index| vec![index; 50 * index as usize + 1]).collect();
    for body in &bodies {
        trial.send(body, 2).unwrap();
        assert_eq!(trial.account.imbalance(trial.sender.held().segment_count), 0);
    }
    let sent = Bodies::default();
    trial.route.take().unwrap().send(Box::new(Accepting(Arc::clone(&sent)))).unwrap();
    trial.finish(false, Duration::from_secs(60)).await;
    let sent = sent.lock().unwrap();
    assert!(sent.len() < 10, "{} calls", sent.len());
    let mut sent = sent.concat();
    let mut expected = bodies.concat();
    // Batches are sent in any order, and each body has a byte of its own.
    sent.sort_unstable();
    expected.sort_unstable();
    assert!(sent == expected);
    assert_eq!((trial.account.sent.get(), trial.account.received.get()), (200, 200));
    assert_eq!(trial.pool.used(), 0);
}

#[tokio::test]
async fn without_a_spool_full_memory_refuses_at_the_door_and_drops_nothing() {
    let mut trial = Trial::new(None);
    let count = trial.fill();
    assert!(trial.account.conditions.has(Condition::MemoryFull));
    for _ in 0..10 {
        trial.sender.make_room(None, Instant::now());
        assert!(matches!(trial.send(&[7; 2 * CHUNK_BYTES], 3), Err(NoRoom::Full { .. })));
    }
    assert_eq!(trial.account.dropped_total(), 0);
    assert_eq!(trial.sender.held().segment_count, 3 * count as usize);
    let sent = Bodies::default();
    trial.route.take().unwrap().send(Box::new(Accepting(Arc::clone(&sent)))).unwrap();
    trial.finish(false, Duration::from_secs(60)).await;
    assert_eq!(trial.account.sent.get(), u64::from(3 * count));
}

#[tokio::test]
async fn what_cannot_be_sent_by_the_end_is_counted_as_dropped() {
    let mut trial = Trial::new(None);
    trial.send(b"abc", 3).unwrap();
    trial.finish(false, Duration::ZERO).await;
    assert_eq!(trial.account.dropped(DropReason::Shutdown).get(), 3);
}

#[tokio::test]
async fn what_is_left_goes_to_the_spool_and_the_next_run_sends_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("otlp");
    let mut trial = Trial::new(Some(&path));
    for index in 0..20 {
        trial.send(&vec![index; 9_000], 5).unwrap();
    }
    trial.finish(true, Duration::from_secs(4)).await;
    assert_eq!((trial.account.spooled.get(), trial.account.dropped_total()), (100, 0));
    drop(trial);
    let names: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name == "0000000001.spans"), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with(".spool")), "{names:?}");
    let mut next = Trial::new(Some(&path));
    let sent = Bodies::default();
    next.route.take().unwrap().send(Box::new(Accepting(Arc::clone(&sent)))).unwrap();
    let (_sender, mut deadline) = watch::channel(None);
    let account = Arc::clone(&next.account);
    tokio::select! {
        _ = next.sender.run(&mut deadline) => unreachable!("the queue is open"),
        () = async {
            while account.sent.get() < 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    let mut bytes = sent.lock().unwrap().concat();
    bytes.sort_unstable();
    assert!(bytes == (0..20).flat_map(|index| vec![index; 9_000]).collect::<Vec<u8>>());
    assert_eq!(next.account.replayed.get(), 100);
}

#[tokio::test]
async fn a_full_spool_takes_no_more_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let account = Account::for_spans();
    let now = account.clock.now();
    let disk = Arc::new(spool::SystemDisk);
    let options = options(&folder.path().join("otlp"), 3 << 20);
    let opened = spool::Spool::open_for(account.signal, disk, options, now);
    let (mut spool, _) = opened.unwrap();
    let (payload, mut taken_count) = (vec![7; 100_000], 0);
    let full = loop {
        match spool.append(&[&payload], 1, now) {
            Ok(evicted) => assert_eq!(evicted.segment_count, 0),
            Err(error) => break error,
        }
        taken_count += 1;
    };
    assert!(matches!(full.cause, spool::SpoolError::Full { .. }), "{full}");
    assert_eq!((full.evicted.segment_count, spool.segment_count()), (0, taken_count));
}

#[tokio::test]
async fn spans_for_put_trace_segments_become_documents_and_are_counted_one_by_one() {
    let mut trial = Trial::sending_to(SpansTo::Segments, None);
    // One resource with one scope with spans of a name of their own length.
    let field = |number: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap();
        assert!(length < 128);
        [&[number << 3 | 2, length], bytes].concat()
    };
    let span = |name_bytes| field(2, &field(5, &vec![b'x'; name_bytes]));
    let request = field(1, &field(2, &[span(1), span(2), span(3)].concat()));
    trial.send(&request, 3).unwrap();
    // A span that is too large for a document, with lengths of three bytes.
    let long = |number: u8, bytes: &[u8]| {
        let length = bytes.len();
        let digit = |shift: u32| u8::try_from(length >> shift & 127).unwrap();
        let key = [number << 3 | 2, digit(0) | 128, digit(7) | 128, digit(14)];
        [&key[..], bytes].concat()
    };
    let too_large = long(1, &long(2, &long(2, &long(5, &vec![b'x'; 60_000]))));
    trial.send(&too_large, 1).unwrap();
    let sent = Bodies::default();
    trial.route.take().unwrap().send(Box::new(Accepting(Arc::clone(&sent)))).unwrap();
    trial.finish(false, Duration::from_secs(60)).await;
    let rejected = trial.account.rejected(RejectReason::Refused).get();
    assert_eq!((trial.account.sent.get(), rejected), (3, 1));
    let document = xrayd_otlp::datagram::encode(&request);
    let expected = format!("{{\"TraceSegmentDocuments\":[\"{document}\"]}}");
    assert_eq!(sent.lock().unwrap().concat(), expected.as_bytes());
}
