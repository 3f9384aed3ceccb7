//! The flow as a whole: receivers, rings and the sender thread, from the start to the last line.

use super::shutdown::Shutdown;
use super::signals::Signals;
use super::threads::{Receivers, SenderThread, Sinks};
use super::{DaemonError, systemd};
use crate::admin::health::Health;
use crate::admin::metrics::{MetricSources, Metrics};
use crate::admin::pages::Pages;
use crate::admin::telemetry::Telemetry;
use crate::aws::{Route, Service};
use crate::base::account::{Account, DropReason};
use crate::base::host::Host;
use crate::base::http_server::Server;
use crate::base::log;
use crate::base::memory::Pool;
use crate::base::panics::{self, Alarm};
use crate::config::Config;
use crate::pipeline::limits::{Limits, MEGABYTE, Wanted};
use crate::pipeline::receive::{Backend, Binding, Choice, RECEIVE_SLOT_BYTES, SocketGroup, Spread};
use crate::pipeline::sender::{Deadline, Sender, SpoolThread};
use crate::pipeline::spool;
use crate::pipeline::tail::Tail;
use crate::pipeline::upload::Uploader;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// The ways to the service; they share no connection.
pub struct Routes {
    /// For what the uploader sends.
    pub segments: Route,
    /// For what the daemon says of itself.
    pub telemetry: Route,
}

/// Everything that segments go through.
pub struct Flow {
    /// Where segments are received.
    #[cfg(feature = "sandbox")]
    pub udp_address: std::net::SocketAddr,
    account: Arc<Account>,
    pool: Arc<Pool>,
    backend: Backend,
    receive_slots_bytes: usize,
    receivers: Receivers,
    upload: SenderThread,
    /// Where the uploader gets its route from, until it has it.
    route: Option<oneshot::Sender<Box<dyn Service>>>,
    shutdown: Shutdown,
    tail: Option<Arc<Tail>>,
    alarm: Alarm,
}

impl Flow {
    /// Opens the sockets and starts all threads; segments are kept until [`run`](Self::run) knows
    /// where to send them.
    pub fn start(config: &Config) -> Result<Self, DaemonError> {
        let host = Host::read();
        let limits = Limits::derive(Wanted::from(config), host);
        let choice = Choice::make(config.receive_backend)?;
        let binding = Binding {
            socket_count: limits.receiver_count,
            queue_bytes: limits.socket_queue_bytes,
            share_port: config.share_port,
        };
        let group = SocketGroup::bind(&config.udp_address, binding)?;
        say_how(&group, &choice, &limits);
        say_what_does_not_fit(&limits, host, config.receiver_count);
        let spool = spool_options(config);
        let pool = Pool::new(limits.chunk_count_max, limits.batch_reserve_count);
        let account = Arc::new(Account::new(limits.receiver_count));
        panics::set_account(Arc::clone(&account));
        let alarm = Alarm::default();
        let has_spool = spool.is_some();
        let spool = spool
            .map(|it| SpoolThread::start(it, Arc::clone(&pool), Arc::clone(&account)))
            .transpose()
            .map_err(DaemonError::SpoolThread)?;
        let sinks =
            Sinks { pool: Arc::clone(&pool), account: Arc::clone(&account), alarm: alarm.clone() };
        #[cfg(feature = "sandbox")]
        let udp_address = group.local_address();
        let backend = choice.backend;
        let pin = config.pin.unwrap_or_else(|| !is_in_container());
        let (receivers, rings) = Receivers::start(group, backend, pin, &limits, &sinks)?;
        let (route, arrival) = oneshot::channel();
        let shutdown = Shutdown {
            time: Duration::from_secs(config.shutdown_seconds),
            has_spool,
            // The other daemon on the port takes what comes from now on.
            waits_for_quiet: !config.share_port,
            spools_at_once: false,
        };
        let uploader = Uploader::new(arrival, config.concurrency, Arc::clone(&account));
        let tail: Option<Arc<Tail>> = config.tail.then(Arc::default);
        let sender = Sender::new(&limits, rings, uploader, spool, sinks.pool, sinks.account)
            .with_tail(tail.clone());
        let upload = SenderThread::start(sender, alarm.clone())?;
        let receive_slots_bytes =
            limits.receiver_count * limits.receive_slot_count * RECEIVE_SLOT_BYTES;
        Ok(Self {
            #[cfg(feature = "sandbox")]
            udp_address,
            account,
            pool,
            backend,
            receive_slots_bytes,
            receivers,
            upload,
            route: Some(route),
            shutdown,
            tail,
            alarm,
        })
    }

