//! The assembly: which stage is fed by which, and the order in which they start and end.
//!
//! Start: ports, receivers, then region and credentials, then the upload thread; so segments are
//! accepted from the first moment, whatever the sources of region and credentials do. End: the
//! receivers take what still comes and what the kernel has queued, and close their rings; the upload thread settles
//! what it has, within the time for the shutdown; then the account is shown.
//!
//! The main thread only waits: for signals, for clients of the HTTP pages, for credentials.

mod ending;
mod sandbox;
mod threads;

use crate::account::{Account, DropReason};
use crate::address;
use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointError};
use crate::identity::{self, Identity, RegionError};
use crate::limits::{Host, Limits, MEGABYTE, Wanted};
use crate::local_http::{self, Fallback, Pages};
use crate::log;
use crate::memory::Pool;
use crate::metrics::Metrics;
use crate::outlet::{Deadline, Outlet};
use crate::receive::{
    Backend, BindError, Binding, Choice, ReceiveError, SocketGroup, Spread, Unavailable,
};
use crate::ring::Consumer;
use crate::spool;
use crate::upload::{Client, ClientError, Signer, Timeouts, Trust, Uploader};
use ending::Ending;
use sandbox::LocalService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threads::{Receivers, Sinks, UploadThread};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// A TCP port that is taken is tried again after this pause.
const TCP_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Why the daemon could not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The UDP address cannot be opened
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The receive backend that the operator wants does not work
    #[error("{0}. Or leave the choice to the daemon: Receive.Backend: auto")]
    Backend(#[from] Unavailable),
    /// The sandbox cannot do without its TCP port
    #[error("TCP {address} cannot be opened: {source}. Give another address with -t")]
    Tcp {
        /// As configured.
        address: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// No region was found
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The endpoint is no address
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The client for uploads cannot be made
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system refuses a thread, a descriptor or a signal handler
    #[error("the system refuses what the daemon needs to run: {0}")]
    System(#[from] io::Error),
    /// A receiver has ended
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

/// What the daemon sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The X-Ray service, or what the operator puts in its place.
    Service,
    /// The endpoint in this process, without an account.
    Sandbox {
        /// Whether to send a few segments, so that there is something to see.
        demo: bool,
    },
}

/// What the process environment has to say beside the configuration.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `AWS_EXECUTION_ENV`, for the user agent.
    pub execution_environment: Option<String>,
    /// Whose certificates to trust.
    pub trust: Trust,
}

/// Runs the daemon until a signal has ended it in order.
///
/// # Errors
///
/// When it cannot start, or a part of it that it cannot do without has failed.
pub fn run(config: &Config, environment: &Environment, mode: Mode) -> Result<(), DaemonError> {
    info!("Initializing AWS X-Ray daemon (xrayd {})", env!("CARGO_PKG_VERSION"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match mode {
            Mode::Service => run_for_service(config, environment).await,
            Mode::Sandbox { demo } => run_for_sandbox(config, environment, demo).await,
        }
    });
    // A name that is being looked up on a thread of the runtime is not worth a wait.
    runtime.shutdown_background();
    result
}

async fn run_for_service(config: &Config, environment: &Environment) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let front = Front::open(config)?;
    let pages = Arc::new(Pages::new(front.metrics(), None));
    tokio::spawn(serve_when_free(config.tcp_address.clone(), pages));
    let found = tokio::select! {
        found = Destination::find(config) => found?,
        () = signals.next() => {
            front.give_up().await;
            return Ok(());
        }
    };
    front.run(config, environment, found, signals).await
}

