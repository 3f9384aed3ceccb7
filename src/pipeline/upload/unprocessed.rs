//! Finds the documents of a batch that the service did not process.
//!
//! In: the ids in an answer of the service. Out: the indices of these documents in the batch: the
//! ones to send again, and the ones to reject. Bound: each document of the batch once. No I/O, no
//! clock.

use crate::aws::Unprocessed;
use crate::pipeline::batch::Document;

/// The documents of an accepted batch that the service did not process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rest<'a> {
    /// The documents to send again: index in the batch, and entry of the answer. The indices
    /// ascend.
    pub resent: Vec<(usize, &'a Unprocessed)>,
    /// The rejected documents: index in the batch, and entry of the answer. The index is `None` if
    /// the batch has no document with this id, or earlier entries have named all of them.
    pub rejected: Vec<(Option<usize>, &'a Unprocessed)>,
    /// Whether the service throttled a document of the batch.
    pub is_throttled: bool,
}

impl<'a> Rest<'a> {
    /// Sorts the documents that an answer names into `resent` and `rejected`. If the answer has
    /// more entries than the batch has documents, the surplus entries are ignored.
    pub fn find(unprocessed: &'a [Unprocessed], documents: &[Document]) -> Self {
        let mut rest = Self::default();
        let mut is_named = vec![false; if unprocessed.is_empty() { 0 } else { documents.len() }];
        for answer in unprocessed.iter().take(documents.len()) {
            let place = place_of(answer, documents, &mut is_named);
            rest.is_throttled |= answer.is_throttled();
            match place.filter(|_| answer.is_transient()) {
                Some(place) => rest.resent.push((place, answer)),
                None => rest.rejected.push((place, answer)),
            }
        }
        rest.resent.sort_unstable_by_key(|(place, _)| *place);
        rest
    }

    /// Returns the number of documents that the service did not process.
    pub fn document_count(&self) -> usize {
        self.resent.len() + self.rejected.len()
    }
}

/// Returns the index of the document that an entry of the answer names: the first document with
/// this id that no earlier entry has named.
fn place_of(answer: &Unprocessed, documents: &[Document], is_named: &mut [bool]) -> Option<usize> {
    let id = answer.id.as_deref().filter(|id| !id.is_empty())?;
    let named = &*is_named;
    let mut places = documents.iter().enumerate();
    let (place, _) =
        places.find(|(place, document)| !named[*place] && document.id.as_str() == id)?;
    is_named[place] = true;
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::batch::{Batch, test_batch};

    fn answer(id: Option<&str>, code: &str) -> Unprocessed {
        let text = |text: &str| Some(text.to_owned());
        Unprocessed { id: id.and_then(text), error_code: text(code), message: None }
    }

    fn batch() -> Batch {
        test_batch(["a", "b", "a", "c"].into_iter().map(str::to_owned))
    }

    #[test]
    fn documents_with_the_same_id_are_named_one_after_the_other() {
        let throttled = [answer(Some("a"), "ThrottledException"), answer(Some("a"), "Throttling")];
        let batch = batch();
        let rest = Rest::find(&throttled, &batch.documents);
        assert_eq!(rest.resent, [(0, &throttled[0]), (2, &throttled[1])]);
        assert!(rest.is_throttled && rest.rejected.is_empty());
    }

    #[test]
    fn an_unknown_document_and_a_lasting_error_are_rejected() {
        let unprocessed = [
            answer(None, "ThrottledException"),
            answer(Some("nobody"), "ThrottledException"),
            answer(Some("c"), "InvalidTraceId"),
        ];
        let batch = batch();
        let rest = Rest::find(&unprocessed, &batch.documents);
        assert_eq!(rest.resent, []);
        let places: Vec<_> = rest.rejected.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [None, None, Some(3)]);
    }

    #[test]
    fn an_answer_that_names_too_many_documents_counts_each_document_once() {
        let unprocessed: Vec<_> = (0..9).map(|_| answer(Some("a"), "InvalidTraceId")).collect();
        let batch = batch();
        let rest = Rest::find(&unprocessed, &batch.documents);
        let places: Vec<_> = rest.rejected.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [Some(0), Some(2), None, None]);
    }
}
