//! The daemon: connects the parts of the program, starts them and shuts them down.
//!
//! In: the configuration, the environment, signals. Out: a running daemon, then its result.
//!
//! Start: first the threads, then ports, then region and credentials. So the daemon
//! accepts segments even while a source of region or credentials does not answer. Shutdown: the
//! receivers take the datagrams that still arrive, empty the kernel's queues, and close their
//! rings. The sender thread settles its batches within `ShutdownSeconds`. Then the account is
//! logged.
//!
//! Thread: main. It handles signals, runs the HTTP server, fetches credentials and sends telemetry.
//! It does no work of the pipeline.

mod account_log;
mod destination;
mod error;
mod flow;
mod hand_over;
mod logging;
mod otlp;
#[cfg(feature = "sandbox")]
mod otlp_ports;
#[cfg(feature = "sandbox")]
mod sandbox;
mod shutdown;
mod signals;
mod spans;
mod start_log;
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
use crate::base::clock::Clock;
use crate::base::conditions::Condition;
use crate::base::http_server::{Port, Server, ServerLimits};
use crate::base::panics;
use crate::config::{Config, DEFAULT_PATHS};
use aws_credential_types::Credentials;
use destination::Destination;
use flow::Flow;
use otlp::OtlpPorts;
use signals::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tcp_port::serve_when_free;
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

/// Pause before a task outside the flow is started again after a panic.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Where the daemon sends segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The X-Ray service, or the server at the configured endpoint.
    Service,
    /// The X-Ray endpoint in this process, which needs no AWS account.
    #[cfg(feature = "sandbox")]
    Sandbox(crate::config::cli::SandboxFlags),
}

/// The environment variables that the daemon uses and that are not part of [`Config`].
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `AWS_EXECUTION_ENV`: part of the user agent.
    pub execution_environment: Option<String>,
    /// `AWS_CA_BUNDLE`: a file of certificates that replace the trusted certificates of the system.
    pub bundle_path: Option<PathBuf>,
    /// `AWS_HOSTNAME`: the name of the host in telemetry.
    pub hostname: Option<String>,
    /// `AWS_INSTANCE_ID`: the id of the EC2 instance in telemetry.
    pub instance_id: Option<String>,
    /// `AWS_EC2_METADATA_DISABLED`: whether the daemon must not ask the instance metadata.
    pub disables_metadata: bool,
}

impl Environment {
    /// Reads the environment through `variable`, which returns `None` if a variable is not set.
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

/// Runs the daemon until a signal or a failure ends it.
///
/// # Errors
///
/// Fails if the daemon cannot start, or a part that the daemon needs has failed. The log has the
/// error already.
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
    // Boxed, because each layer around a large future has a copy of it on the stack.
    let result = runtime.block_on(panics::caught(async {
        match mode {
            Mode::Service => Box::pin(run_for_service(config, environment, &resolver)).await,
            #[cfg(feature = "sandbox")]
            Mode::Sandbox(flags) => {
                Box::pin(sandbox::run(config, environment, flags, &resolver)).await
            }
        }
    }));
    // This does not wait for running tasks: a source of credentials may never answer.
    runtime.shutdown_background();
    result?
}

/// The result of a flow that ran. If it is a failure, the failure is in the log already.
type Ended = Result<(), DaemonError>;

async fn run_for_service(
    config: &Config,
    environment: &Environment,
    resolver: &Resolver,
) -> Result<Ended, DaemonError> {
    let signals = Signals::new()?;
    let ports = OtlpPorts::open(config, resolver).await?;
    let mut flow = Flow::start(config)?;
    flow.serve_spans(ports);
    let proxy_timeout = Duration::from_secs(config.proxy_timeout_seconds);
    let proxy = Proxy::new(&config.proxy_allowed_paths, proxy_timeout, flow.account());
    let proxy = Arc::new(proxy);
    let fallback = Arc::clone(&proxy) as Arc<dyn Fallback>;
    let server = server(config, &flow, flow.server_limits(), fallback);
    serve_beside(config, &flow, &server, resolver);
    let account = flow.account();
    let routes = async {
        let destination =
            Destination::find(config, environment, resolver, &account.conditions).await?;
        account.conditions.end(Condition::NoRegion);
        note_credentials(&destination.identity, &account);
        let client = destination.proxy_client(config);
        let routes = destination.routes(config, environment);
        note_signing(&routes.segments, &account);
        // Uploads and the calls of applications share one signer. So a correction of the clock that
        // one of them learns from the service holds for both.
        let (signer, identity) = (routes.segments.signer.clone(), routes.segments.identity.clone());
        proxy.set_route(Route { client, signer, identity });
        Ok(routes)
    };
    let asks_metadata = !config.local_mode && !environment.disables_metadata;
    let telemetry = telemetry(config, environment, &flow, asks_metadata, resolver);
    Ok(flow.run(routes, telemetry, &server, signals).await)
}

