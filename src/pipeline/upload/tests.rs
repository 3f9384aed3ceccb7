//! Tests of the uploader, with outcomes that the test provides, and with a simulated service.

use super::settle::{NOT_X_RAY_COUNT_MAX, NOT_X_RAY_PAUSE};
use super::*;
use crate::aws::{CallFuture, Unprocessed};
use crate::base::account::{Account, DropReason, RejectReason};
use crate::base::conditions::Condition;
use crate::pipeline::batch::test_batch;
use crate::pipeline::spool::RecordId;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// An uploader whose calls end with the outcomes that a test provides.
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
        let uploader = Uploader::new(arrival, CallLimit::Fixed(8), Arc::clone(&account));
        Self { uploader, account, next_call_number: 0 }
    }

    fn with(document_count: usize) -> Self {
        let mut trial = Self::new();
        trial.uploader.push(test_batch((0..document_count).map(|place| place.to_string())));
        trial
    }

    /// Starts a call with the pending batch that is due next, without waiting until it is due.
    fn call(&mut self) -> u64 {
        self.uploader.waiting.make_due();
        let pending = self.uploader.waiting.pop_due(Instant::now()).expect("a batch waits");
        self.call_with(pending)
    }

    fn call_with(&mut self, pending: PendingBatch) -> u64 {
        let number = self.next_call_number;
        self.next_call_number += 1;
        let accepted_count = self.uploader.answered.accepted_count;
        let call = Call { pending, started_at: Instant::now(), accepted_count };
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
        waiting.iter().map(|pending| pending.batch.documents.len()).sum()
    }
}

#[test]
fn the_third_answer_of_another_server_drops_the_batch() {
    let mut trial = Trial::with(7);
    for _ in 1..NOT_X_RAY_COUNT_MAX {
        trial.answer(not_x_ray());
        assert_eq!((trial.dropped_count(), trial.waiting_count()), (0, 7));
        assert!(trial.uploader.gate.is_failing());
    }
    trial.answer(not_x_ray());
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (7, 0));
    assert_eq!(trial.account.answers_not_x_ray.get(), 3);
    assert_eq!(trial.account.requests_retried.get(), 2);
    assert!(trial.uploader.is_idle());
}

