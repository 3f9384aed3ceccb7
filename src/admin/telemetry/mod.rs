//! Telemetry: sends counts of the daemon to the service (`PutTelemetryRecords`).
//!
//! In: the account, which is read once a minute and on shutdown. Out: signed requests. A record
//! holds the counts since the previous record. No record is made before the first segment is
//! received. Bound: thirty waiting records, ten records in a request, and one second for sending on
//! shutdown. When full: the oldest record is removed. Thread: main.
//!
//! Telemetry uses its own connections, so it does not disturb uploads. Failures are logged at debug
//! level, and the records are sent again together with the next record. On shutdown, a request in
//! progress is aborted and sent again, so the service can receive its records twice.

mod host;
mod record;

pub use host::HostSources;

use crate::aws::transport::Resolver;
use crate::aws::{ANSWER_BYTES_MAX, Failure, Outcome, RequestBody, Route, classify};
use crate::base::account::Account;
use crate::base::log::LogLimit;
use crate::base::panics;
use bytes::Bytes;
use host::Host;
use record::{Backlog, Counts, Record};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, error};

/// Time between two records.
const INTERVAL: Duration = Duration::from_secs(60);

/// Telemetry gets this part (1/8) of the time for the shutdown to send its last records, but at
/// most [`FINISH_TIME_MAX`].
const SHUTDOWN_DIVISOR: u32 = 8;
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Makes a record of the counts in the account once a minute, and sends the records.
#[derive(Debug)]
pub struct Telemetry {
    account: Arc<Account>,
    interval: Duration,
    route: Option<Route>,
    /// Channel that delivers the route to the service once it is known. `None` after that.
    route_receiver: Option<oneshot::Receiver<Route>>,
    /// Names of the host. Names from the instance metadata are added when their lookup is over.
    host: Host,
    host_lookup: Option<JoinHandle<Host>>,
    last_counts: Counts,
    backlog: Backlog,
}

/// The body of a `PutTelemetryRecords` request.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Call<'a> {
    telemetry_records: &'a [Record],
    #[serde(rename = "EC2InstanceId", skip_serializing_if = "Option::is_none")]
    instance_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(rename = "ResourceARN", skip_serializing_if = "Option::is_none")]
    resource_arn: Option<&'a str>,
}

impl Telemetry {
    /// Returns the telemetry of `account`, and a channel on which the caller sends the route once
    /// the region is known. Starts a task on the current runtime that looks up the names of the
    /// host with `resolver`.
    pub fn start(
        account: Arc<Account>,
        sources: HostSources,
        resolver: Resolver,
    ) -> (Self, oneshot::Sender<Route>) {
        Self::with_interval(account, sources, resolver, INTERVAL)
    }

    fn with_interval(
        account: Arc<Account>,
        sources: HostSources,
        resolver: Resolver,
        interval: Duration,
    ) -> (Self, oneshot::Sender<Route>) {
        let (sender, route_receiver) = oneshot::channel();
        let host = Host::without_metadata(&sources);
        let fallback = host.clone();
        let host_lookup = tokio::spawn(async move {
            let found = panics::caught(Host::find(&sources, &resolver)).await;
            found.unwrap_or_else(|panicked| {
                error!(
                    "Looking up the host's names met {panicked}; telemetry is sent without them"
                );
                fallback
            })
        });
        let telemetry = Self {
            account,
            interval,
            route: None,
            route_receiver: Some(route_receiver),
            host,
            host_lookup: Some(host_lookup),
            last_counts: Counts::default(),
            backlog: Backlog::default(),
        };
        (telemetry, sender)
    }

    /// Returns how much of the time for the shutdown [`finish`](Self::finish) may use.
    pub fn finish_time(shutdown_time: Duration) -> Duration {
        (shutdown_time / SHUTDOWN_DIVISOR).min(FINISH_TIME_MAX)
    }

