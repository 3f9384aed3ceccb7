//! Tests of the counts and the log lines.

use super::*;
use crate::base::memory::ChunkPool;
use crate::pipeline::batch::{OpenSpanDocuments, test_batch};

#[test]
fn every_document_of_an_accepted_batch_is_counted_once() {
    let answer = |id: &str, code: &str| Unprocessed {
        id: Some(id.to_owned()),
        error_code: Some(code.to_owned()),
        message: None,
    };
    let unprocessed = [answer("a", "Throttling"), answer("nobody", "InvalidTraceId")];
    let batch = test_batch(["a", "b", "a", "c"].into_iter().map(str::to_owned));
    let (account, rest) = (Account::default(), Rest::find(&unprocessed, &batch.documents));
    accepted(&batch, &rest, &Facts::none(), &account);
    assert_eq!((account.sent.get(), account.segments_resent.get()), (2, 1));
    assert_eq!(account.rejected(RejectReason::Unprocessed).get(), 1);
}

#[test]
fn lines_about_segments_do_not_use_up_those_about_spans() {
    let written = |signal: Signal| {
        let mut written_count = 0;
        for _ in 0..20 {
            NOT_X_RAY_YET.of(signal).log(|_| written_count += 1);
        }
        written_count
    };
    assert!(written(Signal::Segments) < 20);
    assert!(written(Signal::Spans) > 0);
}

#[test]
fn rejected_spans_are_counted_as_the_service_has_counted_them() {
    let pool = ChunkPool::new(8, 0);
    let batch = || {
        let mut open = OpenSpanDocuments::new(Instant::now());
        open.add("T1SAAAA", 5, &pool);
        open.add("T1SBBBB", 7, &pool);
        open.finish(&pool)
    };
    let partial = |rejected_count| {
        let message = "too large".to_owned();
        Some(PartialSuccess { rejected_count, message })
    };
    // An answer of X-Ray's endpoint counts spans. One of PutTraceSegments has an entry for each
    // document, whose spans were not processed.
    let entry =
        Unprocessed { id: None, error_code: Some("InvalidSegment".to_owned()), message: None };
    let entries = std::slice::from_ref(&entry);
    for (unprocessed, partial, rejected_count) in [
        (&[][..], None, 0),
        (&[], partial(3), 3),
        (&[], partial(0), 0),
        (&[], partial(99), 12),
        (entries, None, 5),
    ] {
        let (account, batch) = (Account::for_spans(), batch());
        let rest = Rest::find(unprocessed, &batch.documents);
        let facts = Facts { signal: Signal::Spans, partial, ..Facts::none() };
        accepted(&batch, &rest, &facts, &account);
        let counts = (account.sent.get(), account.rejected(RejectReason::Unprocessed).get());
        assert_eq!(counts, (12 - rejected_count, rejected_count));
    }
}
