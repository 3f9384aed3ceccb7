//! Isolates the faulty document of a refused batch.
//!
//! The service refuses a whole request when one document is faulty. Therefore a refused batch is
//! halved, and its halves again, until the faulty document stands alone: 50 documents take six
//! halvings. A document is only rejected when the service has accepted other requests since the
//! suspicion began. When the service refuses all requests alike, no document is the reason, and
//! everything is kept and retried.
//!
//! In: a refused pending batch. Out: a verdict, or the halves. No I/O, no clock.

use super::pending_batch::{PendingBatch, Suspicion};

/// The decision about a refused pending batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of the documents is faulty, or the request is too large: send each half.
    Halve,
    /// The only document of the pending batch is faulty: reject it.
    Reject,
    /// The documents may not be the reason for the refusal: keep all of them, and retry.
    Keep,
}

/// Returns the verdict on a refused pending batch. `is_too_large` says that the service refused the
/// pending batch because of its size. `accepted_count` is the number of requests that the service
/// has accepted since the start.
pub fn judge(pending: &PendingBatch, is_too_large: bool, accepted_count: u64) -> Verdict {
    let others_are_accepted =
        pending.suspicion.is_some_and(|suspicion| accepted_count > suspicion.accepted_count);
    match pending.batch.item_count() {
        0 | 1 if others_are_accepted => Verdict::Reject,
        0 | 1 => Verdict::Keep,
        // The first halving costs one more request and shows whether the halves are accepted.
        _ if pending.suspicion.is_none() || is_too_large || others_are_accepted => Verdict::Halve,
        _ => Verdict::Keep,
    }
}

/// Returns whether a pending batch is halved before it is sent again: the service has refused it,
/// and has accepted other requests since. A single document is always sent again before it is
/// rejected, because the cause of the refusal may have passed.
pub fn is_halved_before_retry(pending: &PendingBatch, accepted_count: u64) -> bool {
    let was_refused = pending.suspicion.is_some_and(|suspicion| suspicion.was_refused);
    was_refused && judge(pending, false, accepted_count) == Verdict::Halve
}

/// Returns the halves of a refused pending batch, both under suspicion. `accepted_count` is the
/// number of requests that the service has accepted so far. Returns `None` if the pending batch
/// cannot be divided.
pub fn halve(pending: &PendingBatch, accepted_count: u64) -> Option<[PendingBatch; 2]> {
    let [first, second] = pending.batch.halves()?;
    let first_count = first.item_count();
    Some([(first, 0), (second, first_count)].map(|(batch, place)| {
        let mut half = pending.part(batch, place);
        half.suspicion = Some(Suspicion { accepted_count, was_refused: false });
        half
    }))
}

#[cfg(test)]
mod tests {
    use super::super::waiting::Waiting;
    use super::*;
    use crate::pipeline::batch::test_batch;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    /// The results of a run: how often each document was accepted, which documents were rejected,
    /// and the highest number of requests that contained the same document.
    #[derive(Debug, Default)]
    struct Fates {
        accepted: BTreeMap<String, u32>,
        rejected: Vec<String>,
        request_count_most: u32,
    }

    /// Sends batches as the uploader does. `sizes` has the number of documents of each batch. The
    /// service refuses a request if `refuses` returns true. The run ends when no batch is left, or
    /// after `request_count_max` requests.
    fn run(
        sizes: &[usize],
        request_count_max: u32,
        mut refuses: impl FnMut(u32, &[String]) -> bool,
    ) -> (Fates, Waiting) {
        let mut waiting = Waiting::default();
        for (index, &size) in sizes.iter().enumerate() {
            waiting.push(test_batch((0..size).map(|place| format!("{index}-{place}"))), None);
        }
        let (mut fates, mut now) = (Fates::default(), Instant::now());
        let (mut accepted_count, mut request_count) = (0, 0);
        let mut sent: BTreeMap<String, u32> = BTreeMap::new();
        while let Some(due) = waiting.next_due(now).filter(|_| request_count < request_count_max) {
            now = due.max(now);
            let mut pending = waiting.pop_due(now).unwrap();
            let ids: Vec<String> =
                pending.batch.documents.iter().map(|one| one.id.as_str().to_owned()).collect();
            let mut verdict = Verdict::Halve;
            if !is_halved_before_retry(&pending, accepted_count) {
                request_count += 1;
                ids.iter().for_each(|id| *sent.entry(id.clone()).or_default() += 1);
                if !refuses(request_count, &ids) {
                    accepted_count += 1;
                    for id in ids {
                        *fates.accepted.entry(id).or_default() += 1;
                    }
                    continue;
                }
                verdict = judge(&pending, false, accepted_count);
            }
            match verdict {
                Verdict::Halve => {
                    halve(&pending, accepted_count)
                        .unwrap()
                        .into_iter()
                        .for_each(|half| waiting.push_due(half));
                }
                Verdict::Reject => fates.rejected.extend(ids),
                Verdict::Keep => {
                    let suspicion = pending
                        .suspicion
                        .get_or_insert(Suspicion { accepted_count, was_refused: false });
                    suspicion.was_refused = true;
                    waiting.push_failed(pending, now, Duration::ZERO);
                }
            }
        }
        fates.request_count_most = sent.into_values().max().unwrap_or_default();
        (fates, waiting)
    }

