//! The assembly: which stage is fed by which, and the order in which they start and end.
//!
//! Start: ports, receivers and the sender thread, then region and credentials; so segments are
//! accepted from the first moment, whatever the sources of region and credentials do. End: the
//! receivers take what still comes and what the kernel has queued, and close their rings; the
//! sender thread settles what it has, within the time for the shutdown; then the account is shown.
//!
//! The main thread only waits: for signals, for clients of the HTTP pages, for credentials.

mod flow;
#[cfg(feature = "sandbox")]
mod sandbox;
mod shutdown;
mod systemd;
mod threads;

use crate::admin::pages::{Fallback, Pages};
use crate::admin::proxy::Proxy;
use crate::admin::telemetry::{HostSources, Telemetry};
use crate::aws::endpoint::{Endpoint, EndpointError};
use crate::aws::identity::{self, Identity, RegionError};
use crate::aws::transport::{Resolver, TlsError, Transport, Trust};
use crate::aws::{Client, Route, Signer, Timeouts};
use crate::base::account::Account;
use crate::base::address;
use crate::base::conditions::Condition;
use crate::base::http_server::Server;
use crate::base::log;
use crate::base::panics::{self, Fault, Panicked};
use crate::config::Config;
use crate::pipeline::receive::{BindError, ReceiveError, Unavailable};
use flow::{Flow, Routes};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

/// A TCP port that is taken is tried again after this pause.
const TCP_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Work beside the flow that has panicked is started again after this pause.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

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
    /// The file for the sandbox's traces cannot be used
    #[error(
        "--keep {path}: {source}. Give a file that this user may write and no other sandbox has"
    )]
    Keep {
        /// As given.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// No region was found
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The endpoint is no address
    #[error("Endpoint {0}")]
    Endpoint(#[from] EndpointError),
    /// The certificates to trust cannot be used
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refuses the spool's thread
    #[error(
        "the thread of the spool (Spool.Path) cannot be made: {0}. Allow more threads (TasksMax, \
         pids.max, ulimit -u), or run without a spool"
    )]
    SpoolThread(#[source] io::Error),
    /// The system refuses a thread, a descriptor or a signal handler
    #[error("the system refuses what the daemon needs to run: {0}")]
    System(#[from] io::Error),
    /// A receiver has ended
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// A thread that the daemon cannot do without has panicked
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The start has panicked
    #[error("the start met {0}")]
    Panic(#[from] Panicked),
}

/// What the daemon sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The X-Ray service, or what the operator puts in its place.
    Service,
    /// The endpoint in this process, without an account.
    #[cfg(feature = "sandbox")]
    Sandbox(crate::config::cli::SandboxFlags),
}

/// What the process environment has to say beside the configuration.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `AWS_EXECUTION_ENV`, for the user agent.
    pub execution_environment: Option<String>,
    /// `AWS_CA_BUNDLE`, a file of certificates to trust instead of the system's.
    pub bundle_path: Option<PathBuf>,
    /// `AWS_HOSTNAME`, for telemetry.
    pub hostname: Option<String>,
    /// `AWS_INSTANCE_ID`, for telemetry.
    pub instance_id: Option<String>,
    /// `AWS_EC2_METADATA_DISABLED`: the instance metadata is not asked.
    pub disables_metadata: bool,
}

/// Runs the daemon until a signal has ended it in order.
///
/// # Errors
///
/// When it cannot start, or a part of it that it cannot do without has failed. The log has it
/// already.
pub fn run(config: &Config, environment: &Environment, mode: &Mode) -> Result<(), DaemonError> {
    info!("Initializing AWS X-Ray daemon (xrayd {})", env!("CARGO_PKG_VERSION"));
    let result = start(config, environment, mode);
    result.unwrap_or_else(|failure| {
        error!("{failure}");
        Err(failure)
    })
}

fn start(config: &Config, environment: &Environment, mode: &Mode) -> Result<Ended, DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let resolver = Resolver::start()?;
    let result = runtime.block_on(panics::caught(async {
        match mode {
            Mode::Service => run_for_service(config, environment, &resolver).await,
            #[cfg(feature = "sandbox")]
            Mode::Sandbox(flags) => sandbox::run(config, environment, flags, &resolver).await,
        }
    }));
    // A source of credentials that does not answer is not worth a wait.
    runtime.shutdown_background();
    result?
}

