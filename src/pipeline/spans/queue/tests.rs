//! Tests of the queue, on one thread and on two.

use super::*;
use std::pin::pin;
use std::task::{Context, Waker};

const TIMES: Times = Times { earliest_ns: 5, latest_ns: 9 };

fn queue(chunk_count: usize) -> (SpanWriter, SpanQueue, Arc<ChunkPool>, Arc<Account>) {
    let (pool, account) = (ChunkPool::new(chunk_count, 0), Arc::new(Account::default()));
    let (writer, queue) = SpanQueue::new(Arc::clone(&pool), Arc::clone(&account));
    (writer, queue, pool, account)
}

fn request(writer: &SpanWriter, body: &[u8], span_count: u32) -> Result<SpanRequest, NoRoom> {
    let mut reservation = writer.reserve(body.len())?;
    // In two parts, as a body is written from which something was cut out.
    let (first, second) = body.split_at(body.len() / 3);
    reservation.write(first);
    reservation.write(second);
    Ok(reservation.into_request(Encoding::Protobuf, span_count, TIMES))
}

fn push(writer: &SpanWriter, body: &[u8], span_count: u32) {
    let request = request(writer, body, span_count).unwrap();
    writer.push(vec![request]).unwrap();
}

fn body(request: &SpanRequest) -> Vec<u8> {
    request.body.concat()
}

