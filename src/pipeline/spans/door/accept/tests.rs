//! Tests of the decision about spans, with requests that are made here and with recorded ones.

use super::*;
use crate::base::account::Account;
use crate::base::memory::ChunkPool;
use crate::pipeline::spans::queue::SpanQueue;
use std::sync::Arc;
use xrayd_otlp::message::Span;
use xrayd_otlp::{Received, Request, Source, datagram};

/// A day in 2026, in seconds since 1970.
const NOW_SECONDS: u64 = 1_790_000_000;
const NOW_NS: u64 = NOW_SECONDS * SECOND_NS;
const NOW: Moment = Moment {
    uptime_seconds: 100,
    offset_seconds: NOW_SECONDS.cast_signed() - 100,
    is_confirmed: true,
};

/// A span that started `age_ns` ago and took a millisecond.
fn span(number: u32, age_ns: u64) -> Span {
    let start_time_unix_nano = NOW_NS - age_ns;
    Span {
        trace_id: vec![7; 16],
        span_id: (u64::from(number) + 1).to_be_bytes().to_vec(),
        start_time_unix_nano,
        end_time_unix_nano: start_time_unix_nano + 1_000_000,
        ..Span::default()
    }
}

/// Returns the body of a request with these spans.
fn protobuf(spans: Vec<Span>) -> Vec<u8> {
    let document = datagram::document(&Source::default(), spans);
    datagram::decode(datagram::form(&document).unwrap().1).unwrap()
}

struct Fixture {
    writer: SpanWriter,
    queue: SpanQueue,
    account: Arc<Account>,
}

fn fixture(chunk_count: usize) -> Fixture {
    let account = Arc::<Account>::default();
    let pool = ChunkPool::new(chunk_count, 0);
    let (writer, queue) = SpanQueue::new(pool, Arc::clone(&account));
    Fixture { writer, queue, account }
}

impl Fixture {
    fn take(&self, body: &[u8]) -> Result<Taken, NotTaken> {
        take(&self.writer, (Encoding::Protobuf, body), NOW)
    }

    /// Takes all requests out of the queue and returns the spans of each. Checks what the queue
    /// says about them.
    fn requests(&mut self) -> Vec<Vec<Span>> {
        std::iter::from_fn(|| self.queue.take())
            .map(|request| {
                let body = request.body.concat();
                assert_eq!(body.len(), request.length_bytes);
                let spans = decoded(request.encoding, &body);
                assert_eq!(spans.len(), request.span_count as usize);
                let starts = spans.iter().map(|span| span.start_time_unix_nano);
                let ends = spans.iter().map(|span| span.end_time_unix_nano);
                let latest_ns = starts.clone().chain(ends).max().unwrap();
                let earliest_ns = starts.min().unwrap();
                assert_eq!(request.times, Times { earliest_ns, latest_ns });
                spans
            })
            .collect()
    }
}

fn decoded(encoding: Encoding, body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    Request::parse(encoding, body).unwrap().spans(|received| {
        let Received { span, .. } = received.unwrap();
        spans.push(span);
    });
    spans
}

#[test]
fn a_good_request_is_in_the_queue_with_its_own_bytes() {
    let mut fixture = fixture(64);
    let body = protobuf(vec![span(1, 0), span(2, HOUR_NS)]);
    assert_eq!(fixture.take(&body).unwrap(), Taken { accepted_count: 2, ..Taken::default() });
    let request = fixture.queue.take().unwrap();
    assert_eq!(request.body.concat(), body);
    assert_eq!((request.span_count, fixture.account.received.get()), (2, 2));
    // An exporter without spans gets a success, and nothing is forwarded.
    assert_eq!(fixture.take(b"").unwrap(), Taken::default());
    assert!(fixture.queue.take().is_none());
}