/// How the flow has ended; a failure of it is logged when it comes.
type Ended = Result<(), DaemonError>;

async fn run_for_service(
    config: &Config,
    environment: &Environment,
    resolver: &Resolver,
) -> Result<Ended, DaemonError> {
    let signals = Signals::new()?;
    let flow = Flow::start(config)?;
    let proxy_timeout = Duration::from_secs(config.proxy_timeout_seconds);
    let proxy = Proxy::new(&config.proxy_allowed_paths, proxy_timeout, flow.account());
    let proxy = Arc::new(proxy);
    let fallback = Arc::clone(&proxy) as Arc<dyn Fallback>;
    let pages = Pages::new(flow.health(), flow.metrics(), Some(fallback));
    let server = Server::new(pages.with_tail(flow.tail()));
    serve_beside(config, &flow, &server, resolver);
    let account = flow.account();
    account.conditions.begin(Condition::NoRegion, "it is being looked for");
    let routes = async {
        let destination = Destination::find_anyhow(config, environment, resolver).await?;
        account.conditions.end(Condition::NoRegion);
        note_credentials(&destination.identity, &account);
        let client = destination.proxy_client(config);
        let routes = destination.routes(config, environment);
        // The same signer, so that both know of the service's clock.
        let (signer, identity) = (routes.segments.signer.clone(), routes.segments.identity.clone());
        proxy.set_route(Route { client, signer, identity });
        Ok(routes)
    };
    let asks_metadata = !config.local_mode && !environment.disables_metadata;
    let telemetry = telemetry(config, environment, &flow, asks_metadata, resolver);
    Ok(flow.run(routes, telemetry, &server, signals).await)
}

/// Serves the TCP port, and tells the service manager, for as long as the daemon runs.
fn serve_beside(config: &Config, flow: &Flow, server: &Arc<Server<Pages>>, resolver: &Resolver) {
    let (tried, is_tried) = watch::channel(false);
    let (address, server, resolver) =
        (config.tcp_address.clone(), Arc::clone(server), resolver.clone());
    tokio::spawn(panics::restarted("The TCP port", RESTART_PAUSE, move || {
        serve_when_free(address.clone(), Arc::clone(&server), resolver.clone(), tried.clone())
    }));
    let health = flow.health();
    tokio::spawn(panics::restarted("What the service manager is told", RESTART_PAUSE, move || {
        systemd::keep_informed(is_tried.clone(), health.clone())
    }));
}

/// Notes while there are no credentials.
fn note_credentials(identity: &Identity, account: &Arc<Account>) {
    let (identity, account) = (identity.clone(), Arc::clone(account));
    tokio::spawn(panics::restarted("Noting missing credentials", RESTART_PAUSE, move || {
        let account = Arc::clone(&account);
        identity.clone().watch_absence(move |absence: Option<&str>| match absence {
            Some(reason) => account.conditions.begin(Condition::NoCredentials, reason),
            None => account.conditions.end(Condition::NoCredentials),
        })
    }));
}

/// The telemetry of `flow`, unless it is switched off; and where its way to the service goes.
fn telemetry(
    config: &Config,
    environment: &Environment,
    flow: &Flow,
    asks_metadata: bool,
    resolver: &Resolver,
) -> Option<(Telemetry, oneshot::Sender<Route>)> {
    let sources = HostSources {
        hostname: environment.hostname.clone(),
        instance_id: environment.instance_id.clone(),
        resource_arn: config.resource_arn.clone(),
        asks_metadata,
    };
    config.telemetry.then(|| Telemetry::start(flow.account(), sources, resolver.clone()))
}

/// Whom the segments are sent to, and as whom.
struct Destination {
    endpoint: Endpoint,
    region: String,
    identity: Identity,
    transport: Transport,
}