async fn run_for_sandbox(
    config: &Config,
    environment: &Environment,
    demo: bool,
) -> Result<(), DaemonError> {
    let signals = Signals::new()?;
    let listener = listen(&config.tcp_address).await;
    let (listener, tcp_address) = listener.map_err(|source| {
        let address = config.tcp_address.clone();
        DaemonError::Tcp { address, source }
    })?;
    let front = Front::open(config)?;
    let service = Arc::new(LocalService::new());
    let pages = Pages::new(front.metrics(), Some(Arc::clone(&service) as Arc<dyn Fallback>));
    tokio::spawn(local_http::serve(listener, Arc::new(pages)));
    let printer = tokio::spawn(Arc::clone(&service).print());
    let udp_address = sandbox::reachable(front.udp_address);
    let tcp_address = sandbox::reachable(tcp_address);
    service.welcome(udp_address, tcp_address);
    if demo {
        sandbox::send_demo(udp_address)?;
    }
    let destination = Destination {
        endpoint: Endpoint::resolve(Some(&format!("http://{tcp_address}")), "")?,
        region: config.region.clone().unwrap_or_else(|| sandbox::REGION.to_owned()),
        identity: Identity::fixed(sandbox::credentials()),
    };
    let result = front.run(config, environment, destination, signals).await;
    printer.abort();
    service.print_rest();
    result
}

/// The front half of the daemon: open for segments, with nobody yet to send them to.
struct Front {
    limits: Limits,
    sinks: Sinks,
    backend: Backend,
    receivers: Receivers,
    rings: Vec<Consumer>,
    udp_address: SocketAddr,
}

impl Front {
    fn open(config: &Config) -> Result<Self, DaemonError> {
        let limits = Limits::derive(Wanted::from(config), Host::read());
        let choice = Choice::make(config.receive_backend)?;
        let binding = Binding {
            socket_count: limits.receiver_count,
            queue_bytes: limits.socket_queue_bytes,
            share_port: config.share_port,
        };
        let group = SocketGroup::bind(&config.udp_address, binding)?;
        say_how(&group, &choice, &limits, config.receiver_count);
        let sinks = Sinks {
            pool: match config.spool_path {
                None => Pool::new(limits.chunk_count_max, limits.batch_reserve_count),
                Some(_) => Pool::with_spool(limits.chunk_count_max, limits.batch_reserve_count),
            },
            account: Arc::new(Account::new(limits.receiver_count)),
            woken: Arc::default(),
        };
        let udp_address = group.local_address();
        let backend = choice.backend;
        let pin = config.pin.unwrap_or_else(|| !is_in_container());
        let (receivers, rings) = Receivers::start(group, backend, pin, &limits, &sinks)?;
        Ok(Self { limits, sinks, backend, receivers, rings, udp_address })
    }

    fn metrics(&self) -> Metrics {
        let Sinks { account, pool, .. } = &self.sinks;
        Metrics::new(Arc::clone(account), Arc::clone(pool), self.backend.name())
    }

    /// Puts the back half to it, and runs until a signal or a failure has ended both in order.
    async fn run(
        mut self,
        config: &Config,
        environment: &Environment,
        destination: Destination,
        mut signals: Signals,
    ) -> Result<(), DaemonError> {
        let account = Arc::clone(&self.sinks.account);
        let uploader = destination.uploader(config, environment, Arc::clone(&account))?;
        let Sinks { pool, woken, .. } = self.sinks;
        let (spool, rings) = (spool_options(config), self.rings);
        let ending = Ending {
            time: Duration::from_secs(config.shutdown_seconds),
            has_spool: spool.is_some(),
            // The other daemon on the port takes what comes from now on.
            waits_for_quiet: !config.share_port,
        };
        let outlet =
            Outlet::new(&self.limits, pool, rings, woken, uploader, spool, Arc::clone(&account));
        let mut upload = UploadThread::start(outlet)?;
        let result = tokio::select! {
            () = signals.next() => Ok(()),
            failure = self.receivers.failed() => Err(failure.into()),
        };
        match &result {
            Ok(()) => info!("Got shutdown signal: sending what is left"),
            Err(failure) => error!("{failure}. Sending what is left, then ending"),
        }
        let held_count = tokio::select! {
            held_count = ending.run(&mut self.receivers, &mut upload, &account) => held_count,
            () = signals.next() => {
                warn!("Got shutdown signal again: no time is left for what is not sent");
                upload.set_deadline(Deadline::at_once(Instant::now()));
                self.receivers.stop().await;
                upload.ended().await
            }
        };
        show_account(&account, held_count);
        result
    }

