//! What becomes of batches whose answers are not the service's, without a service.

use super::super::waiting::Waiting;
use super::*;
use crate::base::account::{Account, DropReason, RejectReason};
use crate::pipeline::batch::test_batch;
use crate::pipeline::spool::RecordId;
use tokio::sync::oneshot;

/// An uploader to whose calls a test gives the outcomes.
struct Trial {
    uploader: Uploader,
    account: Arc<Account>,
    next_call_number: u64,
}

fn failed(failure: Failure) -> Outcome {
    Outcome::Failed { failure, reason: "of the test".to_owned() }
}

fn not_x_ray() -> Outcome {
    failed(Failure::NotXRay)
}

fn throttled() -> Outcome {
    failed(Failure::Throttle { retry_after: None })
}

impl Trial {
    fn new() -> Self {
        let account = Arc::new(Account::default());
        let (_, arrival) = oneshot::channel();
        let uploader = Uploader::new(arrival, 8, Arc::clone(&account));
        Self { uploader, account, next_call_number: 0 }
    }

    fn with(document_count: usize) -> Self {
        let mut trial = Self::new();
        trial.uploader.push(test_batch((0..document_count).map(|place| place.to_string())));
        trial
    }

    /// Begins a call with the batch that is due next, however long that takes.
    fn call(&mut self) -> u64 {
        self.uploader.waiting.make_due();
        let attempt = self.uploader.waiting.pop_due(Instant::now()).expect("a batch waits");
        self.call_with(attempt)
    }

    fn call_with(&mut self, attempt: Attempt) -> u64 {
        let number = self.next_call_number;
        self.next_call_number += 1;
        let accepted_count = self.uploader.accepted_count;
        let call = Call { attempt, started_at: Instant::now(), accepted_count };
        self.uploader.calls.insert(number, call);
        number
    }

    fn end(&mut self, call_number: u64, outcome: Outcome) {
        let reading = outcome.into();
        self.uploader.settle(Ok(Ended { call_number, reading, failure: None }));
    }

    fn answer(&mut self, outcome: Outcome) {
        let call_number = self.call();
        self.end(call_number, outcome);
    }

    fn dropped_count(&self) -> u64 {
        self.account.dropped(DropReason::NotXRay).get()
    }

    fn waiting_count(&self) -> usize {
        let waiting: &Waiting = &self.uploader.waiting;
        waiting.iter().map(|attempt| attempt.batch.documents.len()).sum()
    }
}

#[test]
fn the_third_answer_that_is_not_the_services_drops_the_batch() {
    let mut trial = Trial::with(7);
    for _ in 1..NOT_X_RAY_COUNT_MAX {
        trial.answer(not_x_ray());
        assert_eq!((trial.dropped_count(), trial.waiting_count()), (0, 7));
        assert!(trial.uploader.breaker.is_failing());
    }
    trial.answer(not_x_ray());
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (7, 0));
    assert_eq!(trial.account.answers_not_x_ray.get(), 3);
    assert_eq!(trial.account.requests_retried.get(), 2);
    assert!(trial.uploader.is_idle());
}

#[test]
fn other_failures_between_them_neither_count_nor_start_the_count_again() {
    let mut trial = Trial::with(7);
    let others = || [throttled(), Outcome::retry(String::new()), failed(Failure::Expired)];
    for _ in 1..NOT_X_RAY_COUNT_MAX {
        trial.answer(not_x_ray());
        others().into_iter().for_each(|outcome| trial.answer(outcome));
    }
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (0, 7));
    trial.answer(not_x_ray());
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (7, 0));
}

#[test]
fn the_parts_of_a_batch_have_its_count() {
    let mut trial = Trial::with(8);
    (1..NOT_X_RAY_COUNT_MAX).for_each(|_| trial.answer(not_x_ray()));
    // Halved for its size, and of one half a document is to be sent again.
    trial.answer(failed(Failure::Split { is_too_large: true }));
    assert_eq!(trial.uploader.waiting.iter().count(), 2);
    let half = trial.uploader.waiting.pop_oldest().unwrap();
    let unprocessed = vec![Unprocessed {
        id: Some(half.batch.documents[0].id.as_str().to_owned()),
        error_code: Some("ThrottledException".to_owned()),
        message: None,
    }];
    let call_number = trial.call_with(half);
    trial.end(call_number, Outcome::Accepted { unprocessed });
    assert_eq!((trial.account.sent.get(), trial.waiting_count()), (3, 5));
    trial.answer(not_x_ray());
    trial.answer(not_x_ray());
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (5, 0));
}

#[test]
fn a_batch_waits_after_such_an_answer_and_others_ask_meanwhile() {
    let mut trial = Trial::with(1);
    trial.uploader.push(test_batch(["other".to_owned()]));
    let first = trial.call();
    let now = Instant::now();
    trial.end(first, not_x_ray());
    // The other one is due as soon as the usual pause is over.
    assert_eq!(trial.uploader.waiting.next_due(now), Some(now));
    let other = trial.uploader.waiting.pop_due(now).unwrap();
    let due = trial.uploader.waiting.next_due(now).unwrap();
    assert!(due >= now + NOT_X_RAY_PAUSE, "{:?}", due - now);
    assert!(trial.uploader.paused_until(now).is_none_or(|until| until < now + NOT_X_RAY_PAUSE));
    // When the service takes it, the first one is due at once.
    let other = trial.call_with(other);
    trial.end(other, Outcome::Accepted { unprocessed: vec![] });
    assert!(trial.uploader.waiting.pop_due(Instant::now()).is_some());
}

#[test]
fn with_a_deadline_it_waits_as_long() {
    let mut trial = Trial::with(1);
    trial.uploader.begin_drain();
    let now = Instant::now();
    trial.answer(not_x_ray());
    assert!(trial.uploader.waiting.next_due(now).unwrap() >= now + NOT_X_RAY_PAUSE);
}

#[test]
fn calls_that_were_answered_together_count_for_their_own_batches() {
    let mut trial = Trial::new();
    (0..4).for_each(|name| trial.uploader.push(test_batch([name.to_string()])));
    let calls: Vec<_> = (0..4).map(|_| trial.call()).collect();
    calls.into_iter().for_each(|number| trial.end(number, not_x_ray()));
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (0, 4));
    assert_eq!(trial.uploader.breaker.failed_rounds(), 1);
}

#[test]
fn a_batch_from_the_spool_is_settled_there_when_it_is_dropped() {
    let mut trial = Trial::new();
    let record = RecordId::default();
    trial.uploader.push_spooled(test_batch(["a".to_owned()]), record);
    (0..NOT_X_RAY_COUNT_MAX).for_each(|_| trial.answer(not_x_ray()));
    assert_eq!((trial.dropped_count(), trial.uploader.settled_records().len()), (1, 1));
}

#[test]
fn an_answer_that_names_more_than_was_sent_is_counted_once() {
    let mut trial = Trial::with(2);
    let one = Unprocessed { id: None, error_code: None, message: None };
    let unprocessed = vec![one; 50];
    let call_number = trial.call();
    let reading = Reading {
        outcome: Outcome::Accepted { unprocessed },
        unread_reason: Some("it names 60 documents".to_owned()),
        is_too_large: false,
        service_time: None,
    };
    trial.uploader.settle(Ok(Ended { call_number, reading, failure: None }));
    assert_eq!(trial.account.answers_unreadable.get(), 1);
    let rejected = trial.account.rejected(RejectReason::Unprocessed).get();
    assert_eq!((trial.account.sent.get(), rejected), (0, 2));
}