#[test]
fn a_span_beyond_a_limit_is_cut_out_and_its_neighbours_are_not() {
    let day = 24 * HOUR_NS;
    let large = Span { name: "n".repeat(SPAN_BYTES_MAX), ..span(1, 0) };
    let future = |time_ns| Span { end_time_unix_nano: NOW_NS + time_ns, ..span(1, 0) };
    let no_time = Span { start_time_unix_nano: 0, end_time_unix_nano: 0, ..span(1, 0) };
    for (bad, refusal, why) in [
        (large, SpanRefusal::Size, "bytes, and X-Ray takes 204800"),
        (span(1, 14 * day + 1), SpanRefusal::Old, "it started more than 14 days ago"),
        (no_time, SpanRefusal::Old, "it has no start time"),
        (future(2 * HOUR_NS + 1), SpanRefusal::Future, "it ends more than 2 hours in the future"),
    ] {
        let mut fixture = fixture(64);
        let (before, behind) = (span(2, HOUR_NS), span(3, 0));
        let body = protobuf(vec![before.clone(), bad, behind.clone()]);
        let taken = fixture.take(&body).unwrap();
        assert_eq!((taken.accepted_count, taken.refused_count()), (2, 1), "{why}");
        assert_eq!(taken.refused_counts[refusal as usize], 1, "{why}");
        assert!(taken.why.starts_with("a span was refused: ") && taken.why.contains(why));
        assert_eq!(fixture.requests(), [[before, behind]]);
        assert_eq!(fixture.account.received.get(), 2);
    }
    let mut fixture = fixture(64);
    let at_the_limits = vec![future(2 * HOUR_NS), span(2, 0)];
    assert_eq!(fixture.take(&protobuf(at_the_limits)).unwrap().accepted_count, 2);
    assert_eq!(fixture.take(&protobuf(vec![span(1, 14 * day)])).unwrap().accepted_count, 1);
    assert_eq!(fixture.requests().len(), 2);
    let none = fixture.take(&protobuf(vec![span(1, 15 * day)])).unwrap();
    assert_eq!((none.accepted_count, none.refused_count()), (0, 1));
    assert!(fixture.queue.take().is_none());
}

#[test]
fn a_span_that_cannot_be_read_is_cut_out() {
    let mut fixture = fixture(64);
    let mut body = protobuf(vec![span(1, 0), span(2, 0)]);
    // The key of the last field, the end of the last span, gets a wire type that does not exist.
    let key = body.len() - 9;
    assert_eq!(body[key], 8 << 3 | 1);
    body[key] = 8 << 3 | 7;
    let taken = fixture.take(&body).unwrap();
    assert_eq!(taken.refused_counts[SpanRefusal::Broken as usize], 1, "{taken:?}");
    assert_eq!(fixture.requests(), [[span(1, 0)]]);
}

#[test]
fn a_request_with_more_spans_than_the_service_takes_is_split() {
    let mut fixture = fixture(256);
    let count = u32::try_from(2 * SPAN_COUNT_MAX + 5).unwrap();
    let mut spans: Vec<_> = (0..count).map(|number| span(number, 0)).collect();
    spans.insert(7, span(0, 15 * 24 * HOUR_NS));
    let taken = fixture.take(&protobuf(spans.clone())).unwrap();
    assert_eq!((taken.accepted_count, taken.refused_count()), (count as usize, 1));
    let requests = fixture.requests();
    let counts: Vec<_> = requests.iter().map(Vec::len).collect();
    assert_eq!(counts, [SPAN_COUNT_MAX, SPAN_COUNT_MAX, 5]);
    spans.remove(7);
    assert!(requests.concat() == spans);
}

#[test]
fn a_request_whose_spans_are_too_far_apart_is_split_by_time() {
    let mut fixture = fixture(256);
    let ages = [0, 23, 24, 25, 60, 1, 300, 61, 336];
    let spans: Vec<_> = (0..).zip(ages).map(|(n, hours)| span(n, hours * HOUR_NS)).collect();
    assert_eq!(fixture.take(&protobuf(spans.clone())).unwrap().accepted_count, ages.len());
    let requests = fixture.requests();
    assert!(requests.len() > 3, "{}", requests.len());
    for spans in &requests {
        let starts = spans.iter().map(|span| span.start_time_unix_nano);
        assert!(starts.clone().max().unwrap() - starts.min().unwrap() <= WINDOW_NS);
    }
    let mut all = requests.concat();
    all.sort_by_key(|span| span.span_id.clone());
    assert_eq!(all, spans);
    // A day is not too far.
    let spans = vec![span(1, 0), span(2, GAP_NS_MAX - 1_000_000)];
    fixture.take(&protobuf(spans)).unwrap();
    assert_eq!(fixture.requests().len(), 1);
}