/// Returns the server of the TCP port. It passes requests for other paths than its own to
/// `fallback`.
fn server(
    config: &Config,
    flow: &Flow,
    limits: ServerLimits,
    fallback: Arc<dyn Fallback>,
) -> Arc<Server<Pages>> {
    let pages = Pages::new(flow.health(), flow.metrics(), fallback, limits);
    let pages = pages.with_tail(flow.tail(), how_to_allow_tail(config));
    let counts = Arc::clone(&flow.account().tcp_port);
    let port = Port { name: "TCP port", share: "an eighth of -m", counts };
    Server::new(pages, limits, port)
}

/// Returns what to put into which file, so that `xray tail` is allowed.
fn how_to_allow_tail(config: &Config) -> String {
    let edit = match &config.config_path {
        Some(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("put the line `Tail: true` into {}", path.display())
        }
        None => {
            let path = DEFAULT_PATHS[0];
            format!("make the file {path} with the lines `Version: 2` and `Tail: true`")
        }
    };
    format!(
        "this daemon does not allow it, because segments may have secrets. To allow it, {edit}, and \
         restart the daemon (systemctl restart xray)"
    )
}

/// Starts the server of the TCP port and the messages to the service manager.
fn serve_beside(config: &Config, flow: &Flow, server: &Arc<Server<Pages>>, resolver: &Resolver) {
    let (tried, is_tried) = watch::channel(false);
    let (address, server, resolver) =
        (config.tcp_address.clone(), Arc::clone(server), resolver.clone());
    tokio::spawn(panics::restarted("The TCP port", RESTART_PAUSE, move || {
        serve_when_free(address.clone(), Arc::clone(&server), resolver.clone(), tried.clone())
    }));
    let health = flow.health();
    tokio::spawn(panics::restarted("Informing the service manager", RESTART_PAUSE, move || {
        systemd::keep_informed(is_tried.clone(), health.clone())
    }));
}

/// Keeps the condition `no_credentials` up to date.
fn note_credentials(identity: &Identity, account: &Arc<Account>) {
    let (identity, account) = (identity.clone(), Arc::clone(account));
    tokio::spawn(panics::restarted("Watching for missing credentials", RESTART_PAUSE, move || {
        let account = Arc::clone(&account);
        identity.clone().watch_absence(move |absence: Option<&str>| match absence {
            Some(reason) => account.conditions.begin(Condition::NoCredentials, reason),
            None => account.conditions.end(Condition::NoCredentials),
        })
    }));
}

/// Keeps the condition `cannot_sign` up to date. The condition does not wait for a segment: new
/// credentials are tried at once.
fn note_signing(route: &Route, account: &Arc<Account>) {
    let (signer, identity) = (route.signer.clone(), route.identity.clone());
    let account = Arc::clone(account);
    tokio::spawn(panics::restarted(
        "Watching for unusable credentials",
        RESTART_PAUSE,
        move || {
            let (signer, mut identity) = (signer.clone(), identity.clone());
            let account = Arc::clone(&account);
            async move {
                loop {
                    let (credentials, now) = (identity.credentials(), Clock::host_date());
                    let expiry = credentials.as_ref().and_then(Credentials::expiry);
                    let time_left =
                        expiry.map(|expiry| expiry.duration_since(now).unwrap_or_default());
                    let fault = match credentials.map(|it| signer.check(&it, now)) {
                        Some(Err(error)) => Some(error.to_string()),
                        Some(Ok(())) if time_left == Some(Duration::ZERO) => Some(
                            "the credentials have expired, and no source has new ones".to_owned(),
                        ),
                        Some(Ok(())) | None => None,
                    };
                    let expires = async {
                        match time_left {
                            Some(time) if !time.is_zero() => tokio::time::sleep(time).await,
                            _ => std::future::pending().await,
                        }
                    };
                    match fault {
                        Some(fault) => account.conditions.begin(Condition::CannotSign, fault),
                        None => account.conditions.end(Condition::CannotSign),
                    }
                    tokio::select! {
                        () = identity.changed() => {}
                        () = expires => {}
                    }
                }
            }
        },
    ));
}

/// Starts the telemetry of `flow`, unless it is switched off. Also returns the channel through
/// which the telemetry gets its route.
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