fn is_woken(queue: &mut SpanQueue, span_count: usize) -> bool {
    let woken = pin!(queue.woken(span_count));
    woken.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn requests_come_out_in_their_order_with_their_bytes_and_counts() {
    let (writer, mut queue, pool, account) = queue(64);
    let lengths = [1, 7, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES];
    let bodies = lengths.map(|length| (0..=255).cycle().take(length).collect::<Vec<u8>>());
    for (body, span_count) in bodies.iter().zip(1..) {
        push(&writer, body, span_count);
    }
    let chunk_count = lengths.iter().map(|length| length.div_ceil(CHUNK_BYTES)).sum::<usize>();
    assert_eq!(
        queue.waiting(),
        Waiting {
            request_count: 6,
            span_count: 21,
            length_bytes: lengths.iter().sum(),
            memory_bytes: chunk_count * CHUNK_BYTES,
        }
    );
    assert_eq!((pool.used(), account.received.get()), (chunk_count, 21));
    for (expected, span_count) in bodies.iter().zip(1..) {
        let received_at = queue.next_received_at();
        let taken = queue.take().unwrap();
        assert_eq!(body(&taken), *expected);
        assert_eq!((taken.length_bytes, taken.span_count), (expected.len(), span_count));
        assert_eq!((Some(taken.received_at), taken.times), (received_at, TIMES));
    }
    assert!(queue.take().is_none() && queue.next_received_at().is_none());
    assert_eq!((queue.waiting(), pool.used()), (Waiting::default(), 0));
}

#[test]
fn without_room_the_client_may_try_again_and_nothing_is_evicted() {
    let (writer, mut queue, pool, account) = queue(4);
    push(&writer, &[1; 3 * CHUNK_BYTES], 1);
    let full = request(&writer, &[2; CHUNK_BYTES + 1], 1).unwrap_err();
    assert_eq!(full, NoRoom::Full { retry_after: RETRY_AFTER_MIN });
    // The chunks that it took are free again.
    assert_eq!((pool.used(), account.received.get()), (3, 1));
    push(&writer, &[3; CHUNK_BYTES], 1);
    assert_eq!(writer.look(), Err(NoRoom::Full { retry_after: RETRY_AFTER_MIN }));
    assert_eq!(queue.take().map(|taken| taken.length_bytes), Some(3 * CHUNK_BYTES));
    assert_eq!(writer.look(), Ok(()));
    push(&writer, &[4; 3 * CHUNK_BYTES], 1);
}

#[tokio::test(start_paused = true)]
async fn the_longer_the_memory_is_full_the_later_a_client_may_try_again() {
    let (writer, mut queue, ..) = queue(1);
    push(&writer, b"a", 1);
    let after = |seconds| NoRoom::Full { retry_after: Duration::from_secs(seconds) };
    for (pause, expected) in [(0, 1), (4, 4), (10, 14), (600, 30)] {
        tokio::time::advance(Duration::from_secs(pause)).await;
        assert_eq!(writer.look(), Err(after(expected)));
    }
    queue.take();
    assert_eq!(writer.look(), Ok(()));
    push(&writer, b"a", 1);
    assert_eq!(writer.look(), Err(after(1)));
}

#[test]
fn a_request_that_never_fits_is_too_large() {
    let (pool, account) = (ChunkPool::new(5, 1), Arc::default());
    let (writer, _queue) = SpanQueue::new(pool, account);
    let limit_bytes = writer.body_bytes_max();
    assert_eq!(limit_bytes, 4 * CHUNK_BYTES);
    let length_bytes = limit_bytes + 1;
    let too_large = NoRoom::TooLarge { length_bytes, limit_bytes };
    assert_eq!(writer.reserve(length_bytes).unwrap_err(), too_large);
    assert!(writer.reserve(limit_bytes).is_ok());
}

#[test]
fn a_body_that_became_shorter_gives_its_chunks_back() {
    let (writer, _queue, pool, _) = queue(8);
    let mut reservation = writer.reserve(5 * CHUNK_BYTES).unwrap();
    reservation.write(&[1; 2 * CHUNK_BYTES]);
    let request = reservation.into_request(Encoding::Json, 1, TIMES);
    assert_eq!((request.memory_bytes(), pool.used()), (2 * CHUNK_BYTES, 2));
}

#[test]
fn the_parts_of_a_split_request_come_together_or_not_at_all() {
    let (writer, mut queue, pool, account) = queue(8);
    let parts = || vec![request(&writer, b"a", 2).unwrap(), request(&writer, b"b", 3).unwrap()];
    writer.push(parts()).unwrap();
    writer.close();
    assert_eq!(writer.push(parts()), Err(Closed));
    assert_eq!((account.received.get(), queue.waiting().request_count), (5, 2));
    queue.take();
    queue.take();
    assert_eq!(pool.used(), 0);
}

#[test]
fn the_reader_is_woken_for_enough_spans_for_low_memory_and_for_the_end() {
    let (writer, mut queue, ..) = queue(1_000);
    assert!(!is_woken(&mut queue, 10));
    push(&writer, b"a", 9);
    assert!(!is_woken(&mut queue, 10));
    push(&writer, b"a", 1);
    assert!(is_woken(&mut queue, 10));
    // They still wait, for example because there is no memory to merge them. The reader sleeps.
    assert!(!is_woken(&mut queue, 10));
    assert!(is_woken(&mut queue, 5));
    while queue.take().is_some() {}
    assert!(!is_woken(&mut queue, 5));
    let held = writer.reserve(990 * CHUNK_BYTES).unwrap();
    push(&writer, b"a", 1);
    assert!(is_woken(&mut queue, 5));
    assert!(writer.reserve(100 * CHUNK_BYTES).is_err());
    assert!(is_woken(&mut queue, 5));
    drop(held);
    let other = writer.clone();
    drop(writer);
    assert!(!is_woken(&mut queue, 5) && !queue.is_closed());
    drop(other);
    assert!(is_woken(&mut queue, 5) && queue.is_closed());
    assert!(queue.take().is_some());
}

#[test]
fn a_writer_whose_reader_is_gone_gets_an_error() {
    let (writer, queue, _, account) = queue(8);
    drop(queue);
    let request = request(&writer, b"a", 1).unwrap();
    assert_eq!(writer.push(vec![request]), Err(Closed));
    assert_eq!(account.received.get(), 0);
}

#[tokio::test]
async fn a_reader_on_another_thread_gets_every_span_that_was_accepted() {
    let (writer, mut queue, pool, account) = queue(16);
    let writing = std::thread::spawn(move || {
        let (mut accepted_count, mut refused_count) = (0, 0);
        while accepted_count < 20_000 {
            match request(&writer, &[7; 100], 2) {
                Ok(request) => {
                    writer.push(vec![request]).unwrap();
                    accepted_count += 2;
                }
                Err(_) => {
                    refused_count += 1;
                    std::thread::yield_now();
                }
            }
        }
        (accepted_count, refused_count)
    });
    let mut span_count = 0;
    loop {
        let is_closed = queue.is_closed();
        while let Some(request) = queue.take() {
            span_count += u64::from(request.span_count);
        }
        if is_closed {
            break;
        }
        queue.woken(1).await;
    }
    let (accepted_count, refused_count) = writing.join().unwrap();
    assert_eq!((span_count, account.received.get()), (accepted_count, accepted_count));
    assert_eq!(pool.used(), 0, "{refused_count} were refused");
}