    #[test]
    fn one_faulty_document_is_found_in_six_halvings() {
        let is_bad = |id: &String| id.ends_with("-17");
        let (fates, waiting) = run(&[50, 50, 50], 1_000, |_, ids| ids.iter().any(is_bad));
        assert_eq!(fates.rejected.len(), 3);
        assert!(fates.rejected.iter().all(is_bad), "{:?}", fates.rejected);
        assert_eq!(fates.accepted.len(), 147);
        assert!(fates.accepted.values().all(|&count| count == 1) && waiting.is_empty());
        // One request with the whole batch, six after the halvings, and one more if the other half
        // of a pair was sent later.
        assert!(fates.request_count_most <= 8, "{}", fates.request_count_most);
    }

    #[test]
    fn when_all_is_refused_nothing_is_rejected_and_all_is_sent_when_that_ends() {
        let (fates, waiting) = run(&[50, 1, 7], 500, |_, _| true);
        assert_eq!((fates.rejected.len(), fates.accepted.len()), (0, 0));
        let kept: usize = waiting.iter().map(|pending| pending.batch.documents.len()).sum();
        assert_eq!(kept, 58);
        // Each batch of several documents is halved once, and no further while the service accepts
        // nothing.
        assert_eq!(waiting.iter().count(), 5);
        let (fates, waiting) = run(&[50, 1, 7], 500, |request, _| request < 100);
        assert_eq!((fates.rejected.len(), fates.accepted.len()), (0, 58));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_single_document_is_kept_while_no_other_request_is_accepted() {
        let (fates, waiting) = run(&[1], 20, |_, _| true);
        assert_eq!((fates.rejected.len(), waiting.iter().count()), (0, 1));
    }

    proptest! {
        #[test]
        fn exactly_the_faulty_documents_are_rejected(
            sizes in proptest::collection::vec(1usize..51, 1..8),
            bad in proptest::collection::vec((0usize..8, 0usize..50), 0..12),
        ) {
            let bad: Vec<String> = bad.into_iter()
                .filter(|(index, place)| sizes.get(*index).is_some_and(|size| place < size))
                .map(|(index, place)| format!("{index}-{place}")).collect();
            let total: usize = sizes.iter().sum();
            let mut sizes = sizes;
            // The last batch has one document that the service accepts in any case.
            sizes.push(1);
            let (fates, waiting) = run(&sizes, 5_000, |_, ids| ids.iter().any(|id| bad.contains(id)));
            let mut rejected = fates.rejected;
            rejected.sort();
            let mut expected = bad.clone();
            expected.sort();
            expected.dedup();
            // The daemon rejects a faulty document only after the service has accepted another
            // request. Once all good documents are accepted, no other request is left, so the
            // remaining faulty documents stay in the queue.
            let mut left: Vec<String> = waiting.iter().flat_map(|pending| &pending.batch.documents)
                .map(|one| one.id.as_str().to_owned()).collect();
            let left_count = left.len();
            left.retain(|id| expected.contains(id) || !fates.accepted.contains_key(id));
            prop_assert_eq!(left.len(), left_count);
            prop_assert!(rejected.iter().all(|id| expected.contains(id)));
            prop_assert!(fates.accepted.values().all(|&count| count == 1));
            prop_assert_eq!(fates.accepted.len() + rejected.len() + left_count, total + 1);
        }
    }
}