#[test]
fn json_is_split_and_cut_like_protobuf() {
    let mut fixture = fixture(64);
    let ages = [1, 15 * 24, 30, 2];
    let spans: Vec<_> = ages
        .iter()
        .map(|hours| {
            let start = NOW_NS - hours * HOUR_NS;
            let ids = r#""traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174""#;
            format!(r#"{{{ids},"startTimeUnixNano":"{start}","endTimeUnixNano":{start}}}"#)
        })
        .collect();
    let body =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(", "));
    let taken = take(&fixture.writer, (Encoding::Json, body.as_bytes()), NOW).unwrap();
    assert_eq!((taken.accepted_count, taken.refused_count()), (3, 1));
    let requests: Vec<_> = std::iter::from_fn(|| fixture.queue.take()).collect();
    assert!(requests.iter().all(|request| request.encoding == Encoding::Json));
    let text: Vec<_> =
        requests.iter().map(|it| String::from_utf8(it.body.concat()).unwrap()).collect();
    assert_eq!(text.len(), 2);
    assert!(text[0].contains(&spans[0]) && text[0].contains(&spans[3]), "{text:?}");
    assert!(text[1].contains(&spans[2]) && !text[1].contains(&spans[0]), "{text:?}");
}

#[test]
fn without_room_or_with_a_broken_end_nothing_is_in_the_queue() {
    let mut fixture = fixture(2);
    let large = Span { name: "n".repeat(40_000), ..span(1, 0) };
    let error = fixture.take(&protobuf(vec![large])).unwrap_err();
    assert!(matches!(error, NotTaken::NoRoom(NoRoom::TooLarge { .. })), "{error}");
    let two_days = |name: &str| {
        let old = Span { name: name.to_owned(), ..span(1, 48 * HOUR_NS) };
        protobuf(vec![span(2, 0), old])
    };
    // The second part finds no room, so the first one is not taken either.
    let error = fixture.take(&two_days(&"n".repeat(20_000))).unwrap_err();
    assert!(matches!(error, NotTaken::NoRoom(NoRoom::Full { .. })), "{error}");
    assert_eq!((fixture.account.received.get(), fixture.requests().len()), (0, 0));
    let mut broken = protobuf(vec![span(1, 0)]);
    broken.extend_from_slice(b"\x0a\xff\xff\xff\xff\x07");
    assert!(matches!(fixture.take(&broken), Err(NotTaken::Invalid(_))));
    fixture.writer.close();
    let closed = fixture.take(&protobuf(vec![span(1, 0)])).unwrap_err();
    assert_eq!(closed.to_string(), "the daemon ends; try again");
    assert_eq!((fixture.account.received.get(), fixture.requests().len()), (0, 0));
}

#[test]
fn a_request_full_of_broken_or_empty_spans_is_refused_in_one_walk() {
    let fixture = fixture(64);
    for (inner, refusal) in
        [(&b"\x12\x01\xff"[..], SpanRefusal::Broken), (b"\x12\x00", SpanRefusal::Old)]
    {
        let spans = inner.repeat(1 << 20);
        let field = |number: u8, value: &[u8]| {
            let mut rest = value.len();
            let mut field = vec![number << 3 | 2];
            while rest >= 0x80 {
                field.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
                rest >>= 7;
            }
            field.push(u8::try_from(rest).unwrap());
            [field, value.to_vec()].concat()
        };
        let taken = fixture.take(&field(1, &field(2, &spans))).unwrap();
        assert_eq!(taken.refused_counts[refusal as usize], 1 << 20);
        assert_eq!(taken.accepted_count, 0);
    }
}

#[test]
fn a_date_that_the_service_has_not_confirmed_makes_no_span_too_old_or_too_new() {
    // A host without a battery for its clock begins in 1970.
    let at_start = Moment { uptime_seconds: 3, offset_seconds: 0, is_confirmed: false };
    let fixture = fixture(100);
    let old = span(1, 400 * 24 * HOUR_NS);
    let ends_later = Span { end_time_unix_nano: NOW_NS + 3 * HOUR_NS, ..span(2, 0) };
    let without_time = Span { start_time_unix_nano: 0, ..span(3, 0) };
    let body = protobuf(vec![old, ends_later, without_time]);
    for (now, accepted_count) in [(at_start, 2), (NOW, 0)] {
        let taken = take(&fixture.writer, (Encoding::Protobuf, &body), now).unwrap();
        assert_eq!(
            (taken.accepted_count, taken.refused_count()),
            (accepted_count, 3 - accepted_count)
        );
    }
}