    /// What there is to be seen of it.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(MetricSources {
            account: self.account(),
            pool: Arc::clone(&self.pool),
            health: self.health(),
            sockets: self.receivers.sockets(),
            receive_backend: self.backend.name(),
            receive_slots_bytes: self.receive_slots_bytes,
        })
    }

    /// Whether its threads live, and what keeps it from delivering.
    pub fn health(&self) -> Health {
        Health::new(Arc::clone(&self.account), self.receivers.sockets())
    }

    /// What can be followed of it, if anybody may.
    pub fn tail(&self) -> Option<Arc<Tail>> {
        self.tail.clone()
    }

    /// Where everything is counted.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Sends by the routes that are found, until a signal or a failure has ended it in order; the
    /// clients of `server` are answered until then.
    pub async fn run(
        mut self,
        routes: impl Future<Output = Result<Routes, DaemonError>>,
        telemetry: Option<(Telemetry, oneshot::Sender<Route>)>,
        server: &Server<Pages>,
        mut signals: Signals,
    ) -> Result<(), DaemonError> {
        let (mut telemetry, telemetry_route) = telemetry.unzip();
        let route = self.route.take();
        let no_route = async {
            match routes.await {
                Ok(routes) => {
                    // Both takers are there for as long as this is.
                    if let Some(sender) = route {
                        let _ = sender.send(Box::new(routes.segments));
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
            Ok(()) => info!("Got shutdown signal: sending what is left"),
            Err(failure) => error!("{failure}. Sending what is left, then ending"),
        }
        self.end(telemetry, server, signals).await;
        result
    }

    /// Ends it in order: receivers, uploads, telemetry, clients; then shows the account.
    async fn end(
        mut self,
        mut telemetry: Option<Telemetry>,
        server: &Server<Pages>,
        mut signals: Signals,
    ) {
        let Self { shutdown, receivers, upload, account, alarm, .. } = &mut self;
        shutdown.spools_at_once = alarm.fault().is_some_and(|it| it.thread == SenderThread::NAME);
        let mut end = Instant::now() + shutdown.time;
        let telemetry_time = Telemetry::finish_time(shutdown.time);
        if telemetry.is_some() {
            shutdown.time -= telemetry_time;
        }
        let ended = panics::caught(async {
            panics::inject("ending");
            tokio::select! {
                held_count = shutdown.run(receivers, upload, account) => Some(held_count),
                () = signals.next() => None,
            }
        });
        let held_count = match ended.await {
            Ok(Some(held_count)) => held_count,
            cut_off => {
                match cut_off {
                    Err(panicked) => error!("The shutdown met {panicked}"),
                    _ => warn!("Got shutdown signal again: no time is left for what is not sent"),
                }
                telemetry = None;
                end = Instant::now();
                upload.set_deadline(Deadline::at_once(Instant::now()));
                receivers.stop().await;
                upload.ended().await
            }
        };
        // The port stays open to the last upload: the sandbox takes them through it.
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
        show_account(account, held_count);
    }
}

async fn run_telemetry(telemetry: Option<&mut Telemetry>) -> Infallible {
    match telemetry {
        Some(telemetry) => telemetry.run().await,
        None => std::future::pending().await,
    }
}

/// Counts the segments that a thread was at work on when it panicked: they are in nothing that is
/// left, and so they are what the account lacks.
fn count_unwound(account: &Account, held_count: usize) {
    let Ok(count @ 1..) = u64::try_from(account.imbalance(held_count)) else { return };
    account.dropped(DropReason::Panic).add(count);
    error!("{count} segments are lost: a thread was at work on them when it panicked");
}

/// The spool that the operator wants.
fn spool_options(config: &Config) -> Option<spool::Options> {
    Some(spool::Options {
        path: config.spool_path.clone()?,
        size_bytes_max: config.spool_size_mb * MEGABYTE,
        age_max: Duration::from_secs(config.spool_age_hours * 3600),
    })
}

/// The start-up lines: the backend in force, what the kernel granted, what was not to be had.
fn say_how(group: &SocketGroup, choice: &Choice, limits: &Limits) {
    let queue = group.queue();
    info!(
        "Listening on UDP {} (receive backend {}, {} receivers, socket queue {} bytes each, \
         buffers {} MB)",
        group.local_address(),
        choice.backend,
        limits.receiver_count,
        queue.granted_bytes,
        limits.total_bytes / MEGABYTE
    );
    if let Some(reason) = &choice.fallback {
        warn!("Receiving with {} instead: {reason}", choice.backend);
    }
    if queue.granted_bytes < queue.asked_bytes {
        info!(
            "The kernel granted {} of the {} bytes asked for as each socket's queue. {}, and longer \
             bursts get through",
            queue.granted_bytes,
            queue.asked_bytes,
            queue.advice()
        );
    }
    match group.spread() {
        Spread::Single | Spread::Program => {}
        Spread::Hash(error) => warn!(
            "The kernel takes no program to spread datagrams ({error}): its hash gives all of one \
             sender to one receiver"
        ),
        Spread::Shared => info!(
            "Another daemon listens on the port too (Receive.SharePort): it may get all datagrams \
             until it ends"
        ),
    }
}

/// What the operator has asked for and the machine has no room for.
fn say_what_does_not_fit(limits: &Limits, host: Host, receiver_count: usize) {
    let memory_bytes = host.cgroup_limit_bytes.unwrap_or(host.memory_bytes);
    if limits.total_bytes > memory_bytes {
        warn!(
            "The buffers (-m) may grow to {} MB and there are {} MB of memory: the kernel may end \
             the daemon, and lose what it holds, before they are full",
            limits.total_bytes / MEGABYTE,
            memory_bytes / MEGABYTE
        );
    }
    if limits.receiver_count < receiver_count {
        warn!(
            "{} receivers and not {receiver_count} (Receive.Receivers): more do not fit into half \
             of the buffers (-m)",
            limits.receiver_count
        );
    }
}

/// Whether a container's runtime has left its marks: its processors may be shared.
fn is_in_container() -> bool {
    let is_there = |path: &str| std::path::Path::new(path).exists();
    is_there("/.dockerenv")
        || is_there("/run/.containerenv")
        || ["container", "KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
}

/// The lines of the end.
fn show_account(account: &Account, held_count: usize) {
    match log::unreported_count() {
        0 => {}
        count => info!("{count} lines were not logged, since others like them were"),
    }
    info!("Account: {}", account.summary(held_count));
    let imbalance = account.imbalance(held_count);
    if imbalance != 0 {
        error!("The account does not balance: {imbalance} segments. This is a fault of xrayd");
    }
}
