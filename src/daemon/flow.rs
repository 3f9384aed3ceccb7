//! The flow of segments: receivers, rings and the sender thread, from the start to the end.
//!
//! In: datagrams on the UDP address, the routes to the service, signals. Out: calls to the service,
//! and the account in the log. Thread: main; receivers and sender have threads of their own.

use super::account_log::{count_unwound, log_account, log_lines};
use super::otlp::OtlpPorts;
use super::shutdown::Shutdown;
use super::signals::Signals;
use super::spans::{Prepared, SpanFlow};
use super::threads::{Receivers, SenderThread, Sinks, Threads};
use super::{DaemonError, hand_over, start_log, systemd};
use crate::admin::health::Health;
use crate::admin::metrics::{MetricSources, Metrics};
use crate::admin::pages::Pages;
use crate::admin::telemetry::Telemetry;
use crate::aws::{Route, Service};
use crate::base::account::Account;
use crate::base::host::Host;
use crate::base::http_server::{Server, ServerLimits};
use crate::base::memory::ChunkPool;
use crate::base::panics::{self, Alarm};
use crate::config::Config;
use crate::pipeline::limits::{Limits, MEGABYTE, Wanted};
use crate::pipeline::receive::{Binding, Choice, RECEIVE_SLOT_BYTES, SocketGroup};
use crate::pipeline::sender::{Deadline, Sender, SpoolThread};
use crate::pipeline::spool;
use crate::pipeline::tail::Tail;
use crate::pipeline::upload::Uploader;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// The routes to the service. They share no connection.
pub struct Routes {
    /// The route for segments.
    pub segments: Route,
    /// The route for telemetry.
    pub telemetry: Route,
    /// The route for spans; `None` if there is none.
    pub spans: Option<Box<dyn Service>>,
}

/// The flow of segments. [`start`](Self::start) starts its threads.
pub struct Flow {
    /// The UDP address that receives segments.
    #[cfg(feature = "sandbox")]
    pub udp_address: std::net::SocketAddr,
    account: Arc<Account>,
    pool: Arc<ChunkPool>,
    receive_slots_bytes: usize,
    server_limits: ServerLimits,
    receivers: Receivers,
    upload: SenderThread,
    /// Sends the route to the uploader once the region is known. `None` as soon as
    /// [`run`](Self::run) has begun.
    route: Option<oneshot::Sender<Box<dyn Service>>>,
    shutdown: Shutdown,
    tail: Option<Arc<Tail>>,
    spans: Option<SpanFlow>,
    alarm: Alarm,
}

