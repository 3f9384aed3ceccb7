//! Telemetry: sends counts of the daemon to the service (`PutTelemetryRecords`).
//!
//! In: the account, read once a minute and on shutdown. Out: signed requests. A record holds the
//! counts since the previous record. No record is made before the first segment is received. Bound:
//! thirty waiting records, ten records in a request, and one second for the last request on
//! shutdown. When full: the oldest record is removed. Thread: main.
//!
//! Telemetry uses its own connections, so it does not disturb uploads. Failures are logged at debug
//! level, and the records are sent again with the next one. On shutdown, a request in progress is
//! aborted and sent again, so its records can arrive twice.

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

/// On shutdown, the last request gets the time for the shutdown divided by this number, and at most
/// [`FINISH_TIME_MAX`].
const SHUTDOWN_DIVISOR: u32 = 8;
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Makes and sends a record of the account once a minute.
#[derive(Debug)]
pub struct Telemetry {
    account: Arc<Account>,
    interval: Duration,
    route: Option<Route>,
    /// Receives the route once it is known; `None` afterwards.
    route_receiver: Option<oneshot::Receiver<Route>>,
    /// Names of the host; without those of the instance metadata until the lookup is over.
    host: Host,
    host_lookup: Option<JoinHandle<Host>>,
    last_counts: Counts,
    backlog: Backlog,
}

/// The body of a call.
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
    /// Returns the telemetry of `account`, and a sender for the route, which is sent once the
    /// region is known. Starts a task on the current runtime that looks up the names of the
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

    /// Returns the part of the time for the shutdown that [`finish`](Self::finish) gets.
    pub fn finish_time(shutdown_time: Duration) -> Duration {
        (shutdown_time / SHUTDOWN_DIVISOR).min(FINISH_TIME_MAX)
    }

    /// Makes and sends records forever. Records stay in the backlog if the future is dropped.
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

    /// Makes a record and sends all waiting records. After a panic, they wait for the next call.
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

    /// Makes a record. Returns `false`, without a record, if no segment has been received yet.
    fn take_record(&mut self) -> bool {
        if self.account.received.get() == 0 {
            return false;
        }
        let counts = Counts::read(&self.account);
        self.backlog.push(counts.since(&self.last_counts, SystemTime::now()));
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

    /// Takes over the route and the names of the host if they have been found, without waiting.
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

    /// Sends the oldest records, up to ten. They are removed if the service accepts them, or
    /// refuses them because of their content. On other failures they stay.
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
                // The address of the service may have changed.
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
                    // The service would refuse these records every time, and later ones would wait.
                    Failure::Split { .. } => self.backlog.remove_oldest(record_count),
                    _ => {}
                }
                Err(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests;