#[test]
fn other_failures_neither_count_as_answers_of_another_server_nor_reset_the_count() {
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
fn the_parts_of_a_batch_inherit_its_count_of_answers() {
    let mut trial = Trial::with(8);
    (1..NOT_X_RAY_COUNT_MAX).for_each(|_| trial.answer(not_x_ray()));
    // The batch is halved because it is too large. One document of one half is sent again.
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
fn a_batch_waits_after_an_answer_of_another_server_and_other_batches_are_sent() {
    let mut trial = Trial::with(1);
    trial.uploader.push(test_batch(["other".to_owned()]));
    let first = trial.call();
    let now = Instant::now();
    trial.end(first, not_x_ray());
    // The other batch is due as soon as the backoff of the circuit breaker is over.
    assert_eq!(trial.uploader.waiting.next_due(now), Some(now));
    let other = trial.uploader.waiting.pop_due(now).unwrap();
    let due = trial.uploader.waiting.next_due(now).unwrap();
    assert!(due >= now + NOT_X_RAY_PAUSE, "{:?}", due - now);
    assert!(trial.uploader.gate.pause(now) < NOT_X_RAY_PAUSE);
    // When the service accepts the other batch, the first batch is due at once.
    let other = trial.call_with(other);
    trial.end(other, Outcome::Accepted { unprocessed: vec![] });
    assert!(trial.uploader.waiting.pop_due(Instant::now()).is_some());
}

#[test]
fn during_the_drain_the_pause_after_another_servers_answer_is_as_long() {
    let mut trial = Trial::with(1);
    trial.uploader.begin_drain();
    let now = Instant::now();
    trial.answer(not_x_ray());
    assert!(trial.uploader.waiting.next_due(now).unwrap() >= now + NOT_X_RAY_PAUSE);
}

#[test]
fn answers_of_another_server_count_for_each_batch_alone() {
    let mut trial = Trial::new();
    (0..4).for_each(|name| trial.uploader.push(test_batch([name.to_string()])));
    let calls: Vec<_> = (0..4).map(|_| trial.call()).collect();
    let now = Instant::now();
    calls.into_iter().for_each(|number| trial.end(number, not_x_ray()));
    assert_eq!((trial.dropped_count(), trial.waiting_count()), (0, 4));
    // The calls failed together, so the pause is the first backoff.
    assert!(trial.uploader.gate.pause(now) <= Duration::from_millis(100));
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
        partial: None,
        unread_reason: Some("it names 60 documents".to_owned()),
        is_too_large: false,
        status: Some(200),
        request_id: None,
        service_time: None,
        waited: Duration::ZERO,
    };
    trial.uploader.settle(Ok(Ended { call_number, reading, failure: None }));
    assert_eq!(trial.account.answers_unreadable.get(), 1);
    let rejected = trial.account.rejected(RejectReason::Unprocessed).get();
    assert_eq!((trial.account.sent.get(), rejected), (0, 2));
}

/// The reaction of a simulated service to a call.
#[derive(Debug)]
enum Step {
    Answer(Outcome),
    PanicInCall,
    PanicInSigning,
    NoCredentials,
}

/// A service that answers each call with the next step, and accepts calls when no step is left.
#[derive(Debug, Default)]
struct Simulated {
    steps: Mutex<VecDeque<Step>>,
    /// Requests to the service that are not calls, such as "renew"; shared with the test.
    requests: Arc<Mutex<Vec<&'static str>>>,
}

impl Service for Simulated {
    fn is_ready(&self) -> bool {
        true
    }

    fn address(&self) -> String {
        "https://simulated.example".to_owned()
    }

    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn call(&self, _: RequestBody, _: &[u8; 32]) -> Result<CallFuture, StartError> {
        let step = self.steps.lock().unwrap().pop_front();
        let outcome = match step {
            None => Outcome::Accepted { unprocessed: vec![] },
            Some(Step::Answer(outcome)) => outcome,
            Some(Step::PanicInCall) => return Ok(Box::pin(async { panic!("in the call") })),
            Some(Step::PanicInSigning) => panic!("while signing"),
            Some(Step::NoCredentials) => return Err(StartError::NoCredentials),
        };
        Ok(Box::pin(async move { (outcome.into(), None) }))
    }

    fn renew_credentials(&self) {
        self.requests.lock().unwrap().push("renew");
    }

    fn set_time(&self, _: SystemTime) {
        self.requests.lock().unwrap().push("set_time");
    }

    fn forget_connections(&mut self) {
        self.requests.lock().unwrap().push("forget");
    }
}

/// Sends a batch of three documents to a service that answers with these steps. Returns the account
/// and the requests to the service that were not calls.
async fn send(steps: impl IntoIterator<Item = Step>) -> (Arc<Account>, Vec<&'static str>) {
    let requests = Arc::default();
    let steps = Mutex::new(steps.into_iter().collect());
    let service = Simulated { steps, requests: Arc::clone(&requests) };
    let (route, arrival) = oneshot::channel::<Box<dyn Service>>();
    let account = Arc::new(Account::default());
    let mut uploader = Uploader::new(arrival, CallLimit::Fixed(8), Arc::clone(&account));
    uploader.push(test_batch(["a", "b", "c"].map(str::to_owned)));
    assert_eq!(uploader.admit(Clock::instant()), Admit::AfterEvent);
    route.send(Box::new(service)).unwrap();
    while !uploader.is_idle() {
        let now = Clock::instant();
        uploader.start_due(now);
        uploader.report_outages(now);
        let due = uploader.next_due(now).into_iter().chain(uploader.next_report()).min();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = uploader.event() => {}
            () = due => {}
        }
    }
    let requests = requests.lock().unwrap().clone();
    (account, requests)
}