    /// Ends before there was anybody to send to.
    async fn give_up(mut self) {
        info!("Got shutdown signal while looking for the region");
        self.receivers.stop().await;
        let dropped = &self.sinks.account.dropped(DropReason::Shutdown);
        for ring in &mut self.rings {
            while let Some(parcel) = ring.pop() {
                dropped.add(parcel.segment_count() as u64);
            }
        }
        show_account(&self.sinks.account, self.rings.iter_mut().map(Consumer::segment_count).sum());
    }
}

/// The line of the end.
fn show_account(account: &Account, held_count: usize) {
    info!("Account: {}", account.line(held_count));
    let imbalance = account.imbalance(held_count);
    if imbalance != 0 {
        error!("The account does not balance: {imbalance} segments. This is a fault of xrayd");
    }
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
fn say_how(group: &SocketGroup, choice: &Choice, limits: &Limits, receiver_count: usize) {
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
    if limits.receiver_count < receiver_count {
        warn!(
            "{} receivers and not {receiver_count} (Receive.Receivers): more do not fit into half \
             of the buffers (-m)",
            limits.receiver_count
        );
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
            "Another daemon listens on the port too (Receive.SharePort): the kernel spreads \
             datagrams by sender"
        ),
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

/// Whom the segments are sent to, and as whom.
struct Destination {
    endpoint: Endpoint,
    region: String,
    identity: Identity,
}

impl Destination {
    async fn find(config: &Config) -> Result<Self, DaemonError> {
        let region = identity::region(config.region.as_deref(), config.local_mode).await?;
        let endpoint = Endpoint::resolve(config.endpoint.as_deref(), region.as_ref())?;
        info!("Sending to {endpoint} in region {region}");
        let identity = Identity::start(region.clone(), config.role_arn.clone());
        Ok(Self { endpoint, region: region.to_string(), identity })
    }

    fn uploader(
        self,
        config: &Config,
        environment: &Environment,
        account: Arc<Account>,
    ) -> Result<Uploader, DaemonError> {
        let timeouts = Timeouts {
            connect: Duration::from_secs(config.connect_timeout_seconds),
            request: Duration::from_secs(config.request_timeout_seconds),
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
        };
        let client = Client::new(&self.endpoint, &environment.trust, timeouts)?;
        let execution_environment = environment.execution_environment.as_deref();
        let signer = Signer::new(&self.endpoint, &self.region, execution_environment);
        Ok(Uploader::new(client, signer, self.identity, config.concurrency, account))
    }
}

/// The signals that the daemon obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        Ok(Self { terminate, interrupt, hang_up })
    }

    /// Waits for a signal that ends the daemon; SIGHUP has the log file opened again meanwhile.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    log::reopen();
                    info!("Got SIGHUP: the log file is opened again");
                }
            }
        }
    }
}

/// Opens the TCP port; also returns the address that it has, with the port taken.
async fn listen(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let addresses = address::resolve(address)?;
    let listener = address::open_first(&addresses, |address| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })?;
    let address = listener.local_addr()?;
    info!("Listening on TCP {address}");
    Ok((listener, address))
}

/// Serves `pages` as soon as the TCP port is free: segments do not wait for it.
async fn serve_when_free(address: String, pages: Arc<Pages>) {
    let mut said = false;
    loop {
        match listen(&address).await {
            Ok((listener, _)) => return local_http::serve(listener, pages).await,
            Err(error) if !said => {
                error!(
                    "TCP {address} cannot be opened: {error}. Segments are received and sent \
                     without it; it is tried again every {} s",
                    TCP_RETRY_PAUSE.as_secs()
                );
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(TCP_RETRY_PAUSE).await;
    }
}