    /// Makes and sends records forever. If the future is dropped, records that are not sent yet
    /// stay in the backlog.
    pub async fn run(&mut self) -> Infallible {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.record_and_send().await;
        }
    }

    /// Makes a last record, and sends all waiting records within `time`.
    pub async fn finish(mut self, time: Duration) {
        if !time.is_zero() && tokio::time::timeout(time, self.record_and_send()).await.is_err() {
            debug!("Sending telemetry failed with: no answer before the end");
        }
    }

    /// Makes a record and sends all waiting records. If this panics, the records wait for the next
    /// call of this function.
    async fn record_and_send(&mut self) {
        let sent = panics::caught(async {
            panics::inject("telemetry");
            if self.take_record() {
                self.send_all().await;
            }
        });
        if let Err(panicked) = sent.await {
            PANICKED.log(|more| error!("Telemetry met {panicked}; it continues{more}"));
        }
    }

    /// Makes a record and returns `true`. If no segment has been received yet, makes no record and
    /// returns `false`.
    fn take_record(&mut self) -> bool {
        if self.account.received.get() == 0 {
            return false;
        }
        let counts = Counts::read(&self.account);
        if self.backlog.push(counts.since(&self.last_counts, SystemTime::now())) {
            self.account.telemetry_records_dropped.add(1);
            debug!("The oldest telemetry record is dropped: too many wait to be sent");
        }
        self.last_counts = counts;
        true
    }

    async fn send_all(&mut self) {
        self.take_results().await;
        while !self.backlog.is_empty() {
            if let Err(reason) = self.send().await {
                debug!("Sending telemetry failed with: {reason}");
                return;
            }
        }
    }

    /// Stores the route and the names of the host if other tasks have found them. Does not wait.
    async fn take_results(&mut self) {
        if let Some(Ok(route)) = self.route_receiver.as_mut().map(oneshot::Receiver::try_recv) {
            self.route = Some(route);
            self.route_receiver = None;
        }
        if let Some(host_lookup) = self.host_lookup.take_if(|host_lookup| host_lookup.is_finished())
            && let Ok(host) = host_lookup.await
        {
            self.host = host;
        }
    }

    /// Sends the oldest records, up to ten, in one request. They are removed from the backlog if
    /// the service accepts them, or refuses them because of their content. After any other failure
    /// they stay in the backlog.
    ///
    /// # Errors
    ///
    /// Returns the reason if the records were not accepted.
    async fn send(&mut self) -> Result<(), String> {
        let route = self.route.as_mut().ok_or("the service's address is not known yet")?;
        let credentials = route.identity.credentials().ok_or("there are no credentials yet")?;
        let records = self.backlog.oldest();
        let call = Call {
            telemetry_records: records,
            instance_id: self.host.instance_id.as_deref(),
            hostname: self.host.hostname.as_deref(),
            resource_arn: self.host.resource_arn.as_deref(),
        };
        let body = Bytes::from(serde_json::to_vec(&call).map_err(|error| error.to_string())?);
        let hash = Sha256::digest(&body).into();
        let signed_at = route.signer.time(SystemTime::now());
        let request = route
            .signer
            .sign_body(RequestBody::from(body), &hash, &credentials, signed_at)
            .map_err(|error| error.to_string())?;
        let answer = match route.client.send(request, ANSWER_BYTES_MAX).await {
            Ok(answer) => answer,
            Err(error) => {
                // The IP address of the service may have changed, so the next request looks it up
                // again.
                route.client.forget_connections();
                return Err(error.to_string());
            }
        };
        let record_count = records.len();
        match classify(answer.status, &answer.headers, &answer.body, signed_at) {
            Outcome::Accepted { .. } => {
                self.backlog.remove_oldest(record_count);
                debug!("Sent {record_count} telemetry records");
                Ok(())
            }
            Outcome::Failed { failure, reason } => {
                match failure {
                    Failure::Skew { service_time } => {
                        route.signer.set_time(service_time, SystemTime::now());
                    }
                    // The service would refuse these records again each time, and all later records
                    // would have to wait.
                    Failure::Split { .. } => {
                        self.account.telemetry_records_dropped.add(record_count as u64);
                        self.backlog.remove_oldest(record_count);
                    }
                    _ => {}
                }
                Err(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests;