/// An output for log lines that a test can read.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends a batch as [`send`] does. Returns the errors, and the lines about the end of an outage: of
/// each the level, and the words before the number of seconds.
async fn said(steps: impl IntoIterator<Item = Step>) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .without_time()
        .with_target(false)
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    send(steps).await;
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let words = |line: &str| {
        let parts = ["Nothing ", "The service has throttled", "It throttled"];
        let start = parts.iter().find_map(|part| line.find(part))?;
        // Another number may follow: the fields come after the message.
        let is_digit = |character: char| character.is_ascii_digit();
        let rest = line[start..].trim_start_matches(|character| !is_digit(character));
        let length = line.len() - start - rest.trim_start_matches(is_digit).len();
        let level = line.trim_start().split(' ').next()?;
        Some(format!("{level} {}", &line[start..start + length]))
    };
    text.lines().filter_map(words).collect()
}

#[tokio::test(start_paused = true)]
async fn denied_calls_are_an_error_after_three_seconds_and_once_a_minute_until_one_is_accepted() {
    // The calls are 30 s apart.
    let denied = || Step::Answer(failed(Failure::Denied));
    let lines = said([denied(), denied(), denied()]).await;
    assert_eq!(
        lines,
        [
            "ERROR Nothing has been delivered for 3",
            "ERROR Nothing has been delivered for 63",
            "INFO Nothing was delivered for 90"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_within_three_seconds_is_no_error() {
    let retry_after = Some(Duration::from_secs(2));
    assert!(said([Step::Answer(failed(Failure::Retry { retry_after }))]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn throttling_is_an_error_after_a_minute() {
    let retry_after = Some(Duration::from_secs(10));
    let throttled = || Step::Answer(failed(Failure::Throttle { retry_after }));
    let lines = said(std::iter::repeat_with(throttled).take(8)).await;
    let [error, end] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(error, "ERROR The service has throttled for 60");
    assert!(end.starts_with("INFO It throttled for 8"), "{end}");
    assert!(said(std::iter::repeat_with(throttled).take(5)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_simulated_service_takes_the_place_of_a_route_in_virtual_time() {
    let skew = failed(Failure::Skew { service_time: SystemTime::UNIX_EPOCH });
    let outcomes = [failed(Failure::Denied), skew, failed(Failure::Expired)];
    let start = Clock::instant();
    let (account, requests) = send(outcomes.map(Step::Answer)).await;
    assert_eq!((account.sent.get(), account.requests_retried.get()), (3, 3));
    assert_eq!(requests, ["renew", "set_time", "forget", "renew"]);
    // A denied request is retried after 30 s.
    assert!(Clock::instant() - start >= Duration::from_secs(30));
    assert!(!account.conditions.has(Condition::UploadsFailing));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_service_costs_nothing() {
    let (account, requests) = send([Step::PanicInSigning, Step::PanicInCall]).await;
    assert_eq!((account.sent.get(), account.requests_retried.get()), (3, 2));
    assert_eq!(account.request_failures(RequestFailure::Other).get(), 1);
    assert_eq!(requests, ["forget", "renew", "forget"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_credentials_is_not_made_and_its_batch_stays() {
    let steps = [Step::NoCredentials, Step::NoCredentials];
    let (account, requests) = send(steps).await;
    // Neither counts as a request, or as an attempt of the batch.
    assert_eq!((account.sent.get(), account.requests_retried.get()), (3, 0));
    assert!(requests.is_empty(), "{requests:?}");
}

#[test]
fn without_a_service_no_call_can_ever_start() {
    let mut trial = Trial::with(1);
    let now = Instant::now();
    assert_eq!(
        (trial.uploader.admit(now), trial.uploader.next_due(now)),
        (Admit::AfterEvent, None)
    );
    trial.uploader.arrival = None;
    assert_eq!(trial.uploader.admit(now), Admit::Never);
}
