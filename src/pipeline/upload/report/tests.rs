//! Tests of the counts and the log lines.

use super::*;
use crate::pipeline::batch::test_batch;

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
