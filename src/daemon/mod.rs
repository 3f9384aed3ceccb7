//! The assembly: which stage is fed by which, and the order in which they start and end.
//!
//! Start: ports, receivers and the sender thread, then region and credentials; so segments are
//! accepted from the first moment, whatever the sources of region and credentials do. End: the
//! receivers take what still comes and what the kernel has queued, and close their rings; the
//! sender thread settles what it has, within the time for the shutdown; then the account is shown.
//!
//! The main thread only waits: for signals, for clients of the HTTP pages, for credentials.

mod destination;
mod error;
mod flow;
mod logging;
#[cfg(feature = "sandbox")]
mod sandbox;
mod shutdown;
mod signals;
mod systemd;
mod tcp_port;
mod threads;

pub use error::DaemonError;
pub use logging::{flush_log, start_log};

use crate::admin::pages::{Fallback, Pages};
use crate::admin::proxy::Proxy;
use crate::admin::telemetry::{HostSources, Telemetry};
use crate::aws::Route;
use crate::aws::identity::Identity;
use crate::aws::transport::Resolver;
use crate::base::account::Account;
use crate::base::conditions::Condition;
use crate::base::http_server::Server;
use crate::base::panics;
use crate::config::Config;
use destination::Destination;
use flow::Flow;
use signals::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tcp_port::serve_when_free;
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

/// Work beside the flow that has panicked is started again after this pause.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

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

impl Environment {
    /// Reads the variables with `variable`, which returns `None` for an empty variable.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            execution_environment: variable("AWS_EXECUTION_ENV"),
            bundle_path: variable("AWS_CA_BUNDLE").map(Into::into),
            hostname: variable("AWS_HOSTNAME"),
            instance_id: variable("AWS_INSTANCE_ID"),
            disables_metadata: variable("AWS_EC2_METADATA_DISABLED")
                .is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
        }
    }
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
        let destination = Destination::find(config, environment, resolver).await?;
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
