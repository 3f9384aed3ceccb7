//! Telemetry: what the daemon tells the service of itself (`PutTelemetryRecords`).
//!
//! In: the account, read once a minute and at the end. Out: signed requests with the counts since
//! the record before; none before a first segment. Bounds: thirty records wait while they cannot
//! be sent, the oldest gives way; ten go in a call; the last one has a second.
//!
//! Runs beside the flow, on the main thread's runtime, over connections of its own: uploads do not
//! notice it. What fails is said at debug level only, and tried again with the next record. A call
//! that the end of the daemon cuts off is made again, so its records may arrive twice.

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

/// A record stands for so long.
const INTERVAL: Duration = Duration::from_secs(60);

/// Of the time for the shutdown the last record has this part, and at most [`FINISH_TIME_MAX`].
const SHUTDOWN_DIVISOR: u32 = 8;
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Tells the service once a minute what was counted.
#[derive(Debug)]
pub struct Telemetry {
    account: Arc<Account>,
    interval: Duration,
    route: Option<Route>,
    /// Where the route comes from; `None` when it has come, or never will.
    route_receiver: Option<oneshot::Receiver<Route>>,
    /// What is known of the host until its lookup is over.
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
    /// Telemetry of `account`, and where to put the way to the service when it is known. Looks for
    /// the host's names on the current runtime, with `resolver`.
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
                error!("Asking for the host's names met {panicked}; telemetry goes without them");
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

    /// The part of the time for the shutdown that [`finish`](Self::finish) gets.
    pub fn finish_time(shutdown_time: Duration) -> Duration {
        (shutdown_time / SHUTDOWN_DIVISOR).min(FINISH_TIME_MAX)
    }

    /// Makes and sends the records; never ends. Nothing is lost when the wait is given up.
    pub async fn run(&mut self) -> Infallible {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.record_and_send().await;
        }
    }

    /// Sends a last record, and what waits, within `time`.
    pub async fn finish(mut self, time: Duration) {
        if !time.is_zero() && tokio::time::timeout(time, self.record_and_send()).await.is_err() {
            debug!("Sending telemetry failed with: no answer before the end");
        }
    }

    /// Makes a record and sends what waits; a panic meanwhile leaves that to the next time.
    async fn record_and_send(&mut self) {
        let sent = panics::caught(async {
            panics::inject("telemetry");
            if self.take_record() {
                self.send_all().await;
            }
        });
        if let Err(panicked) = sent.await {
            PANICKED.log(|more| error!("Telemetry met {panicked}; it goes on{more}"));
        }
    }

    /// Makes a record; `false` as long as no segment has been received.
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

    /// Takes over what has been found out since the last time, without a wait.
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

    /// Sends the oldest records; they are kept where that fails, unless they are at fault.
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
                // The service may have moved.
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
                    // They would be refused for ever, and hold up the next ones.
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