impl Flow {
    /// Makes all threads, opens the sockets, and gives the threads their work. Segments are kept
    /// until [`run`](Self::run) has the routes.
    ///
    /// Steps that may fail come first: threads before sockets, and all of them before the first
    /// datagram is read. So each datagram that is read gets into an account.
    ///
    /// # Errors
    ///
    /// Fails if the receive backend does not work, the UDP address cannot be opened, or the system
    /// does not create a thread or a descriptor.
    pub fn start(config: &Config) -> Result<Self, DaemonError> {
        let host = Host::read();
        let limits = Limits::derive(Wanted::from(config), host);
        let threads = Threads::make(limits.receiver_count, limits.spans.is_some())?;
        let pool = ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count);
        let account = Arc::new(Account::new(limits.receiver_count));
        panics::set_account(Arc::clone(&account));
        let spool = spool_options(config)
            .map(|it| SpoolThread::start(it, Arc::clone(&pool), Arc::clone(&account)))
            .transpose()
            .map_err(DaemonError::SpoolThread)?;
        let spans = (limits.spans.zip(threads.upload_spans))
            .map(|(limits, thread)| Prepared::make(config, limits, thread))
            .transpose()?;
        let has_spool = spool.is_some();
        let binding = Binding {
            receiver_count: limits.receiver_count,
            socket_count: limits.sockets.count,
            queue_bytes: limits.sockets.queue_bytes,
            share_port: config.share_port,
        };
        let group = SocketGroup::bind(&config.udp_address, binding)?;
        // After the sockets: they queue datagrams during a trial of the backend.
        let choice = Choice::make(config.receive_backend, limits.sockets.count > 1)?;
        start_log::receiving(&group, &choice, &limits, host, config);
        start_log::unfit(&limits, host, config);
        if let Some(take_over) = group.take_over() {
            hand_over::start(take_over?);
        }
        let alarm = Alarm::default();
        let sinks = Sinks::new(&pool, &account, &alarm);
        #[cfg(feature = "sandbox")]
        let udp_address = group.local_address();
        let how = (choice.backend, config.pin.unwrap_or_else(|| !is_in_container()));
        let (receivers, rings) = Receivers::start(group, how, &limits, &sinks, threads.receivers);
        let (route, arrival) = oneshot::channel();
        let shutdown = Shutdown {
            time: Duration::from_secs(config.shutdown_seconds),
            has_spool,
            // If two daemons share the port, the other daemon receives the datagrams from now on.
            waits_for_quiet: !config.share_port,
            spools_at_once: false,
        };
        let uploader = Uploader::new(arrival, limits.call_limit, Arc::clone(&account));
        let tail: Option<Arc<Tail>> = config.tail.then(Arc::default);
        let sender = Sender::new(&limits, rings, uploader, spool, sinks.pool, sinks.account)
            .with_tail(tail.clone())
            .with_shedding(sinks.shedding);
        let upload = SenderThread::start(sender, alarm.clone(), threads.upload);
        let spans = spans.map(|spans| SpanFlow::start(spans, config, alarm.clone()));
        let receive_slots_bytes =
            limits.receiver_count * limits.receive_slot_count * RECEIVE_SLOT_BYTES;
        Ok(Self {
            #[cfg(feature = "sandbox")]
            udp_address,
            account,
            pool,
            receive_slots_bytes,
            server_limits: ServerLimits {
                memory_bytes: limits.tcp_port_bytes,
                connection_count_max: limits.tcp_connection_count_max,
            },
            receivers,
            upload,
            route: Some(route),
            shutdown,
            tail,
            spans,
            alarm,
        })
    }

    /// Returns the metrics of this flow.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(MetricSources {
            account: self.account(),
            pool: Arc::clone(&self.pool),
            health: self.health(),
            sockets: self.receivers.sockets(),
            backends: self.receivers.backends(),
            receive_slots_bytes: self.receive_slots_bytes,
            spans: self.spans.as_ref().map(SpanFlow::sources),
        })
    }

    /// Returns the health of this flow: liveness of the threads, and readiness.
    pub fn health(&self) -> Health {
        let spans = self.spans.as_ref().map(|spans| spans.sources().0);
        Health::new(Arc::clone(&self.account), self.receivers.sockets()).with_spans(spans)
    }

    /// Serves the ports for spans, if there are any. Their spans go to the flow of spans.
    pub fn serve_spans(&mut self, ports: Option<OtlpPorts>) {
        if let Some((spans, ports)) = self.spans.as_mut().zip(ports) {
            spans.serve(ports);
        }
    }

    /// Returns the limits of the TCP port.
    pub fn server_limits(&self) -> ServerLimits {
        self.server_limits
    }

    /// Returns the segments for `xray tail`. `None` if the configuration does not have `Tail:
    /// true`.
    pub fn tail(&self) -> Option<Arc<Tail>> {
        self.tail.clone()
    }

    /// Returns the account that counts every segment of this flow.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Waits for `routes`, then sends segments and telemetry over them. After a signal or a
    /// failure, shuts down in order. `server` answers its clients until the end of the shutdown.
    ///
    /// # Errors
    ///
    /// Returns the failure, if no signal ended the flow: no route, a receiver that failed, or a
    /// panic. The failure is in the log already.
    pub async fn run(
        mut self,
        routes: impl Future<Output = Result<Routes, DaemonError>>,
        telemetry: Option<(Telemetry, oneshot::Sender<Route>)>,
        server: &Server<Pages>,
        mut signals: Signals,
    ) -> Result<(), DaemonError> {
        let (mut telemetry, telemetry_route) = telemetry.unzip();
        let route = self.route.take();
        let spans_route = self.spans.as_mut().and_then(SpanFlow::take_route);
        let no_route = async {
            match routes.await {
                Ok(routes) => {
                    // Errors are ignored: the uploader and the telemetry hold the receiving ends
                    // while this runs.
                    if let Some(sender) = route {
                        let _ = sender.send(Box::new(routes.segments));
                    }
                    if let (Some(sender), Some(route)) = (spans_route, routes.spans) {
                        let _ = sender.send(route);
                    }
                    if let Some(sender) = telemetry_route {
                        let _ = sender.send(routes.telemetry);
                    }
                    panics::inject("main");
                    std::future::pending().await
                }
                Err(error) => error,
            }
        };
        let until_end = async {
            tokio::select! {
                () = signals.next() => Ok(()),
                failure = self.receivers.failed() => Err(failure.into()),
                fault = self.alarm.raised() => Err(fault.into()),
                error = no_route => Err(error),
                never = run_telemetry(telemetry.as_mut()) => match never {},
            }
        };
        let result = match panics::caught(until_end).await {
            Ok(result) => result,
            Err(panicked) => {
                self.alarm.raise(panicked);
                Err(self.alarm.raised().await.into())
            }
        };
        systemd::stopping();
        match &result {
            Ok(()) => info!("Got shutdown signal: sending the remaining segments"),
            Err(failure) => error!("{failure}. Sending the remaining segments, then ending"),
        }
        self.end(telemetry, server, signals).await;
        result
    }

    /// Shuts down in order: receivers, uploads, telemetry, clients. Then logs the account.
    async fn end(
        mut self,
        mut telemetry: Option<Telemetry>,
        server: &Server<Pages>,
        mut signals: Signals,
    ) {
        let Self { shutdown, receivers, upload, account, spans, alarm, .. } = &mut self;
        shutdown.spools_at_once = alarm.fault().is_some_and(|it| it.thread == SenderThread::NAME);
        let mut end = Instant::now() + shutdown.time;
        let telemetry_time = Telemetry::finish_time(shutdown.time);
        if telemetry.is_some() {
            shutdown.time -= telemetry_time;
        }
        let ended = panics::caught(async {
            panics::inject("shutdown");
            let spans = async {
                match spans {
                    Some(spans) => spans.finish(*shutdown).await,
                    None => 0,
                }
            };
            let both = async { tokio::join!(shutdown.run(receivers, upload, account), spans) };
            tokio::select! {
                held_counts = both => Some(held_counts),
                () = signals.next() => None,
            }
        });
        let (held_count, held_span_count) = match ended.await {
            Ok(Some(held_counts)) => held_counts,
            cut_off => {
                match cut_off {
                    Err(panicked) => error!("The shutdown met {panicked}"),
                    _ => warn!(
                        "Got shutdown signal again: ending without sending the remaining segments"
                    ),
                }
                telemetry = None;
                end = Instant::now();
                upload.set_deadline(Deadline::at_once(Instant::now()));
                let segments = async {
                    receivers.stop().await;
                    upload.ended().await
                };
                let spans = async {
                    match spans {
                        Some(spans) => spans.finish_at_once().await,
                        None => 0,
                    }
                };
                tokio::join!(segments, spans)
            }
        };
        // The TCP port stays open until the last upload: the sandbox receives uploads on this port.
        let rest = async {
            if let Some(telemetry) = telemetry {
                telemetry.finish(telemetry_time).await;
            }
            server.finish(end.saturating_duration_since(Instant::now())).await;
        };
        tokio::select! {
            rest = panics::caught(rest) => {
                if let Err(panicked) = rest {
                    error!("The end of the shutdown met {panicked}");
                }
            }
            () = signals.next() => {}
        }
        if alarm.fault().is_some() {
            count_unwound(account, held_count);
        }
        log_lines();
        log_account(account, held_count);
        if let Some(spans) = spans {
            spans.log_account(held_span_count);
        }
    }
}

async fn run_telemetry(telemetry: Option<&mut Telemetry>) -> Infallible {
    match telemetry {
        Some(telemetry) => telemetry.run().await,
        None => std::future::pending().await,
    }
}

/// Returns the options of the spool. `None` if the configuration has no `Spool.Path`.
fn spool_options(config: &Config) -> Option<spool::Options> {
    Some(spool::Options {
        path: config.spool_path.clone()?,
        // The other half is for spans.
        size_bytes_max: config.spool_size_mb * MEGABYTE / if config.takes_spans() { 2 } else { 1 },
        age_max: Duration::from_secs(config.spool_age_hours * 3600),
    })
}

/// Whether the daemon runs in a container, judged by the files and variables of container runtimes.
/// Containers often share processors, so receivers do not stay on one processor there.
fn is_in_container() -> bool {
    let is_there = |path: &str| std::path::Path::new(path).exists();
    is_there("/.dockerenv")
        || is_there("/run/.containerenv")
        || ["container", "KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