impl Destination {
    /// Finds it; tries again after a panic on the way to it.
    async fn find_anyhow(
        config: &Config,
        environment: &Environment,
        resolver: &Resolver,
    ) -> Result<Self, DaemonError> {
        loop {
            match panics::caught(Self::find(config, environment, resolver)).await {
                Ok(found) => return found,
                Err(panicked) => warn!(
                    "The search for region and endpoint met {panicked}. Trying again in {} s; \
                     segments are kept meanwhile",
                    RESTART_PAUSE.as_secs()
                ),
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn find(
        config: &Config,
        environment: &Environment,
        resolver: &Resolver,
    ) -> Result<Self, DaemonError> {
        panics::inject("region");
        let trust = Trust {
            bundle_path: environment.bundle_path.clone(),
            accept_any: config.no_verify_ssl,
        };
        let (proxy, no_proxy) = (config.proxy.as_ref(), &config.no_proxy);
        let transport = Transport::new(&trust, proxy, no_proxy, resolver.clone())?;
        let sources = identity::Sources {
            configured: config.region.as_deref(),
            local_mode: config.local_mode,
            environment: &|name| std::env::var(name).ok(),
            resolver,
        };
        let region = sources.find().await?;
        let variant = config.endpoint_variant;
        let endpoint = Endpoint::resolve(config.endpoint.as_deref(), region.as_ref(), variant)?;
        match transport.proxy(&endpoint.uri("/")) {
            Some(proxy) => info!("Sending to {endpoint} in region {region} through {proxy}"),
            None => info!("Sending to {endpoint} in region {region}"),
        }
        let identity = Identity::start(region.clone(), config.role_arn.clone(), transport.clone());
        Ok(Self { endpoint, region: region.to_string(), identity, transport })
    }

    /// A client with connections of its own, so that sampling calls do not wait for uploads.
    fn proxy_client(&self, config: &Config) -> Client {
        let request = Duration::from_secs(config.proxy_timeout_seconds);
        let timeouts = Timeouts {
            connect: request.min(Duration::from_secs(config.connect_timeout_seconds)),
            request,
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
        };
        Client::new(&self.transport, timeouts)
    }

    fn routes(self, config: &Config, environment: &Environment) -> Routes {
        let timeouts = Timeouts {
            connect: Duration::from_secs(config.connect_timeout_seconds),
            request: Duration::from_secs(config.request_timeout_seconds),
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
        };
        let client = Client::new(&self.transport, timeouts);
        let execution_environment = environment.execution_environment.as_deref();
        let telemetry = Route {
            client: client.with_own_connections(),
            signer: Signer::for_telemetry(&self.endpoint, &self.region, execution_environment),
            identity: self.identity.clone(),
        };
        let signer = Signer::new(&self.endpoint, &self.region, execution_environment);
        Routes { segments: Route { client, signer, identity: self.identity }, telemetry }
    }
}

/// The signals that the daemon obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Caught for what comes of it: a write beyond the limit on the size of files (`ulimit -f`)
    /// fails like one on a full disk, rather than end the daemon with all that it holds; signal(7).
    _file_size: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self { terminate, interrupt, hang_up, _file_size })
    }

    /// Waits for a signal that ends the daemon; SIGHUP has the log file opened again meanwhile.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    log::reopen();
                    info!("Got SIGHUP: opening the log file again, if there is one");
                }
            }
        }
    }
}

/// Opens the TCP port; also returns the address that it has, with the port taken.
async fn listen(address: &str, resolver: &Resolver) -> io::Result<(TcpListener, SocketAddr)> {
    // A name server that does not answer must hold up nothing else.
    let text = address.to_owned();
    let addresses = resolver.run(move || address::resolve(&text)).await?;
    let listener = address::open_first(&addresses, |address| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })?;
    let address = listener.local_addr()?;
    info!("Listening on TCP {address}");
    Ok((listener, address))
}

/// Lets `server` serve as soon as the TCP port is free: segments do not wait for it. `tried` hears
/// of the first attempt, whatever came of it.
async fn serve_when_free(
    address: String,
    server: Arc<Server<Pages>>,
    resolver: Resolver,
    tried: watch::Sender<bool>,
) {
    let mut listening = listen(&address, &resolver).await;
    match &listening {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            error!(
                "TCP {address} is no HOST:PORT: {error}. Segments are received and sent \
                 without it; give another address with -t"
            );
            return;
        }
        Err(error) => error!(
            "TCP {address} cannot be opened: {error}. Segments are received and sent \
             without it; it is tried again every {} s",
            TCP_RETRY_PAUSE.as_secs()
        ),
    }
    tried.send_replace(true);
    panics::inject("serve");
    loop {
        if let Ok((listener, _)) = listening {
            return server.serve(Arc::new(listener)).await;
        }
        tokio::time::sleep(TCP_RETRY_PAUSE).await;
        listening = listen(&address, &resolver).await;
    }
}
