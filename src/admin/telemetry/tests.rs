//! Tests of telemetry. A test server on the loopback interface stands in for the service.

use super::*;
use crate::aws::endpoint::{Endpoint, Variant};
use crate::aws::identity::Identity;
use crate::aws::transport::{Resolver, Transport};
use crate::aws::{Client, Signer, Timeouts};
use aws_credential_types::Credentials;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::sync::Mutex;
use tokio::net::TcpListener;

/// Interval between records in these tests. It is long enough for one request on a busy machine.
const SHORT: Duration = Duration::from_millis(20);

/// A test server. It stores the requests that it accepted, and answers with a status that the test
/// sets.
#[derive(Debug)]
struct Service {
    url: String,
    calls: Arc<Mutex<Vec<Value>>>,
    status: Arc<Mutex<u16>>,
}

impl Service {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, status) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::new(Mutex::new(200)));
        let (seen, answer) = (Arc::clone(&calls), Arc::clone(&status));
        tokio::spawn(async move {
            loop {
                let stream = TokioIo::new(listener.accept().await.unwrap().0);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move {
                        assert_eq!(request.uri().path(), "/TelemetryRecords");
                        let body = request.into_body().collect().await?.to_bytes();
                        let status = *answer.lock().unwrap();
                        if status == 200 {
                            seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                        }
                        let answer = Response::builder().status(status);
                        let body = Full::new(Bytes::from_static(b"{}"));
                        Ok::<_, hyper::Error>(answer.body(body).unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(stream, service));
            }
        });
        Self { url, calls, status }
    }

    fn route(&self) -> Route {
        let endpoint = Endpoint::resolve(Some(&self.url), "x", Variant::default()).unwrap();
        Route {
            client: Client::new(&Transport::local(Resolver::start().unwrap()), Timeouts::default()),
            signer: Signer::for_telemetry(&endpoint, "us-east-1", None),
            identity: Identity::fixed(Credentials::new("AKID", "secret", None, None, "test")),
        }
    }

    fn set_status(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    /// Returns the accepted requests. Each entry is the list of the records in one request.
    fn calls(&self) -> Vec<Vec<Value>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call["TelemetryRecords"].as_array().unwrap().clone()).collect()
    }
}

fn start(account: &Arc<Account>, interval: Duration) -> (Telemetry, oneshot::Sender<Route>) {
    Telemetry::with_interval(
        Arc::clone(account),
        HostSources::default(),
        Resolver::start().unwrap(),
        interval,
    )
}

/// Runs telemetry until `is_done` returns `true`.
async fn run_until(telemetry: &mut Telemetry, mut is_done: impl FnMut() -> bool) {
    let done = async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        never = telemetry.run() => match never {},
        result = tokio::time::timeout(Duration::from_secs(120), done) => result.unwrap(),
    }
}

#[tokio::test]
async fn a_record_has_the_counts_of_its_interval() {
    let service = Service::start().await;
    let account = Arc::new(Account::default());
    let (mut telemetry, route_receiver) = start(&account, SHORT);
    route_receiver.send(service.route()).unwrap();
    account.received.add(5);
    run_until(&mut telemetry, || service.calls().len() == 1).await;
    account.received.add(2);
    account.sent.add(3);
    run_until(&mut telemetry, || service.calls().len() >= 3).await;
    telemetry.finish(Duration::from_secs(30)).await;
    let mut records: Vec<Value> = service.calls().concat();
    // When `run` is dropped, a request in progress is aborted and later sent again. The service can
    // then have received the same record twice.
    records.dedup_by(|next, record| next["Timestamp"] == record["Timestamp"]);
    let sum = |name: &str| records.iter().map(|record| record[name].as_i64().unwrap()).sum::<i64>();
    assert_eq!(records[0]["SegmentsReceivedCount"], 5);
    assert_eq!((sum("SegmentsReceivedCount"), sum("SegmentsSentCount")), (7, 3));
    let times: Vec<f64> = records.iter().map(|r| r["Timestamp"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn before_a_first_segment_nothing_is_sent() {
    let service = Service::start().await;
    let account = Arc::new(Account::default());
    account.requests_retried.add(1);
    let (mut telemetry, route_receiver) = start(&account, Duration::from_millis(1));
    route_receiver.send(service.route()).unwrap();
    let wait = tokio::time::timeout(5 * SHORT, telemetry.run()).await;
    assert!(wait.is_err());
    telemetry.finish(Duration::from_secs(30)).await;
    assert!(service.calls().is_empty());
}

#[tokio::test]
async fn thirty_unsent_records_are_kept_and_sent_ten_at_a_time() {
    let service = Service::start().await;
    service.set_status(503);
    let account = Arc::new(Account::default());
    let (mut telemetry, route_receiver) = start(&account, Duration::from_millis(1));
    for number in 1..=35 {
        // Each record has a different count, so that the test can identify the records.
        account.received.add(number);
        assert!(telemetry.take_record());
    }
    // Records stay in the backlog while there is no route, and while the service fails.
    telemetry.send_all().await;
    route_receiver.send(service.route()).unwrap();
    telemetry.send_all().await;
    assert!(service.calls().is_empty());
    service.set_status(200);
    telemetry.send_all().await;
    let counts = service.calls().into_iter().map(|call| {
        call.iter().map(|record| record["SegmentsReceivedCount"].as_u64().unwrap()).collect()
    });
    let expected: [Vec<u64>; 3] = [(6..=15).collect(), (16..=25).collect(), (26..=35).collect()];
    assert_eq!(counts.collect::<Vec<Vec<u64>>>(), expected);
}

#[tokio::test]
async fn refused_records_do_not_delay_others() {
    let service = Service::start().await;
    service.set_status(400);
    let account = Arc::new(Account::default());
    let (mut telemetry, route_receiver) = start(&account, Duration::from_millis(1));
    route_receiver.send(service.route()).unwrap();
    account.received.add(1);
    assert!(telemetry.take_record());
    telemetry.send_all().await;
    assert!(telemetry.backlog.is_empty());
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_a_service_that_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut service = Service::start().await;
    service.url = format!("http://{}", silent.local_addr().unwrap());
    let account = Arc::new(Account::default());
    account.received.add(1);
    let (telemetry, route_receiver) = start(&account, SHORT);
    route_receiver.send(service.route()).unwrap();
    let start = std::time::Instant::now();
    telemetry.finish(Duration::from_millis(100)).await;
    // If `finish` ignored its time limit, it would wait for the request timeout of 15 s.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_last_record_has_an_eighth_of_the_shutdown_and_a_second_at_most() {
    let seconds = Duration::from_secs;
    assert_eq!(Telemetry::finish_time(seconds(8)), seconds(1));
    assert_eq!(Telemetry::finish_time(seconds(60)), seconds(1));
    assert_eq!(Telemetry::finish_time(seconds(1)), Duration::from_millis(125));
    assert_eq!(Telemetry::finish_time(seconds(0)), Duration::ZERO);
}
