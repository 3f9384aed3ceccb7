//! Which document a refusal is about.
//!
//! A service refuses a whole request for the sake of one document. So a refused batch is halved,
//! and its halves again, until the document at fault stands alone; 50 documents take six
//! halvings. But a refusal is only believed of documents when the service takes others meanwhile:
//! when all is refused alike it is no document's fault, and everything is kept and tried again.
//! Pure code.

use super::waiting::Attempt;

/// That the documents of an attempt may be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Requests that the service had accepted when the doubt began.
    pub accepted_count: u64,
    /// Whether this very attempt was refused, and not only what it is a half of.
    pub was_refused: bool,
}

/// What to do with a refused attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of its documents is at fault, or it is too large: send each half.
    Halve,
    /// Its only document is at fault: it is lost.
    GiveUp,
    /// It may be no document's fault: try it again later.
    Keep,
}

/// Judges an attempt that was refused, when the service has accepted `accepted_count` requests
/// since the start. `is_too_large`: for its size.
pub fn judge(attempt: &Attempt, is_too_large: bool, accepted_count: u64) -> Verdict {
    let others_are_taken =
        attempt.suspicion.is_some_and(|doubt| accepted_count > doubt.accepted_count);
    match attempt.batch.documents.len() {
        0 | 1 if others_are_taken => Verdict::GiveUp,
        0 | 1 => Verdict::Keep,
        // The first time it costs nothing to look closer.
        _ if attempt.suspicion.is_none() || is_too_large || others_are_taken => Verdict::Halve,
        _ => Verdict::Keep,
    }
}

/// The halves of a refused attempt, in doubt since the service has accepted `accepted_count`
/// requests.
///
/// # Panics
///
/// When it has a single document.
pub fn halve(attempt: &Attempt, accepted_count: u64) -> [Attempt; 2] {
    let [first, second] = attempt.batch.halves();
    let first_count = first.documents.len();
    [(first, 0), (second, first_count)].map(|(batch, place)| {
        let mut half = attempt.part(batch, place);
        half.suspicion = Some(Suspicion { accepted_count, was_refused: false });
        half
    })
}

#[cfg(test)]
mod tests {
    use super::super::waiting::Waiting;
    use super::*;
    use crate::pipeline::batch::test_batch;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    /// What became of every document: how often it was accepted, whether it was given up, and the
    /// most requests that one was part of.
    #[derive(Debug, Default)]
    struct Fates {
        accepted: BTreeMap<String, u32>,
        given_up: Vec<String>,
        request_count_most: u32,
    }

    /// Sends batches of so many documents as the uploader does, to a service that `refuses` some
    /// requests. Ends when nothing is left, or after so many requests.
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
            let mut attempt = waiting.pop_due(now).unwrap();
            let ids: Vec<String> =
                attempt.batch.documents.iter().map(|one| one.id.as_str().to_owned()).collect();
            let was_refused = attempt.suspicion.is_some_and(|doubt| doubt.was_refused);
            let mut verdict = judge(&attempt, false, accepted_count);
            if !was_refused || verdict != Verdict::Halve {
                request_count += 1;
                ids.iter().for_each(|id| *sent.entry(id.clone()).or_default() += 1);
                if !refuses(request_count, &ids) {
                    accepted_count += 1;
                    for id in ids {
                        *fates.accepted.entry(id).or_default() += 1;
                    }
                    continue;
                }
                verdict = judge(&attempt, false, accepted_count);
            }
            match verdict {
                Verdict::Halve => {
                    halve(&attempt, accepted_count)
                        .into_iter()
                        .for_each(|half| waiting.push_due(half));
                }
                Verdict::GiveUp => fates.given_up.extend(ids),
                Verdict::Keep => {
                    let doubt = attempt
                        .suspicion
                        .get_or_insert(Suspicion { accepted_count, was_refused: false });
                    doubt.was_refused = true;
                    waiting.push_failed(attempt, now, Duration::ZERO);
                }
            }
        }
        fates.request_count_most = sent.into_values().max().unwrap_or_default();
        (fates, waiting)
    }

    #[test]
    fn one_document_at_fault_is_found_in_six_halvings() {
        let is_bad = |id: &String| id.ends_with("-17");
        let (fates, waiting) = run(&[50, 50, 50], 1_000, |_, ids| ids.iter().any(is_bad));
        assert_eq!(fates.given_up.len(), 3);
        assert!(fates.given_up.iter().all(is_bad), "{:?}", fates.given_up);
        assert_eq!(fates.accepted.len(), 147);
        assert!(fates.accepted.values().all(|&count| count == 1) && waiting.is_empty());
        // The whole, six halves, and once more where the other half was sent later.
        assert!(fates.request_count_most <= 8, "{}", fates.request_count_most);
    }

    #[test]
    fn when_all_is_refused_nothing_is_given_up_and_it_goes_when_that_ends() {
        let (fates, waiting) = run(&[50, 1, 7], 500, |_, _| true);
        assert_eq!((fates.given_up.len(), fates.accepted.len()), (0, 0));
        let kept: usize = waiting.iter().map(|attempt| attempt.batch.documents.len()).sum();
        assert_eq!(kept, 58);
        // Halved once: nothing is looked into further while nothing is taken.
        assert_eq!(waiting.iter().count(), 5);
        let (fates, waiting) = run(&[50, 1, 7], 500, |request, _| request < 100);
        assert_eq!((fates.given_up.len(), fates.accepted.len()), (0, 58));
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_single_document_that_nothing_else_vouches_for_is_kept() {
        let (fates, waiting) = run(&[1], 20, |_, _| true);
        assert_eq!((fates.given_up.len(), waiting.iter().count()), (0, 1));
    }

    proptest! {
        #[test]
        fn exactly_the_documents_at_fault_are_given_up(
            sizes in proptest::collection::vec(1usize..51, 1..8),
            bad in proptest::collection::vec((0usize..8, 0usize..50), 0..12),
        ) {
            let bad: Vec<String> = bad.into_iter()
                .filter(|(index, place)| sizes.get(*index).is_some_and(|size| place < size))
                .map(|(index, place)| format!("{index}-{place}")).collect();
            let total: usize = sizes.iter().sum();
            let mut sizes = sizes;
            // Something that the service takes in any case comes last, and vouches for it.
            sizes.push(1);
            let (fates, waiting) = run(&sizes, 5_000, |_, ids| ids.iter().any(|id| bad.contains(id)));
            let mut given_up = fates.given_up;
            given_up.sort();
            let mut expected = bad.clone();
            expected.sort();
            expected.dedup();
            // A service that has taken all else vouches for nothing any more: what is left waits.
            let mut left: Vec<String> = waiting.iter().flat_map(|attempt| &attempt.batch.documents)
                .map(|one| one.id.as_str().to_owned()).collect();
            let left_count = left.len();
            left.retain(|id| expected.contains(id) || !fates.accepted.contains_key(id));
            prop_assert_eq!(left.len(), left_count);
            prop_assert!(given_up.iter().all(|id| expected.contains(id)));
            prop_assert!(fates.accepted.values().all(|&count| count == 1));
            prop_assert_eq!(fates.accepted.len() + given_up.len() + left_count, total + 1);
        }
    }
}
